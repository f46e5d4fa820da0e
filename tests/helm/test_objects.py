"""The objects beside the Deployment: names, Services, accounts, disruptions, scaling, networks, and the test's pod."""

from __future__ import annotations

import tarfile
from pathlib import Path

import kubernetes_validate
import pytest
from click.testing import CliRunner

from extauthz.cli import main
from tests.support.chart import CHART, NAMESPACE, REDIS, Json, Rendered, helm, needs_helm, render

pytestmark = needs_helm

CI = CHART / "ci"


def ci(name: str) -> Rendered:
    """Render with one file of ci/."""
    return render(files=[CI / f"{name}-values.yaml"])


def test_long_names_are_cut_once() -> None:
    """However long the release's name is, each object has one of its own, and Services are found by it."""
    chart = render({"redis": {"dev": {"enabled": True}}}, release="a" * 53)

    names = {each["metadata"]["name"] for each in chart.of("Service")}
    assert 3 == len(names)
    assert all(len(name) <= 63 for name in names)
    host = chart.env["EXTAUTHZ_STORE"]["value"].removeprefix("redis://").partition(".")[0]
    assert host in names


NUMBERS: dict[str, Json] = {
    "redis": {"existingSecret": "1", "existingSecretKey": "2"},
    "litellm": {"existingConfigMap": "3"},
    "keys": {"existingSecret": "4"},
    "grpc": {"trust": "token", "token": {"existingSecret": "5", "key": "6"}},
    "admin": {"existingSecret": "7", "key": "8"},
    "priorityClassName": "9",
    "serviceAccount": {"name": "0"},
}


@pytest.mark.parametrize(
    "values",
    [
        NUMBERS,
        {**NUMBERS, "grpc": {"trust": "tls", "tls": {"existingSecret": "1"}}, "tests": {"clientSecret": "2"}},
        {
            "redis": {
                "url": "rediss+sentinel://h/m",
                "auth": {"existingSecret": "1", "passwordKey": "2", "sentinelPasswordKey": "3"},
                "tls": {"existingSecret": "4"},
            }
        },
        {"redis": {"url": "redis://:a@h"}, "keys": {"inline": [{"key": "a"}], "key": "1"}},
        {
            "redis": {"dev": {"enabled": True, "image": "1", "command": "2"}},
            "monitoring": {"dashboard": {"enabled": True}},
        },
        {**REDIS, "autoscaling": {"enabled": True}, "nameOverride": "1"},
    ],
)
def test_names_that_look_like_something_else(values: Json) -> None:
    """Names that are numbers, or words that YAML takes for false, stay the texts that Kubernetes wants."""
    chart = render(values, release="456", namespace="no")

    for each in chart.objects:
        kubernetes_validate.validate(each, "1.34", strict=True)
        assert "no" == each["metadata"]["namespace"]


def test_names_of_ones_own() -> None:
    """Name, namespace, labels and annotations of one's own are on every object."""
    chart = ci("names")

    assert {"budget-gate", "budget-gate-headless"} == {each["metadata"]["name"] for each in chart.of("Service")}
    for each in chart.objects:
        assert "budgets" == each["metadata"]["namespace"]
        assert "platform" == each["metadata"]["labels"]["owner"]
        assert "gate" == each["metadata"]["labels"]["app.kubernetes.io/name"]
        assert "platform@example.com" == each["metadata"]["annotations"]["example.com/contact"]
    assert {"owner": "platform", "example.com/tier": "gate"}.items() <= chart.pod["metadata"]["labels"].items()
    assert "json" == chart.pod["metadata"]["annotations"]["example.com/logs"]
    assert chart.of("Pod")[0]["spec"]["containers"][0]["args"][1] == (
        "--target=budget-gate.budgets.svc.cluster.example:9191"
    )


def test_a_release_that_is_called_like_the_chart_is_not_called_so_twice() -> None:
    """The chart's name is added to the release's only where it is not in it."""
    assert "extauthz" == render(REDIS, release="extauthz").deployment["metadata"]["name"]


def test_labels_of_ones_own_cannot_break_selectors() -> None:
    """A label that the chart itself selects by keeps its value."""
    chart = render(
        {**REDIS, "commonLabels": {"app.kubernetes.io/name": "x"}, "podLabels": {"app.kubernetes.io/name": "x"}}
    )

    assert "extauthz" == chart.pod["metadata"]["labels"]["app.kubernetes.io/name"]


def test_services() -> None:
    """The Service says gRPC to whoever looks at protocols; the headless one gives Envoy every replica."""
    chart = render(REDIS)

    assert ["grpc", "http"] == [port["appProtocol"] for port in chart.one("Service")["spec"]["ports"]]
    headless = chart.one("Service", "-headless")["spec"]
    assert "None" == headless["clusterIP"]
    assert [9191] == [port["port"] for port in headless["ports"]]
    told = ci("names").of("Service")
    assert {"PreferDualStack"} == {each["spec"]["ipFamilyPolicy"] for each in told}
    assert {"NodePort", None} == {each["spec"].get("type") for each in told}
    assert 1 == len(ci("trial").of("Service"))
    assert "appProtocol" not in ci("trial").one("Service")["spec"]["ports"][0]


def test_the_account_has_no_token() -> None:
    """The chart's account is used and has no token; without it the namespace's own is."""
    chart = render(REDIS)

    assert chart.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert "gate-extauthz" == chart.pod["spec"]["serviceAccountName"]
    assert "default" == ci("trial").pod["spec"]["serviceAccountName"]
    assert "gate" == ci("names").pod["spec"]["serviceAccountName"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"podDisruptionBudget": {"maxUnavailable": "25%"}}, {"maxUnavailable": "25%"}),
        ({"podDisruptionBudget": {"minAvailable": 1}}, {"minAvailable": 1}),
        ({"replicas": 1}, None),
        ({"autoscaling": {"enabled": True, "minReplicas": 1}}, None),
        ({"replicas": 1, "keda": {"enabled": True, "triggers": [{"type": "cpu"}]}}, {"maxUnavailable": 1}),
        ({"podDisruptionBudget": {"enabled": False}}, None),
    ],
)
def test_disruptions(values: Json, wanted: Json) -> None:
    """There is a budget where more than one replica runs at least, by one of the two numbers."""
    budgets = [each["spec"] for each in render({**REDIS, **values}).of("PodDisruptionBudget")]

    if wanted is None:
        assert [] == budgets
    else:
        (budget,) = budgets
        assert wanted == {name: value for name, value in budget.items() if name.endswith("vailable")}
        assert "AlwaysAllow" == budget["unhealthyPodEvictionPolicy"]


def test_the_autoscaler_sets_the_number() -> None:
    """With an autoscaler the Deployment says no number, which an upgrade would otherwise set back."""
    chart = ci("autoscaling")
    spec = chart.one("HorizontalPodAutoscaler")["spec"]

    assert "replicas" not in chart.deployment["spec"]
    assert (3, 12) == (spec["minReplicas"], spec["maxReplicas"])
    assert ["Resource", "Pods"] == [each["type"] for each in spec["metrics"]]
    assert 60 == spec["metrics"][0]["resource"]["target"]["averageUtilization"]
    assert 300 == spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
    assert {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gate-extauthz"} == spec["scaleTargetRef"]


def test_keda_sets_the_number() -> None:
    """So it is with KEDA, whose object looks at the Deployment."""
    chart = ci("keda")
    spec = chart.one("ScaledObject")["spec"]

    assert "replicas" not in chart.deployment["spec"]
    assert [] == chart.of("HorizontalPodAutoscaler")
    assert (3, 20, 15, 600) == tuple(
        spec[name] for name in ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod")
    )
    assert {"failureThreshold": 3, "replicas": 4} == spec["fallback"]
    assert ["prometheus"] == [each["type"] for each in spec["triggers"]]
    assert {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gate-extauthz"} == spec["scaleTargetRef"]


def test_nobody_else_gets_in_or_out() -> None:
    """By default pods of the namespace reach gRPC, all pods the metrics, and the gate reaches DNS and Redis alone."""
    policy = render(REDIS).one("NetworkPolicy")["spec"]

    assert ["Ingress", "Egress"] == policy["policyTypes"]
    grpc, http = policy["ingress"]
    assert ({"podSelector": {}}, ["grpc"]) == (grpc["from"][0], [port["port"] for port in grpc["ports"]])
    assert ([{"namespaceSelector": {}}], ["http"]) == (http["from"], [port["port"] for port in http["ports"]])
    assert [[53, 53, 5353, 5353], [6379]] == [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]


def test_who_gets_in_and_out_can_be_said() -> None:
    """Peers of one's own take the place of the defaults, rules of one's own are added, and ways out can stay open."""
    policy = ci("network").one("NetworkPolicy")["spec"]

    assert [{"podSelector": {"matchLabels": {"app": "envoy"}}}] == [
        {"podSelector": peer["podSelector"]} for peer in policy["ingress"][0]["from"] if "namespaceSelector" in peer
    ]
    assert 9193 == policy["ingress"][2]["ports"][0]["port"]
    assert "203.0.113.0/24" == policy["egress"][-1]["to"][0]["ipBlock"]["cidr"]
    assert ["Ingress"] == ci("network-in").one("NetworkPolicy")["spec"]["policyTypes"]
    assert [] == ci("trial").of("NetworkPolicy")


def test_the_test_gets_in() -> None:
    """Whoever else is let in, each pod of `helm test` is: its labels are those of a peer."""
    chart = ci("network")

    for pod in chart.of("Pod"):
        assert any(
            peer["podSelector"].get("matchLabels", {}).items() <= pod["metadata"]["labels"].items()
            for peer in chart.one("NetworkPolicy")["spec"]["ingress"][0]["from"]
            if "namespaceSelector" not in peer
        )


def test_each_check_has_a_pod_of_its_own() -> None:
    """`helm test --logs` fails at pods of several containers: each Check has a pod with one."""
    pods = render(REDIS).of("Pod")

    assert ["gate-extauthz-test-allowed", "gate-extauthz-test-denied"] == sorted(
        pod["metadata"]["name"] for pod in pods
    )
    assert {1} == {len(pod["spec"]["containers"]) for pod in pods}


@pytest.mark.parametrize(
    ("values", "peer", "ports"),
    [
        (
            {"istio": {"enabled": True}},
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-ingress"}},
                "podSelector": {"matchLabels": {"istio": "ingress"}},
            },
            {15012, 15008},
        ),
        (
            {"envoyGateway": {"enabled": True, "namespace": "llm"}, "config": {"extauthz": {"lease_seconds": 900}}},
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "In",
                            "values": ["envoy-gateway-system", "llm"],
                        }
                    ]
                },
                "podSelector": {
                    "matchLabels": {
                        "app.kubernetes.io/managed-by": "envoy-gateway",
                        "app.kubernetes.io/component": "proxy",
                    }
                },
            },
            set(),
        ),
    ],
    ids=["istio", "envoy gateway"],
)
def test_the_meshes_proxies_get_in(values: Json, peer: Json, ports: set[int]) -> None:
    """Where a mesh is enabled, its proxies need not be named again, and a sidecar reaches what it needs."""
    policy = render({**REDIS, **values}).one("NetworkPolicy")["spec"]

    assert peer in policy["ingress"][0]["from"]
    assert ports <= {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_the_way_to_the_collector_is_open() -> None:
    """Traces get out by the endpoint's port."""
    assert [{"ports": [{"port": 4319, "protocol": "TCP"}]}] == [
        rule
        for rule in ci("monitoring").one("NetworkPolicy")["spec"]["egress"]
        if 4319 in [port["port"] for port in rule["ports"]]
    ]


@pytest.mark.parametrize("name", ["default", "tls", "token", "names"])
def test_the_test_asks_as_the_program_understands(name: str, tmp_path: Path) -> None:
    """Each pod of `helm test` has arguments that the program takes: it fails for want of a server alone."""
    for file in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / file).write_text("no certificate", encoding="utf-8")

    for pod in ci(name).of("Pod"):
        annotations = pod["metadata"]["annotations"]
        assert {
            "helm.sh/hook": "test",
            "helm.sh/hook-delete-policy": "before-hook-creation",
        }.items() <= annotations.items()
        said = pod["spec"]["containers"][0]["args"]
        arguments = [each.replace("/etc/extauthz/client", str(tmp_path)) for each in said]
        arguments = ["--target=127.0.0.1:1" if each.startswith("--target=") else each for each in arguments]
        done = CliRunner().invoke(main, [*arguments, "--timeout=0.1"])
        assert 1 == done.exit_code, done.output


def test_objects_of_ones_own() -> None:
    """Objects are rendered with templates in them, whether written as YAML or as text."""
    chart = ci("redis-secret")

    (secret,) = chart.of("Secret")
    assert NAMESPACE == secret["metadata"]["namespace"]
    assert "written as text" == chart.one("ConfigMap", "-note")["data"]["note"]


def test_the_package_is_whole(tmp_path: Path) -> None:
    """The package renders the same objects as the folder, and has no files of the tests."""
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        names = archive.getnames()

    assert "extauthz/README.md" in names
    assert not [name for name in names if "/ci/" in name or name.endswith("_test.yaml")]
    for name in ("monitoring", "istio-gateway"):
        values = CI / f"{name}-values.yaml"
        assert render(files=[values], chart=package) == render(files=[values])
