"""The alerts that the chart ships: Prometheus takes them, each is tried, and each says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.support.prometheus import promtool

REPOSITORY = Path(__file__).parents[2]
FILES = REPOSITORY / "deploy/helm/extauthz/files"
SEVERITIES = {"critical", "warning", "info"}
SUMMARY_CHARACTERS_MAX = 100


class Alert(NamedTuple):
    """A rule of the file. Two rules may share a name when they differ in severity."""

    name: str
    severity: str
    annotations: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} {self.severity}"


class Firing(NamedTuple):
    """What a test expects to fire: the alert, its severity, and the names of its labels."""

    name: str
    severity: str
    labels: frozenset[str]


def alerts() -> list[Alert]:
    """Read the rules."""
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return [Alert(rule["alert"], rule["labels"]["severity"], rule["annotations"]) for rule in rules]


def expectations() -> tuple[list[Firing], set[str]]:
    """Read the rules' tests: what fires somewhere, and the names of what keeps silent somewhere."""
    tests = yaml.safe_load((FILES / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    expected = [each for test in tests for each in test.get("promql_expr_test", ())]
    firing, silent = [], set[str]()
    for each in expected:
        for sample in each["exp_samples"]:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
            firing.append(Firing(labels["alertname"], labels["severity"], frozenset(labels)))
        if not each["exp_samples"]:
            silent |= set(re.findall(r'alertname="(\w+)"', each["expr"]))
    return firing, silent


def headings(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub and others make them."""
    lines = document.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


async def test_prometheus_takes_the_rules() -> None:
    """Promtool finds no mistake in the file, nor a rule that stands there twice."""
    code, output = await promtool("check", "rules", "--lint=all", "--lint-fatal", FILES / "alerts.yaml")

    assert 0 == code, output
    assert f"SUCCESS: {len(alerts())} rules found" in output


async def test_rules_do_what_their_tests_say() -> None:
    """Promtool runs the tests beside the rules, and each holds."""
    code, output = await promtool("test", "rules", FILES / "alerts_test.yaml")

    assert 0 == code, output
    assert "SUCCESS" in output


@pytest.mark.parametrize("alert", alerts(), ids=str)
class TestAlert:
    """One rule."""

    def test_is_seen_firing_and_silent(self, alert: Alert) -> None:
        """A test of the rules makes the alert fire with its severity, and one keeps it silent."""
        firing, silent = expectations()

        assert (alert.name, alert.severity) in {(each.name, each.severity) for each in firing}
        assert alert.name in silent

    def test_names_only_labels_that_it_has(self, alert: Alert) -> None:
        """Its words name no label that the aggregation takes away: the text would have a hole there."""
        words = " ".join(alert.annotations.values())
        named = set(re.findall(r"\$labels\.(\w+)", words))
        kept = [each.labels for each in expectations()[0] if (each.name, each.severity) == (alert.name, alert.severity)]

        assert named <= frozenset.intersection(*kept)

    def test_says_what_to_do(self, alert: Alert) -> None:
        """It has a severity that people route by, a summary of one line, a description, and a runbook that exists."""
        document, _, heading = alert.annotations["runbook"].partition("#")

        assert alert.severity in SEVERITIES
        assert len(alert.annotations["summary"]) <= SUMMARY_CHARACTERS_MAX
        assert alert.annotations["description"].endswith(".")
        assert heading in headings(REPOSITORY / document)
