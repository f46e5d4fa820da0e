"""Monitors, alert rules and the dashboard, as operators of Prometheus and Grafana take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, REDIS, Json, Rendered, needs_helm, render
from tests.support.prometheus import promtool

pytestmark = needs_helm

OPERATOR = "monitoring.coreos.com/v1"


@pytest.fixture(scope="module")
def monitored() -> Rendered:
    """Render with all of it."""
    return render(files=[CHART / "ci/monitoring-values.yaml"])


def test_by_default_there_is_none_of_it() -> None:
    """Nothing of an operator's is rendered unasked."""
    assert not [
        each for each in render(REDIS).objects if "." in each["apiVersion"].partition("/")[0].replace(".k8s.io", "")
    ]


def test_where_its_operator_is_missing_nothing_is_rendered() -> None:
    """With customResources: ifInstalled the objects come once the cluster knows their kind."""
    values = [CHART / "ci/names-values.yaml"]

    without = render(files=values)
    with_operator = render(files=values, arguments=["--api-versions", OPERATOR])

    assert [] == [*without.of("ServiceMonitor"), *without.of("PrometheusRule")]
    assert 2 == len([*with_operator.of("ServiceMonitor"), *with_operator.of("PrometheusRule")])


def test_the_service_monitor_finds_one_port_of_one_service(monitored: Rendered) -> None:
    """Of the Services that it selects one alone has the port that it reads, so that no replica is read twice."""
    spec = monitored.one("ServiceMonitor")["spec"]
    (endpoint,) = spec["endpoints"]
    selected = [
        port["name"]
        for service in monitored.of("Service")
        if spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        for port in service["spec"]["ports"]
    ]

    assert 1 == selected.count(endpoint["port"])
    assert ["llm-budget"] == spec["namespaceSelector"]["matchNames"]


@pytest.mark.parametrize(
    ("kind", "name", "endpoints"),
    [
        ("ServiceMonitor", "monitoring", "endpoints"),
        ("PodMonitor", "pod-monitor", "podMetricsEndpoints"),
    ],
)
def test_monitors_are_told(kind: str, name: str, endpoints: str) -> None:
    """Interval, timeout, labels and rules arrive in either monitor, in the namespace that is named."""
    monitor = render(files=[CHART / f"ci/{name}-values.yaml"]).one(kind)

    assert "monitoring" == monitor["metadata"]["namespace"]
    assert "prometheus" == monitor["metadata"]["labels"]["release"]
    (endpoint,) = monitor["spec"][endpoints]
    assert {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s", "honorLabels": True} == {
        name: value for name, value in endpoint.items() if not name.endswith("elabelings")
    }
    assert 1 == len(endpoint["relabelings"]) == len(endpoint["metricRelabelings"])


async def test_the_rules_are_prometheus_rules(monitored: Rendered, tmp_path: Path) -> None:
    """Prometheus takes the rules as they are rendered: those that are tested, word for word, and those of one's own."""
    spec: Json = monitored.one("PrometheusRule")["spec"]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(spec), encoding="utf-8")

    code, told = await promtool("check", "rules", rules)

    shipped = yaml.safe_load((CHART / "files/alerts.yaml").read_text("utf-8"))
    assert shipped["groups"] == spec["groups"][:-1]
    assert "own" == spec["groups"][-1]["name"]
    assert (0, True) == (code, "SUCCESS" in told), told


def test_the_dashboard_is_whole(monitored: Rendered) -> None:
    """Grafana's sidecar finds the dashboard by its label, and reads the tested file, braces and all."""
    dashboard = monitored.one("ConfigMap", "-dashboard")

    (text,) = dashboard["data"].values()
    assert json.loads((CHART / "files/dashboard.json").read_text("utf-8")) == json.loads(text)
    assert "yes" == dashboard["metadata"]["labels"]["grafana_dashboard"]
    assert "LLM" == dashboard["metadata"]["annotations"]["grafana_folder"]
