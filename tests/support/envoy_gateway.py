"""Envoys as Envoy Gateway configures them by the policies of the chart.

Its controller cannot run beside the tests. What it makes of these policies is small, and here it is for the fields that
the chart uses, so that the outcome runs in a real Envoy. A field that is not understood is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.chart import NAMESPACE, RELEASE, Json, Rendered
from tests.support.mesh import TYPE, Places, address, cluster, grpc_cluster

MANAGER = "envoy.filters.network.http_connection_manager"
SERVER, LOG = "securitypolicy/llm/gate-extauthz/0", "accesslog_als_0_0"
AUTHORITY = f"{RELEASE}-extauthz.{NAMESPACE}:9191"
BACKENDS = [
    {"group": "", "kind": "Service", "name": f"{RELEASE}-extauthz", "namespace": NAMESPACE, "port": 9191},
]

# The route of model lists, and the Gateway that has it and another for everything else.
GATEWAY, MODELS_ROUTE = "llm", "models"

# Envoy Gateway's own defaults.
BUFFER_BYTES = 32_768
ESCAPED_SLASHES = {"KeepUnchanged": "KEEP_UNCHANGED", None: "UNESCAPE_AND_REDIRECT"}


def translated(chart: Rendered, places: Places) -> Json:
    """Give the configuration of the Gateway's Envoy."""
    routes = [_route(chart, name) for name in (MODELS_ROUTE, "rest")]
    client = _spec(chart, "ClientTrafficPolicy", GATEWAY)
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": ESCAPED_SLASHES[client.get("path", {}).get("escapedSlashesAction")],
        "early_header_mutation_extensions": _early_headers(client.get("headers", {})),
        "access_log": [_sink(sink) for sink in _sinks(chart)],
        "http_filters": _filters(chart),
        "route_config": {
            "name": "llm/llm/http",
            "virtual_hosts": [{"name": "llm", "domains": ["*"], "routes": routes}],
        },
    }
    buffer = client.get("connection", {}).get("bufferLimit", BUFFER_BYTES)
    listener = {
        "name": "llm/llm/http",
        "address": address(places.listen),
        "per_connection_buffer_limit_bytes": int(buffer),
        "default_filter_chain": {"filters": [{"name": MANAGER, "typed_config": manager}]},
    }
    for policy in chart.of("EnvoyPatchPolicy"):
        for patch in policy["spec"]["jsonPatches"]:
            _patch(listener, patch)
    servers = [grpc_cluster(name, places.extauthz) for name in (SERVER, LOG)]
    clusters = [cluster("upstream", places.upstream), *servers]
    return {
        "node": {"id": "llm", "cluster": "llm"},
        "admin": {"address": address(places.admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _spec(chart: Rendered, kind: str, target: str) -> Json:
    """Give the spec of the policy that targets this, empty where there is none."""
    found = [
        entry["spec"] for entry in chart.of(kind) if target in [ref["name"] for ref in entry["spec"]["targetRefs"]]
    ]
    assert len(found) <= 1
    return found[0] if found else {}


def _policy(chart: Rendered, kind: str, route: str) -> Json:
    """Give what counts for a route: the policy that targets it, else the Gateway's."""
    return _spec(chart, kind, route) or _spec(chart, kind, GATEWAY)


def _filters(chart: Rendered) -> list[Json]:
    """Give all filters in Envoy Gateway's order, each switched on by the routes that want it."""
    found = {}
    for route in (MODELS_ROUTE, "rest"):
        check = _policy(chart, "SecurityPolicy", route)
        extension = _policy(chart, "EnvoyExtensionPolicy", route)
        found[0, _name("ext_authz", check)] = _ext_authz(check["extAuth"])
        for lua in extension.get("lua", []):
            found[1, _name("lua", extension)] = _lua(lua)
        for processor in extension.get("extProc", []):
            found[2, _name("ext_proc", extension)] = _ext_proc(processor)
    filters = [{"name": name, "disabled": True, "typed_config": found[order, name]} for order, name in sorted(found)]
    router = {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}
    return [*filters, {"name": "envoy.filters.http.router", "typed_config": router}]


def _name(kind: str, policy: Json) -> str:
    """Name a filter after the policy that it comes from."""
    return f"envoy.filters.http.{kind}/{policy['targetRefs'][0]['name']}"


def _route(chart: Rendered, route: str) -> Json:
    check = _policy(chart, "SecurityPolicy", route)
    extension = _policy(chart, "EnvoyExtensionPolicy", route)
    context = {entry["name"]: entry["value"] for entry in check["extAuth"].get("contextExtensions", [])}
    own = {
        _name("ext_authz", check): {
            "@type": f"{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": context},
        }
    }
    switched_on = {"@type": f"{TYPE}.config.route.v3.FilterConfig", "config": {}}
    own |= {_name(kind, extension): switched_on for kind, key in _EXTENSIONS.items() if extension.get(key)}
    return {
        "name": route,
        "match": {"prefix": "/v1/models"} if route == MODELS_ROUTE else {"prefix": "/"},
        "route": {"cluster": "upstream", "timeout": "0s"},
        "typed_per_filter_config": own,
    }


_EXTENSIONS = {"lua": "lua", "ext_proc": "extProc"}


def _service(fields: dict[str, Json], timeout: str) -> Json:
    assert BACKENDS == fields.pop("backendRefs")
    return {"envoy_grpc": {"cluster_name": SERVER, "authority": AUTHORITY}, "timeout": timeout}


def _ext_authz(policy: Json) -> Json:
    fields = dict(policy)
    fields.pop("contextExtensions", None)
    grpc = dict(fields.pop("grpc"))
    config = {
        "@type": f"{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": _service(grpc, _seconds(fields.pop("timeout"))),
        "transport_api_version": "V3",
        "failure_mode_allow": fields.pop("failOpen"),
        "status_on_error": {"code": fields.pop("statusOnError")},
        "with_request_body": {"max_request_bytes": fields.pop("bodyToExtAuth")["maxRequestBytes"]},
    }
    if headers := fields.pop("headersToExtAuth", []):
        config["allowed_headers"] = {"patterns": [{"exact": name, "ignore_case": True} for name in headers]}
    assert not grpc
    assert not fields
    return config


def _ext_proc(policy: Json) -> Json:
    fields = dict(policy)
    mode = fields.pop("processingMode")
    assert {"response": {}, "allowModeOverride": True} == mode
    config = {
        "@type": f"{TYPE}.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": _service(fields, "10s"),
        "message_timeout": _seconds(fields.pop("messageTimeout")),
        "failure_mode_allow": fields.pop("failOpen"),
        "status_on_error": {"code": fields.pop("statusOnError")},
        "processing_mode": {
            "request_header_mode": "SKIP",
            "response_header_mode": "SEND",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        "allow_mode_override": True,
        "metadata_options": {
            "forwarding_namespaces": {"untyped": fields.pop("metadata")["accessibleNamespaces"]},
        },
    }
    assert not fields
    return config


def _lua(policy: Json) -> Json:
    assert {"type", "inline"} == set(policy)
    code = {"inline_string": policy["inline"]}
    return {"@type": f"{TYPE}.extensions.filters.http.lua.v3.Lua", "default_source_code": code}


def _early_headers(headers: Json) -> list[Json]:
    early = dict(headers.get("earlyRequestHeaders", {}))
    if not early:
        return []
    mutations: list[Json] = [
        {
            "append": {
                "header": {"key": header["name"], "value": header["value"]},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        }
        for header in early.pop("set")
    ]
    # After what it sets, as Envoy Gateway orders them.
    removals: list[Json] = [{"remove": name} for name in early.pop("remove")]
    assert not early
    config = {
        "@type": f"{TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": [*mutations, *removals],
    }
    return [{"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}]


def _sinks(chart: Rendered) -> list[Json]:
    settings = [
        setting for proxy in chart.of("EnvoyProxy") for setting in proxy["spec"]["telemetry"]["accessLog"]["settings"]
    ]
    return [sink for setting in settings for sink in setting["sinks"]]


def _sink(sink: Mapping[str, Json]) -> Json:
    assert "ALS" == sink["type"]
    als = sink["als"]
    assert BACKENDS == als["backendRefs"]
    config = {
        "@type": f"{TYPE}.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": {
            "log_name": als["logName"],
            # It says no authority here: Envoy takes the name of the cluster.
            "grpc_service": {"envoy_grpc": {"cluster_name": LOG}},
            "transport_api_version": "V3",
        },
        "additional_request_headers_to_log": als["http"]["requestHeaders"],
    }
    return {"name": "envoy.access_loggers.http_grpc", "typed_config": config}


def _patch(listener: Json, patch: Json) -> None:
    """Do what a JSON patch says, which can only be to add a member."""
    operation = patch["operation"]
    assert "add" == operation["op"]
    *path, member = operation["path"].strip("/").split("/")
    place: Json = listener
    for step in path:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[member] = operation["value"]


def _seconds(duration: str) -> str:
    """Write a duration of Kubernetes as Envoy reads it."""
    if duration.endswith("ms"):
        return f"{int(duration.removesuffix('ms')) / 1000:g}s"
    assert duration.endswith("s")
    return duration
