"""A release of the chart with what belongs to it, in real pods: Redis, two replicas, an Envoy, the demo's upstream.

As docs/envoy.md tells it for a plain Envoy. To the clients of the demo it is a house like those on one machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import aiohttp
import yaml

from extauthz.demo.books import Books
from extauthz.demo.stage import House
from extauthz.demo.story import SLOW, Scene
from extauthz.demo.visitor import Visitor, streamed_body
from extauthz.domain.address import Address
from extauthz.domain.money import NANOUSD_PER_USD
from extauthz.domain.policy import ModelsPolicy
from tests.support.chart import CHART, Json
from tests.support.processes import eventually
from tests.support.real_pods import GATES, Namespace, Pod
from tests.support.stack import Metrics

RELEASE = "gate"
# Below what any command gets, so that Helm tells itself what never came.
WAIT = ("--wait", "--timeout=150s")
DEPLOYMENT = f"deployment/{RELEASE}-extauthz"
FOLDER = Path(__file__).parents[1] / "e2e" / "real"
DEMO_CONFIG = Path(str(files("extauthz.demo").joinpath("config.yaml")))
TOKEN = "a token that Envoy and the gate share"
BUDGETS_USD = {"students": 0.001, "lab": 1.0, "crowd": 1000.0, "broke": 0.0}
# What a word of the slow model costs.
WORD_NANOUSD = 15_000
# Far longer than a request takes that nobody disturbs, far shorter than a test waits.
LEASE_SECONDS = 20
SETTLE_SECONDS_MAX = 3 * LEASE_SECONDS

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def key_of(team: str) -> str:
    """Give the API key of a team."""
    return f"sk-{team}"


def configured(**budgets_usd: float) -> Json:
    """Give the values of the release, with other budgets than the usual ones for some teams."""
    config = yaml.safe_load(DEMO_CONFIG.read_text(encoding="utf-8"))
    config["general_settings"]["budget_exceeded_models_policy"] = ModelsPolicy.FREE_ONLY.value
    config["extauthz"] = {
        "lease_seconds": LEASE_SECONDS,
        "teams": {team: {"max_budget": usd} for team, usd in {**BUDGETS_USD, **budgets_usd}.items()},
    }
    return {
        "image": {"registry": "localhost", "repository": "extauthz", "tag": "e2e", "pullPolicy": "Never"},
        "redis": {"url": "redis://redis:6379"},
        "keys": {"existingSecret": "llm-keys"},
        "grpc": {"trust": "token", "token": {"existingSecret": "llm-token"}},
        "config": config,
    }


@dataclass(frozen=True, slots=True)
class Account:
    """What a team's budget says, in nano-USD."""

    limit: int
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class Installed:
    """The release and its neighbours."""

    namespace: Namespace
    house: House

    @property
    def gates(self) -> dict[str, Pod]:
        """The replicas."""
        return self.namespace.pods(GATES)

    def upgrade(self, values: Json) -> None:
        """Upgrade the release to these values, and wait until that is done."""
        self.namespace.helm("upgrade", RELEASE, CHART, *WAIT, values=values)

    def ready(self) -> None:
        """Wait until there are as many replicas as there shall be, and each is ready."""
        self.namespace.kubectl("rollout", "status", DEPLOYMENT, "--timeout=120s")

    @property
    def store(self) -> Pod:
        """The pod of Redis."""
        (pod,) = self.namespace.pods("app=redis").values()
        return pod

    def leases(self) -> dict[str, str]:
        """Give when each reservation would expire, by its id."""
        return {each["id"]: each["lease_ends_at"] for each in self.ask("reservations", "list")}

    def ask(self, *command: str) -> Json:
        """Run an operator's command in a replica, and give its answer."""
        return json.loads(
            self.namespace.kubectl("exec", DEPLOYMENT, "--container", "extauthz", "--", "extauthz", *command, "--json")
        )

    def accounts(self) -> Mapping[str, Account]:
        """Give what the books say of each team."""
        return {
            budget["scope"].removeprefix("team:"): Account(
                *(round(budget[name] * NANOUSD_PER_USD) for name in ("limit_usd", "spent_usd", "held_usd"))
            )
            for budget in self.ask("budgets", "list", "team:")
        }

    @asynccontextmanager
    async def visitor(self, team: str) -> AsyncIterator[Visitor]:
        """Let a member of a team in while the block runs."""
        visitor = Visitor(self.house.url, key_of(team))
        async with visitor.connection:
            yield visitor

    @asynccontextmanager
    async def scene(self) -> AsyncIterator[Scene]:
        """Let in whom the demo's story is about, while the block runs."""
        async with (
            self.visitor("students") as students,
            self.visitor("lab") as lab,
            aiohttp.ClientSession() as session,
        ):
            yield Scene(students, lab, Books(self.house, session))

    async def balanced(self, hung_up: int = 0) -> None:
        """Wait until nothing is held, and prove the books: what was spent is what the upstream served.

        On each stream that was hung up on, the upstream may have said one word more than Envoy took.
        """

        async def settled() -> Json:
            audit = await asyncio.to_thread(self.ask, "audit")
            return audit if audit["reservations_open"] == 0 else None

        audit = await eventually(settled, SETTLE_SECONDS_MAX, "no reservation is open")
        accounts = (await asyncio.to_thread(self.accounts)).values()
        async with aiohttp.ClientSession() as session:
            served = (await Books(self.house, session).served(streamed_body(SLOW))).spent
        spent = sum(account.spent for account in accounts)
        assert audit["ok"], audit
        assert 0 == sum(account.held for account in accounts)
        assert 0 <= served - spent <= hung_up * WORD_NANOUSD, f"{served} nano-USD served, {spent} spent"


async def metrics(replica: Pod) -> Metrics:
    """Read the metrics of one replica."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{replica.ip}:9193/metrics") as page:
        return Metrics(await page.text())


@contextmanager
def installed(namespace: Namespace) -> Iterator[Installed]:
    """Install everything into a new namespace around the block."""
    keys = [{"key": key_of(team), "team": team} for team in BUDGETS_USD]
    namespace.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": RESTRICTED}}
    )
    try:
        namespace.apply(_secret("llm-keys", "keys.yaml", yaml.safe_dump(keys)), _secret("llm-token", "token", TOKEN))
        namespace.kubectl("apply", "-f", FOLDER / "neighbours.yaml")
        namespace.helm("install", RELEASE, CHART, *WAIT, values=configured())
        namespace.apply(_secret("envoy", "envoy.yaml", _bootstrap(namespace)))
        namespace.kubectl("apply", "-f", FOLDER / "envoy.yaml")
        namespace.kubectl("wait", "deployment", "--all", "--for=condition=Available", "--timeout=120s")
        yield Installed(namespace, _house(namespace))
    finally:
        namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")


def _bootstrap(namespace: Namespace) -> str:
    """Let a replica write Envoy's bootstrap, as NOTES.txt says."""
    suffix = f"{namespace.name}.svc.cluster.local"
    return namespace.kubectl(
        *("exec", DEPLOYMENT, "--container", "extauthz", "--", "extauthz", "envoy-config"),
        *("--config", "/etc/extauthz/config/config.yaml", "--listen", "0.0.0.0:8080"),
        *("--upstream", f"upstream.{suffix}:8000", "--extauthz", f"{RELEASE}-extauthz-headless.{suffix}:9191"),
    )


def _house(namespace: Namespace) -> House:
    gate = namespace.address(f"{RELEASE}-extauthz")
    nowhere = Address("127.0.0.1", 9901)  # of the pods' own loopback
    return House(
        policy=ModelsPolicy.FREE_ONLY,
        config=DEMO_CONFIG,
        upstream=Address(namespace.address("upstream"), 8000),
        grpc=Address(gate, 9191),
        admin=nowhere,
        http=Address(gate, 9193),
        envoy=Address(namespace.address("envoy"), 80),
        envoy_admin=nowhere,
    )


def _secret(name: str, key: str, text: str) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: text}}
