{{/*
Where the books are. The URL is put together from redis.*; a password gets into it only inside the pod, where Kubernetes
replaces $(NAME) by the variable.
*/}}
{{- define "extauthz.store.url" -}}
{{- $redis := .Values.redis }}
{{- $url := $redis.url }}
{{- if $redis.dev.enabled }}
{{- $url = printf "redis://%s-redis.%s.svc.%s:6379" (include "extauthz.fullname" .) (include "extauthz.namespace" .) .Values.clusterDomain }}
{{- end }}
{{- if and $url $redis.auth.existingSecret }}
{{- $scheme := regexFind "^[a-z+]+://" $url }}
{{- $user := $redis.auth.username | urlquery | replace "+" "%20" }}
{{- $url = printf "%s%s:$(EXTAUTHZ_REDIS_PASSWORD)@%s" $scheme $user (trimPrefix $scheme $url) }}
{{- end }}
{{- $options := list }}
{{- if $redis.tls.existingSecret }}
{{- $options = append $options (printf "ca=/etc/extauthz/redis-tls/%s" $redis.tls.caKey) }}
{{- if $redis.tls.clientCertificate }}
{{- $options = append $options (printf "cert=/etc/extauthz/redis-tls/%s" $redis.tls.certKey) }}
{{- $options = append $options (printf "key=/etc/extauthz/redis-tls/%s" $redis.tls.keyKey) }}
{{- end }}
{{- end }}
{{- with $redis.tag }}{{ $options = append $options (printf "tag=%s" .) }}{{ end }}
{{- if and $redis.auth.existingSecret $redis.auth.sentinelPasswordKey }}
{{- with $redis.auth.sentinelUsername }}{{ $options = append $options (printf "sentinel_username=%s" (urlquery . | replace "+" "%20")) }}{{ end }}
{{- $options = append $options "sentinel_password=$(EXTAUTHZ_REDIS_SENTINEL_PASSWORD)" }}
{{- end }}
{{- if and $url $options }}
{{- $url = printf "%s%s%s" $url (contains "?" $url | ternary "&" "?") (join "&" $options) }}
{{- end }}
{{- $url }}
{{- end }}

{{/* Whether books are shared, that is in a Redis. */}}
{{- define "extauthz.store.shared" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret .Values.redis.dev.enabled }}yes{{ end }}
{{- end }}

{{/* Whether a URL in values.yaml has a password in it, which then goes into a Secret. */}}
{{- define "extauthz.store.secretUrl" -}}
{{- if and (contains "@" .Values.redis.url) (not .Values.redis.existingSecret) (not .Values.redis.dev.enabled) }}yes{{ end }}
{{- end }}

{{- define "extauthz.store.env" -}}
{{- $redis := .Values.redis }}
{{- if $redis.existingSecret }}
- name: EXTAUTHZ_STORE
  valueFrom: {secretKeyRef: {name: {{ $redis.existingSecret | quote }}, key: {{ $redis.existingSecretKey | quote }}}}
{{- else if include "extauthz.store.secretUrl" . }}
- name: EXTAUTHZ_STORE
  valueFrom: {secretKeyRef: {name: {{ printf "%s-store" (include "extauthz.fullname" .) | quote }}, key: url}}
{{- else if include "extauthz.store.shared" . }}
{{- if $redis.auth.existingSecret }}
- name: EXTAUTHZ_REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $redis.auth.existingSecret | quote }}, key: {{ $redis.auth.passwordKey | quote }}}}
{{- if $redis.auth.sentinelPasswordKey }}
- name: EXTAUTHZ_REDIS_SENTINEL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $redis.auth.existingSecret | quote }}, key: {{ $redis.auth.sentinelPasswordKey | quote }}}}
{{- end }}
{{- end }}
- name: EXTAUTHZ_STORE
  value: {{ include "extauthz.store.url" . | quote }}
{{- end }}
{{- end }}

{{/* The ports of Redis, for the NetworkPolicy: as told, else as the URL says, else the usual ones. */}}
{{- define "extauthz.store.ports" -}}
{{- $url := .Values.redis.url }}
{{- $ports := .Values.networkPolicy.egress.redisPorts }}
{{- if not $ports }}
{{- $authority := regexReplaceAll "^[a-z+]+://([^/?]*@)?([^/?]*).*$" $url "${2}" }}
{{- range regexFindAll ":[0-9]+(,|$)" $authority -1 }}
{{- $ports = append $ports (regexFind "[0-9]+" . | int) }}
{{- end }}
{{- if or (not $ports) (contains "+sentinel" $url) }}{{ $ports = append $ports 6379 }}{{ end }}
{{- if and .Values.redis.existingSecret (not .Values.networkPolicy.egress.redisPorts) }}{{ $ports = append $ports 26379 }}{{ end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}
