"""The dashboard and the alerts that the chart ships, on the metrics of a running server, by a real Prometheus.

A panel whose query is wrong looks like a house where nothing happens; nobody would notice until the night it matters.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict, Field

from tests.support.processes import eventually
from tests.support.prometheus import Prometheus
from tests.support.redis import NEWEST_REDIS, RedisServer
from tests.support.stack import Stack, patient, stack

FILES = Path(__file__).parents[2] / "deploy/helm/extauthz/files"
# What Grafana writes in their place. The window holds many of the tests' scrapes, for a rate needs two.
VARIABLES = {"__rate_interval": "20s", "job": "extauthz", "instance": ".*", "scope": ".*"}
ROWS = ["Traffic", "Money", "Reservations", "Store", "Health"]
COLUMNS = 24
# Between the rounds of the one who uses the house, so that the machine has time for others.
PAUSE_SECONDS = 0.1
# A query gives nothing while these have never happened; all others must give something.
EMPTY_WHEN_WELL = {
    ("Shadow mode", "A"),
    ("Endings that wait", "B"),
    ("Signals that changed nothing", "A"),
    ("Errors by verb", "A"),
    ("Failures of our own", "A"),
    ("Refused evidence", "B"),
}
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/house-model, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
extauthz:
  store: STORE
  global: {max_budget: 1000, budget_duration: 30d}
  teams: {research: {max_budget: 100, budget_duration: 1mo}, broke: {max_budget: 0.0}}
  keys: [{key: sk-research, team: research}, {key: sk-broke, team: broke}]
"""


class Loose(BaseModel):
    """A part of the dashboard; what no test looks at is left out."""

    model_config = ConfigDict(frozen=True)


class Source(Loose):
    """Where a query goes."""

    type: str
    uid: str


class Target(Loose):
    """A query of a panel."""

    ref: str = Field(alias="refId")
    expr: str
    legend: str = Field(alias="legendFormat")
    datasource: Source


class Place(Loose):
    """Where a panel stands, in a grid of COLUMNS."""

    x: int
    y: int
    w: int
    h: int

    @property
    def cells(self) -> set[tuple[int, int]]:
        """All that it covers."""
        return {(x, y) for x in range(self.x, self.x + self.w) for y in range(self.y, self.y + self.h)}


class Defaults(Loose):
    """How a panel shows values."""

    unit: str
    thresholds: Mapping[str, object]


class FieldConfig(Loose):
    """How a panel shows its fields."""

    defaults: Defaults


class Panel(Loose):
    """A panel, or the heading of a row."""

    id: int
    type: str
    title: str
    description: str = ""
    place: Place = Field(alias="gridPos")
    config: FieldConfig | None = Field(None, alias="fieldConfig")
    targets: tuple[Target, ...] = ()


class Variable(Loose):
    """A choice that a person has above the panels."""

    name: str
    type: str
    definition: str = ""


class Annotation(Loose):
    """A query whose answers stand in every graph."""

    name: str
    expr: str


class Templating(Loose):
    """All variables."""

    list: tuple[Variable, ...]


class Annotations(Loose):
    """All annotations."""

    list: tuple[Annotation, ...]


class Dashboard(Loose):
    """The file."""

    id: int | None
    schema_version: int = Field(alias="schemaVersion")
    templating: Templating
    annotations: Annotations
    panels: tuple[Panel, ...]


DASHBOARD = Dashboard.model_validate_json((FILES / "dashboard.json").read_bytes())
PANELS = [panel for panel in DASHBOARD.panels if panel.type != "row"]
QUERIES = [
    pytest.param(panel, target, id=f"{panel.title} {target.ref}") for panel in PANELS for target in panel.targets
]


def filled(expression: str) -> str:
    """Put values in the place of variables."""
    for name, value in VARIABLES.items():
        expression = re.sub(rf"\${name}\b", value, expression)
    assert "$" not in expression, f"an unknown variable: {expression}"
    return expression


def metrics_of(expression: str) -> set[str]:
    """Give the metrics of ours that an expression reads, as /metrics names their families."""
    names = re.findall(r"\bextauthz_\w+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


@dataclass(frozen=True, slots=True)
class House:
    """A stack that people use all the time, and Prometheus beside it."""

    stack: Stack
    prometheus: Prometheus

    async def families(self) -> set[str]:
        """Give the names of all metrics that /metrics explains, seen or not."""
        _, text = await self.stack.gate.page("/metrics")
        return set(re.findall(r"^# HELP (\w+)", text, re.MULTILINE))


async def use(client: AsyncOpenAI) -> None:
    """Ask again and again for what passes, what is free, what is refused, and for the list of models."""
    messages: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello."}]
    while True:
        for key, model in (("sk-research", "gpt-4o"), ("sk-research", "local-llama"), ("sk-broke", "gpt-4o")):
            with suppress(openai.APIStatusError):
                await client.with_options(api_key=key).chat.completions.create(model=model, messages=messages)
        await client.with_options(api_key="sk-research").models.list()
        await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def used(running: Stack) -> AsyncIterator[None]:
    """Let somebody use the stack inside the block."""
    async with running.openai("nobody") as client:
        using = asyncio.create_task(use(client), name="somebody who uses the stack")
        try:
            yield
        finally:
            using.cancel()
            with suppress(asyncio.CancelledError):
                await using


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house() -> AsyncIterator[House]:
    """Run the house for all tests below; its store keeps the books on disk."""
    async with (
        RedisServer(NEWEST_REDIS) as store,
        stack(CONFIG.replace("STORE", store.url), options=patient) as running,
        Prometheus(running.gate.http_port, rules=[FILES / "alerts.yaml"]) as prometheus,
        used(running),
    ):
        yield House(running, prometheus)


class TestFile:
    """The dashboard as a file."""

    def test_fits_any_grafana(self) -> None:
        """It has no number of one Grafana's own, a schema of Grafana 11, and asks the data source that is chosen."""
        sources = {target.datasource for panel in PANELS for target in panel.targets}

        assert None is DASHBOARD.id
        assert DASHBOARD.schema_version >= 39
        assert {Source(type="prometheus", uid="${datasource}")} == sources
        assert "datasource" in {each.name for each in DASHBOARD.templating.list if each.type == "datasource"}

    def test_has_its_rows(self) -> None:
        """Its rows are those that the documents name, in their order."""
        assert ROWS == [panel.title for panel in DASHBOARD.panels if panel.type == "row"]

    def test_panels_stand_beside_each_other(self) -> None:
        """No panel covers another or leaves the grid, and no two share an id or a title."""
        cells = [cell for panel in DASHBOARD.panels for cell in panel.place.cells]

        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < COLUMNS
        assert len(DASHBOARD.panels) == len({panel.id for panel in DASHBOARD.panels})
        assert len(DASHBOARD.panels) == len({panel.title for panel in DASHBOARD.panels})

    @pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
    def test_panels_explain_themselves(self, panel: Panel) -> None:
        """Each panel has a query, a sentence on what it shows, a unit, and thresholds."""
        assert panel.targets
        assert panel.description.endswith(".")
        assert panel.config is not None
        assert panel.config.defaults.unit
        assert panel.config.defaults.thresholds["steps"]

    def test_what_may_be_empty_is_there(self) -> None:
        """The list of queries that may give nothing names only queries that there are."""
        assert {(panel.title, target.ref) for panel in PANELS for target in panel.targets} >= EMPTY_WHEN_WELL


@pytest.mark.envoy
@pytest.mark.redis
@pytest.mark.asyncio(loop_scope="module")
class TestRunning:
    """The dashboard and the alerts on real metrics."""

    @pytest.mark.parametrize(("panel", "target"), QUERIES)
    async def test_query_gives_something(self, house: House, panel: Panel, target: Target) -> None:
        """Prometheus takes the query, and it gives series with the labels that the legend names.

        One that may be empty reads at least a metric that the server explains.
        """
        query = filled(target.expr)
        if (panel.title, target.ref) in EMPTY_WHEN_WELL:
            series = await house.prometheus.query(query)
        else:
            series = await eventually(lambda: house.prometheus.query(query), what=f"{query} gives something")
        named = set(re.findall(r"{{(\w+)}}", target.legend))

        assert metrics_of(query) <= await house.families()
        assert [] == [each.labels for each in series if not named <= set(each.labels)]

    @pytest.mark.parametrize("variable", [each for each in DASHBOARD.templating.list if each.type == "query"])
    async def test_variable_has_choices(self, house: House, variable: Variable) -> None:
        """Each variable finds values for a person to choose from."""
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.definition)
        assert asked is not None
        series = await house.prometheus.query(filled(asked[1]))

        assert [each.labels[asked[2]] for each in series]

    @pytest.mark.parametrize("annotation", DASHBOARD.annotations.list, ids=lambda annotation: annotation.name)
    async def test_annotation_is_a_query(self, house: House, annotation: Annotation) -> None:
        """Prometheus takes the queries of the marks in every graph, and the server has their metrics."""
        await house.prometheus.query(filled(annotation.expr))

        assert metrics_of(annotation.expr) <= await house.families()

    async def test_alerts_keep_silent_while_all_is_well(self, house: House) -> None:
        """Prometheus evaluates every rule on the real metrics without an error, and none is even pending."""
        # Every rule is evaluated between two scrapes.
        settled = 'count_over_time(extauthz_reservations_ended_total{how="settled"}[1m]) >= 3'
        await eventually(lambda: house.prometheus.query(settled), what="rules have seen settlements")
        rules = await house.prometheus.rules()

        assert [] == [rule.error for rule in rules if rule.health != "ok"]
        assert [] == [rule.name for rule in rules if rule.alerts]

    async def test_alerts_read_metrics_that_there_are(self, house: House) -> None:
        """Every metric that a rule reads is one that the server explains."""
        read = metrics_of((FILES / "alerts.yaml").read_text(encoding="utf-8"))

        assert read - await house.families() == set()
