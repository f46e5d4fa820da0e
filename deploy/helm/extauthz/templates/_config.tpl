{{/*
The configuration file: what stands under `config:`, and over it what the chart knows. Everything is mounted as a
directory, never by subPath, so that replicas see it change.
*/}}
{{- define "extauthz.config" -}}
{{- $own := dict
  "listen" (dict "grpc" "0.0.0.0:9191" "admin" "127.0.0.1:9192" "http" "0.0.0.0:9193")
  "store" (include "extauthz.store.shared" . | empty | ternary "memory" "os.environ/EXTAUTHZ_STORE") }}
{{- if eq .Values.grpc.trust "network" }}{{ $_ := set $own "insecure_grpc" true }}{{ end }}
{{- if eq .Values.grpc.trust "token" }}{{ $_ := set $own "token" "os.environ/EXTAUTHZ_TOKEN" }}{{ end }}
{{- if eq .Values.grpc.trust "tls" }}
{{- $tls := .Values.grpc.tls }}
{{- $folder := "/etc/extauthz/grpc-tls" }}
{{- $_ := set $own "tls" (dict
  "cert" (printf "%s/%s" $folder $tls.certKey)
  "key" (printf "%s/%s" $folder $tls.keyKey)
  "client_ca" (printf "%s/%s" $folder $tls.clientCaKey)) }}
{{- end }}
{{- if .Values.admin.existingSecret }}{{ $_ := set $own "admin_token" "os.environ/EXTAUTHZ_ADMIN_TOKEN" }}{{ end }}
{{- if include "extauthz.keysSecret" . }}{{ $_ := set $own "keys_file" (printf "/etc/extauthz/keys/%s" .Values.keys.key) }}{{ end }}
{{- if include "extauthz.litellm" . }}{{ $_ := set $own "litellm_file" (printf "/etc/extauthz/litellm/%s" .Values.litellm.key) }}{{ end }}
{{- if .Values.tracing.enabled }}{{ $_ := set $own "tracing" true }}{{ end }}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "extauthz" (mergeOverwrite ($config.extauthz | default dict) $own) }}
{{- toYaml $config }}
{{- end }}

{{/*
What a running server does not follow, by a name that Helm sees change: see extauthz/config/restart.py. Pods are
replaced when it does, and with `reload: restart` whenever anything does.
*/}}
{{- define "extauthz.config.restart" -}}
{{- $config := include "extauthz.config" . | fromYaml }}
{{- if eq .Values.reload "hot" }}
{{- $section := $config.extauthz }}
{{- $config = pick $section "listen" "tls" "server" "store" "store_timeout_seconds" "shard_by" "shards" "allow_eviction" "tombstone_seconds" "journal_entries_max" "tracing" "directory" "directory_url" "directory_entries_max" "end_user_budget" "token" "admin_token" "keys_file" "litellm_file" }}
{{- if kindIs "map" $section.estimate }}
{{- $_ := set $config "estimate" (pick $section.estimate "mode" "output_tokens") }}
{{- else }}
{{- $_ := set $config "estimate" $section.estimate }}
{{- end }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{- define "extauthz.keysSecret" -}}
{{- if .Values.keys.existingSecret }}{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.inline }}{{ include "extauthz.fullname" . }}-keys
{{- end }}
{{- end }}

{{- define "extauthz.litellm" -}}
{{- if or .Values.litellm.existingConfigMap .Values.litellm.existingSecret }}yes{{ end }}
{{- end }}
