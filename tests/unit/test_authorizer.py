"""The decision about one request, from its facts to the verdict, on the memory ledger and without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from itertools import product
from pathlib import Path

import pytest

from extauthz.authorizer import STALE_WINDOWS_MAX, Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, Standing
from extauthz.domain.endpoints import Api
from extauthz.domain.listings import Listing
from extauthz.domain.policy import ModelsPolicy, OtherRoutes, StoreFailure
from extauthz.domain.prices import Prices
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Claim, Hold, Lease, promise_name
from extauthz.domain.verdict import (
    Admit,
    AnswerModels,
    Decision,
    Defer,
    Deny,
    ModelsView,
    Pass,
    Reason,
    Verdict,
    Word,
)
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Reserve, ReserveResult, StaleWindow
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY

# The last millisecond of a day, in UTC.
DAY_MS = 86_400_000
NOW_MS = 20_780 * DAY_MS - 1

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/house-model, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
  - model_name: known
    litellm_params: {{model: openai/known-model, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
    model_info: {{max_input_tokens: 8000, max_output_tokens: 4000}}
  - model_name: talkative
    litellm_params: {{model: openai/other-model, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}}
    model_info: {{max_input_tokens: 8000, max_output_tokens: 9000}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
general_settings:
  master_key: sk-admin
  budget_exceeded_models_policy: {policy}
  user_header_name: X-User
extauthz:
  store_failure: {store_failure}
  other: {other}
  global: {{max_budget: 100}}
  organizations: {{acme: {{max_budget: 50}}}}
  teams:
    broke: {{max_budget: 0}}
    trial: {{max_budget: 0, shadow_mode: true}}
    tight: {{max_budget: 0.0001}}
    strict: {{max_budget: 0.03, admission: strict}}
    frugal: {{models: [local-*]}}
    daily: {{max_budget: 1, budget_duration: 1d}}
    research:
      organization: acme
      budget_limits: [{{max_budget: 10, budget_duration: 1d}}, {{max_budget: 20, admission: strict}}]
      members: {{ana: {{max_budget: 5}}}}
  users: {{ana: {{max_budget: 0}}}}
  keys:
    - {{key: sk-broke, team: broke}}
    - {{key: sk-trial, team: trial}}
    - {{key: sk-tight, team: tight}}
    - {{key: sk-strict, team: strict}}
    - {{key: sk-frugal, team: frugal}}
    - {{key: sk-daily, team: daily}}
    - {{key: sk-rich}}
    - {{key: sk-ana, team: research, user: ana}}
    - {{key: sk-ana-alone, user: ana}}
  end_users: {{broke: {{max_budget: 0}}}}
"""


class RecordingLedger(MemoryLedger):
    """A memory ledger that remembers what it was asked to reserve."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: NOW_MS) -> None:
        super().__init__(clock_ms, SIGNING_KEY)
        self.requests: list[Reserve] = []
        self.payers: list[Sequence[Scope]] = []

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Remember who asks, then tell."""
        self.payers.append(payers)
        return await super().standings(limits)

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Remember, then reserve."""
        self.requests.append(request)
        return await super().reserve(request)


class AbsentLedger(RecordingLedger):
    """A store that does not answer."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Fail."""
        raise StoreUnavailableError

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Fail."""
        raise StoreUnavailableError


class SilentLedger(RecordingLedger):
    """A store that takes longer than anybody waits."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Never come back."""
        return await asyncio.Future()

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Never come back."""
        return await asyncio.Future()


class UntouchableLedger(RecordingLedger):
    """A store that must not be asked."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Fail the test."""
        raise AssertionError("the store was asked to reserve")

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Fail the test."""
        raise AssertionError("the store was asked for standings")


class LateLedger(RecordingLedger):
    """A store whose clock is some milliseconds ahead of what the process knows."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__(lambda: NOW_MS + ahead_ms)

    def now_ms(self) -> int:
        """Tell what the process believes."""
        return NOW_MS


class StaleLedger(RecordingLedger):
    """A store in whose eyes the windows are always wrong."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Ask for other windows."""
        self.requests.append(request)
        return StaleWindow(NOW_MS)


@dataclass(frozen=True, slots=True)
class Gate:
    """An authorizer with one configuration and one ledger."""

    authorizer: Authorizer
    ledger: RecordingLedger
    snapshot: Snapshot

    async def decide(self, facts: RequestFacts, reservation_id: str = "r", patience_s: float = 1.0) -> Decision:
        """Decide about a request."""
        return await self.authorizer.decide(facts, Call(reservation_id, "attempt", patience_s), self.snapshot)

    async def verdict(self, facts: RequestFacts, reservation_id: str = "r", patience_s: float = 1.0) -> Verdict:
        """Decide about a request, and give the verdict alone."""
        return (await self.decide(facts, reservation_id, patience_s)).verdict


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes gates; what is not said is the default of the configuration."""

    folder: Path

    def __call__(
        self,
        ledger: RecordingLedger | None = None,
        *,
        policy: ModelsPolicy = ModelsPolicy.BLOCKED,
        store_failure: StoreFailure = StoreFailure.DENY,
        other: OtherRoutes = OtherRoutes.PASS,
        more: str = "",
    ) -> Gate:
        """Make one."""
        file = self.folder / "config.yaml"
        file.write_text(CONFIG.format(policy=policy, store_failure=store_failure, other=other) + more)
        snapshot = load(file, {})
        ledger = ledger or RecordingLedger()
        return Gate(Authorizer(ledger, UsualAnswer(UsualTokens(100), UsualTokens(0))), ledger, snapshot)


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    """Give the maker of gates."""
    return Builder(tmp_path)


def get(path: str, key: str | None = "sk-rich", **headers: str) -> RequestFacts:
    """Ask for something, as Envoy sees it."""
    sent = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    return RequestFacts("GET", path, sent if key is None else sent | {"authorization": (f"Bearer {key}",)})


def pruned(facts: RequestFacts) -> RequestFacts:
    """Ask on a route that the response filter stands on."""
    return RequestFacts(facts.method, facts.path, facts.headers, context={"extauthz.prune": "on"})


def chat(
    key: str | None = "sk-rich", model: object = "gpt-4o", *, unseen_bytes: int = 0, **fields: object
) -> RequestFacts:
    """Ask a model something, as Envoy sees it; `fields` are the body's, those that begin with `x_` headers."""
    headers = {name.replace("_", "-"): (str(value),) for name, value in fields.items() if name.startswith("x_")}
    more = {name: value for name, value in fields.items() if not name.startswith("x_")}
    if key is not None:
        headers["authorization"] = (f"Bearer {key}",)
    body = {"model": model, "messages": [{"role": "user", "content": "Hello."}], **more}
    raw = json.dumps(body).encode()
    return RequestFacts("POST", "/v1/chat/completions", headers, raw, unseen_bytes)


def post(path: str, **body: object) -> RequestFacts:
    """Ask another endpoint something, as Envoy sees it."""
    return RequestFacts("POST", path, {"authorization": ("Bearer sk-rich",)}, json.dumps(body).encode())


def call(path: str, key: str = "sk-rich", **body: object) -> RequestFacts:
    """Ask another endpoint something with a key of one's own."""
    return RequestFacts("POST", path, {"authorization": (f"Bearer {key}",)}, json.dumps(body).encode())


LIST = "/v1/models"


@dataclass(frozen=True, slots=True)
class Row:
    """A request, and what becomes of it: the kind of verdict, its reason, and the status of a refusal."""

    name: str
    facts: RequestFacts
    kind: type[Verdict]
    reason: Reason
    status: int | None = None
    policy: ModelsPolicy = ModelsPolicy.BLOCKED
    other: OtherRoutes = OtherRoutes.PASS
    ledger: type[RecordingLedger] = RecordingLedger
    store_failure: StoreFailure = StoreFailure.DENY
    reservation_id: str = "r"
    before: tuple[RequestFacts, ...] = ()

    def __str__(self) -> str:
        return self.name


def refused(name: str, facts: RequestFacts, reason: Reason, status: int, **rest: object) -> Row:
    """Give the row of a refusal."""
    return Row(name, facts, Deny, reason, status, **rest)  # type: ignore[arg-type]


ALL, FREE_ONLY = ModelsPolicy.ALL, ModelsPolicy.FREE_ONLY
FREE, SPENT, WITHIN = Reason.FREE_MODEL, Reason.BUDGET_EXCEEDED, Reason.WITHIN_BUDGET

ROWS = (
    Row("health", get("/health", None), Pass, Reason.INFO),
    Row("another route", get("/metrics", None), Pass, Reason.OTHER_ROUTE),
    Row("another route, known key", get("/metrics"), Pass, Reason.OTHER_ROUTE, other=OtherRoutes.AUTHENTICATE),
    refused("another route, no key", get("/m", None), Reason.UNAUTHENTICATED, 401, other=OtherRoutes.AUTHENTICATE),
    refused("another route, closed", get("/metrics"), Reason.ROUTE_CLOSED, 403, other=OtherRoutes.DENY),
    Row("the list", get(LIST), Pass, Reason.DISCOVERY),
    refused("the list, no key", get(LIST, None), Reason.UNAUTHENTICATED, 401),
    refused("the list, unknown key", get(LIST, "sk-nobody"), Reason.UNAUTHENTICATED, 401, policy=ALL),
    refused("the list, two keys", get(LIST, x_api_key="sk-ana"), Reason.BAD_REQUEST, 400),
    refused("the list, two end users", get(LIST, x_user="one,two"), Reason.BAD_REQUEST, 400),
    refused("exhausted list", get(LIST, "sk-broke"), Reason.BUDGET_EXCEEDED, 429),
    refused("exhausted end user's list", get(LIST, x_user="broke"), Reason.BUDGET_EXCEEDED, 429),
    Row("exhausted list, all", get(LIST, "sk-broke"), Pass, Reason.DISCOVERY, policy=ALL),
    Row("exhausted list, filter", pruned(get(LIST, "sk-broke")), Pass, Reason.DISCOVERY_PRUNED, policy=FREE_ONLY),
    Row("exhausted list, direct", get(LIST, "sk-broke"), AnswerModels, Reason.DISCOVERY_PRUNED, policy=FREE_ONLY),
    Row("free entry", get(f"{LIST}/local-llama", "sk-broke"), Pass, Reason.DISCOVERY_PRUNED, policy=FREE_ONLY),
    refused("paid entry", get(f"{LIST}/gpt-4o", "sk-broke"), Reason.MODEL_HIDDEN, 404, policy=FREE_ONLY),
    Row("admin's list", get(LIST, "sk-admin"), Pass, Reason.DISCOVERY),
    Row("a free model", chat("sk-broke", "local-llama"), Pass, Reason.FREE_MODEL),
    refused("a free model, cut", chat("sk-broke", "local-llama", unseen_bytes=1), Reason.BUDGET_EXCEEDED, 429),
    refused("a free model, no key", chat(None, "local-llama"), Reason.UNAUTHENTICATED, 401),
    Row("a paid model", chat(), Admit, Reason.WITHIN_BUDGET),
    refused("a paid model, exhausted", chat("sk-broke"), Reason.BUDGET_EXCEEDED, 429),
    refused("a paid model, held out", chat("sk-tight"), Reason.BUDGET_HELD, 429, before=(chat("sk-tight"),)),
    refused("too dear for any strict budget", chat("sk-strict", max_tokens=4000), Reason.REQUEST_TOO_DEAR, 429),
    refused(
        "held out of a strict budget",
        chat("sk-strict", max_tokens=1500),
        Reason.BUDGET_HELD,
        429,
        before=(chat("sk-strict", max_tokens=1500),),
    ),
    Row("a user's budget on a team's key", chat("sk-ana"), Admit, Reason.WITHIN_BUDGET),
    refused("a user's budget on their own key", chat("sk-ana-alone"), Reason.BUDGET_EXCEEDED, 429),
    Row("admin", chat("sk-admin"), Admit, Reason.ADMIN),
    refused("an unknown model", chat(model="gpt-5"), Reason.MODEL_UNKNOWN, 400),
    refused("a model of others", chat("sk-frugal"), Reason.MODEL_NOT_ALLOWED, 403),
    refused(
        "a fallback of others", chat("sk-frugal", "local-llama", fallbacks=["gpt-4o"]), Reason.MODEL_NOT_ALLOWED, 403
    ),
    Row("a model of theirs", chat("sk-frugal", "local-llama"), Pass, Reason.FREE_MODEL),
    Row("a stored thing, exhausted", get("/v1/files/f-1", "sk-broke"), Pass, Reason.UNBILLED),
    Row("a result, exhausted", get("/v1/responses/resp_1", "sk-broke"), Pass, Reason.UNBILLED),
    Row("tokens counted", call("/v1/messages/count_tokens", "sk-broke", model="gpt-4o"), Pass, Reason.UNBILLED),
    refused("a stored thing, no key", get("/v1/files/f-1", None), Reason.UNAUTHENTICATED, 401),
    Row("an unknown call", call("/v1/unknown"), Admit, Reason.WITHIN_BUDGET),
    refused("an unknown call of a free model", call("/v1/unknown", "sk-broke", model="local-llama"), SPENT, 429),
    refused("a film of a free model", call("/v1/videos/v/remix", "sk-broke", model="local-llama"), SPENT, 429),
    refused("a run of a free model", call("/v1/threads/runs", "sk-broke", model="local-llama"), SPENT, 429),
    refused("a stored prompt", call("/v1/responses", "sk-broke", model="local-llama", prompt_id="p"), SPENT, 429),
    Row("a known call elsewhere", call("/x/chat/completions", "sk-broke", model="local-llama"), Pass, FREE),
    Row("a free model at its server", call("/invocations", "sk-broke", model="local-llama"), Pass, FREE),
    refused("a paid model at its server, no key", call("/invocations", "sk-nobody"), Reason.UNAUTHENTICATED, 401),
    refused("two readings, a free model", call("/v1/./unknown", "sk-broke", model="local-llama"), SPENT, 429),
    refused("no reading, a free model", call("/engines%252Fgpt-4o", "sk-broke", model="local-llama"), SPENT, 429),
    refused(
        "another model in the path", call("//engines/gpt-4o/completions", model="local-llama"), Reason.BAD_REQUEST, 400
    ),
    refused("an unknown call, exhausted", call("/v1/unknown", "sk-broke"), Reason.BUDGET_EXCEEDED, 429),
    refused("an unknown call, two readings", call("/v1/./unknown"), Reason.BAD_REQUEST, 400),
    refused("an unknown read", get("/v1/unknown"), Reason.BAD_REQUEST, 400),
    Row("a batch", call("/v1/batches", input_file_id="f-1"), Admit, Reason.WITHIN_BUDGET),
    refused("a batch of a free model", call("/v1/batches", "sk-broke", model="local-llama"), SPENT, 429),
    Row("a realtime session", get("/v1/realtime?model=gpt-4o", upgrade="websocket"), Admit, Reason.WITHIN_BUDGET),
    refused("a session of nobody", get("/v1/realtime", upgrade="websocket"), Reason.BAD_REQUEST, 400),
    refused("a session of two", get("/v1/realtime?model=local-llama&deployment=gpt-4o"), Reason.BAD_REQUEST, 400),
    Row("a model of the path", call("/v1beta/models/gpt-4o:generateContent", contents=[]), Admit, WITHIN),
    refused("no model", chat(model=None), Reason.BAD_REQUEST, 400),
    refused("two models", chat(x_litellm_model="local-llama"), Reason.BAD_REQUEST, 400),
    refused("ended before", chat(), Reason.ALREADY_ENDED, 503, reservation_id="ended"),
    refused("store away", chat(), Reason.STORE_UNAVAILABLE, 503, ledger=AbsentLedger),
    Row(
        "store away, allowed",
        chat(),
        Admit,
        Reason.STORE_FAILURE_ALLOWED,
        ledger=AbsentLedger,
        store_failure=StoreFailure.ALLOW,
    ),
    Row(
        "store away, deferred",
        chat(),
        Defer,
        Reason.STORE_UNAVAILABLE,
        ledger=AbsentLedger,
        store_failure=StoreFailure.DEFER,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_decide(build: Builder, row: Row) -> None:
    """Each request gets its verdict, its reason and its status."""
    gate = build(row.ledger(), policy=row.policy, other=row.other, store_failure=row.store_failure)
    await gate.ledger.release("ended")
    for number, facts in enumerate(row.before):
        await gate.decide(facts, f"before-{number}")
    verdict = await gate.verdict(row.facts, row.reservation_id)

    assert (row.kind, row.reason) == (type(verdict), verdict.reason)
    assert row.status == (verdict.status if isinstance(verdict, Deny) else None)


def test_every_reason_has_its_row() -> None:
    """The table leaves out only the failure that the adapter answers for, and what has tables of its own."""
    identity = {Reason.PAYER_UNKNOWN, Reason.KEYS_UNAVAILABLE, Reason.KEY_BLOCKED, Reason.KEY_EXPIRED}
    identity |= {Reason.DIRECTORY_UNAVAILABLE}
    elsewhere = {Reason.INTERNAL_ERROR, Reason.SHADOW_MODE, Reason.MODEL_UNPRICED, *identity}
    assert set(Reason) - {row.reason for row in ROWS} == elsewhere


SHADOW = "  shadow_mode: true\n"
# What is kept from happening, and not only told of as it happens.
UNSHADOWED = (Reason.STORE_UNAVAILABLE, Reason.STORE_FAILURE_ALLOWED)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_shadow_mode_refuses_nothing_and_tells_what_it_would_have_been(build: Builder, row: Row) -> None:
    """In shadow mode each request of the table goes on with nothing hidden, and its own verdict is told beside it."""
    gate = build(row.ledger(), policy=row.policy, other=row.other, store_failure=row.store_failure, more=SHADOW)
    await gate.ledger.release("ended")
    for number, facts in enumerate(row.before):
        await gate.decide(facts, f"before-{number}")
    decision = await gate.decide(row.facts, row.reservation_id)

    match decision.verdict:
        case Admit():
            pass
        case Pass(models=models):
            assert models is None
        case refusal:
            raise AssertionError(f"shadow mode let {refusal} happen")
    told = (type(decision.judged), decision.judged.reason)
    if row.reason in UNSHADOWED:
        assert told == (Admit, Reason.STORE_FAILURE_ALLOWED) or row.facts.path == LIST
    else:
        assert told == (row.kind, row.reason)
    hides = isinstance(decision.judged, Pass) and decision.judged.models is not None
    refuses = not isinstance(decision.judged, Pass | Admit) or hides
    assert decision.word is (Word.SHADOW_DENY if refuses else Word.ALLOW)


async def test_shadow_mode_keeps_the_books(build: Builder) -> None:
    """What would have been refused is held all the same, above every limit, on every scope of who asks."""
    gate = build(more=SHADOW)

    decision = await gate.decide(chat("sk-broke"))

    assert isinstance(decision.verdict, Admit)
    (open_one,) = await gate.ledger.reservations(10)
    cost_nanousd = decision.verdict.hold.estimate.cost_nanousd
    assert {amount for _, amount in open_one.amounts} == {cost_nanousd}
    assert {str(counter.scope) for counter, _ in open_one.amounts} == {str(scope) for scope in decision.payers}


async def test_an_unknown_model_is_held_at_the_unknown_price_in_shadow_mode(build: Builder) -> None:
    """A model that the configuration lacks may be served by the upstream: its cost is counted, not forgotten."""
    decision = await build(more=SHADOW).decide(chat(model="made-up"))

    assert isinstance(decision.verdict, Admit)
    assert decision.judged.reason is Reason.MODEL_UNKNOWN
    prices = decision.verdict.hold.prices
    assert (prices.input, prices.output) == (Decimal("0.00003"), Decimal("0.00018"))


async def test_shadow_mode_of_a_team_is_its_own(build: Builder) -> None:
    """A team in shadow mode is let through, another is not."""
    gate = build()

    trial, broke = await gate.decide(chat("sk-trial"), "r1"), await gate.decide(chat("sk-broke"), "r2")

    assert (Word.SHADOW_DENY, Word.DENY) == (trial.word, broke.word)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v1/chat/completions", Word.SHADOW_DENY),
        ("/V1/Chat/Completions?x=1", Word.SHADOW_DENY),
        ("/v1/chatty/completions", Word.DENY),
        ("/v1/completions", Word.DENY),
        ("/v1/chat/../completions", Word.DENY),
        ("/v1/chat/%2e%2e/completions", Word.DENY),
        ("/v1/chat/completions;x", Word.DENY),
    ],
)
async def test_shadow_mode_of_a_path(build: Builder, path: str, word: Word) -> None:
    """A path in shadow mode is one with a single reading; any other is refused as everywhere."""
    facts = replace(chat("sk-broke"), path=path)

    assert word is (await build(more="  shadow_paths: [/v1/chat]\n").decide(facts)).word


async def test_shadow_mode_of_a_route(build: Builder) -> None:
    """Envoy's route says so by a context extension, which no client can write."""
    facts = replace(chat("sk-broke"), context={"extauthz.shadow_mode": "on"})

    assert Word.SHADOW_DENY is (await build().decide(facts)).word


async def test_what_a_decision_says_of_its_request(build: Builder) -> None:
    """Route class, payer and model stand beside the verdict; a name that nobody knows means no entry of the list."""
    known = await build().decide(chat("sk-daily"))
    unknown = await build().decide(chat("sk-daily", "made-up"))

    assert ("inference", f"key {sha256(b'sk-daily').hexdigest()[:8]}", "gpt-4o") == (
        known.route_class,
        known.principal,
        known.model,
    )
    assert (unknown.model, unknown.entry) == ("made-up", None)
    assert [str(scope) for scope in known.payers] == [
        "global",
        "team:daily",
        f"key:{sha256(b'sk-daily').hexdigest()}",
    ]
    assert known.estimate is not None


# -------------------------------------------------------------------------------------------------------- discovery


async def test_discovery_says_who_pays(build: Builder) -> None:
    """Books in shards are found by the scopes of the principal, the organization without a budget among them."""
    gate = build()

    await gate.verdict(get(LIST, "sk-ana"))

    (payers,) = gate.ledger.payers
    key = f"key:{sha256(b'sk-ana').hexdigest()}"
    assert ["global", "org:acme", "team:research", "member:research/ana", "user:ana", key] == [*map(str, payers)]


async def test_discovery_under_all_never_touches_the_store(build: Builder) -> None:
    """Under `all` the list is open, whatever became of the store."""
    gate = build(UntouchableLedger(), policy=ALL)

    assert Pass(Reason.DISCOVERY) == await gate.verdict(get(LIST, "sk-broke"))
    assert Pass(Reason.DISCOVERY) == await gate.verdict(get(f"{LIST}/gpt-4o", "sk-broke"))
    assert Reason.FREE_MODEL == (await gate.verdict(chat("sk-broke", "local-llama"))).reason


async def test_pruning_relies_on_the_filter_only_where_it_stands(build: Builder) -> None:
    """With the context extension the filter prunes; without it the answer is made here."""
    gate = build(policy=FREE_ONLY)

    filtered = await gate.verdict(pruned(get(LIST, "sk-broke")))
    assert Pass(Reason.DISCOVERY_PRUNED, ModelsView.FREE_ONLY, Listing()) == filtered
    assert AnswerModels(Reason.DISCOVERY_PRUNED, ("local-llama",)) == await gate.verdict(get(LIST, "sk-broke"))


# ---------------------------------------------------------------------------------------------------- store failures

EXPECTED = {
    StoreFailure.DENY: (Deny, Reason.STORE_UNAVAILABLE),
    StoreFailure.ALLOW: (Pass, Reason.STORE_FAILURE_ALLOWED),
    StoreFailure.DEFER: (Defer, Reason.STORE_UNAVAILABLE),
}


@pytest.mark.parametrize("ledger", [AbsentLedger, SilentLedger])
@pytest.mark.parametrize(("store_failure", "policy"), list(product(StoreFailure, ModelsPolicy)))
async def test_without_the_store(
    build: Builder, ledger: type[RecordingLedger], store_failure: StoreFailure, policy: ModelsPolicy
) -> None:
    """The rule decides about paid inference and `blocked` discovery; free models and open lists go on."""
    gate = build(ledger(), store_failure=store_failure, policy=policy)
    inference = await gate.verdict(chat(), patience_s=0.01)
    discovery = await gate.verdict(pruned(get(LIST)), patience_s=0.01)

    kind, reason = EXPECTED[store_failure]
    assert (Admit if kind is Pass else kind, reason) == (type(inference), inference.reason)
    match policy:
        case ModelsPolicy.ALL:
            assert Pass(Reason.DISCOVERY) == discovery
        case ModelsPolicy.FREE_ONLY:
            assert Pass(Reason.DISCOVERY_PRUNED, ModelsView.FREE_ONLY, Listing()) == discovery
        case ModelsPolicy.BLOCKED:
            assert (kind, reason) == (type(discovery), discovery.reason)
    free = await gate.verdict(chat(model="local-llama"), patience_s=0.01)
    assert (Pass, Reason.FREE_MODEL) == (type(free), free.reason)


async def test_what_is_allowed_without_the_store_is_booked_later(build: Builder) -> None:
    """`allow` lets the hold travel, so that the settle finds where to book."""
    gate = build(AbsentLedger(), store_failure=StoreFailure.ALLOW)
    verdict = await gate.verdict(chat(stream=True), "late")

    assert isinstance(verdict, Admit)
    assert "late" == verdict.hold.id
    assert {"global|lifetime", f"key:{sha256(b'sk-rich').hexdigest()}|lifetime"} == _keys(verdict.hold)
    assert '{"include_usage":true}' == verdict.stream_options


# ---------------------------------------------------------------------------------------------------------- windows


async def test_the_stores_clock_decides_about_the_window(build: Builder) -> None:
    """When the store is a millisecond ahead, into the next day, the hold is taken in its day."""
    ledger = LateLedger(ahead_ms=1)
    verdict = await build(ledger).verdict(chat("sk-daily"))

    assert isinstance(verdict, Admit)
    assert [
        f"team:daily|1d|{NOW_MS + 1 - DAY_MS}|{NOW_MS + 1}",
        f"team:daily|1d|{NOW_MS + 1}|{NOW_MS + 1 + DAY_MS}",
    ] == [counter.key for request in ledger.requests for counter in request.hold.counters if counter.window.end_ms]
    assert NOW_MS + 1 == verdict.hold.reserved_at_ms


async def test_a_window_that_is_stale_for_good(build: Builder) -> None:
    """The windows are computed anew twice, then the answer is 503 and nothing is held."""
    ledger = StaleLedger()
    verdict = await build(ledger).verdict(chat("sk-daily"))

    assert isinstance(verdict, Deny)
    assert (503, Reason.STORE_UNAVAILABLE, True) == (verdict.status, verdict.reason, verdict.should_retry)
    assert 1 + STALE_WINDOWS_MAX == len(ledger.requests) == 3
    assert 0 == await ledger.open_count()


@pytest.mark.parametrize(
    ("now_ms", "listed", "asked"),
    [
        pytest.param(NOW_MS, Reason.DISCOVERY, Reason.WITHIN_BUDGET, id="last millisecond"),
        pytest.param(NOW_MS + 1, Reason.BUDGET_EXCEEDED, Reason.BUDGET_EXCEEDED, id="over"),
    ],
)
async def test_an_increase_binds_until_it_ends(build: Builder, now_ms: int, listed: Reason, asked: Reason) -> None:
    """Model lists and requests go by the higher limit up to the millisecond before its end."""
    more = "  anonymous: {max_budget: 0, temp_budget_increase: 1, temp_budget_expiry: 2026-11-23T00:00:00Z}\n"
    gate = build(RecordingLedger(lambda: now_ms), more=more)

    assert [listed, asked] == [(await gate.verdict(facts)).reason for facts in (get(LIST, None), chat(None))]


# ------------------------------------------------------------------------------------------------------- end users


@pytest.mark.parametrize(
    ("facts", "scopes"),
    [
        pytest.param(chat(user="ben"), {"end_user:ben"}, id="body"),
        pytest.param(chat(x_user="ana"), {"end_user:ana"}, id="the operator's header"),
        pytest.param(chat(x_litellm_end_user_id="eva"), {"end_user:eva"}, id="LiteLLM's header"),
        pytest.param(chat(x_user="ana", user="ben"), {"end_user:ana"}, id="the header before the body"),
        pytest.param(chat(), set(), id="nobody"),
    ],
)
async def test_end_users(build: Builder, facts: RequestFacts, scopes: set[str]) -> None:
    """A request pays for one end user: whom a header names, else whom the body names."""
    verdict = await build().verdict(facts)

    assert isinstance(verdict, Admit)
    assert scopes == {key.partition("|")[0] for key in _keys(verdict.hold) if key.startswith("end_user")}


@pytest.mark.parametrize("facts", [chat(user="broke"), chat(x_user="broke")], ids=["body", "header"])
async def test_an_end_users_budget_binds(build: Builder, facts: RequestFacts) -> None:
    """An exhausted end user is refused by name, wherever the name stands."""
    verdict = await build().verdict(facts)

    assert isinstance(verdict, Deny)
    assert "end_user:broke" == verdict.scope


# ----------------------------------------------------------------------------------------------------------- holds

INPUT, OUTPUT = Decimal("0.000001"), Decimal("0.00001")


async def test_what_a_reservation_asks_for(build: Builder) -> None:
    """Each scope is asked for its part: limited ones up to their limits, strict ones for the whole maximum."""
    gate = build()
    verdict = await gate.verdict(chat("sk-ana", max_tokens=200, stream=True), "mine")
    (request,) = gate.ledger.requests

    assert isinstance(verdict, Admit)
    hold = verdict.hold
    assert request.hold == hold
    assert ("mine", NOW_MS, "gpt-4o", True) == (hold.id, hold.reserved_at_ms, hold.model, hold.streamed)
    assert Prices(INPUT, OUTPUT) == hold.prices
    expected, most = hold.estimate.cost_nanousd, hold.estimate.cost_nanousd_max
    assert 100 == hold.estimate.output_tokens
    assert hold.estimate.input_tokens * 1_000 + 100 * 10_000 == expected
    assert 200 * 10_000 < most
    assert ("attempt", NOW_MS + 1000, Lease(120_000, NOTHING_SPENT)) == (
        request.attempt,
        request.not_after_ms,
        request.lease,
    )
    assert {
        ("global|lifetime", 100_000_000_000, expected, False),
        ("org:acme|lifetime", 50_000_000_000, expected, False),
        (f"team:research|1d|{NOW_MS + 1 - DAY_MS}|{NOW_MS + 1}", 10_000_000_000, expected, False),
        ("team:research|lifetime", 20_000_000_000, most, True),
        ("member:research/ana|lifetime", 5_000_000_000, expected, False),
        ("user:ana|lifetime", None, expected, False),
        (f"key:{sha256(b'sk-ana').hexdigest()}|lifetime", None, expected, False),
    } == {_claim(claim) for claim in request.claims}
    assert 5_000_000_000 - expected == verdict.available_nanousd
    assert ["global", "org:acme", "team:research", "team:research", "member:research/ana"] == [
        counter.scope.text for counter in verdict.limited
    ]
    assert '{"include_usage":true}' == verdict.stream_options


@pytest.mark.parametrize(
    ("facts", "tokens_max"),
    [
        pytest.param(chat(model="known"), 8_000, id="the context"),
        pytest.param(chat(model="known", n=3), 24_000, id="of each answer"),
        pytest.param(chat(model="talkative"), 9_000, id="or the longest answer, if longer than what goes in"),
        pytest.param(chat(model="gpt-4o"), None, id="nobody knows the context"),
        pytest.param(chat(model="known", fallbacks=["gpt-4o"]), None, id="nobody knows that of a fallback"),
        pytest.param(chat(model="known", unseen_bytes=1), None, id="the unseen end may name another model"),
        pytest.param(
            post("/v1/completions", model="known", prompt=["a", "b"], n=2), 32_000, id="of each answer to each prompt"
        ),
        pytest.param(
            post("/v1/embeddings", model="known", input=["a"] * 100), None, id="embeddings read many texts at once"
        ),
        pytest.param(
            post("/v1/responses", model="known", input="a", tools=[{"type": "web_search"}]),
            None,
            id="tools of the upstream go through the model again",
        ),
    ],
)
async def test_what_usage_can_be_at_most(build: Builder, facts: RequestFacts, tokens_max: int | None) -> None:
    """A hold says how many tokens of a kind its answer can have, where that is known: what is paid is never cut."""
    verdict = await build().verdict(facts)

    assert isinstance(verdict, Admit)
    assert tokens_max == verdict.hold.tokens_max


async def test_an_admin_is_counted_and_not_limited(build: Builder) -> None:
    """What the admin spends is counted on the global scope, and no budget binds it."""
    gate = build()
    verdict = await gate.verdict(chat("sk-admin"))
    (request,) = gate.ledger.requests

    assert isinstance(verdict, Admit)
    assert [("global|lifetime", None, verdict.hold.estimate.cost_nanousd, False)] == [*map(_claim, request.claims)]
    assert verdict.available_nanousd is None
    assert () == verdict.limited


async def test_a_refusal_holds_nothing(build: Builder) -> None:
    """Who is refused leaves nothing behind on any scope."""
    gate = build()
    await gate.verdict(chat("sk-ana-alone"))

    assert 1 == len(gate.ledger.requests)
    assert 0 == await gate.ledger.open_count()
    assert () == await gate.ledger.balances(10)


async def test_a_retried_check_is_one_reservation(build: Builder) -> None:
    """The same request asked twice holds its money once."""
    gate = build()
    first, second = await gate.verdict(chat(), "same"), await gate.verdict(chat(), "same")

    assert isinstance(first, Admit)
    assert isinstance(second, Admit)
    assert 1 == await gate.ledger.open_count()
    assert {first.hold.estimate.cost_nanousd} == {balance.held for balance in await gate.ledger.balances(10)}


def _keys(hold: Hold) -> set[str]:
    return {counter.key for counter in hold.counters}


def _claim(claim: Claim) -> tuple[str, int | None, int, bool]:
    return claim.counter.key, claim.limit, claim.amount, claim.whole


async def test_a_free_model_in_a_body_that_is_cut_is_held_at_the_dearest_price(build: Builder) -> None:
    """What is not seen may name another model, and the upstream may obey it."""
    verdict = await build().verdict(chat(model="local-llama", unseen_bytes=1))

    assert isinstance(verdict, Admit)
    assert Prices(INPUT, OUTPUT) == verdict.hold.prices
    assert verdict.hold.estimate.cost_nanousd > 0


async def test_what_nobody_can_estimate_is_held_flat(build: Builder) -> None:
    """An unknown call without a model holds the configured amount, at the price of an unknown model."""
    verdict = await build(more="  estimate: {flat_usd: 0.25}\n").verdict(call("/v1/unknown", x="text"))

    assert isinstance(verdict, Admit)
    expected = verdict.hold.estimate
    assert (expected.cost_nanousd, expected.cost_nanousd_max) == (250_000_000, 250_000_000)
    assert (verdict.hold.prices.input, verdict.hold.prices.output) == (Decimal("0.00003"), Decimal("0.00018"))
    assert not verdict.hold.model


async def test_a_batch_is_never_held_for_less(build: Builder) -> None:
    """A batch that names a model may run thousands of calls of it: it holds the flat amount at least."""
    verdict = await build().verdict(call("/v1/batches", model="gpt-4o"))

    assert isinstance(verdict, Admit)
    assert verdict.hold.estimate.cost_nanousd == 100_000_000


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", Api.OPENAI),
        ("/v1/messages", Api.ANTHROPIC),
        ("/v1beta/models/gpt-4o:generateContent", Api.GEMINI),
        ("/v1/files", Api.OPENAI),
    ],
)
async def test_whose_shape_a_refusal_has(build: Builder, path: str, api: Api) -> None:
    """Every decision says in which API's shape a refusal is written, also where nobody is known."""
    gate = build()

    for key in ("sk-broke", "sk-nobody"):
        assert api is (await gate.decide(call(path, key, model="gpt-4o"), key)).api


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1beta/models/gpt-4o:streamGenerateContent", True),
        ("/v1beta/models/gpt-4o:generateContent", False),
    ],
)
async def test_a_stream_that_the_path_asks_for(build: Builder, path: str, stream: bool) -> None:  # noqa: FBT001 - a column
    """The hold knows of a stream that no body asks for."""
    verdict = await build().verdict(call(path, contents=[]))

    assert isinstance(verdict, Admit)
    assert stream is verdict.hold.streamed


@pytest.mark.parametrize(
    ("key", "model", "told"),
    [("sk-rich", "gpt-4o", "gpt-4o"), ("sk-frugal", "gpt-4o", None), ("sk-rich", ["gpt-4o", "known"], None)],
)
async def test_the_model_whose_tokens_are_counted(build: Builder, key: str, model: object, told: str | None) -> None:
    """The upstream's credential goes by the model that is counted, as long as the principal may use it."""
    decision = await build().decide(call("/v1/messages/count_tokens", key, model=model))

    assert decision.verdict == Pass(Reason.UNBILLED)
    assert told == decision.model


@pytest.mark.parametrize(
    ("path", "result"), [("/v1/responses/resp_1", promise_name("resp_1")), ("/v1/files/resp_1", None)]
)
async def test_the_name_of_a_result(build: Builder, path: str, result: str | None) -> None:
    """A read that may show what came of a promise has its name, by which nobody finds out the id."""
    verdict = await build().verdict(get(path, "sk-rich"))

    assert Pass(Reason.UNBILLED, result=result) == verdict
    assert result is None or "resp_1" not in result


@pytest.mark.parametrize(
    ("facts", "passes"),
    [
        (RequestFacts("GET", "/v1/files", {}), False),
        (RequestFacts("DELETE", "/v1/responses/resp_1", {}), False),
        (RequestFacts("POST", "/v1/threads/x/messages", {}, b"{}"), False),
        (RequestFacts("GET", "/v1/responses/resp_1", {}), True),
        (RequestFacts("POST", "/v1/messages/count_tokens", {}, b'{"model":"gpt-4o"}'), True),
    ],
)
async def test_nobody_has_anything_stored(build: Builder, facts: RequestFacts, *, passes: bool) -> None:
    """Whoever sends no credential sees, and deletes, nothing that others have stored upstream."""
    verdict = await build(more="  anonymous: {max_budget: 1}\n").verdict(facts)

    assert isinstance(verdict, Pass if passes else Deny)
    assert verdict.reason is (Reason.UNBILLED if passes else Reason.UNAUTHENTICATED)
