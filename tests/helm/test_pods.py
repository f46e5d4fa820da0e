"""The Deployment: what its pods are told, what makes them anew, and where they run."""

from __future__ import annotations

import pytest
import yaml

from extauthz.config.restart import KEPT, KEPT_OF_ESTIMATE, SECRETS
from tests.support.chart import CHART, REDIS, Json, Rendered, needs_helm, render

pytestmark = needs_helm

CI = CHART / "ci"
RESTART = "checksum/restart"


def with_settings(**settings: Json) -> Rendered:
    """Render with settings of the program."""
    return render({**REDIS, "config": {"extauthz": settings}})


def test_it_needs_a_store_and_nothing_else() -> None:
    """With redis.url alone there are two replicas that serve its books, and the parts that production needs."""
    chart = render(REDIS)

    kinds = sorted(each["kind"] for each in chart.objects)
    assert [
        *("ConfigMap", "Deployment", "NetworkPolicy", "Pod", "Pod"),
        *("PodDisruptionBudget", "Service", "Service", "ServiceAccount"),
    ] == kinds
    assert 2 == chart.deployment["spec"]["replicas"]
    assert ["serve", "--config", "/etc/extauthz/config/config.yaml"] == chart.container["args"]
    assert {"EXTAUTHZ_STORE": {"name": "EXTAUTHZ_STORE", "value": "redis://redis:6379"}} == chart.env
    assert "limits" in chart.container["resources"]
    assert "cpu" not in chart.container["resources"]["limits"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "ghcr.io/extauthz/extauthz:0.1.0"),
        ({"tag": "2.0.0"}, "ghcr.io/extauthz/extauthz:2.0.0"),
        ({"tag": "2.0.0", "digest": f"sha256:{'0' * 64}"}, f"ghcr.io/extauthz/extauthz@sha256:{'0' * 64}"),
        ({"registry": "", "repository": "extauthz", "tag": "dev"}, "extauthz:dev"),
    ],
)
def test_the_image(image: Json, name: str) -> None:
    """A digest goes before a tag, which is the chart's appVersion where none is given."""
    chart = render({**REDIS, "image": image})

    assert name == chart.container["image"]
    assert {name} == {pod["spec"]["containers"][0]["image"] for pod in chart.of("Pod")}


def test_parent_charts_choose_registry_and_secrets() -> None:
    """`global` of a parent chart goes before the chart's own registry, and adds to its pull secrets."""
    chart = render(files=[CI / "names-values.yaml"])

    assert chart.container["image"].startswith("registry.example.com/platform/extauthz@sha256:")
    assert [{"name": "mirror"}, {"name": "own"}] == chart.pod["spec"]["imagePullSecrets"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("store_timeout_seconds", 1),
        ("tombstone_seconds", 120),
        ("server", "grpcio"),
        ("estimate", {"mode": "fixed"}),
        ("estimate", "fixed"),
        ("shard_by", "organization"),
    ],
)
def test_what_waits_for_a_restart_makes_new_pods(setting: str, value: Json) -> None:
    """A setting that a running server cannot follow changes the pods, so that Kubernetes replaces them."""
    before, after = render(REDIS), with_settings(**{setting: value})

    assert before.pod["metadata"]["annotations"] != after.pod["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lease_seconds", 60),
        ("teams", {"research": {"max_budget": 1}}),
        ("estimate", {"image_tokens": 5}),
        ("shadow_mode", True),
    ],
)
def test_what_servers_follow_makes_none(setting: str, value: Json) -> None:
    """A setting that running servers follow changes the ConfigMap and no pod; with `reload: restart` it does."""
    settings = {"config": {"extauthz": {setting: value}}}
    followed = render({**REDIS, **settings})

    assert render(REDIS).config != followed.config
    before = render({**REDIS, "config": {"extauthz": {"estimate": {}}}}) if setting == "estimate" else render(REDIS)
    assert before.pod == followed.pod
    assert before.pod != render({**REDIS, **settings, "reload": "restart"}).pod


def test_what_waits_is_what_the_program_says() -> None:
    """The chart's list of settings that wait for a restart is the program's, and the names of the files."""
    text = (CHART / "templates/_config.tpl").read_text("utf-8")
    (picked,) = (line for line in text.splitlines() if "pick $section " in line)
    (of_estimate,) = (line for line in text.splitlines() if "pick $section.estimate" in line)

    assert {*KEPT, *SECRETS, "keys_file", "litellm_file"} == {*picked.partition("pick $section ")[2].split('"')[1::2]}
    assert {*KEPT_OF_ESTIMATE} == {*of_estimate.partition("pick $section.estimate ")[2].split('"')[1::2]}


def test_the_end_of_a_pod_is_worked_out() -> None:
    """A pod has its sleep, its drain and 15 seconds to end; a time of one's own goes before."""
    assert 45 == render(REDIS).pod["spec"]["terminationGracePeriodSeconds"]
    assert 120 == with_settings(drain_seconds=100).pod["spec"]["terminationGracePeriodSeconds"]
    assert 120 == render(files=[CI / "pods-values.yaml"]).pod["spec"]["terminationGracePeriodSeconds"]
    assert {"preStop": {"sleep": {"seconds": 5}}} == render(REDIS).container["lifecycle"]
    assert "lifecycle" not in render({**REDIS, "preStopSeconds": 0}).container


def test_an_update_takes_no_replica_away_first() -> None:
    """A new replica is ready before an old one goes."""
    assert {"maxSurge": 1, "maxUnavailable": 0} == render(REDIS).deployment["spec"]["strategy"]["rollingUpdate"]


def test_replicas_are_spread() -> None:
    """Replicas of one version are spread over zones and nodes where that can be; constraints of one's own go before."""
    constraints = render(REDIS).pod["spec"]["topologySpreadConstraints"]

    assert ["topology.kubernetes.io/zone", "kubernetes.io/hostname"] == [each["topologyKey"] for each in constraints]
    assert {"ScheduleAnyway"} == {each["whenUnsatisfiable"] for each in constraints}
    assert all(each["matchLabelKeys"] == ["pod-template-hash"] for each in constraints)
    (own,) = render(files=[CI / "spread-values.yaml"]).pod["spec"]["topologySpreadConstraints"]
    assert {"app.kubernetes.io/instance": "gate"} == own["labelSelector"]["matchLabels"]
    assert "topologySpreadConstraints" not in render({**REDIS, "topologySpread": {"enabled": False}}).pod["spec"]


def test_what_pods_may_be_told() -> None:
    """Everything about scheduling, resources and containers of one's own arrives where Kubernetes reads it."""
    chart = render(files=[CI / "pods-values.yaml"])
    spec = chart.pod["spec"]

    assert "runAsUser" not in spec["securityContext"]
    assert spec["hostUsers"] is False
    assert {"kubernetes.io/arch": "amd64"} == spec["nodeSelector"]
    assert "dedicated" == spec["tolerations"][0]["key"]
    assert "gate" in yaml.safe_dump(spec["affinity"])
    assert "system-cluster-critical" == spec["priorityClassName"]
    assert ["extauthz", "journal"] == [each["name"] for each in spec["containers"]]
    assert chart.container["image"] == spec["containers"][1]["image"]
    assert {"name": "backup", "mountPath": "/backup"} in chart.container["volumeMounts"]
    assert {"periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 60}.items() <= chart.container[
        "startupProbe"
    ].items()
    assert 5 == chart.deployment["spec"]["minReadySeconds"]
    assert 3 == chart.deployment["spec"]["revisionHistoryLimit"]


def test_secrets_become_variables() -> None:
    """Tokens come out of Secrets into the environment, and the configuration names the variables."""
    chart = render(files=[CI / "token-values.yaml"])

    assert "os.environ/EXTAUTHZ_TOKEN" == chart.config["extauthz"]["token"]
    assert "os.environ/EXTAUTHZ_ADMIN_TOKEN" == chart.config["extauthz"]["admin_token"]
    assert "insecure_grpc" not in chart.config["extauthz"]
    assert {"name": "gate", "key": "envoy"} == chart.env["EXTAUTHZ_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert {"name": "gate", "key": "operators"} == chart.env["EXTAUTHZ_ADMIN_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert [{"secretRef": {"name": "providers"}}] == chart.container["envFrom"]


def test_tls_is_mounted_and_probed_over_http() -> None:
    """With TLS the certificate, its key and the clients' CA are files, and the kubelet asks over HTTP."""
    chart = render(files=[CI / "tls-values.yaml"])

    folder = "/etc/extauthz/grpc-tls"
    assert {
        "cert": f"{folder}/gate.crt",
        "key": f"{folder}/gate.key",
        "client_ca": f"{folder}/clients.crt",
    } == chart.config["extauthz"]["tls"]
    assert {"name": "grpc-tls", "secret": {"secretName": "gate-tls"}} in chart.pod["spec"]["volumes"]
    assert {"path": "/readyz", "port": "http"} == chart.container["readinessProbe"]["httpGet"]


def test_the_collector_is_told_of_the_pod() -> None:
    """Traces go to the endpoint that is named, by the pod's name."""
    env = render(files=[CI / "monitoring-values.yaml"]).env

    assert "http://otel-collector.observability:4319" == env["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"]
    assert "k8s.namespace.name=llm-budget,k8s.pod.name=$(POD_NAME)" == env["OTEL_RESOURCE_ATTRIBUTES"]["value"]
    assert [*env].index("POD_NAME") < [*env].index("OTEL_RESOURCE_ATTRIBUTES")


def test_other_peoples_files_are_mounted_and_named() -> None:
    """LiteLLM's ConfigMap and the Secret with keys are folders, whose files the configuration names."""
    chart = render(files=[CI / "litellm-values.yaml"])

    assert "/etc/extauthz/litellm/proxy_config.yaml" == chart.config["extauthz"]["litellm_file"]
    assert "/etc/extauthz/keys/list.yaml" == chart.config["extauthz"]["keys_file"]
    assert {"name": "litellm", "configMap": {"name": "litellm-config"}} in chart.pod["spec"]["volumes"]
    assert {"name": "keys", "secret": {"secretName": "llm-keys"}} in chart.pod["spec"]["volumes"]


def test_keys_in_values_become_a_secret() -> None:
    """keys.inline is a Secret of the chart's, which is mounted, and not in the ConfigMap."""
    chart = render({**REDIS, "keys": {"inline": [{"key": "sk-inline", "max_budget": 1}]}})

    assert [{"key": "sk-inline", "max_budget": 1}] == yaml.safe_load(
        chart.one("Secret", "-keys")["stringData"]["keys.yaml"]
    )
    assert {"name": "keys", "secret": {"secretName": "gate-extauthz-keys"}} in chart.pod["spec"]["volumes"]
    assert "sk-inline" not in yaml.safe_dump(chart.one("ConfigMap"))
