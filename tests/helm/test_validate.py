"""Values that cannot be: templates/validate.yaml refuses each, in a sentence that says what to do."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.chart import CHART, REDIS, Json, needs_helm, refusal, render

pytestmark = needs_helm

URL = REDIS["redis"]["url"]
IMPOSSIBLE: dict[str, tuple[Json, str]] = {
    "replicas without a store": ({}, "replicas: more than one replica needs a store"),
    "autoscaling without a store": ({"replicas": 1, "autoscaling": {"enabled": True}}, "replicas: more than one"),
    "keda without a store": ({"keda": {"enabled": True, "triggers": [{"type": "cpu"}]}}, "replicas: more than one"),
    "two stores": ({"redis": {"url": URL, "existingSecret": "s"}}, "redis: url, existingSecret and dev.enabled"),
    "dev beside a store": ({"redis": {"url": URL, "dev": {"enabled": True}}}, "redis: url, existingSecret and dev"),
    "a secret URL and a password": (
        {"redis": {"existingSecret": "s", "auth": {"existingSecret": "p"}}},
        "redis.existingSecret: the URL in it",
    ),
    "two passwords": (
        {"redis": {"url": "redis://:a@h", "auth": {"existingSecret": "p"}}},
        "redis.auth.existingSecret: it is put into redis.url",
    ),
    "a password of sentinels without any": (
        {"redis": {"url": URL, "auth": {"existingSecret": "p", "sentinelPasswordKey": "s"}}},
        "redis.auth.sentinelPasswordKey: redis.url has no sentinels",
    ),
    "a CA without TLS": (
        {"redis": {"url": URL, "tls": {"existingSecret": "ca"}}},
        "redis.tls.existingSecret: redis.url does not speak TLS",
    ),
    "sentinels without a name": (
        {"redis": {"url": "redis+sentinel://a:26379,b:26379"}},
        "redis.url: sentinels need the name of the primary",
    ),
    "listen": ({"config": {"extauthz": {"listen": {"grpc": "0.0.0.0:1"}}}}, "config.extauthz.listen: the chart writes"),
    "store": ({"config": {"extauthz": {"store": "memory"}}}, "config.extauthz.store: the chart writes"),
    "insecure": ({"config": {"extauthz": {"insecure_grpc": True}}}, "set grpc.trust instead"),
    "drain unknown": (
        {"config": {"extauthz": {"drain_seconds": "os.environ/DRAIN"}}},
        "config.extauthz.drain_seconds: terminationGracePeriodSeconds is worked out",
    ),
    "a key in a ConfigMap": (
        {"config": {"extauthz": {"keys": [{"key": "sk-plain"}]}}},
        "config.extauthz.keys: a key stands here in plain text",
    ),
    "the master key in a ConfigMap": (
        {"config": {"general_settings": {"master_key": "sk-plain"}}},
        "config.general_settings.master_key: it stands here in plain text",
    ),
    "the webhook in a ConfigMap": (
        {"config": {"extauthz": {"alerts": {"webhook": {"url": "https://hooks.example.com/secret"}}}}},
        "config.extauthz.alerts.webhook.url: it is a secret",
    ),
    "an upstream's key in a ConfigMap": (
        {"config": {"extauthz": {"upstream_auth": {"models": {"gpt-4o": {"set": "sk-plain"}}}}}},
        "config.extauthz.upstream_auth: a key stands here in plain text",
    ),
    "two lists of keys": (
        {"keys": {"existingSecret": "s", "inline": [{"key": "a"}]}},
        "keys: existingSecret and inline",
    ),
    "two files of LiteLLM": (
        {"litellm": {"existingConfigMap": "a", "existingSecret": "b"}},
        "litellm: existingConfigMap and existingSecret",
    ),
    "LiteLLM's sections twice": (
        {"litellm": {"existingConfigMap": "a"}, "config": {"model_list": []}},
        "config: beside litellm only",
    ),
    "a token from nowhere": ({"grpc": {"trust": "token"}}, "grpc.trust: token needs grpc.token.existingSecret"),
    "a certificate from nowhere": ({"grpc": {"trust": "tls"}}, "grpc.trust: tls needs grpc.tls.existingSecret"),
    "TLS by the server that has none": (
        {"grpc": {"trust": "tls", "tls": {"existingSecret": "s"}}, "config": {"extauthz": {"server": "native"}}},
        "config.extauthz.server: native has no TLS",
    ),
    "two autoscalers": (
        {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "triggers": [{"type": "cpu"}]}},
        "autoscaling, keda: both would set the number of replicas",
    ),
    "more at least than at most": (
        {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}},
        "autoscaling.minReplicas: it is above maxReplicas",
    ),
    "keda's least above its most": (
        {"keda": {"enabled": True, "minReplicas": 5, "maxReplicas": 4, "triggers": [{"type": "cpu"}]}},
        "keda.minReplicas: it is above maxReplicas",
    ),
    "nothing to scale by": (
        {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}},
        "autoscaling: there is nothing to scale by",
    ),
    "a share of nothing": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "autoscaling.targetCPUUtilizationPercentage: it is a share of resources.requests.cpu",
    ),
    "no triggers": ({"keda": {"enabled": True}}, "keda.triggers: there is nothing to scale by"),
    "a budget that lets nobody go": (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "podDisruptionBudget.maxUnavailable",
    ),
    "a budget without a number": (
        {"podDisruptionBudget": {"maxUnavailable": None}},
        "podDisruptionBudget.maxUnavailable",
    ),
    "a budget of all": ({"podDisruptionBudget": {"minAvailable": 2}}, "2 of 2 replicas must stay"),
    "a budget of 100 %": ({"podDisruptionBudget": {"minAvailable": "100%"}}, "podDisruptionBudget.minAvailable: 100%"),
    "a budget above the least of the autoscaler": (
        {"podDisruptionBudget": {"minAvailable": 3}, "autoscaling": {"enabled": True, "minReplicas": 3}},
        "3 of 3 replicas must stay",
    ),
    "killed while it drains": ({"terminationGracePeriodSeconds": 44}, "write at least 45, or null"),
    "killed while it drains long": (
        {"terminationGracePeriodSeconds": 60, "config": {"extauthz": {"drain_seconds": 60}}},
        "write at least 80, or null",
    ),
    "two monitors": (
        {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "monitoring: with serviceMonitor and podMonitor each replica would be counted twice",
    ),
    "traces to nowhere": ({"tracing": {"enabled": True}}, "tracing.endpoint: write where the collector is"),
}


@pytest.mark.parametrize(("values", "complaint"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_values_are_refused(values: Json, complaint: str) -> None:
    """Helm refuses, with a sentence that begins with the value to change; there is no other complaint."""
    without_store = complaint.startswith("replicas:")

    told = refusal(values if without_store or "redis" in values else {**REDIS, **values})

    assert complaint in told
    assert 1 == told.count("\n- ")


def test_all_is_told_at_once() -> None:
    """Whoever has two mistakes reads both."""
    told = refusal({"grpc": {"trust": "token"}, "tracing": {"enabled": True}})

    assert all(value in told for value in ("\n- replicas:", "\n- grpc.trust:", "\n- tracing.endpoint:"))


def test_every_complaint_is_tried() -> None:
    """validate.yaml has no complaint that no test has seen."""
    text = (CHART / "templates/validate.yaml").read_text("utf-8")
    complaints = re.findall(r'append \$problems (?:\(printf )?"([^%"]+)', text)

    tried = " ".join(complaint for _, complaint in IMPOSSIBLE.values())
    unseen = [each for each in complaints if each.split(":")[0] not in tried and each.split(".")[0] not in tried]

    assert complaints
    assert not unseen


@pytest.mark.parametrize(
    "values",
    [
        {"redis": {"url": ""}, "replicas": 1},
        {"redis": {"url": ""}, "replicas": 0},
        {"podDisruptionBudget": {"minAvailable": 1}},
        {"podDisruptionBudget": {"minAvailable": "50%"}},
        {"podDisruptionBudget": {"maxUnavailable": "25%"}},
        {"podDisruptionBudget": {"maxUnavailable": 0}, "replicas": 1},
        {"podDisruptionBudget": {"enabled": False, "maxUnavailable": 0}},
        {"terminationGracePeriodSeconds": 45},
        {"config": {"extauthz": {"keys": [{"key": "os.environ/A"}, {"key_sha256": "0" * 64}]}}},
        {"config": {"general_settings": {"master_key": "os.environ/MASTER"}}},
        {"config": {"extauthz": {"upstream_auth": {"default": "remove", "models": {"a": {"set": "os.environ/KEY"}}}}}},
        {"autoscaling": {"enabled": True, "minReplicas": 1}},
    ],
    ids=json.dumps,
)
def test_what_can_be_is_let_through(values: Json) -> None:
    """Values at the border of the impossible are possible."""
    assert render({**REDIS, **values}).deployment
