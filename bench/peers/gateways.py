"""Envoys to hold ours against: with nothing of ours, with a Check alone, with bodies that pass through ext_proc."""

from __future__ import annotations

from typing import Any

from extauthz.envoy.bootstrap import SERVER_CLUSTER, Document
from extauthz.envoy.names import CHECK_FILTER

ROUTER_FILTER = "envoy.filters.http.router"
METERING_FILTER = "bench.metering"
EXT_PROC_TYPE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
# A busy machine is no reason to give up.
PATIENCE = "30s"

Manager = dict[str, Any]


def bare(document: Document) -> Document:
    """Take all filters and the access log away: what is left only passes requests on."""
    return _kept(document, ROUTER_FILTER)


def check_only(document: Document) -> Document:
    """Leave the Check alone, as any ext_authz has it."""
    return _kept(document, CHECK_FILTER, ROUTER_FILTER)


def through_ext_proc(document: Document) -> Document:
    """Show every piece of an answer to a gRPC server before it goes on, and ask nobody anything else."""
    document = bare(document)
    _manager(document)["http_filters"].insert(
        0,
        {
            "name": METERING_FILTER,
            "typed_config": {
                "@type": EXT_PROC_TYPE,
                "grpc_service": {"envoy_grpc": {"cluster_name": SERVER_CLUSTER}, "timeout": PATIENCE},
                "message_timeout": PATIENCE,
                "processing_mode": {
                    "request_header_mode": "SKIP",
                    "response_header_mode": "SEND",
                    "response_body_mode": "STREAMED",
                },
            },
        },
    )
    return document


def _kept(document: Document, *names: str) -> Document:
    manager = _manager(document)
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] in names]
    del manager["access_log"]
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = host["routes"][-1:]
    if CHECK_FILTER not in names:
        del host["typed_per_filter_config"]
    return document


def _manager(document: Document) -> Manager:
    resources: Any = document["static_resources"]
    manager: Manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager
