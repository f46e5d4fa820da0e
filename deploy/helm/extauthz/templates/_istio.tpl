{{/*
What the objects for Istio have in common. The filters are those of `extauthz envoy-config`, in its order; their names
are our own, since Istio makes an envoy.filters.http.ext_authz and an envoy.filters.http.ext_proc itself.
*/}}
{{- define "extauthz.istio.mode" -}}
{{- if .Values.istio.enabled }}{{ .Values.istio.mode }}{{ end }}
{{- end }}

{{- define "extauthz.maxRequestBytes" -}}
{{- dig "extauthz" "max_request_bytes" 1048576 .Values.config | int }}
{{- end }}

{{- define "extauthz.leaseSeconds" -}}
{{- dig "extauthz" "lease_seconds" 120 .Values.config | int }}
{{- end }}

{{/* A lease outlives three lost signs of life. */}}
{{- define "extauthz.heartbeat" -}}
{{- divf (include "extauthz.leaseSeconds" . | float64) 4 }}s
{{- end }}

{{/* Where the APIs keep their lists of models: as in extauthz/envoy/bootstrap.py, and below the configured prefixes. */}}
{{- define "extauthz.discoveryPaths" -}}
{{- $info := list "/model/info" "/v1/model/info" "/v2/model/info" "/model_group/info" "/v1/model_group/info" "/api/tags" }}
{{- $paths := concat (list "/models" "/v1/models" "/openai/models" "/openai/v1/models" "/cursor/models" "/cursor/v1/models") $info }}
{{- range $prefix := dig "extauthz" "api_prefixes" (list) .Values.config }}
{{- range concat (list "/models" "/v1/models") $info }}
{{- $paths = append $paths (printf "/%s%s" (trimAll "/" $prefix) .) }}
{{- end }}
{{- end }}
{{- $paths | uniq | toJson }}
{{- end }}

{{/* Impossible combinations. What stands in another file's `config` cannot be seen here; NOTES.txt says what it must hold. */}}
{{- define "extauthz.istio.validate" -}}
{{- $istio := .Values.istio }}
{{- if ne .Values.grpc.trust "network" }}
{{- fail "istio.enabled: the mesh encrypts and proves who calls, so grpc.trust must be network; a token would stand in an EnvoyFilter for all to read, and Istio's provider sends none" }}
{{- end }}
{{- if eq $istio.mode "custom" }}
{{- if ne (dig "extauthz" "on_expiry" "release" .Values.config) "charge" }}
{{- fail "istio.mode custom: no access log tells how a request ended, so reservations end by their lease; set config.extauthz.on_expiry to charge, or every request is free" }}
{{- end }}
{{- else }}
{{- if and (eq $istio.context "SIDECAR_INBOUND") (not $istio.envoyFilter.port) }}
{{- fail "istio.context SIDECAR_INBOUND: set istio.envoyFilter.port to the port that the upstream's container listens on, or other ports of the pod are gated as well" }}
{{- end }}
{{- if and (eq $istio.context "SIDECAR_INBOUND") (or $istio.envoyFilter.discoveryRoutes $istio.envoyFilter.hosts) }}
{{- fail "istio.context SIDECAR_INBOUND: discoveryRoutes and hosts are of gateways; a sidecar knows one host, and gets routes of its own for model lists" }}
{{- end }}
{{- end }}
{{- if and $istio.authorizationPolicy.enabled (not $istio.principals) }}
{{- fail "istio.authorizationPolicy: name the accounts of the proxies in istio.principals, such as cluster.local/ns/istio-ingress/sa/istio-ingress" }}
{{- end }}
{{- if and (not $istio.selector) (not $istio.custom.targetRefs) }}
{{- fail "istio.selector: name the labels of the proxies, or every proxy of the namespace asks" }}
{{- end }}
{{- end }}

{{/* The part of a patch that says where: (dict "root" . "subFilter" NAME) or without a subFilter. */}}
{{- define "extauthz.istio.listener" -}}
{{- $istio := .root.Values.istio -}}
context: {{ $istio.context }}
listener:
  {{- with $istio.envoyFilter.port }}
  portNumber: {{ . }}
  {{- end }}
  filterChain:
    filter:
      name: envoy.filters.network.http_connection_manager
      {{- with .subFilter }}
      subFilter:
        name: {{ . }}
      {{- end }}
{{- end }}

{{/* One filter: (dict "root" . "filter" YAML). Before the same filter, patches insert in their order. */}}
{{- define "extauthz.istio.filter" -}}
- applyTo: HTTP_FILTER
  match:
    {{- include "extauthz.istio.listener" (dict "root" .root "subFilter" .root.Values.istio.envoyFilter.insertBefore) | nindent 4 }}
  patch:
    operation: INSERT_BEFORE
    value:
      {{- .filter | nindent 6 }}
{{- end }}

{{/* How the proxies call the server: (dict "root" . "timeout" "0.5s"), or without a timeout. */}}
{{- define "extauthz.istio.grpcService" -}}
envoy_grpc:
  cluster_name: outbound|9191||{{ include "extauthz.host" .root }}
  # Otherwise the name of the cluster, which is no name of a host.
  authority: {{ include "extauthz.host" .root }}
{{- with .timeout }}
timeout: {{ . }}
{{- end }}
{{- end }}

{{/* What a route says to the Check, which no client can write: (dict "extauthz.id" "header"). */}}
{{- define "extauthz.istio.context" -}}
"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
check_settings:
  context_extensions:
    {{- toYaml . | nindent 4 }}
{{- end }}

{{/* What routes of model lists say of the filters. */}}
{{- define "extauthz.istio.discovery" -}}
extauthz.check:
  {{- include "extauthz.istio.context" (dict "extauthz.prune" "on") | nindent 2 }}
extauthz.prune:
  "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
  config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
    overrides: {}
extauthz.meter:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute
  disabled: true
{{- end }}

{{/* For MeshConfig, which no chart can change: Istio's own default of the timeout is 600 s. */}}
{{- define "extauthz.istio.meshConfig" -}}
extensionProviders:
  - name: {{ .Values.istio.custom.provider }}
    envoyExtAuthzGrpc:
      service: {{ include "extauthz.host" . }}
      port: 9191
      timeout: {{ .Values.istio.checkTimeout }}
      failOpen: {{ .Values.istio.failOpen }}
      statusOnError: "503"
      includeRequestBodyInCheck:
        maxRequestBytes: {{ include "extauthz.maxRequestBytes" . }}
        allowPartialMessage: true
        packAsBytes: true
{{- end }}

{{/* What NOTES.txt says of Istio. */}}
{{- define "extauthz.istio.notes" -}}
{{- if eq .Values.istio.mode "custom" -}}
Istio asks by an AuthorizationPolicy. Add this to your MeshConfig, or requests to {{ .Values.istio.namespace }} are refused:

{{ include "extauthz.istio.meshConfig" . | indent 2 }}

No access log reaches the server this way. Books are estimates: every request is charged what it was held at, when its
lease ends, and requests that failed are charged as well. Model lists are answered by the server, from its catalog.
istio.mode envoyFilter has neither limit.
{{- else -}}
Istio's proxies ({{ range $key, $value := .Values.istio.selector }}{{ $key }}={{ $value }} {{ end }}in {{ .Values.istio.namespace }}) ask by EnvoyFilter {{ include "extauthz.fullname" . }}.
{{- if and (eq .Values.istio.context "GATEWAY") (not .Values.istio.envoyFilter.discoveryRoutes) }}
No route is named in istio.envoyFilter.discoveryRoutes: pruned model lists come from the server's catalog, not from the upstream.
{{- end }}
{{- end }}
{{- if .Values.istio.failOpen }}
DANGER: istio.failOpen lets every request through, uncounted, while the server does not answer.
{{- end }}
{{- end }}
