"""Books of before there were tokens and requests are read as they are, and in USD alone they stay as they were."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Counter, Measure, Spent
from extauthz.ledger.audit import Auditor
from extauthz.ledger.base import Balance, Ending, Expired
from extauthz.ledger.journal import Checkpoint, Entry, Journal, from_json, to_json
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import SHORT, TAG, ask, exported, settle, spent, sums_of
from tests.support.ledger import RealClock, a_counter, balance, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TEAM, OTHER, TOKENS = a_counter("research"), a_counter("support"), a_counter(measure=Measure.TOKENS)
OPTIONS = RedisOptions(5.0, journal_entries_max=1)


@pytest.fixture
async def ledger(server: RedisServer, redis: Redis) -> AsyncIterator[RedisLedger]:
    """Open books that an earlier version left: spent 170 on a team, of which 100 are in the checkpoint."""
    async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as opened:
        keys = opened.keys
        await redis.hset(keys.spent, mapping={TEAM.key: 170, OTHER.key: 30})
        await redis.hset(keys.checkpoint, TEAM.key, "100")
        await note(redis, opened, "settled", "earlier", 70, TEAM)
        await note(redis, opened, "expired", "expired", 30, OTHER)
        await redis.hset(next(key for key in keys.all if ":ended:" in key), "expired", f"expired 30 {OTHER.key}")
        await hold(redis, opened, "open", TEAM, OTHER)
        yield opened


async def note(redis: Redis, ledger: RedisLedger, how: str, id_: str, cost: int, counter: Counter) -> None:
    """Write an entry of the journal as earlier versions did."""
    fields = (
        f"how {how} id {id_} model gpt-4o signal lease cost {cost} booked {cost} reserved_at 1 counters {counter.key}"
    )
    words = [*fields.split(" "), "tokens", "", "who", ""]
    await redis.execute_command("XADD", ledger.keys.journal, "*", *words)


async def hold(redis: Redis, ledger: RedisLedger, id_: str, *counters: Counter) -> None:
    """Write an open reservation as earlier versions did: 100 are held on each counter, and 40 booked if it expires."""
    now_ms = RealClock().now_ms()
    amounts = " ".join(f"{counter.key} 100" for counter in counters)
    await redis.hset(ledger.keys.open, id_, f"40 first {now_ms} gpt-4o {amounts}")
    await redis.zadd(ledger.keys.leases, {id_: now_ms + 60_000})
    await redis.hset(ledger.keys.held, mapping={counter.key: 100 for counter in counters})


async def ended(redis: Redis, ledger: RedisLedger) -> Mapping[str, str]:
    """Read the endings, of which the store begins a new generation now and then."""
    generations = [await redis.hgetall(key) for key in ledger.keys.all if ":ended:" in key]
    return {str(id_): str(ending) for endings in generations for id_, ending in endings.items()}


class TestEarlierBooks:
    """What an earlier version wrote means what it meant."""

    async def test_are_right(self, ledger: RedisLedger) -> None:
        """An audit finds nothing wrong, and what is open is listed."""
        (listed,) = await ledger.reservations(9)

        assert (await Auditor(ledger).audit()).ok
        assert ("open", ((TEAM, 100), (OTHER, 100))) == (listed.id, listed.amounts)

    async def test_what_is_open_is_settled(self, ledger: RedisLedger) -> None:
        """A reservation of before the upgrade is booked with what it cost."""
        assert Ending.FIRST == await ledger.settle(ask("open", TEAM, OTHER).hold, Spent(60, 5, 1))
        assert [Balance(TEAM, 230, 0), Balance(OTHER, 90, 0)] == [await balance(ledger, it) for it in (TEAM, OTHER)]
        assert (await Auditor(ledger).audit()).ok

    async def test_what_is_open_is_renewed_and_expires(self, ledger: RedisLedger, redis: Redis) -> None:
        """Its lease books what it says, that of before as well as a new one."""
        await redis.zadd(ledger.keys.leases, {"open": 1})
        assert (Expired("open", Spent(40)),) == await ledger.expire(9)

        await hold(redis, ledger, "next", TEAM)
        assert await ledger.renew(ask("next", TEAM).hold, SHORT)
        expired = await eventually(lambda: ledger.expire(9), what="the lease has run out")
        assert (Expired("next", Spent(30)),) == expired
        assert Balance(TEAM, 240, 0) == await balance(ledger, TEAM)
        assert (await Auditor(ledger).audit()).ok

    @pytest.mark.parametrize("cost", [10, 50])
    async def test_what_expired_is_put_right(self, ledger: RedisLedger, cost: int) -> None:
        """An answer that came after the lease, and after the upgrade, corrects what was booked before it."""
        assert Ending.LATE == await ledger.settle(ask("expired", OTHER).hold, Spent(cost, 5, 1))
        assert Balance(OTHER, cost, 100) == await balance(ledger, OTHER)
        assert (await Auditor(ledger).audit()).ok

    async def test_the_journal_is_folded(self, ledger: RedisLedger, redis: Redis) -> None:
        """Entries of before are taken up by the checkpoint beside those of after."""
        await settle(ledger, "new", 7, TEAM, TOKENS)
        await redis.hdel(ledger.keys.meta, "audited_until")
        for number in range(3):
            await settle(ledger, f"newer {number}", 1, TOKENS)
            await ledger.expire(1)

        assert 1 == await redis.xlen(ledger.keys.journal)
        assert {TEAM.key: 177, OTHER.key: 30, TOKENS.key: 10} == await spent(redis, ledger.keys)
        assert (await Auditor(ledger).audit()).ok

    async def test_an_export_of_before_restores_them(self, ledger: RedisLedger, redis: Redis) -> None:
        """Its checkpoint has another name, and its entries one amount each."""
        lines = [as_before(line) for line in await exported(ledger)]
        await redis.hdel(ledger.keys.spent, TEAM.key, OTHER.key)

        await Auditor(ledger).rebuild(lines)

        assert {TEAM.key: 170, OTHER.key: 30} == await spent(redis, ledger.keys) == sums_of(await exported(ledger))
        assert lines != [to_json(from_json(line)) + "\n" for line in lines]


def as_before(line: str) -> str:
    """Write an exported line as earlier versions did."""
    row = json.loads(line)
    if "spent" in row:
        row["spent_nanousd"] = row.pop("spent")
    assert not {"cost_tokens", "booked_tokens"} & row.keys()
    return json.dumps(row) + "\n"


class TestSideBySide:
    """While an upgrade rolls out, servers of both versions keep the same books."""

    async def test_books_in_usd_are_as_before(self, server: RedisServer, redis: Redis) -> None:
        """Records, endings and entries about counters in USD alone have one amount: an earlier version reads them."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await ledger.reserve(ask("open", TEAM, OTHER))
            await ledger.reserve(ask("renewed", TEAM))
            await ledger.renew(ask("renewed", TEAM).hold, ask("", lease=SHORT).lease)
            expired = await eventually(lambda: ledger.expire(9), what="the lease has run out")
            await settle(ledger, "settled", 7, TEAM)

            records = [str(record).split(" ") for record in (await redis.hgetall(ledger.keys.open)).values()]
            entries = [item async for item in Journal(ledger).export()]
            assert (Expired("renewed", Spent(30)),) == expired
            assert [["30", "first", "gpt-4o", TEAM.key, "100", OTHER.key, "100"]] == [
                [*record[:2], *record[3:]] for record in records
            ]
            assert {"renewed": f"expired 30 {TEAM.key}", "settled": "settled"} == await ended(redis, ledger)
            assert [(Spent(30), Spent(30)), (Spent(7), Spent(7))] == costs(entries)

    async def test_books_in_tokens_say_all(self, server: RedisServer, redis: Redis) -> None:
        """One counter in tokens is enough for three amounts."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await ledger.reserve(ask("open", TEAM, TOKENS))
            await ledger.reserve(ask("expired", TOKENS, lease=SHORT))
            await eventually(lambda: ledger.expire(9), what="the lease has run out")
            await settle(ledger, "settled", 7, TEAM, TOKENS)
            entries = [item async for item in Journal(ledger).export()]

            (record,) = (await redis.hgetall(ledger.keys.open)).values()
            assert str(record).startswith("30,20,1 first ")
            assert {"expired": f"expired 30,20,1 {TOKENS.key}", "settled": "settled"} == await ended(redis, ledger)
            assert [(Spent(30, 20, 1), Spent(30, 20, 1)), (Spent(7, 7, 1), Spent(7, 7, 1))] == costs(entries)


def costs(entries: Iterable[Entry | Checkpoint]) -> list[tuple[Spent, Spent]]:
    """Give what each entry cost, and what it booked."""
    return [(entry.cost, entry.booked) for entry in entries if isinstance(entry, Entry)]
