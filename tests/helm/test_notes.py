"""NOTES.txt: what comes next, with the names of this release, and what is dangerous about it."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, REDIS, Json, helm, needs_helm, notes, render

pytestmark = needs_helm

# Production as it should be: nothing to warn of.
SOUND: dict[str, Json] = {
    "redis": {"url": "rediss://redis:6379"},
    "image": {"digest": f"sha256:{'0' * 64}"},
    "grpc": {"trust": "token", "token": {"existingSecret": "s"}},
    "networkPolicy": {"grpcFrom": [{"namespaceSelector": {}}]},
}


def block(text: str, beginning: str) -> str:
    """Give the indented block that begins with a line."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() == beginning)
    indent = len(lines[first]) - len(lines[first].lstrip())
    found = [lines[first]]
    for line in lines[first + 1 :]:
        if not line.strip() or len(line) - len(line.lstrip()) < indent:
            break
        found.append(line)
    return textwrap.dedent("\n".join(found))


def test_each_way_to_ask_is_printed_for_this_release() -> None:
    """MeshConfig's provider, Envoy Gateway's policy and the command for a plain Envoy name the release's Services."""
    text = notes(REDIS)

    (provider,) = yaml.safe_load(block(text, "extensionProviders:"))["extensionProviders"]
    asked = provider["envoyExtAuthzGrpc"]
    assert ("gate-extauthz.llm-budget.svc.cluster.local", 9191) == (asked["service"], asked["port"])
    assert asked["timeout"].endswith("s")
    assert (False, "503") == (asked["failOpen"], asked["statusOnError"])
    policy = yaml.safe_load(block(text, "apiVersion: gateway.envoyproxy.io/v1alpha1"))
    (backend,) = policy["spec"]["extAuth"]["grpc"]["backendRefs"]
    assert ("gate-extauthz", 9191) == (backend["name"], backend["port"])
    assert "--extauthz gate-extauthz-headless.llm-budget.svc.cluster.local:9191" in text
    assert "helm -n llm-budget test gate" in text


def test_without_a_headless_service_the_other_is_named() -> None:
    """Where there is no headless Service, Envoy is sent to the one that there is."""
    assert "--extauthz gate-extauthz.llm-budget.svc" in notes({**REDIS, "service": {"headless": False}})


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"redis": {"url": ""}, "replicas": 1}, "Books are in memory"),
        ({"redis": {"url": "", "dev": {"enabled": True}}}, "redis.dev is a single Redis"),
        ({"redis": {"url": "redis://redis"}}, "redis.url is not encrypted"),
        ({"redis": {"url": "rediss://:a@redis"}}, "redis.url has a password in it"),
        ({"grpc": {"trust": "network"}, "networkPolicy": {"enabled": False}}, "Nothing here keeps others from"),
        ({"grpc": {"trust": "network"}}, "can end reservations: 1 peers"),
        ({"networkPolicy": {"grpcFrom": [{"podSelector": {}}]}}, "Only pods of the namespace llm-budget may ask"),
        ({"config": {"extauthz": {"shadow_mode": True}}}, "Shadow mode is on"),
        ({"config": {"extauthz": {"store_failure": "allow"}}}, "store_failure: allow"),
        ({"config": {"extauthz": {"store_failure": "defer"}}}, "store_failure: defer"),
        ({"config": {"extauthz": {"allow_eviction": True}}}, "allow_eviction"),
        ({"keys": {"inline": [{"key": "a"}]}}, "keys.inline"),
        ({"replicas": 1}, "One replica"),
        ({"image": {"digest": ""}}, "The image is named by its tag"),
        ({"grpc": {"trust": "tls", "tls": {"existingSecret": "s"}}}, "helm test has nothing to run: with grpc.trust"),
        ({"istio": {"enabled": True}, "grpc": {"trust": "network"}}, "helm test has nothing to run: only Istio's"),
    ],
    ids=json.dumps,
)
def test_what_is_dangerous_is_said(values: dict[str, Json], warning: str) -> None:
    """Each danger has a line under WARNINGS."""
    told = notes({**SOUND, **values}).partition("WARNINGS")[2].partition("\n1.")[0]

    assert f"\n- {warning}" in told or warning in told


def test_a_mesh_that_guards_the_port_is_believed() -> None:
    """Where Istio lets nobody but its proxies in, nothing warns of others, and no test is made that it would refuse."""
    values = {**SOUND, "grpc": {"trust": "network"}, "networkPolicy": {"enabled": False}, "istio": {"enabled": True}}

    assert "can end reservations" not in notes(values)
    assert "Nothing here" not in notes(values)
    assert [] == render(values).of("Pod")


def test_where_nothing_is_dangerous_nothing_is_said() -> None:
    """A sound release has no warnings."""
    assert "WARNINGS" not in notes(SOUND)


@pytest.mark.parametrize("path", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_they_are_for_people(path: Path) -> None:
    """For every file of ci/ the notes are whole sentences: no value is missing, and no line is blank three times."""
    text = notes(files=[path])

    assert "<no value>" not in text
    assert "map[" not in text
    assert "\n\n\n" not in text


def test_the_readme_is_right() -> None:
    """Every installation that the README shows renders, and the values that it shows are values."""
    text = (CHART / "README.md").read_text("utf-8")
    installations = re.findall(r"helm install extauthz oci://\S+ ([^`]+?)\n(?:helm|```)", text)
    (values,) = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)

    assert 2 == len(installations)
    for installation in installations:
        arguments = [each for each in shlex.split(installation.replace("\\\n", " ")) if each != "--create-namespace"]
        assert "kind: Deployment" in helm("template", "extauthz", CHART, *arguments)
    assert render(yaml.safe_load(values)).deployment
