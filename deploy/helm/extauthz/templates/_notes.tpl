{{/* What NOTES.txt prints of this release, to be copied. */}}

{{- define "extauthz.notes.securityPolicy" -}}
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: {{ include "extauthz.fullname" . }}, namespace: {{ include "extauthz.namespace" . }}}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: YOUR-ROUTE}]
  extAuth:
    {{- include "extauthz.envoyGateway.extAuth" (dict "root" . "context" dict) | trim | nindent 4 }}
{{- end }}

{{/* The bootstrap of a plain Envoy comes from the program itself, which knows this release's configuration. */}}
{{- define "extauthz.notes.envoy" -}}
kubectl -n {{ include "extauthz.namespace" . }} exec deploy/{{ include "extauthz.fullname" . }} -c extauthz -- \
  extauthz envoy-config --config /etc/extauthz/config/config.yaml --listen 0.0.0.0:8080 \
  --upstream UPSTREAM-HOST:PORT --extauthz {{ ternary (include "extauthz.headlessHost" .) (include "extauthz.host" .) .Values.service.headless }}:9191 > envoy.yaml
{{- end }}

{{/* Each line is one thing that is dangerous, or looks like a trial. */}}
{{- define "extauthz.notes.warnings" -}}
{{- $own := .Values.config.extauthz | default dict }}
{{- if not (include "extauthz.store.shared" .) }}
- Books are in memory: what was spent is forgotten when the pod ends. Set redis.url.
{{- end }}
{{- if .Values.redis.dev.enabled }}
- redis.dev is a single Redis that forgets all spend when it restarts. Not for production.
{{- end }}
{{- if and .Values.redis.url (not (hasPrefix "rediss" .Values.redis.url)) }}
- redis.url is not encrypted. Who reads the traffic sees ids and amounts, and the password.
{{- end }}
{{- if include "extauthz.store.secretUrl" . }}
- redis.url has a password in it, which is now in the release's values. Use redis.auth.existingSecret or redis.existingSecret.
{{- end }}
{{- if and (eq .Values.grpc.trust "network") (not .Values.networkPolicy.enabled) (not (include "extauthz.guarded" .)) }}
- Nothing here keeps others from the gRPC port (grpc.trust: network, and no networkPolicy). Whoever reaches it can end
  reservations. This is right only where the mesh demands mTLS and an AuthorizationPolicy names Envoy's account.
{{- else if and (eq .Values.grpc.trust "network") (not (include "extauthz.guarded" .)) }}
- Whom the NetworkPolicy lets in can end reservations: {{ len .Values.networkPolicy.grpcFrom }} peers in networkPolicy.grpcFrom. It counts only where the
  cluster's network enforces NetworkPolicies.
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.istio.enabled) (not .Values.envoyGateway.enabled) (eq (toJson .Values.networkPolicy.grpcFrom) (toJson (list (dict "podSelector" dict)))) }}
- Only pods of the namespace {{ include "extauthz.namespace" . }} may ask. An Envoy elsewhere gets timeouts until networkPolicy.grpcFrom names it.
{{- end }}
{{- if $own.shadow_mode }}
- Shadow mode is on: nothing is refused, whatever budgets say.
{{- end }}
{{- if eq ($own.store_failure | default "deny") "allow" }}
- store_failure: allow: while Redis is away everybody spends without limit.
{{- end }}
{{- if eq ($own.store_failure | default "deny") "defer" }}
- store_failure: defer: while Redis is away Envoy's failure_mode_allow decides. See that it is false.
{{- end }}
{{- if $own.allow_eviction }}
- allow_eviction: Redis may throw spend away when its memory is full.
{{- end }}
{{- if .Values.keys.inline }}
- keys.inline: API keys are now in the release's values. Use keys.existingSecret.
{{- end }}
{{- if eq (include "extauthz.replicas" . | int) 1 }}
- One replica: while it is replaced nobody is answered for a moment.
{{- end }}
{{- if not .Values.image.digest }}
- The image is named by its tag. Pin image.digest in production.
{{- end }}
{{- if and .Values.tests.enabled (not (include "extauthz.testable" .)) }}
- helm test has nothing to run: {{ ternary "only Istio's proxies may ask" "with grpc.trust tls it needs tests.clientSecret" (include "extauthz.guarded" . | eq "yes") }}.
{{- end }}
{{- end }}
