{{/* The parts of the pod that are made up of several values. */}}
{{- define "extauthz.env" -}}
{{- include "extauthz.store.env" . }}
{{- if eq .Values.grpc.trust "token" }}
- name: EXTAUTHZ_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.grpc.token.existingSecret | quote }}, key: {{ .Values.grpc.token.key | quote }}}}
{{- end }}
{{- if .Values.admin.existingSecret }}
- name: EXTAUTHZ_ADMIN_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.admin.existingSecret | quote }}, key: {{ .Values.admin.key | quote }}}}
{{- end }}
{{- if .Values.tracing.enabled }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OTEL_SERVICE_NAME
  value: {{ include "extauthz.fullname" . | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ include "extauthz.namespace" . }},k8s.pod.name=$(POD_NAME)
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.tracing.endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .Values.tracing.sampler | quote }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.tracing.samplerArgument | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Each is mounted as a directory at /etc/extauthz/<name>. */}}
{{- define "extauthz.volumes" -}}
- name: config
  configMap: {name: {{ include "extauthz.fullname" . | quote }}}
{{- with include "extauthz.keysSecret" . }}
- name: keys
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- if .Values.litellm.existingSecret }}
- name: litellm
  secret: {secretName: {{ .Values.litellm.existingSecret | quote }}}
{{- else if .Values.litellm.existingConfigMap }}
- name: litellm
  configMap: {name: {{ .Values.litellm.existingConfigMap | quote }}}
{{- end }}
{{- if eq .Values.grpc.trust "tls" }}
- name: grpc-tls
  secret: {secretName: {{ .Values.grpc.tls.existingSecret | quote }}}
{{- end }}
{{- with .Values.redis.tls.existingSecret }}
- name: redis-tls
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- end }}

{{/*
Liveness and start ask for the process, readiness for the service that turns NOT_SERVING as soon as a replica drains.
*/}}
{{- define "extauthz.probes" -}}
{{- $probes := .Values.probes }}
{{- if eq .Values.grpc.trust "tls" }}
startupProbe:
  {{- merge (dict "httpGet" (dict "path" "/healthz" "port" "http")) $probes.startup | toYaml | nindent 2 }}
readinessProbe:
  {{- merge (dict "httpGet" (dict "path" "/readyz" "port" "http")) $probes.readiness | toYaml | nindent 2 }}
livenessProbe:
  {{- merge (dict "httpGet" (dict "path" "/healthz" "port" "http")) $probes.liveness | toYaml | nindent 2 }}
{{- else }}
startupProbe:
  {{- merge (dict "grpc" (dict "port" 9191)) $probes.startup | toYaml | nindent 2 }}
readinessProbe:
  {{- merge (dict "grpc" (dict "port" 9191 "service" "envoy.service.auth.v3.Authorization")) $probes.readiness | toYaml | nindent 2 }}
livenessProbe:
  {{- merge (dict "grpc" (dict "port" 9191)) $probes.liveness | toYaml | nindent 2 }}
{{- end }}
{{- end }}
