"""The names that the service and Envoy's configuration agree on. Others rely on them: they do not change."""

from __future__ import annotations

CHECK_FILTER = "envoy.filters.http.ext_authz"
PRUNE_FILTER = "extauthz.prune"
METER_FILTER = "extauthz.meter"

# Headers. The client's copies die before the Check, the upstream's before the answer.
OWN_HEADERS = "x-extauthz-"
ID_HEADER = "x-extauthz-id"
MODELS_HEADER = "x-extauthz-models"
AVAILABLE_HEADER = "x-extauthz-available-usd"
RESERVATION_HEADER = "x-extauthz-reservation"
WARNING_HEADER = "x-extauthz-warning"
REASON_HEADER = "x-extauthz-reason"

# gRPC metadata by which Envoy proves itself (`initial_metadata` of its grpc_service).
TOKEN_METADATA = "x-extauthz-token"  # noqa: S105 - the name of a header

# Context extensions of routes, which no client can write: Envoy overwrites ID_HEADER here; the prune filter is here;
# nothing is refused here; an earlier filter has written who asks here.
ID_EXTENSION = "extauthz.id"
PRUNE_EXTENSION = "extauthz.prune"
SHADOW_EXTENSION = "extauthz.shadow_mode"
TRUSTED_HEADERS_EXTENSION = "extauthz.trusted_headers"

# Dynamic metadata of a Check. The namespace is Envoy's own, whatever the filter is called; the keys are ours.
CHECK_NAMESPACE = "envoy.filters.http.ext_authz"
HOLD_KEY = "extauthz.r"
MODELS_KEY = "extauthz.models"
LISTING_KEY = "extauthz.listing"
INJECT_KEY = "extauthz.inject"
STREAM_OPTIONS_KEY = "extauthz.stream_options"
TRUNCATED_KEY = "extauthz.truncated"
REASON_KEY = "extauthz.reason"
TRACE_KEY = "extauthz.trace"
RESULT_KEY = "extauthz.result"

# Dynamic metadata of the meter.
USAGE_NAMESPACE = "extauthz.usage"
