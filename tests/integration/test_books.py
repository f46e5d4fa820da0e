"""`extauthz audit`: that the books are right is proved while they are in use, and what is wrong is found and mended."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Counter, Measure, Spent
from extauthz.domain.windows import Window
from extauthz.ledger.audit import Auditor
from extauthz.ledger.base import Amendment, AmendmentKind, Drift
from extauthz.ledger.journal import PAGE_ENTRIES
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import TAG, ask, busy, configured, extauthz, settle, spent, tagged, this_hour
from tests.support.ledger import RealClock, a_counter, redis_ledger
from tests.support.processes import Process, eventually
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TEAM, OTHER = a_counter("research"), a_counter("support")
TOKENS, REQUESTS = a_counter(measure=Measure.TOKENS), a_counter(measure=Measure.REQUESTS)
# Entries of a long journal.
MANY = 50_000
CENT = 10_000_000
RETENTION_SECONDS = 3600
KEPT = 1000

Damage = Callable[[Redis, RedisLedger], Awaitable[object]]


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger."""
    options = RedisOptions(5.0, RETENTION_SECONDS, KEPT)
    async with redis_ledger(server.url, options=options, tag=TAG) as opened:
        yield opened


@pytest.fixture
def config(server: RedisServer, tmp_path: Path) -> Path:
    """Write the configuration of those books."""
    return configured(tmp_path, tagged(server.url))


async def fill(ledger: RedisLedger) -> None:
    """Spend 7 cents on one counter and 3 on another, and leave 5 held on the first."""
    await settle(ledger, "a", 4 * CENT, TEAM)
    await settle(ledger, "b", 3 * CENT, TEAM, OTHER)
    await ledger.reserve(ask("open", TEAM, amount=5 * CENT))


async def delete_an_entry(redis: Redis, ledger: RedisLedger) -> None:
    """Delete the journal's first entry."""
    entries = await redis.xrange(ledger.keys.journal, count=1)
    assert entries
    await redis.xdel(ledger.keys.journal, str(entries[0][0]))


# Each damage, what an audit must say of it, and what is spent after a rebuild where that is not what was before.
DAMAGES = [
    pytest.param(
        lambda redis, ledger: redis.hincrby(ledger.keys.spent, TEAM.key, CENT),
        Drift("spent", TEAM.key, 7 * CENT, 8 * CENT),
        id="spent too high",
    ),
    pytest.param(
        lambda redis, ledger: redis.hincrby(ledger.keys.spent, TEAM.key, -CENT),
        Drift("spent", TEAM.key, 7 * CENT, 6 * CENT),
        id="spent too low",
    ),
    pytest.param(
        lambda redis, ledger: redis.hdel(ledger.keys.spent, OTHER.key),
        Drift("spent", OTHER.key, 3 * CENT, 0),
        id="a counter lost",
    ),
    pytest.param(
        lambda redis, ledger: redis.hset(ledger.keys.spent, "team:nobody|lifetime", CENT),
        Drift("spent", "team:nobody|lifetime", 0, CENT),
        id="a counter that nobody spent on",
    ),
    pytest.param(
        lambda redis, ledger: redis.hset(ledger.keys.spent, "no counter", CENT),
        Drift("spent", "no counter", 0, CENT),
        id="a name that is no counter",
    ),
    pytest.param(
        lambda redis, ledger: redis.hincrby(ledger.keys.held, TEAM.key, CENT),
        Drift("held", TEAM.key, 5 * CENT, 6 * CENT),
        id="held too high",
    ),
    pytest.param(
        lambda redis, ledger: redis.hdel(ledger.keys.held, TEAM.key),
        Drift("held", TEAM.key, 5 * CENT, 0),
        id="held lost",
    ),
    pytest.param(
        lambda redis, ledger: redis.hset(ledger.keys.held, OTHER.key, CENT),
        Drift("held", OTHER.key, 0, CENT),
        id="held by nobody",
    ),
    pytest.param(
        lambda redis, ledger: redis.zrem(ledger.keys.leases, "open"),
        Drift("lease", "open", 0, 0),
        id="a record without a lease",
    ),
    pytest.param(
        lambda redis, ledger: redis.zadd(ledger.keys.leases, {"gone": RealClock().now_ms() + 60_000}),
        Drift("lease", "gone", 0, 0),
        id="a lease without a record",
    ),
    pytest.param(delete_an_entry, Drift("spent", TEAM.key, 3 * CENT, 7 * CENT), id="an entry deleted"),
]


class TestAudit:
    """An audit compares every counter with the journal and the open reservations."""

    async def test_right(self, ledger: RedisLedger) -> None:
        """Books that nobody damaged are right, and what was looked at is counted."""
        await fill(ledger)

        audit = await Auditor(ledger).audit()

        assert (True, 0, 2, 2, 1, 2) == (
            audit.ok,
            audit.drift_nanousd,
            audit.counters_checked,
            audit.scopes_checked,
            audit.reservations_open,
            audit.entries_read,
        )

    async def test_never_wrong_on_a_busy_store(self, ledger: RedisLedger) -> None:
        """However much happens while it looks, and however much is trimmed before, it sees no drift."""
        async with busy(ledger) as rounds:
            for _ in range(40):
                enough = sum(rounds) + 10
                await eventually(lambda: sum(rounds) >= enough, what="more happened")  # noqa: B023
                audit = await Auditor(ledger).audit()

                assert () == audit.drifts
        assert audit.entries_read > 500

    @pytest.mark.parametrize(("damage", "drift"), DAMAGES)
    async def test_finds_damage(self, redis: Redis, ledger: RedisLedger, damage: Damage, drift: Drift) -> None:
        """It names the counter, what it should be and what it is, and nothing else."""
        await fill(ledger)
        await damage(redis, ledger)

        audit = await Auditor(ledger).audit()

        assert (False, (drift,)) == (audit.ok, audit.drifts)

    @pytest.mark.parametrize("counter", [TOKENS, REQUESTS], ids=lambda counter: counter.label)
    async def test_finds_damage_in_other_measures(self, redis: Redis, ledger: RedisLedger, counter: Counter) -> None:
        """A counter in tokens or requests that is wrong is named, is no drift in USD, and can be put right."""
        await settle(ledger, "a", 4, TEAM, counter)
        await ledger.reserve(ask("open", counter, amount=5))
        right = (await ledger.standings([(counter, 0)]))[0]
        await redis.hincrby(ledger.keys.spent, counter.key, 2)
        await redis.hincrby(ledger.keys.held, counter.key, -1)

        found = await Auditor(ledger).rebuild()

        drifts = Drift("spent", counter.key, right.spent, right.spent + 2), Drift("held", counter.key, 5, 4)
        assert (False, 0, drifts) == (found.ok, found.drift_nanousd, found.drifts)
        assert (await Auditor(ledger).audit()).ok
        assert (right,) == await ledger.standings([(counter, 0)])

    async def test_finds_damage_on_a_busy_store(self, redis: Redis, ledger: RedisLedger) -> None:
        """What others do meanwhile hides nothing, and adds nothing."""
        await fill(ledger)
        async with busy(ledger) as rounds:
            await eventually(lambda: sum(rounds) > 20, what="something happened")
            await redis.hincrby(ledger.keys.spent, OTHER.key, -CENT)

            audit = await Auditor(ledger).audit()

        assert (Drift("spent", OTHER.key, 3 * CENT, 2 * CENT),) == audit.drifts

    async def test_a_counter_that_is_over_is_no_drift(self, redis: Redis, ledger: RedisLedger) -> None:
        """What may have been dropped is not missed, and what may still be booked on is."""
        now_ms = RealClock().now_ms()
        due, later = (
            a_counter(window=Window("1s", end_ms - 1000, end_ms))
            for end_ms in (now_ms - RETENTION_SECONDS * 1000 - 1, now_ms - RETENTION_SECONDS * 1000 + 60_000)
        )
        for counter in (due, later):
            # An import: nobody reserves in a window that is over.
            await ledger.amend(Amendment(f"on {counter.key}", AmendmentKind.IMPORT, counter, CENT, "ops"))
            await redis.hdel(ledger.keys.spent, counter.key)

        audit = await Auditor(ledger).audit()

        assert (Drift("spent", later.key, CENT, 0),) == audit.drifts


class TestCommand:
    """`extauthz audit` as people and scripts run it."""

    async def test_right(self, ledger: RedisLedger, config: Path) -> None:
        """It says so in one line with status 0, and nothing on standard error that is no terminal."""
        await fill(ledger)

        run = await extauthz("audit", "--config", config)

        assert (0, "") == (run.code, run.err)
        assert "the books are right: 2 counters of 2 scopes, 1 open reservations, 2 journal entries\n" == run.out

    async def test_wrong(self, redis: Redis, ledger: RedisLedger, config: Path) -> None:
        """It has status 1, and a line for each counter with both amounts, however long its name is."""
        long = a_counter("a team with a long name, and " + "x" * 120, this_hour())
        await fill(ledger)
        await settle(ledger, "r", CENT, long)
        await redis.hincrby(ledger.keys.spent, long.key, CENT)
        await redis.hdel(ledger.keys.held, TEAM.key)

        run = await extauthz("audit", "--config", config)

        lines = run.out.splitlines()
        assert (1, "") == (run.code, run.err)
        assert lines[0].startswith("the books are wrong: 3 counters of 3 scopes")
        assert f"spent of {long.key}: should be 0.01 USD, is 0.02 USD" in lines
        assert f"held of {TEAM.key}: should be 0.05 USD, is 0.0 USD" in lines
        assert "`extauthz audit --config FILE --rebuild` puts them right by the journal" == lines[-1]

    async def test_looking_begins_no_books(self, redis: Redis, config: Path) -> None:
        """Where there are none it finds nothing wrong and leaves nothing, least of all a key to sign holds with."""
        run = await extauthz("audit", "--config", config)

        assert (0, []) == (run.code, await redis.keys("*"))

    async def test_json(self, redis: Redis, ledger: RedisLedger, config: Path) -> None:
        """With --json it is data, for right books and for wrong ones, and a rebuild says what it corrected."""
        await fill(ledger)
        await redis.hincrby(ledger.keys.spent, TEAM.key, CENT)
        wrong = await extauthz("audit", "--config", config, "--json")
        rebuilt = await extauthz("audit", "--config", config, "--json", "--rebuild")

        expected = {
            "ok": False,
            "drift_usd": 0.01,
            "scopes_checked": 2,
            "counters_checked": 2,
            "reservations_open": 1,
            "entries_read": 2,
            "drifts": [{"of": "spent", "counter": TEAM.key, "expected_nanousd": 7 * CENT, "found_nanousd": 8 * CENT}],
        }
        assert [(1, ""), (0, "")] == [(run.code, run.err) for run in (wrong, rebuilt)]
        assert expected == json.loads(wrong.out)
        assert expected | {
            "ok": True,
            "drift_usd": 0.0,
            "drifts": [],
            "corrected": 1,
            "corrected_usd": 0.01,
        } == json.loads(rebuilt.out)

    async def test_progress_is_for_terminals(self, ledger: RedisLedger, config: Path) -> None:
        """Who looks at a terminal sees how far it is; standard output is the same."""
        await fill(ledger)
        master, slave = pty.openpty()
        # A shell, to give standard error and standard output each its own.
        command = f"TERM=xterm {sys.executable} -m extauthz audit --config {config} 2>/dev/pts/{os.ttyname(slave)[9:]}"
        try:
            async with Process("/bin/sh", "-c", command) as audit:
                code = await audit.wait(40)
            seen = b""
            os.set_blocking(master, False)
            with suppress(BlockingIOError, OSError):
                while chunk := os.read(master, 65_536):
                    seen += chunk
        finally:
            os.close(slave)
            os.close(master)

        assert (0, 1) == (code, len(audit.output.splitlines()))
        assert b"reading the journal" in seen

    async def test_a_file_is_for_rebuilding(self, config: Path) -> None:
        """Without --rebuild a file is a wrong usage."""
        run = await extauthz("audit", "--config", config, config)

        assert (2, "") == (run.code, run.out)
        assert "add --rebuild" in run.err


class TestRebuild:
    """A rebuild puts right what is wrong, by the journal in the store, and touches nothing else."""

    @pytest.mark.parametrize(("damage", "drift"), DAMAGES)
    async def test_puts_it_right(self, redis: Redis, ledger: RedisLedger, damage: Damage, drift: Drift) -> None:
        """Afterwards an audit is clean, and everything is as it was; a deleted entry's money is what is lost."""
        await fill(ledger)
        before = await everything(redis, ledger)
        await damage(redis, ledger)

        found = await Auditor(ledger).rebuild()
        after = await everything(redis, ledger)
        audit = await Auditor(ledger).audit()

        if damage is delete_an_entry:
            before[ledger.keys.spent] |= {TEAM.key: str(drift.expected)}
        assert ((drift,), ()) == (found.drifts, audit.drifts)
        assert before == after

    async def test_an_open_record_ends(self, redis: Redis, ledger: RedisLedger) -> None:
        """A reservation that had no lease ends by the next expiry, and its settle is a late one."""
        await fill(ledger)
        await redis.zrem(ledger.keys.leases, "open")
        await Auditor(ledger).rebuild()

        assert ["open"] == [expired.id for expired in await ledger.expire(10)]
        assert () == (await Auditor(ledger).audit()).drifts

    @pytest.mark.parametrize(("damage", "drift"), DAMAGES)
    async def test_while_verbs_go_on(self, redis: Redis, ledger: RedisLedger, damage: Damage, drift: Drift) -> None:
        """Nothing has to stand still for it."""
        await fill(ledger)
        await settle(ledger, "r", CENT, a_counter(window=this_hour()))
        async with busy(ledger) as rounds:
            await eventually(lambda: sum(rounds) > 20, what="something happened")
            await damage(redis, ledger)
            found = await Auditor(ledger).rebuild()
            enough = sum(rounds) + 20
            await eventually(lambda: sum(rounds) > enough, what="more happened")
            audit = await Auditor(ledger).audit()

        assert [drift.name] == [one.name for one in found.drifts]
        assert () == audit.drifts

    async def test_a_lost_counter_is_dropped_in_time(self, redis: Redis, ledger: RedisLedger) -> None:
        """A counter that was put back has the due time of its window."""
        counter = a_counter(window=this_hour())
        await settle(ledger, "r", CENT, counter)
        before = await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)
        await redis.hdel(ledger.keys.spent, counter.key)
        await redis.delete(ledger.keys.windows)
        await Auditor(ledger).rebuild()

        assert {counter.key: CENT} == await spent(redis, ledger.keys)
        assert before == await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)


async def everything(redis: Redis, ledger: RedisLedger) -> dict[str, dict[str, str]]:
    """Read what a rebuild may touch; of leases and windows, which there are."""
    keys = ledger.keys
    found: dict[str, dict[str, str]] = {}
    for key in (keys.spent, keys.held, keys.open):
        found[key] = {str(name): str(value) for name, value in (await redis.hgetall(key)).items()}
    for key in (keys.leases, keys.windows):
        found[key] = {str(member): "" for member in await redis.zrange(key, 0, -1)}
    return found


@pytest.mark.timeout(300)
async def test_many_entries(server: RedisServer, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    """However long the journal is, an audit asks for a piece at a time, and no command holds the store up for long."""
    async with redis_ledger(server.url, tag=TAG) as ledger:
        counters = [a_counter(f"team {number}") for number in range(500)]
        for start in range(0, MANY, 1000):
            requests = [ask(f"r{number}", counters[number % 500]) for number in range(start, start + 1000)]
            await asyncio.gather(*(ledger.settle(request.hold, Spent(3)) for request in requests))
        await redis.config_resetstat()
        began_s = time.perf_counter()
        audit = await Auditor(ledger).audit()
        took_s = time.perf_counter() - began_s
        stats = await redis.info("commandstats")

    reads = stats["cmdstat_xrange"]
    with capsys.disabled():
        print(f"\naudit: {took_s:.2f} s for {MANY} entries, {reads['usec_per_call']:.0f} µs for each piece")  # noqa: T201
    assert ((), MANY, 500) == (audit.drifts, audit.entries_read, audit.counters_checked)
    assert MANY // PAGE_ENTRIES <= reads["calls"] <= 2 * MANY // PAGE_ENTRIES
    # No other command takes longer than a few of the pieces that the journal is read in.
    slowest = max(stat["usec_per_call"] for name, stat in stats.items() if "config" not in name and "info" not in name)
    assert slowest < 5 * reads["usec_per_call"], stats
