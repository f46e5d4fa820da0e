"""The journal: one entry for whatever happened to money, as `extauthz journal` tells it to people and to files."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Counter, Measure, Scope, ScopeKind, Spent
from extauthz.domain.prices import Usage
from extauthz.domain.reservation import Hold, Note, Signal
from extauthz.domain.windows import LIFETIME, Window
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Amendment, AmendmentKind, Reserve
from extauthz.ledger.journal import COLUMNS, PAGE_ENTRIES, Checkpoint, Journal, position, to_csv, to_json
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import (
    SHORT,
    TAG,
    ask,
    busy,
    configured,
    export_file,
    exported,
    settle,
    spent,
    sums_of,
    tagged,
    told,
)
from tests.support.ledger import RealClock, a_counter, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TEAM = a_counter("research")
KEY = Counter(Scope(ScopeKind.KEY, ("ab" * 32,)), Window(LIFETIME, 0, None))
COUNTERS = [TEAM.key, KEY.key]
TOKENS, REQUESTS = a_counter(measure=Measure.TOKENS), a_counter(measure=Measure.REQUESTS)
USAGE = Usage(11, 22, cache_read_input_tokens=3, cache_creation_input_tokens=4, reasoning_output_tokens=5)
# Few, so that a test can make more.
KEPT = 20


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger whose journal keeps few entries."""
    async with redis_ledger(server.url, options=RedisOptions(5.0, journal_entries_max=KEPT), tag=TAG) as opened:
        yield opened


@pytest.fixture
def config(server: RedisServer, tmp_path: Path) -> Path:
    """Write the configuration of those books."""
    return configured(tmp_path, tagged(server.url))


def of_model(request: Reserve, model: str) -> Reserve:
    """Ask for a model."""
    hold = request.hold
    named = Hold(hold.id, hold.reserved_at_ms, hold.counters, model, hold.prices, hold.estimate, streamed=False)
    return Reserve(named, request.attempt, request.claims, request.lease)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a test cannot know."""
    return {name: value for name, value in row.items() if name not in ("at", "ended_at", "reserved_at")}


async def entries(ledger: RedisLedger) -> list[dict[str, Any]]:
    """Read the journal's entries, which stand behind a checkpoint, without their times."""
    checkpoint, *rows = await told(ledger)
    assert "checkpoint" == checkpoint["how"]
    return [without_times(row) for row in rows]


class TestEntries:
    """Each ending and each change by hand is one entry that says all there is to say."""

    async def test_settled(self, ledger: RedisLedger) -> None:
        """A settle has its model, tokens, cost and counters, and the times of reserving and ending."""
        request = of_model(ask("r", TEAM, KEY), "openai/größtes Modell")
        before_ms = RealClock().now_ms()
        await ledger.reserve(request)
        await ledger.settle(request.hold, Spent(70), Note(Signal.ACCESS_LOG, USAGE))
        after_ms = RealClock().now_ms()

        _, row = await told(ledger)
        ended_ms, reserved_ms = (
            datetime.fromisoformat(row[name]).timestamp() * 1000 for name in ("ended_at", "reserved_at")
        )
        assert {
            "how": "settled",
            "id": "r",
            "model": "openai/größtes Modell",
            "signal": "access_log",
            "cost_nanousd": 70,
            "booked_nanousd": 70,
            "input_tokens": 11,
            "output_tokens": 22,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 4,
            "reasoning_output_tokens": 5,
            "counters": COUNTERS,
        } == without_times(row)
        assert request.hold.reserved_at_ms == round(reserved_ms)
        assert before_ms <= round(ended_ms) <= after_ms
        assert int(row["at"].split("-")[0]) == round(ended_ms)

    @pytest.mark.parametrize("told_by", [Signal.ACCESS_LOG, Signal.CANCELLATION])
    async def test_released(self, ledger: RedisLedger, told_by: Signal) -> None:
        """A release costs nothing, and says who told of it; one without a reservation is none."""
        await ledger.reserve(ask("r", TEAM, KEY))
        await ledger.release("r", attempt="first", note=Note(told_by))
        await ledger.release("unknown", note=Note(told_by))

        (row,) = await entries(ledger)
        assert ("released", "r", "gpt-4o", str(told_by)) == (row["how"], row["id"], row["model"], row["signal"])
        assert (0, 0, COUNTERS) == (row["cost_nanousd"], row["booked_nanousd"], row["counters"])

    async def test_expired_and_settled_late(self, ledger: RedisLedger) -> None:
        """An expiry books what its lease says, and a late settle the difference: the two add up to the cost."""
        request = ask("r", TEAM, lease=SHORT)
        await ledger.reserve(request)
        await eventually(lambda: ledger.expire(10), what="the lease has run out")
        await ledger.settle(request.hold, Spent(20))

        expired, late = await entries(ledger)
        assert ("expired", "lease", 30, 30) == tuple(
            expired[name] for name in ("how", "signal", "cost_nanousd", "booked_nanousd")
        )
        assert ("settled", "access_log", 20, -10) == tuple(
            late[name] for name in ("how", "signal", "cost_nanousd", "booked_nanousd")
        )
        assert {"r"} == {expired["id"], late["id"]}

    @pytest.mark.parametrize(
        ("kind", "amount", "booked", "how"),
        [
            (AmendmentKind.IMPORT, 600, 600, "import"),
            (AmendmentKind.RESET, None, -70, "reset"),
            (AmendmentKind.GRANT, 50, 0, "grant"),
            (AmendmentKind.LIMIT, 90, 0, "limit"),
            (AmendmentKind.LIMIT, 0, 0, "limit"),
            (AmendmentKind.LIMIT, None, 0, "limit_removed"),
        ],
    )
    async def test_amended(
        self, ledger: RedisLedger, kind: AmendmentKind, amount: int | None, booked: int, how: str
    ) -> None:
        """A change by hand says what it was, who made it, and what it added to the counter."""
        who = "Ana Müller, + 100 % <ana@example.com>"
        await settle(ledger, "r", 70, TEAM)
        await ledger.amend(Amendment("a", kind, TEAM, amount, who))

        assert {
            "how": how,
            "id": "a",
            "cost_nanousd": amount or 0,
            "booked_nanousd": booked,
            "counters": [TEAM.key],
            "who": who,
        } == (await entries(ledger))[-1]

    async def test_other_measures(self, ledger: RedisLedger) -> None:
        """Where a counter is in tokens or requests, an ending says what it comes to there: cost and booked alike."""
        request = ask("r", TEAM, TOKENS, lease=SHORT)
        await ledger.reserve(request)
        await eventually(lambda: ledger.expire(10), what="the lease has run out")
        await ledger.settle(request.hold, Spent(20, 500, 1))

        expired, late = await entries(ledger)
        names = ("cost_nanousd", "cost_tokens", "cost_requests", "booked_nanousd", "booked_tokens", "booked_requests")
        assert [30, 20, 1, 30, 20, 1] == [expired[name] for name in names]
        assert [20, 500, 1, -10, 480, None] == [late.get(name) for name in names]
        assert {TEAM.key: 20, TOKENS.key: 500} == sums_of(await exported(ledger))

    @pytest.mark.parametrize(
        ("kind", "amount", "row"),
        [
            (AmendmentKind.IMPORT, 600, {"how": "import", "cost_tokens": 600, "booked_tokens": 600}),
            (AmendmentKind.RESET, None, {"how": "reset", "booked_tokens": -70}),
            (AmendmentKind.GRANT, 50, {"how": "grant", "cost_tokens": 50}),
            (AmendmentKind.LIMIT, 90, {"how": "limit", "cost_tokens": 90}),
            (AmendmentKind.LIMIT, 0, {"how": "limit"}),
            (AmendmentKind.LIMIT, None, {"how": "limit_removed"}),
        ],
    )
    async def test_amended_tokens(
        self, ledger: RedisLedger, kind: AmendmentKind, amount: int | None, row: dict[str, Any]
    ) -> None:
        """No amount in tokens stands under a name with USD in it."""
        await settle(ledger, "r", 70, TOKENS)
        await ledger.amend(Amendment("a", kind, TOKENS, amount, "ops"))

        expected = {"id": "a", "cost_nanousd": 0, "booked_nanousd": 0, "counters": [TOKENS.key], "who": "ops", **row}
        assert expected == (await entries(ledger))[-1]

    async def test_a_checkpoint_in_csv(self, server: RedisServer, ledger: RedisLedger) -> None:
        """The sum of each counter stands under what is booked in its measure."""
        async with server.client() as redis:
            await redis.hset(ledger.keys.checkpoint, mapping={TEAM.key: 7, TOKENS.key: 8, REQUESTS.key: 9})
        items = [item async for item in Journal(ledger).export()]

        rows = csv.DictReader(io.StringIO(f"{','.join(COLUMNS)}\r\n{to_csv(items)}"))
        names = ("booked_nanousd", "booked_tokens", "booked_requests")
        assert {
            TEAM.key: ("7", "", ""),
            TOKENS.key: ("", "8", ""),
            REQUESTS.key: ("", "", "9"),
        } == {row["counters"]: tuple(row[name] for name in names) for row in rows}

    async def test_floored(self, ledger: RedisLedger) -> None:
        """What a correction would have taken below nothing is an entry of its own: the sum is still what is spent."""
        request = ask("r", TEAM, lease=SHORT)
        await ledger.reserve(request)
        await eventually(lambda: ledger.expire(10), what="the lease has run out")
        await ledger.amend(Amendment("a", AmendmentKind.RESET, TEAM, None, "ops"))
        await ledger.settle(request.hold, Spent(20))

        assert {30, -30, -10, 10} == {row["booked_nanousd"] for row in await entries(ledger)}
        assert {} == sums_of(await exported(ledger))

    async def test_both_formats_say_the_same(self, ledger: RedisLedger) -> None:
        """CSV, read by anybody's reader, has what the JSON lines have; a control character is written with a %."""
        request = of_model(ask("r", TEAM, KEY), 'a "model", with\r\nall sorts; of=ö')
        await ledger.reserve(request)
        await ledger.settle(request.hold, Spent(70), Note(usage=USAGE))
        items = [item async for item in Journal(ledger).export()]

        (line,) = to_csv(items).splitlines()
        (row,) = csv.DictReader(io.StringIO(f"{','.join(COLUMNS)}\r\n{line}\r\n"))
        _, expected = await told(ledger)
        assert 'a "model", with\r\nall sorts; of=ö' == expected["model"]
        assert 'a "model", with%0D%0Aall sorts; of=ö' == row["model"]
        assert {name: str(value) for name, value in expected.items() if name not in ("model", "counters")} == {
            name: value for name, value in row.items() if value and name not in ("model", "counters")
        }
        assert expected["counters"] == row["counters"].split()


async def trimmed_after(redis: Redis, ledger: RedisLedger, at: str) -> bool:
    """Tell whether an entry is trimmed that comes after a place."""
    trimmed_at = await redis.hget(ledger.keys.meta, "checkpoint_at")
    return trimmed_at is not None and position(str(trimmed_at)) > position(at)


async def with_checkpoint(redis: Redis, ledger: RedisLedger) -> None:
    """Give the books a checkpoint that is told in several pieces, and read in several steps."""
    await redis.hset(ledger.keys.checkpoint, mapping={f"team:{number}|lifetime": number + 1 for number in range(5000)})


class TestGaps:
    """The journal keeps so many entries; what was trimmed before it was read is a checkpoint in the export."""

    async def test_a_checkpoint_stands_in(
        self, server: RedisServer, ledger: RedisLedger, config: Path, tmp_path: Path
    ) -> None:
        """An export that was away for too long has another checkpoint, and its sums are what is spent."""
        output = tmp_path / "journal"
        for number in range(5):
            await settle(ledger, f"r{number}", 7, TEAM)
        await export_file(config, output)
        async with server.client() as redis:
            await redis.hdel(ledger.keys.meta, "audited_until")  # as if the pause for that reader was over
            for number in range(3 * KEPT):
                await settle(ledger, f"more {number}", 7, TEAM, KEY)
            await ledger.expire(1)
            await export_file(config, output)
            lines = output.read_text(encoding="utf-8").splitlines()

            assert 2 == sum(json.loads(line)["how"] == "checkpoint" for line in lines)
            assert 7 + KEPT == len(lines)
            assert await spent(redis, ledger.keys) == sums_of(lines)

    async def test_sums_on_a_busy_store(self, server: RedisServer, ledger: RedisLedger) -> None:
        """However the store trims while somebody reads, the sums over what was read are what is spent."""
        async with server.client() as redis, busy(ledger) as rounds:
            await eventually(lambda: sum(rounds) > KEPT, what="there is something to read")
            lines = await exported(ledger)
            for _ in range(3):
                last = json.loads(lines[-1])["at"]
                await redis.hdel(ledger.keys.meta, "audited_until")  # as if the pause for a reader was over
                await eventually(partial(trimmed_after, redis, ledger, last), what="more is trimmed")
                lines += [to_json(item) async for item in Journal(ledger).export(last)]
        lines += [to_json(item) async for item in Journal(ledger).export(json.loads(lines[-1])["at"])]

        async with server.client() as redis:
            assert await spent(redis, ledger.keys) == sums_of(lines)
        assert 4 == sum(json.loads(line).get("first", False) for line in lines)

    async def test_trimmed_while_it_is_told(self, server: RedisServer, ledger: RedisLedger) -> None:
        """When another reader lets the store trim within a checkpoint, it is told again from its first piece on."""
        async with server.client() as redis:
            await with_checkpoint(redis, ledger)
            pieces = []
            async for piece in Journal(ledger).checkpoint():
                pieces.append(piece)
                if len(pieces) == 1:
                    await redis.hdel(ledger.keys.meta, "audited_until")
                    for number in range(KEPT + 5):
                        await settle(ledger, f"r{number}", 7, TEAM)
                    await ledger.expire(1)

            expected = {
                str(name): int(amount) for name, amount in (await redis.hgetall(ledger.keys.checkpoint)).items()
            }
            assert expected == sums_of(map(to_json, pieces))
            assert 35 == expected[TEAM.key]
        assert [2, 1] == [sum(getattr(piece, name) for piece in pieces) for name in ("first", "last")]

    async def test_away_while_it_is_told(
        self, server: RedisServer, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the store is away within a checkpoint, who follows is told it again, and nothing is left out."""
        scans = 0

        async def away_once(*command: str | int) -> object:
            nonlocal scans
            scans += command[0] == "HSCAN"
            if command[0] == "HSCAN" and scans == 2:
                raise StoreUnavailableError
            return await link_ask(*command)

        link_ask = ledger.link.ask
        monkeypatch.setattr(ledger.link, "ask", away_once)
        lines = []
        async with server.client() as redis:
            await with_checkpoint(redis, ledger)
            async for item in Journal(ledger).export(follow=True):
                lines.append(to_json(item))
                if isinstance(item, Checkpoint) and item.last:
                    break
            expected = {
                str(name): int(amount) for name, amount in (await redis.hgetall(ledger.keys.checkpoint)).items()
            }

        assert expected == sums_of(lines)
        assert 2 == sum(json.loads(line)["first"] for line in lines)

    async def test_more_than_a_page(self, server: RedisServer) -> None:
        """A journal of several pages is told whole, each entry once."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await asyncio.gather(*(settle(ledger, f"r{number}", 1, TEAM) for number in range(2 * PAGE_ENTRIES + 1)))
            _, *rows = await told(ledger)

        assert {f"r{number}" for number in range(2 * PAGE_ENTRIES + 1)} == {row["id"] for row in rows}
        assert 2 * PAGE_ENTRIES + 1 == len(rows)
