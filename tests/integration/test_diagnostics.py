"""What operators ask a running server, over each store and each gRPC server: every call of Diagnostics.

Explain and WatchDecisions have files of their own: test_explain.py and test_watch.py.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.adapters.diagnostics import JOURNAL_READERS_MAX
from extauthz.config.load import load
from tests.support.gate import CALL_SECONDS_MAX, FREE, PAID, an_ending
from tests.support.operated import Office, operated, refused
from tests.support.processes import eventually
from tests.support.redis import RedisServer

INVALID, ABSENT, IMPOSSIBLE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)

BOOKS_WRONG = "the books are wrong: `extauthz audit` shows where, and `extauthz audit --rebuild` puts them right"

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
general_settings: {user_header_name: x-end-user}
extauthz:
  organizations: {acme: {max_budget: 500, budget_duration: 1mo}}
  teams:
    research: {max_budget: 10, soft_budget: 8, members: {ana: {max_budget: 2}}}
    lab:
      organization: acme
      budget_limits: [{max_budget: 1, budget_duration: 1d}, {max_budget: 5, budget_duration: 1mo}]
    broke: {max_budget: 0}
    open: {}
  users:
    ana: {max_budget: 5, temp_budget_increase: 0.5, temp_budget_expiry: 2020-01-01}
    bo@example.com: {max_budget: 3, temp_budget_increase: 0.5, temp_budget_expiry: 2099-12-31}
  keys:
    - {key: sk-team, team: research, user: ana}
    - {key: sk-lab, team: lab}
    - {key: sk-broke, team: broke}
  end_users: {default: {max_budget: 0.5}, dora: {max_budget: 1}}
"""

# Every budget of the configuration, in the order in which they are listed.
LISTED = [
    ("end_user:dora", "lifetime"),
    ("member:research/ana", "lifetime"),
    ("org:acme", "1mo"),
    ("team:broke", "lifetime"),
    ("team:lab", "1d"),
    ("team:lab", "1mo"),
    ("team:research", "lifetime"),
    ("user:ana", "lifetime"),
    ("user:bo%40example.com", "lifetime"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncIterator[RedisServer]:
    """Run the newest Redis for all tests of the module."""
    async with RedisServer() as server:
        yield server


@pytest_asyncio.fixture(
    loop_scope="module", params=[("memory", "native"), ("redis", "native"), ("redis", "grpcio")], ids="-".join
)
async def office(request: pytest.FixtureRequest, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    """Serve with empty books, on each store and each gRPC server."""
    store, server = request.param
    url = f"{redis.url}?tag={uuid.uuid4().hex}" if store == "redis" else store
    async with operated(tmp_path, f"{CONFIG}  store: '{url}'\n  server: {server}\n") as serving:
        yield serving


pytestmark = pytest.mark.asyncio(loop_scope="module")


def places(answer: pb.ListBudgetsResponse) -> list[tuple[str, str]]:
    """Give the scopes and windows of a page."""
    return [(budget.scope, budget.window) for budget in answer.budgets]


async def budget(office: Office, scope: str) -> pb.Budget:
    """Look at the only budget of a scope."""
    answer: pb.GetBudgetResponse = await office.call("GetBudget", scope=scope)
    (found,) = answer.budgets
    return found


class TestListBudgets:
    """All budgets, in pages."""

    async def test_in_order(self, office: Office) -> None:
        """Budgets come by scope and window, those of end users only where they are named."""
        assert LISTED == places(await office.call("ListBudgets"))

    @pytest.mark.parametrize("size", [1, 2, 4, 9])
    async def test_in_pages(self, office: Office, size: int) -> None:
        """Pages of any size give the same list, each budget once, and the last one says that it is."""
        pages, token = [], ""
        for _ in LISTED:
            page = await office.call("ListBudgets", page_size=size, page_token=token)
            pages.append(places(page))
            token = page.next_page_token
            if not token:
                break

        assert "" == token
        assert LISTED == [place for page in pages for place in page]
        assert all(len(page) == size for page in pages[:-1])

    @pytest.mark.parametrize(
        ("prefix", "found"),
        [
            pytest.param("team:", LISTED[3:7], id="a kind"),
            pytest.param("team:lab", LISTED[4:6], id="a scope"),
            pytest.param("member:research/", LISTED[1:2], id="a team's members"),
            pytest.param("user:bo@", LISTED[8:], id="as people write it"),
            pytest.param("user:bo%40", LISTED[8:], id="as it is listed"),
            pytest.param("key:", [], id="none"),
        ],
    )
    async def test_by_prefix(self, office: Office, prefix: str, found: list[tuple[str, str]]) -> None:
        """Only scopes that begin with the prefix are listed, written as people do or as the list does."""
        assert found == places(await office.call("ListBudgets", prefix=prefix))

    async def test_by_use(self, office: Office) -> None:
        """Only budgets that are used as much as asked are listed, page by page like the others."""
        for scope in ("team:research", "user:ana"):
            await office.call("SetLimit", scope=scope, limit_usd=0.01)
        await office.check(PAID)

        used = await office.call("ListBudgets", used_share_min=0.5, page_size=1)
        rest = await office.call("ListBudgets", used_share_min=0.5, page_token=used.next_page_token)

        assert [("team:research", "lifetime"), ("user:ana", "lifetime")] == places(used) + places(rest)
        assert "" == rest.next_page_token

    async def test_end_users_that_spend(self, office: Office) -> None:
        """An end user with the default budget is listed once money is held for it, and asked for at any time."""
        assert 0.5 == (await budget(office, "end_user:carl")).limit_usd
        await office.check(PAID, more_headers={"x-end-user": "carl"})

        async def listed() -> bool:
            return ("end_user:carl", "lifetime") in places(await office.call("ListBudgets", prefix="end_user:"))

        await eventually(listed, what="the end user is listed")


class TestGetBudget:
    """One scope."""

    async def test_as_it_stands(self, office: Office) -> None:
        """A budget is shown with what it is configured as, and what is held of it now."""
        await office.check(PAID)
        found = await budget(office, "team:research")

        assert ("team:research", "lifetime", 10.0, 10.0, 8.0, 0.0, False) == (
            found.scope,
            found.window,
            found.limit_usd,
            found.configured_limit_usd,
            found.soft_limit_usd,
            found.spent_usd,
            found.exhausted,
        )
        assert 0 < found.held_usd == pytest.approx(10 - found.available_usd)
        assert not found.HasField("resets_at")

    async def test_several_windows(self, office: Office) -> None:
        """Each window is a budget of its own, and says when it ends."""
        days, months = (await office.call("GetBudget", scope="team:lab")).budgets

        assert ("1d", 1.0, "1mo", 5.0) == (days.window, days.limit_usd, months.window, months.limit_usd)
        assert 0 < days.resets_at.seconds <= months.resets_at.seconds
        assert not days.HasField("soft_limit_usd")

    @pytest.mark.parametrize(("scope", "limit_usd"), [("user:ana", 5.0), ("user:bo@example.com", 3.5)])
    async def test_an_increase(self, office: Office, scope: str, limit_usd: float) -> None:
        """An increase that has not ended is part of the limit, and of what is configured: nobody set it by hand."""
        found = await budget(office, scope)

        assert (limit_usd, limit_usd, limit_usd) == (
            found.limit_usd,
            found.configured_limit_usd,
            found.available_usd,
        )


class TestChanges:
    """Changes by hand."""

    async def test_a_limit(self, office: Office) -> None:
        """A limit holds from the next Check on, and without one the configured limit holds again."""
        before = await office.check(PAID)
        changed = await office.call("SetLimit", scope="team:research", limit_usd=0, who="eve")
        refused_ = await office.check(PAID)
        back = await office.call("SetLimit", scope="team:research", who="eve")
        after = await office.check(PAID)

        assert [0, 429, 0] == [answer.denied_response.status.code for answer in (before, refused_, after)]
        assert (True, 0.0, 10.0, True) == (
            changed.changed,
            changed.budget.limit_usd,
            changed.budget.configured_limit_usd,
            changed.budget.exhausted,
        )
        assert 10.0 == back.budget.limit_usd
        await eventually(lambda: len(office.lines("changed by hand")) == 2, what="the changes are logged")
        assert {
            "what": "limit",
            "subject": "team:research|lifetime",
            "who": "eve",
            "amount_usd": "0.0",
        }.items() <= office.lines("changed by hand")[0].items()

    async def test_a_grant(self, office: Office) -> None:
        """A grant raises the limit, on top of what else raised it."""
        await office.call("GrantBudget", scope="team:research", amount_usd=0.1)
        again = await office.call("GrantBudget", scope="team:research", amount_usd=0.2)

        assert (10.3, 10.0) == (again.budget.limit_usd, again.budget.configured_limit_usd)

    async def test_a_reset(self, office: Office) -> None:
        """A reset forgets what was spent; what is held stays held."""
        held = await office.check(PAID)
        answer = await office.call("ResetBudget", scope="team:research", window="lifetime")

        assert held.HasField("ok_response")
        assert 0 == answer.budget.spent_usd < answer.budget.held_usd

    @pytest.mark.parametrize(("window", "meant"), [("24h", None), ("1d", "1d"), ("daily", "1d"), ("monthly", "1mo")])
    async def test_a_window(self, office: Office, window: str, meant: str | None) -> None:
        """A window is named by any words for its length, and 24h is another than 1d."""
        if meant is None:
            with refused(IMPOSSIBLE, "no budget with the window 24h", "1d and 1mo"):
                await office.call("SetLimit", scope="team:lab", window=window, limit_usd=2)
            return
        answer = await office.call("SetLimit", scope="team:lab", window=window, limit_usd=2)

        assert (meant, 2.0) == (answer.budget.window, answer.budget.limit_usd)

    async def test_sent_twice(self, office: Office) -> None:
        """A change with the same name is made once, and the answer says so."""
        first = await office.call("GrantBudget", scope="team:research", amount_usd=1, change_id="ticket-7")
        again = await office.call("GrantBudget", scope="team:research", amount_usd=1, change_id="ticket-7")

        assert [(True, 11.0), (False, 11.0)] == [(one.changed, one.budget.limit_usd) for one in (first, again)]

    async def test_who_does_not_say(self, office: Office) -> None:
        """Who does not say its name is known by its address."""
        await office.call("ResetBudget", scope="team:research")
        await eventually(lambda: office.lines("changed by hand"), what="it is logged")

        assert "127.0.0.1" in office.lines("changed by hand")[0]["who"]


MISTAKES: list[tuple[str, dict[str, Any], grpc.StatusCode, tuple[str, ...]]] = [
    ("GetBudget", {"scope": "team:reserch"}, ABSENT, ("team:reserch has no budget", "did you mean `team:research`?")),
    ("GetBudget", {"scope": "team:open"}, ABSENT, ("team:open has no budget",)),
    ("GetBudget", {"scope": "global"}, ABSENT, ("global has no budget", "there are none")),
    ("GetBudget", {"scope": "research"}, INVALID, ("'research' is not a scope", "team:ID")),
    ("GetBudget", {"scope": ""}, INVALID, ("not a scope",)),
    ("GetBudget", {"scope": "user:" + "x" * 300}, INVALID, ("not a scope",)),
    ("SetLimit", {"scope": "team:lab", "limit_usd": 1}, INVALID, ("several budgets", "1d or 1mo")),
    ("SetLimit", {"scope": "team:research", "window": "1d", "limit_usd": 1}, IMPOSSIBLE, ("lifetime",)),
    ("SetLimit", {"scope": "team:research", "window": "soon", "limit_usd": 1}, INVALID, ("not a duration",)),
    ("SetLimit", {"scope": "team:research", "limit_usd": -1}, INVALID, ("`limit_usd`", "0 or more")),
    ("SetLimit", {"scope": "team:research", "limit_usd": float("nan")}, INVALID, ("`limit_usd`",)),
    ("SetLimit", {"scope": "team:research", "limit_usd": float("inf")}, INVALID, ("`limit_usd`",)),
    ("SetLimit", {"scope": "team:research", "limit_usd": 1e7}, INVALID, ("9007199.25",)),
    ("SetLimit", {"scope": "team:research", "limit_usd": 1, "who": "é" * 33}, INVALID, ("`who`", "64 bytes")),
    ("ResetBudget", {"scope": "team:research", "who": "eve\x1b[2J"}, INVALID, ("`who`", "cannot be shown")),
    ("SetLimit", {"scope": "team:research", "limit_usd": 1, "change_id": "a b"}, INVALID, ("`change_id`",)),
    ("GrantBudget", {"scope": "team:research"}, INVALID, ("above 0",)),
    ("GrantBudget", {"scope": "team:research", "amount_usd": 9_007_199}, INVALID, ("9007199.25",)),
    ("ResetBudget", {"scope": "team:nobody"}, ABSENT, ("team:nobody",)),
    ("ListBudgets", {"page_size": -1}, INVALID, ("`page_size`", "1000")),
    ("ListBudgets", {"page_size": 1001}, INVALID, ("`page_size`", "1000")),
    ("ListBudgets", {"page_token": "junk!"}, INVALID, ("`page_token`",)),
    ("ListBudgets", {"used_share_min": -0.1}, INVALID, ("`used_share_min`",)),
    ("ListReservations", {"limit": 1001}, INVALID, ("`limit`",)),
    ("ListReservations", {"scope": "research"}, INVALID, ("not a scope",)),
    ("ListReservations", {"age_seconds_min": -1}, INVALID, ("`age_seconds_min`",)),
    ("ListReservations", {"age_seconds_min": float("inf")}, INVALID, ("`age_seconds_min`",)),
    ("ReleaseReservation", {}, INVALID, ("`id`",)),
    ("ReleaseReservation", {"id": "nothing"}, ABSENT, ("'nothing'", "ListReservations")),
    ("GetStatus", {"budgets": 101}, INVALID, ("`budgets`", "ListBudgets")),
    ("SetLogLevel", {"level": "loud"}, INVALID, ("'loud'", "debug, info, warning, error")),
]


async def test_mistakes_say_what_to_do(office: Office) -> None:
    """Whatever an operator mistypes is a status and a sentence with what to write instead, and changes nothing."""
    before = await office.call("ListBudgets")
    for method, fields, code, words in MISTAKES:
        with refused(code, *words):
            await office.call(method, **fields)

    assert before == await office.call("ListBudgets")
    assert [] == office.lines("changed by hand")


class TestReservations:
    """Who holds what."""

    async def test_listed(self, office: Office) -> None:
        """Reservations come the oldest first, each with what the client saw of it and what it holds of each budget."""
        public = [seen(await office.check(PAID, key=key)) for key in ("sk-team", "sk-lab")]
        await office.check(FREE)
        answer = await office.call("ListReservations")

        assert public == [one.public_id for one in answer.reservations]
        assert len(answer.reservations) == answer.open
        first = answer.reservations[0]
        assert ("gpt-4o", True) == (first.model, first.lease_ends_at.seconds >= first.reserved_at.seconds > 0)
        assert {"team:research", "member:research/ana", "user:ana", "global"} <= {held.scope for held in first.held}
        assert (await budget(office, "team:research")).held_usd == next(
            held.held_usd for held in first.held if held.scope == "team:research"
        )

    async def test_filtered(self, office: Office) -> None:
        """A list can be of one scope, one model, one age and any length; how many are open in all is told as well."""
        for key in ("sk-team", "sk-lab", "sk-lab"):
            await office.check(PAID, key=key)

        async def count(**wanted: Any) -> tuple[int, int]:  # noqa: ANN401 - fields of the request
            answer = await office.call("ListReservations", **wanted)
            return len(answer.reservations), answer.open

        assert (2, 3) == await count(scope="team:lab")
        assert (1, 3) == await count(scope="user:ana")
        assert (0, 3) == await count(scope="team:broke")
        assert (3, 3) == await count(model=PAID)
        assert (0, 3) == await count(model="gpt-4")
        assert (0, 3) == await count(age_seconds_min=60)
        assert (1, 3) == await count(limit=1)

    @pytest.mark.parametrize("by", ["id", "public_id"])
    async def test_released(self, office: Office, by: str) -> None:
        """One is ended by either of its ids: its money is free again, and it is counted and logged as an operator's."""
        await office.check(PAID)
        (found,) = (await office.call("ListReservations")).reservations
        name: str = getattr(found, by)

        assert (await office.call("ReleaseReservation", id=name)).released
        assert 0 == (await budget(office, "team:research")).held_usd
        with refused(ABSENT, name, "ended"):
            await office.call("ReleaseReservation", id=name)
        metrics = await office.metrics()
        assert 1 == metrics.value("extauthz_reservations_ended_total", "released", "operator")
        await eventually(lambda: office.lines("changed by hand"), what="it is logged")
        assert found.public_id == office.lines("changed by hand")[0]["subject"]

    async def test_released_and_answered_all_the_same(self, office: Office) -> None:
        """What was served after an operator gave it up is booked, once, however often its end is told."""
        answer = await office.check(PAID)
        (found,) = (await office.call("ListReservations")).reservations
        assert (await office.call("ReleaseReservation", id=found.id)).released
        for _ in range(2):
            log = AccessLogServiceStub(office.gate).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
            await log.write(an_ending(answer, input_tokens=40, output_tokens=10))
            await log.done_writing()
            await log

        after = await budget(office, "team:research")
        assert (0.0002, 0) == (after.spent_usd, after.held_usd)
        assert (await office.call("Audit")).ok


class TestAudit:
    """Proof that the books are right."""

    async def test_right(self, office: Office) -> None:
        """Books in use are right, and the answer says how much was looked at."""
        await office.check(PAID)
        answer = await office.call("Audit")

        assert (True, 0.0, 1) == (answer.ok, answer.drift_usd, answer.reservations_open)
        assert answer.counters_checked >= answer.scopes_checked > 1
        assert 0 == (await office.metrics()).value("extauthz_audit_drift_usd")

    async def test_wrong(self, redis: RedisServer, tmp_path: Path) -> None:
        """A drift is named, and is in the metrics and the log until an audit finds the books right again."""
        tag = uuid.uuid4().hex
        async with operated(tmp_path, f"{CONFIG}  store: {redis.url}?tag={tag}\n") as office, redis.client() as client:
            await office.check(PAID)
            held = f"{{{tag}}}:held"
            await client.hincrby(held, "team:research|lifetime", 2_500_000_000)
            wrong = await office.call("Audit")
            drift = (await office.metrics()).value("extauthz_audit_drift_usd")
            await client.hincrby(held, "team:research|lifetime", -2_500_000_000)
            right = await office.call("Audit")
            await eventually(lambda: len(office.lines(BOOKS_WRONG)) == 1, what="the drift is logged")

            assert (False, True) == (wrong.ok, right.ok)
            assert 2.5 == wrong.drift_usd == drift
            (drift_found,) = wrong.drifts
            assert ("held", "team:research|lifetime") == (drift_found.of, drift_found.counter)
            assert 2.5 == pytest.approx(drift_found.found_usd - drift_found.expected_usd)
            assert 0 == (await office.metrics()).value("extauthz_audit_drift_usd")

    async def test_one_at_a_time(self, office: Office) -> None:
        """Audits that are asked for together all answer, one after the other."""
        answers = await asyncio.gather(*(office.call("Audit") for _ in range(5)))

        assert all(answer.ok for answer in answers)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("ListReservations", {"scope": "x" * 100_000}),
        ("GetBudget", {"scope": "ü" * 100_000}),
        ("SetLimit", {"scope": "team:research", "window": "ü" * 100_000, "limit_usd": 1}),
        ("SetLogLevel", {"level": "x" * 100_000}),
    ],
)
async def test_a_refusal_is_short(office: Office, method: str, fields: dict[str, Any]) -> None:
    """However long what was asked is, the sentence that refuses it gets through."""
    with refused(INVALID):
        await office.call(method, **fields)


class TestJournal:
    """What happened to money."""

    @pytest_asyncio.fixture(loop_scope="module", params=["native", "grpcio"])
    async def office(self, request: pytest.FixtureRequest, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
        """Serve with empty books on Redis."""
        store = f"{redis.url}?tag={uuid.uuid4().hex}"
        async with operated(tmp_path, f"{CONFIG}  store: {store}\n  server: {request.param}\n") as serving:
            yield serving

    async def test_read(self, office: Office) -> None:
        """All of it comes as lines of JSON, the checkpoint first, with who changed what; later ones alone if asked."""
        await office.call("GrantBudget", scope="team:research", amount_usd=1, who="eve")
        await office.check(PAID)
        (found,) = (await office.call("ListReservations")).reservations
        await office.call("ReleaseReservation", id=found.id)

        checkpoint, granted, released = [json.loads(answer.line) async for answer in office.stream("ReadJournal")]
        later = [json.loads(answer.line) async for answer in office.stream("ReadJournal", after=granted["at"])]

        assert "checkpoint" == checkpoint["how"]
        assert ("grant", "eve", 1_000_000_000) == (granted["how"], granted["who"], granted["cost_nanousd"])
        assert ("released", "operator", found.id) == (released["how"], released["signal"], released["id"])
        assert [released] == later

    async def test_followed(self, office: Office) -> None:
        """A reader that follows gets what happens from then on, and a stopping server ends it."""
        following = aiter(office.stream("ReadJournal", follow=True))
        assert "checkpoint" == json.loads((await anext(following)).line)["how"]
        await office.call("ResetBudget", scope="team:research")

        assert "reset" == json.loads((await anext(following)).line)["how"]

    async def test_readers_are_few(self, office: Office) -> None:
        """So many may follow at once; the next is told to come later, and gets in when one has gone."""
        readers = [office.stream("ReadJournal", follow=True) for _ in range(JOURNAL_READERS_MAX)]
        for reader in readers:
            await reader.read()
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "readers are at the journal already"):
            await office.stream("ReadJournal").read()
        readers[0].cancel()

        async def gets_in() -> bool:
            try:
                return [_ async for _ in office.stream("ReadJournal")] != []
            except grpc.aio.AioRpcError:
                return False

        await eventually(gets_in, what="another reader gets in")

    @pytest.mark.parametrize(
        ("asked", "words"),
        [({"after": "yesterday"}, ("`after`", "'yesterday'")), ({"shard": 1}, ("no shard 1", "0 to 0"))],
        ids=["a place that is none", "a shard that is none"],
    )
    async def test_mistakes(self, office: Office, asked: dict[str, Any], words: tuple[str, ...]) -> None:
        """A place or a shard that is none is named."""
        with refused(INVALID, *words):
            await office.stream("ReadJournal", **asked).read()

    async def test_in_memory(self, tmp_path: Path) -> None:
        """The memory store has no journal, and the answer says what has."""
        async with operated(tmp_path, CONFIG) as office:
            with refused(IMPOSSIBLE, "Redis"):
                await office.stream("ReadJournal").read()


class TestServer:
    """How a replica is, and what it goes by."""

    async def test_status(self, office: Office) -> None:
        """The status tells what was decided, what is held, the hottest budgets, the last refusals, and the store."""
        await office.check(PAID)
        await office.check(PAID, key="sk-broke")

        async def surveyed() -> pb.GetStatusResponse | None:
            status: pb.GetStatusResponse = await office.call("GetStatus", budgets=3)
            return status if status.reservations_open == 1 else None

        status = await eventually(surveyed, what="a survey has seen the reservation")
        assert status is not None
        memory = office.config.settings.store is None
        counts = {(count.decision, count.reason): count.count for count in status.decisions}

        assert {("allow", "within_budget"): 1, ("deny", "budget_exceeded"): 1} == counts
        assert status.held_usd == pytest.approx((await budget(office, "team:research")).held_usd)
        assert 3 == len(status.budgets)
        assert ["budget_exceeded"] == [denial.decision.reason for denial in status.denials]
        assert "memory" == status.store.url if memory else status.store.url.startswith("redis://127.0.0.1:")
        assert (True, 0, 0, False, False, "") == (
            status.store.up,
            status.store.errors,
            status.endings_waiting,
            status.draining,
            status.shadow_mode,
            status.config_refused,
        )
        assert 0 < status.check_seconds_p50 <= status.check_seconds_p99
        assert 0 < status.store.seconds_p50 <= status.store.seconds_p99
        assert office.config.digest == status.config_digest != ""
        assert status.version
        assert 0 < status.started_at.seconds >= status.config_loaded_at.seconds > 0

    async def test_config(self, office: Office, tmp_path: Path) -> None:
        """What is in force is written as a configuration that reads as the same one."""
        answer = await office.call("GetConfig")
        again = tmp_path / "again.yaml"
        again.write_text(answer.yaml, encoding="utf-8")

        loaded = load(again, {})

        assert office.config.settings == loaded.settings
        assert office.config.directory.accounts == loaded.directory.accounts
        assert office.config.catalog.source == loaded.catalog.source
        assert (office.config.digest, list(office.config.notices)) == (answer.digest, list(answer.notices))

    async def test_log_level(self, office: Office) -> None:
        """The level changes at once and for this process alone; without one it is only told."""
        assert "info" == (await office.call("SetLogLevel")).level
        assert "error" == (await office.call("SetLogLevel", level="error")).level
        await office.check(PAID, key="sk-broke")
        assert "info" == (await office.call("SetLogLevel", level="info")).level
        await office.check(PAID, key="sk-broke")
        await eventually(lambda: office.lines("denied"), what="a refusal is logged")

        assert 1 == len(office.lines("denied"))
        assert ["info"] == [line["subject"] for line in office.lines("changed by hand")]


async def test_the_log_begins_at_its_level(tmp_path: Path) -> None:
    """`log.level` of the configuration is where the log begins."""
    async with operated(tmp_path, f"{CONFIG}  log: {{level: warning}}\n") as office:
        assert "warning" == (await office.call("SetLogLevel")).level
        await office.check(PAID, key="sk-broke")

    assert "" == office.written.getvalue()


async def test_while_the_store_is_away(tmp_path: Path) -> None:
    """What needs the store is UNAVAILABLE and says so; what a replica knows by itself is told all the same."""
    async with RedisServer() as server, operated(tmp_path, f"{CONFIG}  store: {server.url}\n") as office:
        await office.call("ListBudgets")
        await server.kill()
        for method, fields in NEEDING_THE_STORE.items():
            with refused(grpc.StatusCode.UNAVAILABLE, "the store does not answer", "ask again"):
                await office.call(method, **fields)
        with refused(grpc.StatusCode.UNAVAILABLE, "the store does not answer"):
            await office.stream("ReadJournal").read()
        status = await office.call("GetStatus")

        assert not status.store.up
        assert status.store.errors > 0
        assert (await office.call("GetConfig")).yaml
        assert "info" == (await office.call("SetLogLevel")).level


NEEDING_THE_STORE: dict[str, dict[str, Any]] = {
    "ListBudgets": {},
    "GetBudget": {"scope": "team:research"},
    "SetLimit": {"scope": "team:research", "limit_usd": 1},
    "ResetBudget": {"scope": "team:research"},
    "GrantBudget": {"scope": "team:research", "amount_usd": 1},
    "ListReservations": {},
    "ReleaseReservation": {"id": "r"},
    "Audit": {},
}


async def test_no_secret_is_ever_written(redis: RedisServer, tmp_path: Path) -> None:
    """Nothing that a server writes or answers holds a secret that it knows, or a key that it was shown."""
    async with RedisServer(options=("requirepass SECRET-redis", "user bob on >SECRET-redis ~* &* +@all")) as guarded:
        store = guarded.url.replace("redis://", "redis://bob:SECRET-redis@")
        config = SECRETIVE.replace("STORE", store)
        async with operated(tmp_path, config) as office:
            bearer = (("authorization", "Bearer SECRET-admin"),)
            for key in ("SECRET-key", "SECRET-master", "SECRET-unknown"):
                await office.check(PAID, key=key, metadata=(("x-extauthz-token", "SECRET-envoy"),))
            answers = [
                await office.call(method, metadata=bearer, **fields)
                for method, fields in (NEEDING_THE_STORE | NEEDING_NOTHING).items()
                if method != "ReleaseReservation"
            ]
            explained = {"request": {"path": "/v1/chat/completions", "key": "SECRET-key", "body": '{"model":"gpt-4o"}'}}
            answers += [await office.call("Explain", metadata=bearer, **explained)]
            answers += [answer async for answer in office.stream("ReadJournal", metadata=bearer)]
            for wrong in ("SECRET-wrong", "Bearer SECRET-wrong"):
                with refused(grpc.StatusCode.UNAUTHENTICATED, "authorization: Bearer TOKEN") as failure:
                    await office.call("GetStatus", metadata=(("authorization", wrong),))
                answers.append(failure.value.details())
            metrics = await office.metrics_text()
            await eventually(lambda: office.lines("denied"), what="a refusal is logged")

        written = [office.written.getvalue(), metrics, *map(str, answers)]
        assert all(written)
        assert [] == [line for text in written for line in text.splitlines() if "SECRET" in line]
        (yaml,) = (answer.yaml for answer in answers if isinstance(answer, pb.GetConfigResponse))
        assert 7 == yaml.count("***")


NEEDING_NOTHING: dict[str, dict[str, Any]] = {"GetStatus": {}, "GetConfig": {}, "SetLogLevel": {"level": "debug"}}

SECRETIVE = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: SECRET-provider
      input_cost_per_token: 0.0000025
      output_cost_per_token: 0.00001
general_settings: {master_key: SECRET-master}
extauthz:
  store: STORE
  token: SECRET-envoy
  admin_token: SECRET-admin
  upstream_auth: {default: {set: SECRET-upstream}, models: {gpt-4o: {set: SECRET-upstream}}}
  alerts: {webhook: {url: "http://127.0.0.1:9/SECRET-hook"}}
  teams: {research: {max_budget: 10}}
  keys: [{key: SECRET-key, team: research}]
"""


def seen(answer: Any) -> str:  # noqa: ANN401 - a CheckResponse
    """Give what the client sees of its reservation."""
    (value,) = (
        option.header.value
        for option in answer.ok_response.response_headers_to_add
        if option.header.key == "x-extauthz-reservation"
    )
    return str(value)
