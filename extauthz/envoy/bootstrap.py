"""The Envoy bootstrap that `extauthz envoy-config` prints: complete, for a plain Envoy in front of one upstream.

It is also the reference for anybody who writes such a configuration by hand or generates it for a mesh. The filters, in
the order in which a request meets them:

    header_mutation   the client's own x-extauthz-* headers die here; x-extauthz-id becomes Envoy's id of the request
    cors              before any decision, so that a policy that you add to the virtual host answers preflights itself
    ext_authz         the Check
    extauthz.prune    ext_proc, only on discovery routes: takes paid models out of a list when the Check says so
    extauthz.meter    Lua, everywhere else: reads `usage` off the answer
    router

The access log tells the server how each stream went on and ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

import yaml

from extauthz.domain.address import Address
from extauthz.domain.endpoints import DISCOVERY, ENDPOINTS, READS
from extauthz.envoy.names import (
    AVAILABLE_HEADER,
    CHECK_FILTER,
    ID_EXTENSION,
    ID_HEADER,
    METER_FILTER,
    MODELS_HEADER,
    OWN_HEADERS,
    PRUNE_EXTENSION,
    PRUNE_FILTER,
    REASON_HEADER,
    RESERVATION_HEADER,
    TOKEN_METADATA,
    WARNING_HEADER,
)

OWN_RESPONSE_HEADERS = (AVAILABLE_HEADER, REASON_HEADER, RESERVATION_HEADER, WARNING_HEADER)

UPSTREAM_CLUSTER = "upstream"
SERVER_CLUSTER = "extauthz"

# Where the APIs keep their list of models: `<base>/models` and `<base>/models/<id>`.
DISCOVERY_BASES = ("", "/v1", "/openai", "/openai/v1", "/cursor", "/cursor/v1")
# Where LiteLLM keeps what else it tells of models.
INFO_BASES = ("", "/v1")
DISCOVERY_TIMEOUT_S = 30.0

# A reasoning model may think for minutes before its first byte; a stream that is silent for longer than this is dead.
STREAM_IDLE_TIMEOUT_S = 900.0
CONNECT_TIMEOUT_S = 5.0
# For 32 MiB on a busy machine.
PRUNE_TIMEOUT_S = 10.0

# An ending must not lie around in Envoy: a crash would lose it, and the money stays held meanwhile.
ACCESS_LOG_FLUSH_S = 0.1
ACCESS_LOG_BUFFER_BYTES = 1024 * 1024

# Room beside the body that the Check sees: the bytes of one more read, and the stream_options that the meter adds.
BUFFER_HEADROOM_BYTES = 1024 * 1024

# Envoy's own default is 1024 of each: streams of LLMs last for minutes and would meet it.
CONCURRENCY_MAX = 1_000_000

TCP_KEEPALIVE_S = 30

# The files in the folder `meter`, each of which uses the ones before it.
METER_PARTS = ("scanner", "texts", "counts", "interest", "report", "answers", "websocket", "request", "filter")

# Where Debian, Alpine and Envoy's own images keep the certificates of the public authorities.
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")

Document = dict[str, object]


class Metering(StrEnum):
    """Who reads the usage off answers."""

    LUA = "lua"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The files, as Envoy finds them, with which Envoy proves that it is one."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """What a bootstrap is made of.

    `extauthz_ca` is the file that the server's certificate is checked with when `extauthz_tls`, by default
    SYSTEM_AUTHORITIES; `extauthz_client` is what Envoy shows a server that asks for certificates. `token` is the shared
    secret that the server asks Envoy for. `heartbeat_seconds` is the time between two signs of life of a stream: a
    quarter of the lease. `max_request_bytes` is the most of a request's body that the Check sees. Below `api_prefixes`
    everything stands once more.
    """

    listen: Address
    upstream: Address
    extauthz: Address = Address("127.0.0.1", 9191)
    envoy_admin: Address = Address("127.0.0.1", 9901)
    upstream_tls: bool = False
    extauthz_tls: bool = False
    extauthz_ca: Path | None = None
    extauthz_client: ClientCertificate | None = None
    token: str | None = field(default=None, repr=False)
    metering: Metering = Metering.LUA
    max_request_bytes: int = 1024 * 1024
    check_timeout_s: float = 0.5
    heartbeat_seconds: float = 30.0
    failure_mode_allow: bool = False
    api_prefixes: tuple[str, ...] = ()


def bootstrap(options: BootstrapOptions) -> Document:
    """Compose the bootstrap, as the document that Envoy reads."""
    return {
        "node": {"id": "extauthz-gateway", "cluster": "extauthz-gateway"},
        "admin": {"address": _socket_address(options.envoy_admin)},
        "static_resources": {
            "listeners": [_listener(options)],
            "clusters": [_upstream_cluster(options), _server_cluster(options)],
        },
    }


def to_yaml(document: Document) -> str:
    """Write a bootstrap as YAML, in the order it was composed, the meter as readable lines."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


def discovery_paths(api_prefixes: tuple[str, ...] = ()) -> tuple[str, ...]:
    """List the paths of model lists, entries of which stand below them."""
    found = []
    for path in (path for row in ENDPOINTS if row.endpoint in DISCOVERY for path in row.paths if "{" not in path):
        if path.startswith("/"):
            found += [f"{prefix}{path}" for prefix in ("", *_bases(api_prefixes))]
            continue
        own = DISCOVERY_BASES if path == "models" else INFO_BASES
        further = (f"{prefix}{base}" for prefix in _bases(api_prefixes) for base in INFO_BASES)
        found += [f"{base}/{path}" for base in (*own, *further)]
    return tuple(dict.fromkeys(found))


def _bases(api_prefixes: tuple[str, ...]) -> list[str]:
    return [f"/{prefix.strip('/')}" for prefix in api_prefixes]


def meter_source() -> str:
    """Join the Lua code of the meter, which is one script to Envoy."""
    folder = files("extauthz.envoy").joinpath("meter")
    return "\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in METER_PARTS)


def _listener(options: BootstrapOptions) -> Document:
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="extauthz",
        codec_type="AUTO",
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        # %2F belongs to the ids of some models; the Check decides what an escaped slash means.
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        stream_idle_timeout=_seconds(STREAM_IDLE_TIMEOUT_S),
        access_log=[_access_log(options)],
        access_log_options={"access_log_flush_interval": _seconds(options.heartbeat_seconds)},
        http_filters=_filters(options),
        route_config={"name": "extauthz", "virtual_hosts": [_virtual_host(options)]},
    )
    return {
        "name": "extauthz",
        "address": _socket_address(options.listen),
        # A body that the Check shall see must fit in here, or Envoy answers 413 before it asks.
        "per_connection_buffer_limit_bytes": options.max_request_bytes + BUFFER_HEADROOM_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _filters(options: BootstrapOptions) -> list[Document]:
    filters = [
        _own_headers_filter(),
        _filter("envoy.filters.http.cors", _typed("extensions.filters.http.cors.v3.Cors")),
        _check_filter(options),
        _prune_filter(options),
    ]
    if options.metering is Metering.LUA:
        filters.append(_meter_filter())
    router = _typed("extensions.filters.http.router.v3.Router")
    return [*filters, _filter("envoy.filters.http.router", router)]


def _own_headers_filter() -> Document:
    mutations: list[Document] = [
        {"remove_on_match": {"key_matcher": {"prefix": OWN_HEADERS}}},
        {
            "append": {
                "header": {"key": ID_HEADER, "value": "%UNIQUE_ID%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        },
    ]
    return _filter(
        "envoy.filters.http.header_mutation",
        _typed(
            "extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": mutations},
        ),
    )


def _check_filter(options: BootstrapOptions) -> Document:
    config = _typed(
        "extensions.filters.http.ext_authz.v3.ExtAuthz",
        grpc_service=_grpc_service(options, timeout_s=options.check_timeout_s),
        transport_api_version="V3",
        with_request_body={
            "max_request_bytes": options.max_request_bytes,
            # The Check judges a longer body by its beginning. Otherwise Envoy would answer 413 by itself.
            "allow_partial_message": True,
            "pack_as_bytes": True,
        },
        # As they came: Envoy would join repeated headers, and replace bytes that are not UTF-8.
        encode_raw_headers=True,
        failure_mode_allow=options.failure_mode_allow,
        status_on_error={"code": "ServiceUnavailable"},
    )
    return _filter(CHECK_FILTER, config)


def _prune_filter(options: BootstrapOptions) -> Document:
    config = _typed(
        "extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service=_grpc_service(options, timeout_s=PRUNE_TIMEOUT_S),
        message_timeout=_seconds(PRUNE_TIMEOUT_S),
        failure_mode_allow=False,
        processing_mode={
            "request_header_mode": "SKIP",
            "response_header_mode": "SEND",
            # The server asks for the body when it must prune it, and only then.
            "response_body_mode": "NONE",
        },
        allow_mode_override=True,
        metadata_options={"forwarding_namespaces": {"untyped": [CHECK_FILTER]}},
    )
    return {**_filter(PRUNE_FILTER, config), "disabled": True}


def _meter_filter() -> Document:
    config = _typed("extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": meter_source()})
    return _filter(METER_FILTER, config)


def _virtual_host(options: BootstrapOptions) -> Document:
    return {
        "name": "api",
        "domains": ["*"],
        "routes": [*_discovery_routes(options), _realtime_route(options), _inference_route(options)],
        # Meant for the response filter alone. x-extauthz-id stays for the access log; the Check's OK removes it.
        "request_headers_to_remove": [MODELS_HEADER],
        # The upstream's copies: this happens before ext_authz adds what the Check says.
        "response_headers_to_remove": list(OWN_RESPONSE_HEADERS),
        "typed_per_filter_config": {CHECK_FILTER: _check_context({ID_EXTENSION: "header"})},
    }


def _discovery_routes(options: BootstrapOptions) -> list[Document]:
    own: Document = {
        CHECK_FILTER: _check_context({PRUNE_EXTENSION: "on"}),
        PRUNE_FILTER: _typed(
            "config.route.v3.FilterConfig",
            config=_typed("extensions.filters.http.ext_proc.v3.ExtProcPerRoute", overrides={}),
        ),
    }
    if options.metering is Metering.LUA:
        own[METER_FILTER] = _typed("extensions.filters.http.lua.v3.LuaPerRoute", disabled=True)
    reads = {"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(READS)}}}
    return [
        {
            "match": {"path_separated_prefix": path, "headers": [reads]},
            "route": _to_upstream(options, DISCOVERY_TIMEOUT_S),
            "typed_per_filter_config": own,
        }
        for path in discovery_paths(options.api_prefixes)
    ]


def _realtime_route(options: BootstrapOptions) -> Document:
    """Let WebSockets be opened, by GET alone: of any other request to upgrade, the Check would not see the body."""
    opens = [
        {"name": ":method", "string_match": {"exact": "GET"}},
        {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}},
    ]
    route = {**_to_upstream(options, timeout_s=0), "upgrade_configs": [{"upgrade_type": "websocket"}]}
    return {"match": {"prefix": "/", "headers": opens}, "route": route}


def _inference_route(options: BootstrapOptions) -> Document:
    # 0 is no timeout: Envoy's default of 15 s counts to the end of the answer.
    return {"match": {"prefix": "/"}, "route": _to_upstream(options, timeout_s=0)}


def _to_upstream(options: BootstrapOptions, timeout_s: float) -> Document:
    route: Document = {"cluster": UPSTREAM_CLUSTER, "timeout": _seconds(timeout_s)}
    if options.upstream_tls and not options.upstream.is_ip:
        # A public API serves many hosts and knows itself by its own name only.
        route["auto_host_rewrite"] = True
    return route


def _check_context(extensions: dict[str, str]) -> Document:
    return _typed(
        "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", check_settings={"context_extensions": extensions}
    )


def _access_log(options: BootstrapOptions) -> Document:
    config = _typed(
        "extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        common_config={
            "log_name": "extauthz",
            "grpc_service": _grpc_service(options),
            "transport_api_version": "V3",
            "buffer_flush_interval": _seconds(ACCESS_LOG_FLUSH_S),
            "buffer_size_bytes": ACCESS_LOG_BUFFER_BYTES,
        },
        # Names the reservation of a request whose Check answered too late, or after the client had gone.
        additional_request_headers_to_log=[ID_HEADER],
    )
    return {"name": "envoy.access_loggers.http_grpc", "typed_config": config}


def _grpc_service(options: BootstrapOptions, timeout_s: float | None = None) -> Document:
    service: Document = {"envoy_grpc": {"cluster_name": SERVER_CLUSTER}}
    if timeout_s is not None:
        service["timeout"] = _seconds(timeout_s)
    if options.token is not None:
        service["initial_metadata"] = [{"key": TOKEN_METADATA, "value": options.token}]
    return service


def _upstream_cluster(options: BootstrapOptions) -> Document:
    cluster = _cluster(UPSTREAM_CLUSTER, options.upstream)
    if options.upstream_tls:
        cluster["transport_socket"] = _tls(options.upstream)
    return cluster


def _server_cluster(options: BootstrapOptions) -> Document:
    cluster = _cluster(SERVER_CLUSTER, options.extauthz)
    cluster["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _typed(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
    }
    # By TCP, not by HTTP/2 pings: gRPC servers end a connection that pings more often than every five minutes, and the
    # access log entries under way are lost with it.
    cluster["upstream_connection_options"] = {
        "tcp_keepalive": {
            "keepalive_time": TCP_KEEPALIVE_S,
            "keepalive_interval": TCP_KEEPALIVE_S,
            "keepalive_probes": 3,
        }
    }
    if options.extauthz_tls:
        cluster["transport_socket"] = _tls(options.extauthz, options.extauthz_ca, options.extauthz_client, alpn="h2")
    return cluster


def _cluster(name: str, address: Address) -> Document:
    endpoint = {"endpoint": {"address": _socket_address(address)}}
    return {
        "name": name,
        "type": "STATIC" if address.is_ip else "STRICT_DNS",
        "connect_timeout": _seconds(CONNECT_TIMEOUT_S),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": CONCURRENCY_MAX,
                    "max_pending_requests": CONCURRENCY_MAX,
                    "max_requests": CONCURRENCY_MAX,
                }
            ]
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _tls(
    address: Address,
    authorities: Path | None = None,
    client: ClientCertificate | None = None,
    alpn: str | None = None,
) -> Document:
    """Connect with TLS and accept only a certificate for this very host."""
    san_type = "IP_ADDRESS" if address.is_ip else "DNS"
    trusted: Document = {
        "trusted_ca": {"filename": str(authorities or SYSTEM_AUTHORITIES)},
        "match_typed_subject_alt_names": [{"san_type": san_type, "matcher": {"exact": address.host}}],
    }
    common: Document = {"validation_context": trusted}
    if client is not None:
        pair = {"certificate_chain": {"filename": str(client.cert)}, "private_key": {"filename": str(client.key)}}
        common["tls_certificates"] = [pair]
    if alpn:
        common["alpn_protocols"] = [alpn]
    names: Document = {} if address.is_ip else {"sni": address.host}
    config = _typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=common, **names)
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _filter(name: str, config: Document) -> Document:
    return {"name": name, "typed_config": config}


def _typed(message: str, **fields: object) -> Document:
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}


def _socket_address(address: Address) -> Document:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _seconds(value: float) -> str:
    return f"{value:g}s"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and everything that occurs twice in full."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
