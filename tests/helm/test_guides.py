"""The guides for Istio, Envoy Gateway and plain Envoy: values render, objects are real, and all names meet."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.chart import ROOT, Json, Rendered, needs_helm, render
from tests.support.meshcheck import mistakes, needs_meshcheck

pytestmark = needs_helm

KUBERNETES = "1.34"
GUIDES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("istio", "envoy-gateway", "envoy")
}
# Files of values that a guide adds to its first.
ADDED = [("istio", "sidecar.yaml"), ("istio", "custom.yaml")]
OURS = ("gate-extauthz", "gate-extauthz-headless")


def blocks(guide: str) -> list[str]:
    """Give the blocks of YAML."""
    return re.findall(r"^```yaml\n(.*?)^```", GUIDES[guide], re.MULTILINE | re.DOTALL)


def values(guide: str, file: str, folder: Path) -> Path:
    """Write a file of values as the guide shows it."""
    (text,) = (block for block in blocks(guide) if block.startswith(f"# {file}\n"))
    path = folder / file
    path.write_text(text, encoding="utf-8")
    return path


def objects(guide: str) -> list[Json]:
    """Give the objects that a reader makes himself."""
    return [entry for block in blocks(guide) if block.startswith("apiVersion:") for entry in yaml.safe_load_all(block)]


@pytest.fixture(params=GUIDES)
def guide(request: pytest.FixtureRequest) -> str:
    """Name each guide in turn."""
    name: str = request.param
    return name


def release(guide: str, folder: Path, *added: str) -> Rendered:
    """Render the chart with the guide's own values."""
    return render(files=[values(guide, file, folder) for file in ("values.yaml", *added)])


def test_the_values_render(guide: str, tmp_path: Path) -> None:
    """The values of a guide are accepted, and the Services are called as its commands call them."""
    services = {service["metadata"]["name"] for service in release(guide, tmp_path).of("Service")}

    assert services == set(OURS)
    assert set(re.findall(r"gate-extauthz[a-z-]*(?=\.llm-budget)", GUIDES[guide])) <= services


@pytest.mark.parametrize(("guide", "file"), ADDED)
def test_the_values_that_are_added_render(guide: str, file: str, tmp_path: Path) -> None:
    """So are those that a guide adds for another way."""
    changed = [entry for entry in release(guide, tmp_path, file).objects if "istio.io/" in entry["apiVersion"]]

    assert changed != [entry for entry in release(guide, tmp_path).objects if "istio.io/" in entry["apiVersion"]]


@needs_meshcheck
def test_the_readers_own_objects_are_real(guide: str) -> None:
    """What a reader is told to apply decodes strictly, by the types of whoever reads it."""
    found = objects(guide)
    plain = [entry for entry in found if "." not in entry["apiVersion"].partition("/")[0]]

    assert found
    assert "" == mistakes(entry for entry in found if entry not in plain)
    for entry in plain:
        kubernetes_validate.validate(entry, KUBERNETES, strict=True)


def test_istio_s_names_meet(tmp_path: Path) -> None:
    """The EnvoyFilter names the host, the port and the route that the guide's own objects have."""
    patches = release("istio", tmp_path).one("EnvoyFilter")["spec"]["configPatches"]
    hosts = [
        patch["match"]["routeConfiguration"]["vhost"] for patch in patches if "routeConfiguration" in patch["match"]
    ]
    gateway, service = objects("istio")
    (server,) = gateway["spec"]["servers"]

    assert [f"{host}:{server['port']['number']}" for host in service["spec"]["hosts"]] == [
        host["name"] for host in hosts if "name" in host
    ]
    assert [host["route"]["name"] for host in hosts if "route" in host] == [service["spec"]["http"][0]["name"]]


def test_envoy_gateway_s_names_meet(tmp_path: Path) -> None:
    """The policies target what the guide makes, the Gateway uses the EnvoyProxy, and the patch finds the listener."""
    chart = release("envoy-gateway", tmp_path)
    _, gateway, *routes = objects("envoy-gateway")
    names = {(entry["kind"], entry["metadata"]["name"]) for entry in (gateway, *routes)}
    targets = [ref for policy in chart.objects for ref in policy.get("spec", {}).get("targetRefs", [])]
    (patch,) = chart.one("EnvoyPatchPolicy", "-heartbeats")["spec"]["jsonPatches"]
    listener = f"llm/{gateway['metadata']['name']}/{gateway['spec']['listeners'][0]['name']}"

    assert {(target["kind"], target["name"]) for target in targets} < names
    assert chart.one("EnvoyProxy")["metadata"]["name"] == gateway["spec"]["infrastructure"]["parametersRef"]["name"]
    assert listener == patch["name"]
    assert {"llm"} == {entry["metadata"]["namespace"] for entry in (gateway, *routes, chart.one("EnvoyProxy"))}
