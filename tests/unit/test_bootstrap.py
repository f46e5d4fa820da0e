"""The bootstrap as a document: what every Envoy that it configures must hold to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import BootstrapOptions, Metering, bootstrap, meter_source, to_yaml

# A part of a document that was read from YAML.
Json: TypeAlias = Any

OPTIONS = BootstrapOptions(listen=Address("0.0.0.0", 8080), upstream=Address("llm.internal", 4000))
SECRET = "a shared secret"


def read(options: BootstrapOptions) -> Json:
    """Give the document as Envoy reads it."""
    return yaml.safe_load(to_yaml(bootstrap(options)))


def manager(document: Json) -> Json:
    """Give the HTTP connection manager."""
    return document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def filters(document: Json) -> dict[str, Json]:
    """Give the filters by name, in their order."""
    return {entry["name"]: entry for entry in manager(document)["http_filters"]}


def host(document: Json) -> Json:
    """Give the virtual host."""
    return manager(document)["route_config"]["virtual_hosts"][0]


def clusters(document: Json) -> dict[str, Json]:
    """Give the clusters by name."""
    return {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}


def services(value: Json) -> list[Json]:
    """Find every grpc_service, wherever it stands."""
    if isinstance(value, list):
        return [service for part in value for service in services(part)]
    if not isinstance(value, dict):
        return []
    own = [value["grpc_service"]] if "grpc_service" in value else []
    return own + [service for part in value.values() for service in services(part)]


def test_filters_stand_in_the_order_that_makes_them_safe() -> None:
    """Forged headers die first, the decision comes before everything that acts on it."""
    expected = [
        "envoy.filters.http.header_mutation",
        "envoy.filters.http.cors",
        "envoy.filters.http.ext_authz",
        "extauthz.prune",
        "extauthz.meter",
        "envoy.filters.http.router",
    ]

    assert expected == list(filters(read(OPTIONS)))


def test_without_metering_there_is_no_lua() -> None:
    """`none` leaves no trace of the meter, on no route either."""
    text = to_yaml(bootstrap(replace(OPTIONS, metering=Metering.NONE)))

    assert "lua" not in text.lower()


def test_the_token_goes_into_every_call() -> None:
    """Check, pruning and access log prove themselves with it."""
    calls = services(read(replace(OPTIONS, token=SECRET)))

    assert [[{"key": "x-extauthz-token", "value": SECRET}]] * 3 == [call["initial_metadata"] for call in calls]
    assert not any("initial_metadata" in call for call in services(read(OPTIONS)))


def test_the_token_is_not_in_the_options_text() -> None:
    """A log line or an exception with the options in it does not tell the secret."""
    assert SECRET not in repr(replace(OPTIONS, token=SECRET))


def test_discovery_routes_are_marked_and_others_are_not() -> None:
    """Pruning is promised to the Check exactly where it is switched on, for reading methods only."""
    *discovery, _, inference = host(read(replace(OPTIONS, api_prefixes=("/llm/", "llm"))))["routes"]

    paths = [route["match"]["path_separated_prefix"] for route in discovery]
    assert {
        *("/models", "/v1/models", "/openai/models", "/openai/v1/models", "/cursor/models", "/cursor/v1/models"),
        *("/model/info", "/v1/model/info", "/v2/model/info", "/model_group/info", "/v1/model_group/info", "/api/tags"),
        *("/llm/models", "/llm/v1/models", "/llm/model/info", "/llm/v1/model/info", "/llm/v2/model/info"),
        *("/llm/model_group/info", "/llm/v1/model_group/info", "/llm/api/tags"),
    } == set(paths)
    assert len(paths) == len(set(paths))
    for route in discovery:
        own = route["typed_per_filter_config"]
        assert ["GET|HEAD"] == [header["string_match"]["safe_regex"]["regex"] for header in route["match"]["headers"]]
        assert {"extauthz.prune": "on"} == own["envoy.filters.http.ext_authz"]["check_settings"]["context_extensions"]
        assert own["extauthz.meter"]["disabled"]
        assert "extauthz.prune" in own
    assert "typed_per_filter_config" not in inference
    assert {"prefix": "/"} == inference["match"]


def test_websockets_are_opened_by_get_alone() -> None:
    """The Check would see no body behind any other request to upgrade, and nothing of one is buffered."""
    *_, realtime, inference = host(read(OPTIONS))["routes"]
    manager = read(OPTIONS)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]

    assert [{"upgrade_type": "websocket"}] == realtime["route"]["upgrade_configs"]
    assert "GET" == realtime["match"]["headers"][0]["string_match"]["exact"]
    assert "0s" == realtime["route"]["timeout"]
    assert "upgrade_configs" not in inference["route"]
    assert "upgrade_configs" not in manager


def test_pruning_is_off_unless_a_route_asks_for_it() -> None:
    """An inference never meets ext_proc."""
    assert filters(read(OPTIONS))["extauthz.prune"]["disabled"]


def test_an_inference_has_no_timeout() -> None:
    """Envoy's 15 s would cut long answers."""
    assert "0s" == host(read(OPTIONS))["routes"][-1]["route"]["timeout"]


@pytest.mark.parametrize("max_request_bytes", [1024, 3 * 1024 * 1024])
def test_a_body_that_the_check_shall_see_fits_into_the_buffer(max_request_bytes: int) -> None:
    """With a smaller buffer Envoy answers 413 before it asks."""
    document = read(replace(OPTIONS, max_request_bytes=max_request_bytes))
    body = filters(document)["envoy.filters.http.ext_authz"]["typed_config"]["with_request_body"]

    assert {"max_request_bytes": max_request_bytes, "allow_partial_message": True, "pack_as_bytes": True} == body
    assert document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] > max_request_bytes


@pytest.mark.parametrize("allow", [False, True])
def test_the_operator_decides_about_an_absent_server(allow: bool) -> None:  # noqa: FBT001 - a column of the table
    """`failure_mode_allow` is passed on for the Check, and never for pruning."""
    chain = filters(read(replace(OPTIONS, failure_mode_allow=allow)))

    assert allow == chain["envoy.filters.http.ext_authz"]["typed_config"]["failure_mode_allow"]
    assert not chain["extauthz.prune"]["typed_config"]["failure_mode_allow"]


def test_signs_of_life_come_as_often_as_asked() -> None:
    """The lease is renewed by them."""
    options = manager(read(replace(OPTIONS, heartbeat_seconds=7.5)))["access_log_options"]

    assert {"access_log_flush_interval": "7.5s"} == options


@pytest.mark.parametrize(
    ("host_name", "kind"), [("10.0.0.7", "STATIC"), ("::1", "STATIC"), ("llm.internal", "STRICT_DNS")]
)
def test_names_are_resolved_and_addresses_are_not(host_name: str, kind: str) -> None:
    """Either is accepted as an upstream."""
    assert kind == clusters(read(replace(OPTIONS, upstream=Address(host_name, 80))))["upstream"]["type"]


def test_tls_accepts_one_host_only() -> None:
    """A good certificate of somebody else is not good enough, and a public API is called by its own name."""
    document = read(replace(OPTIONS, upstream=Address("api.example.com", 443), upstream_tls=True))
    config = clusters(document)["upstream"]["transport_socket"]["typed_config"]
    checked = config["common_tls_context"]["validation_context"]

    assert "api.example.com" == config["sni"]
    assert [{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}] == checked["match_typed_subject_alt_names"]
    assert all(route["route"]["auto_host_rewrite"] for route in host(document)["routes"])
    assert "transport_socket" not in clusters(document)["extauthz"]


def test_the_server_is_checked_with_its_own_authority() -> None:
    """TLS to the server: the operator's CA, HTTP/2 agreed on, and an address instead of a name."""
    options = replace(OPTIONS, extauthz_tls=True, extauthz_ca=Path("/etc/extauthz/ca.pem"))
    common = clusters(read(options))["extauthz"]["transport_socket"]["typed_config"]["common_tls_context"]

    assert {"filename": "/etc/extauthz/ca.pem"} == common["validation_context"]["trusted_ca"]
    assert ["h2"] == common["alpn_protocols"]
    assert "IP_ADDRESS" == common["validation_context"]["match_typed_subject_alt_names"][0]["san_type"]


def test_the_yaml_is_for_people_too() -> None:
    """The meter stands in it line by line, nothing is behind an alias, and nothing is lost on the way."""
    text = to_yaml(bootstrap(OPTIONS))

    assert "inline_string: |" in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith(("&", "*"))]
    assert bootstrap(OPTIONS) == yaml.safe_load(text)
    assert (
        meter_source()
        == filters(read(OPTIONS))["extauthz.meter"]["typed_config"]["default_source_code"]["inline_string"]
    )
