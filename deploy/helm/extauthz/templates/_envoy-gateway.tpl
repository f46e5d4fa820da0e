{{/*
What the objects for Envoy Gateway have in common. Policies stand in the namespace of what they target, so they reach
the Service by a ReferenceGrant.
*/}}
{{- define "extauthz.envoyGateway.has" -}}
{{- if and .Values.envoyGateway.enabled (include "extauthz.has" (list . "gateway.envoyproxy.io/v1alpha1")) }}yes{{ end }}
{{- end }}

{{- define "extauthz.envoyGateway.validate" -}}
{{- $gateway := .Values.envoyGateway }}
{{- if ne .Values.grpc.trust "network" }}
{{- fail "envoyGateway.enabled: its policies cannot send a token or a certificate; set grpc.trust to network, and name the proxies' namespace in networkPolicy.grpcFrom" }}
{{- end }}
{{- if not $gateway.targetRefs }}
{{- fail "envoyGateway.targetRefs: name a Gateway or HTTPRoutes, or nothing is gated" }}
{{- end }}
{{- range $gateway.discoveryTargetRefs }}
{{- if ne .kind "HTTPRoute" }}
{{- fail "envoyGateway.discoveryTargetRefs: name HTTPRoutes; on a whole Gateway every answer would wait for the server" }}
{{- end }}
{{- end }}
{{- if $gateway.heartbeats.enabled }}
{{- if not $gateway.heartbeats.listeners }}
{{- fail "envoyGateway.heartbeats.listeners: name the listeners as NAMESPACE/GATEWAY/LISTENER" }}
{{- end }}
{{- else if lt (include "extauthz.leaseSeconds" . | int) 900 }}
{{- fail "envoyGateway.enabled without envoyGateway.heartbeats: nothing tells the server that a long answer is still coming; set config.extauthz.lease_seconds to 900 or more" }}
{{- end }}
{{- if and .Values.istio.enabled (eq (include "extauthz.istio.mode" .) "custom") }}
{{- fail "envoyGateway.enabled with istio.mode custom: on_expiry would charge what Envoy Gateway's access log settles; use two releases" }}
{{- end }}
{{- end }}

{{- define "extauthz.envoyGateway.backendRefs" -}}
backendRefs:
  - group: ""
    kind: Service
    name: {{ include "extauthz.fullname" . | quote }}
    namespace: {{ include "extauthz.namespace" . | quote }}
    port: 9191
{{- end }}

{{/* The Check, as a SecurityPolicy writes it: (dict "root" . "context" (dict "extauthz.prune" "on")). */}}
{{- define "extauthz.envoyGateway.extAuth" -}}
{{- $gateway := .root.Values.envoyGateway }}
grpc:
  {{- include "extauthz.envoyGateway.backendRefs" .root | nindent 2 }}
timeout: {{ $gateway.checkTimeout }}
failOpen: {{ $gateway.failOpen }}
statusOnError: 503
bodyToExtAuth:
  # Of a longer body Envoy Gateway shows nothing: it answers 413.
  maxRequestBytes: {{ include "extauthz.maxRequestBytes" .root }}
{{- with $gateway.headersToExtAuth }}
headersToExtAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $context := merge (dict) .context (ternary (dict "extauthz.id" "header") (dict) $gateway.clientTrafficPolicy.enabled) }}
{{- with $context }}
contextExtensions:
  {{- range $name, $value := . }}
  - {name: {{ $name }}, type: Value, value: {{ $value | quote }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* The access log that tells how requests end, as EnvoyProxy and NOTES.txt write it. */}}
{{- define "extauthz.envoyGateway.sink" -}}
type: ALS
als:
  type: HTTP
  logName: extauthz
  http:
    # Names the reservation of a request whose Check answered too late, or after the client had gone.
    requestHeaders: [x-extauthz-id]
  {{- include "extauthz.envoyGateway.backendRefs" . | nindent 2 }}
{{- end }}

{{/* What NOTES.txt says of Envoy Gateway. */}}
{{- define "extauthz.envoyGateway.notes" -}}
{{- $gateway := .Values.envoyGateway -}}
Envoy Gateway asks about requests of{{ range $gateway.targetRefs }} {{ .kind }} {{ $gateway.namespace }}/{{ .name }}{{ end }}.
{{- if $gateway.envoyProxy.enabled }}
Your Gateway must use EnvoyProxy {{ include "extauthz.fullname" . }}, or nobody tells the server how requests end:

  spec:
    infrastructure:
      parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: {{ include "extauthz.fullname" . | quote }}}
{{- else }}
Add this access log to your EnvoyProxy, or nobody tells the server how requests end:

  spec:
    telemetry:
      accessLog:
        settings:
          - type: Route
            sinks:
              - {{ include "extauthz.envoyGateway.sink" . | indent 16 | trim }}
{{- end }}
{{- if not $gateway.clientTrafficPolicy.enabled }}
envoyGateway.clientTrafficPolicy is off: a Check that Envoy repeats is a second reservation, which its lease ends.
{{- end }}
{{- if not $gateway.discoveryTargetRefs }}
No route is named in envoyGateway.discoveryTargetRefs: pruned model lists come from the server's catalog.
{{- end }}
{{- if $gateway.failOpen }}
DANGER: envoyGateway.failOpen lets every request through, uncounted, while the server does not answer.
{{- end }}
{{- end }}
