{{/*
Names and labels. A name ends up in labels and in names of Services, which have 63 characters at most.
*/}}
{{- define "extauthz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The longest suffix of an object's name is -alerts-dashboard's 17 characters, so the base stops short of that. */}}
{{- define "extauthz.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- end }}

{{- define "extauthz.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "extauthz.selectorLabels" -}}
app.kubernetes.io/name: {{ include "extauthz.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gate
{{- end }}

{{/* The chart's own labels go last, where they win. */}}
{{- define "extauthz.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "extauthz" }}
{{- $selector := include "extauthz.selectorLabels" . | fromYaml }}
{{- mergeOverwrite (dict) .Values.commonLabels $own $selector | toYaml }}
{{- end }}

{{/*
The metadata of an object: {{ include "extauthz.metadata" (dict "root" . "suffix" "headless") }}. Of `namespace`,
`labels` and `annotations` those are added that the object has of its own; `component` is what is not the gate.
*/}}
{{- define "extauthz.metadata" -}}
{{- $root := .root }}
{{- $full := include "extauthz.fullname" $root }}
{{- $component := dict }}
{{- with .component }}{{- $component = dict "app.kubernetes.io/component" . }}{{- end -}}
name: {{ .name | default (ternary (printf "%s-%s" $full .suffix) $full (not (empty .suffix))) | quote }}
namespace: {{ .namespace | default (include "extauthz.namespace" $root) | quote }}
labels:
  {{- mergeOverwrite (dict) (.labels | default dict) (include "extauthz.labels" $root | fromYaml) $component | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) $root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "extauthz.serviceAccountName" -}}
{{- $default := ternary (include "extauthz.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $default .Values.serviceAccount.name }}
{{- end }}

{{- define "extauthz.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- $name := empty $registry | ternary .Values.image.repository (printf "%s/%s" $registry .Values.image.repository) }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "extauthz.imagePullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Names that Envoy resolves: of the Service, and of the headless one, whose addresses are the replicas'. */}}
{{- define "extauthz.host" -}}
{{- printf "%s.%s.svc.%s" (include "extauthz.fullname" .) (include "extauthz.namespace" .) .Values.clusterDomain }}
{{- end }}
{{- define "extauthz.headlessHost" -}}
{{- printf "%s-headless.%s.svc.%s" (include "extauthz.fullname" .) (include "extauthz.namespace" .) .Values.clusterDomain }}
{{- end }}

{{/* Whether to render an object of a kind that an operator brings: {{ if include "extauthz.has" (list . "keda.sh/v1alpha1") }} */}}
{{- define "extauthz.has" -}}
{{- $root := index . 0 }}
{{- if or (eq $root.Values.customResources "always") ($root.Capabilities.APIVersions.Has (index . 1)) }}yes{{ end }}
{{- end }}

{{/* Whether Istio keeps everybody but its proxies from the gRPC port. */}}
{{- define "extauthz.guarded" -}}
{{- if and .Values.istio.enabled (or .Values.istio.peerAuthentication.enabled .Values.istio.authorizationPolicy.enabled) }}yes{{ end }}
{{- end }}

{{/* Whether `helm test` can ask: it needs a certificate where clients do, and no proxy of Istio is beside it. */}}
{{- define "extauthz.testable" -}}
{{- if and .Values.tests.enabled (not (include "extauthz.guarded" .)) (or (ne .Values.grpc.trust "tls") .Values.tests.clientSecret) }}yes{{ end }}
{{- end }}

{{/* The least number of replicas that there will be. */}}
{{- define "extauthz.replicas" -}}
{{- if .Values.keda.enabled }}{{ .Values.keda.minReplicas }}
{{- else if .Values.autoscaling.enabled }}{{ .Values.autoscaling.minReplicas }}
{{- else }}{{ .Values.replicas }}
{{- end }}
{{- end }}

{{- define "extauthz.scales" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}yes{{ end }}
{{- end }}

{{- define "extauthz.drainSeconds" -}}
{{- dig "extauthz" "drain_seconds" 25 .Values.config | int }}
{{- end }}

{{/*
After drain_seconds a replica still ends its last Checks (1 s), tells the store the last endings (5 s) and the webhook
the last alerts (5 s).
*/}}
{{- define "extauthz.graceSecondsMin" -}}
{{- add .Values.preStopSeconds (include "extauthz.drainSeconds" . | int) 15 }}
{{- end }}
{{- define "extauthz.graceSeconds" -}}
{{- default (include "extauthz.graceSecondsMin" .) .Values.terminationGracePeriodSeconds | int }}
{{- end }}
