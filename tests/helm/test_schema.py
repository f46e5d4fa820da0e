"""values.schema.json: closed, the program's own where the program reads it, and in step with what it is made from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from extauthz.config.model import ExtauthzSection
from tests.support.chart import CHART, REDIS, ROOT, Json, needs_helm, refusal, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
SETTINGS = SCHEMA["$defs"]["config"]["properties"]["extauthz"]

# Objects that are anything on purpose, by where they stand: Kubernetes, an operator or LiteLLM judges what is in them.
OPEN = {
    "$defs.GeneralSettings",
    "$defs.LitellmSettings",
    "$defs.PassThrough",
    "$defs.UserHeader",
    "$defs.config.router_settings",
    "$defs.config.model_list[]",
    "$defs.kubernetes",
    "$defs.strings",
    "$defs.quantities",
    "$defs.resources.claims[]",
    "$defs.environment.valueFrom",
    "$defs.peers[].podSelector",
    "$defs.peers[].namespaceSelector",
    "$defs.peers[].ipBlock",
    "global",
}


def test_it_is_in_step() -> None:
    """The schema and the README's table are what values.yaml and the program's model make of them."""
    done = subprocess.run([sys.executable, ROOT / "deploy/helm/schema.py", "--check"], capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)


def test_it_is_closed() -> None:
    """No object takes what it does not know, but for maps of labels and what somebody else judges."""
    found = {path for path in _open(SCHEMA, "") if not _is_map_of_the_program(path)}

    assert {path for path in found if path.startswith("$defs.") or not path.endswith("[]")} == OPEN


def test_every_setting_of_the_program_is_there() -> None:
    """Under config.extauthz stands what the program reads, by the names that it reads, and nothing else."""
    section = SCHEMA["$defs"][SETTINGS["$ref"].rpartition("/")[2]]

    assert {field.alias or name for name, field in ExtauthzSection.model_fields.items()} == section["properties"].keys()


@needs_helm
@pytest.mark.parametrize("name", ["config.example.yaml", "rollout.yaml", "diagnose.yaml"])
def test_documented_configurations_are_values(name: str) -> None:
    """Every configuration of the documentation may stand under `config`, but for what the chart writes itself."""
    config = yaml.safe_load((ROOT / "docs" / name).read_text("utf-8"))
    for setting in ("listen", "store", "token", "tls", "insecure_grpc", "admin_token", "tracing", "keys_file"):
        config["extauthz"].pop(setting, None)
    keys = config["extauthz"].pop("keys")

    rendered = render({**REDIS, "config": config, "keys": {"inline": keys}}).config

    assert _read(config["extauthz"]) == _read({name: rendered["extauthz"][name] for name in config["extauthz"]})


@needs_helm
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicaCount": 2}, "replicaCount"),
        ({"redis": {"uri": "redis://h"}}, "uri"),
        ({"redis": {"url": "http://redis"}}, "/redis/url"),
        ({"redis": {"tls": {"enabled": True}}}, "enabled"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"replicas": "two"}, "/replicas"),
        ({"replicas": -1}, "/replicas"),
        ({"grpc": {"trust": "anybody"}}, "/grpc/trust"),
        ({"commonLabels": {"a": 1}}, "/commonLabels/a"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"probes": {"liveness": {"periodSecond": 1}}}, "periodSecond"),
        ({"networkPolicy": {"grpcFrom": [{"podSelecter": {}}]}}, "podSelecter"),
        ({"extraEnv": [{"name": "A", "valeu": "b"}]}, "valeu"),
        ({"podDisruptionBudget": {"minAvailable": "half"}}, "/podDisruptionBudget/minAvailable"),
        ({"tests": {"checks": [{"name": "a", "expect": "pass"}]}}, "/tests/checks/0/expect"),
        ({"config": {"model_lists": []}}, "model_lists"),
        ({"config": {"extauthz": {"lease_second": 1}}}, "lease_second"),
        ({"config": {"extauthz": {"lease_seconds": 0}}}, "/config/extauthz/lease_seconds"),
        ({"config": {"extauthz": {"store_failure": "ignore"}}}, "/config/extauthz/store_failure"),
        ({"config": {"extauthz": {"teams": {"a": {"max_budgets": 1}}}}}, "max_budgets"),
        ({"config": {"extauthz": {"keys": [{"key_sha": "a"}]}}}, "key_sha"),
        ({"config": {"extauthz": {"alerts": {"percentages": ["many"]}}}}, "/config/extauthz/alerts"),
        ({"config": {"general_settings": {"budget_exceeded_models_policy": "none"}}}, "budget_exceeded_models_policy"),
        ({"keys": {"inline": [{"kee": "a"}]}}, "kee"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_slip_is_refused_where_it_is(values: Json, complaint: str) -> None:
    """Helm refuses a misspelt name and a wrong value before anything is rendered, and says where."""
    told = refusal(values)

    assert "values don't meet the specifications of the schema" in told
    assert complaint in told


@needs_helm
@pytest.mark.parametrize(
    "settings",
    [
        {"lease_seconds": "os.environ/LEASE"},
        {"hide_amounts": "os.environ/HIDE"},
        {"store_failure": "os.environ/FAILURE"},
        {"estimate": "fixed"},
        {"upstream_auth": {"default": "remove", "models": {"openai/*": {"set": "os.environ/KEY"}}}},
        {"teams": {"42": {"organization": 7, "max_budget": "15"}}, "organizations": {"7": {}}},
        {"unknown_price": {"input_cost_per_token": 2.5e-06}},
        {"unknown_price": "deny"},
        {"end_users": {"default": {"max_budget": 0.1, "budget_duration": "1d", "anchor": "2026-01-01"}}},
    ],
    ids=json.dumps,
)
def test_what_the_program_takes_passes_unchanged(settings: Json) -> None:
    """Variables, short forms, numbers as names and small prices are values, and arrive as they were written."""
    rendered = render({**REDIS, "config": {"extauthz": settings}}).config["extauthz"]

    assert _read(settings) == _read({name: rendered[name] for name in settings})


@needs_helm
def test_a_date_without_quotes_stays_what_it_is(tmp_path: Path) -> None:
    """Helm does not make a moment of a date, which would begin windows in another time zone."""
    values = tmp_path / "values.yaml"
    values.write_text("config: {extauthz: {global: {max_budget: 1, anchor: 2026-01-01}}}", encoding="utf-8")

    assert "2026-01-01" == str(render(REDIS, files=[values]).config["extauthz"]["global"]["anchor"])


def _read(node: Json) -> Json:
    """Read numbers as the program does, to which 3e-05 is one."""
    match node:
        case dict():
            return {name: _read(each) for name, each in node.items()}
        case list():
            return [_read(each) for each in node]
        case str() if re.fullmatch("[0-9.]+(e-?[0-9]+)?", node):
            return float(node)
        case _:
            return node


def _open(schema: Json, path: str) -> Iterator[str]:
    """Walk to every object that takes names which the schema does not list."""
    match schema:
        case {"$ref": str()}:
            return
        case {"type": "object"} if schema.get("additionalProperties", True) is not False:
            yield path
    for name, each in schema.get("properties", {}).items():
        yield from _open(each, f"{path}.{name}" if path else name)
    if isinstance(schema.get("items"), dict):
        yield from _open(schema["items"], f"{path}[]")
    for each in schema.get("anyOf", ()):
        yield from _open(each, path)
    for name, each in schema.get("$defs", {}).items():
        yield from _open(each, f"$defs.{name}")


def _is_map_of_the_program(path: str) -> bool:
    """Whether these are a payer's ids or names of models: the program's mappings, whose values are closed."""
    names = {"organizations", "projects", "teams", "users", "end_users", "members", "tags", "metadata", "models"}
    return path.rpartition(".")[2] in names | {"model_max_budget", "provider_max_budget", "provider_budget_config"}
