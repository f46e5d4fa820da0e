"""Envoys as Istio configures them, patched by EnvoyFilters as istiod would.

istiod itself cannot run beside the tests. What it does with a patch is small, and here it is for the operations that
the chart uses, so that the outcome runs in a real Envoy. A patch that says more than this understands is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.support.chart import Json
from tests.support.mesh import TYPE, Places, address, cluster, grpc_cluster

MANAGER = "envoy.filters.network.http_connection_manager"

GATED_HOST = "llm.example.com:8080"
OTHER_HOST = "shop.example.com:8080"
MODELS_ROUTE = "models"


class Context(StrEnum):
    """Which of Istio's listeners a patch is for."""

    GATEWAY = "GATEWAY"
    SIDECAR_INBOUND = "SIDECAR_INBOUND"


def gateway(ports: Places, extauthz_host: str) -> Json:
    """Give a gateway with two hosts, one for LLMs, whose model lists have a route of their own by name."""
    upstream = "outbound|4000||litellm.llm.svc.cluster.local"
    models = {
        "name": MODELS_ROUTE,
        "match": {"prefix": "/v1/models"},
        "route": {"cluster": upstream, "timeout": "0s"},
    }
    rest = {"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": upstream, "timeout": "0s"}}
    shop = {"match": {"prefix": "/"}, "route": {"cluster": upstream, "timeout": "0s"}}
    hosts = [
        {
            "name": GATED_HOST,
            "domains": ["llm.example.com", "llm.example.com:*", "127.0.0.1:*"],
            "routes": [models, rest],
        },
        {"name": OTHER_HOST, "domains": ["shop.example.com", "shop.example.com:*"], "routes": [shop]},
    ]
    return _document(ports, "0.0.0.0_8080", hosts, [cluster(upstream, ports.upstream)], extauthz_host)


def sidecar(ports: Places, extauthz_host: str) -> Json:
    """Give the inbound side of the upstream's own sidecar: one host with one route."""
    upstream = f"inbound|{ports.upstream}||"
    host = {
        "name": f"inbound|http|{ports.upstream}",
        "domains": ["*"],
        "routes": [{"name": "default", "match": {"prefix": "/"}, "route": {"cluster": upstream, "timeout": "0s"}}],
    }
    return _document(ports, "virtualInbound", [host], [cluster(upstream, ports.upstream)], extauthz_host)


def patched(document: Json, envoy_filter: Json, context: Context, *, port: int) -> Json:
    """Apply the patches of one EnvoyFilter, in their order, to a proxy that listens for others on `port`."""
    for patch in envoy_filter["spec"]["configPatches"]:
        where = dict(patch["match"])
        if where.pop("context") != context:
            continue
        listener = dict(where.pop("listener", {}))
        if listener.pop("portNumber", port) != port:
            continue
        _APPLY[patch["applyTo"]](document, _Patch(patch["patch"], {**listener, **where}))
    return document


def with_provider(document: Json, provider: Json) -> Json:
    """Have a proxy ask by an extension provider of MeshConfig, as an AuthorizationPolicy with action CUSTOM does."""
    service = provider["envoyExtAuthzGrpc"]
    body = service["includeRequestBodyInCheck"]
    check = {
        "@type": f"{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": {
            "envoy_grpc": {
                "cluster_name": f"outbound|{service['port']}||{service['service']}",
                "authority": service["service"],
            },
            "timeout": service["timeout"],
        },
        "failure_mode_allow": service["failOpen"],
        "status_on_error": {"code": int(service["statusOnError"])},
        "transport_api_version": "V3",
        "with_request_body": {
            "max_request_bytes": body["maxRequestBytes"],
            "allow_partial_message": body["allowPartialMessage"],
            "pack_as_bytes": body["packAsBytes"],
        },
    }
    manager(document)["http_filters"].insert(0, {"name": "envoy.filters.http.ext_authz", "typed_config": check})
    return document


@dataclass(frozen=True, slots=True)
class _Patch:
    """What to do, and the rest of the match."""

    body: Json
    match: Mapping[str, Json]

    @property
    def value(self) -> Json:
        return self.body["value"]

    def does(self, operation: str) -> None:
        assert operation == self.body["operation"], f"not understood: {self.body['operation']}"


def _http_filter(document: Json, patch: _Patch) -> None:
    patch.does("INSERT_BEFORE")
    match = patch.match["filterChain"]["filter"]
    assert set(patch.match) == {"filterChain"}
    assert match == {"name": MANAGER, "subFilter": {"name": match["subFilter"]["name"]}}
    filters = manager(document)["http_filters"]
    names = [entry["name"] for entry in filters]
    # Where there is no such filter, istiod inserts nothing.
    if match["subFilter"]["name"] in names:
        filters.insert(names.index(match["subFilter"]["name"]), patch.value)


def _network_filter(document: Json, patch: _Patch) -> None:
    patch.does("MERGE")
    assert patch.match == {"filterChain": {"filter": {"name": MANAGER}}}
    _merge(_chain(document)["filters"][0], patch.value)


def _listener(document: Json, patch: _Patch) -> None:
    patch.does("MERGE")
    assert patch.match == {}
    _merge(document["static_resources"]["listeners"][0], patch.value)


def _virtual_host(document: Json, patch: _Patch) -> None:
    patch.does("MERGE")
    for host in _hosts(document, patch.match):
        _merge(host, patch.value)


def _http_route(document: Json, patch: _Patch) -> None:
    for host in _hosts(document, patch.match):
        wanted = patch.match["routeConfiguration"]["vhost"].get("route")
        if wanted is None:
            patch.does("INSERT_FIRST")
            host["routes"].insert(0, patch.value)
            continue
        patch.does("MERGE")
        for route in host["routes"]:
            if route.get("name") == wanted["name"]:
                _merge(route, patch.value)


_APPLY: Mapping[str, Callable[[Json, _Patch], None]] = {
    "HTTP_FILTER": _http_filter,
    "NETWORK_FILTER": _network_filter,
    "LISTENER": _listener,
    "VIRTUAL_HOST": _virtual_host,
    "HTTP_ROUTE": _http_route,
}


def _hosts(document: Json, match: Mapping[str, Json]) -> list[Json]:
    assert set(match) <= {"routeConfiguration"}
    wanted = match.get("routeConfiguration", {}).get("vhost", {})
    assert set(wanted) <= {"name", "route"}
    hosts = manager(document)["route_config"]["virtual_hosts"]
    return [host for host in hosts if wanted.get("name", host["name"]) == host["name"]]


def _merge(base: Json, patch: Json) -> None:
    """Merge as protobuf does: what is repeated is appended, an entry of a map is replaced, a field overwritten."""
    for key, value in patch.items():
        if key == "typed_per_filter_config":
            base[key] = {**base.get(key, {}), **value}
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif isinstance(value, list):
            base[key] = [*base.get(key, []), *value]
        else:
            base[key] = value


def manager(document: Json) -> Json:
    """Give the HTTP connection manager of the only listener."""
    return _chain(document)["filters"][0]["typed_config"]


def _chain(document: Json) -> Json:
    return document["static_resources"]["listeners"][0]["filter_chains"][0]


def _document(ports: Places, name: str, hosts: Sequence[Json], clusters: Sequence[Json], extauthz_host: str) -> Json:
    """Put together what Istio's own listeners have and a plain Envoy knows; its other filters touch nothing of ours."""
    connection_manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": name != "virtualInbound",
        "normalize_path": True,
        "stream_idle_timeout": "0s",
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                },
            }
        ],
        "http_filters": [
            _filter("envoy.filters.http.grpc_stats", "grpc_stats.v3.FilterConfig"),
            _filter("envoy.filters.http.fault", "fault.v3.HTTPFault"),
            _filter("envoy.filters.http.cors", "cors.v3.Cors"),
            _inference_pool(f"outbound|9191||{extauthz_host}"),
            _filter("envoy.filters.http.router", "router.v3.Router"),
        ],
        "route_config": {"name": name, "virtual_hosts": list(hosts)},
    }
    server = grpc_cluster(f"outbound|9191||{extauthz_host}", ports.extauthz)
    return {
        "node": {"id": "router~127.0.0.1~istio-ingress", "cluster": "istio-ingress"},
        "admin": {"address": address(ports.admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": name,
                    "address": address(ports.listen),
                    "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": connection_manager}]}],
                }
            ],
            "clusters": [*clusters, server],
        },
    }


def _filter(name: str, message: str) -> Json:
    return {"name": name, "typed_config": {"@type": f"{TYPE}.extensions.filters.http.{message}"}}


def _inference_pool(picker: str) -> Json:
    """Give the filter of Gateway API's InferencePool, which Istio has switched on for the routes of such pools."""
    service = {"envoy_grpc": {"cluster_name": picker}}
    pool = _filter("envoy.filters.http.ext_proc", "ext_proc.v3.ExternalProcessor")
    return {**pool, "disabled": True, "typed_config": {**pool["typed_config"], "grpc_service": service}}
