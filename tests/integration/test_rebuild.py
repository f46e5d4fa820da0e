"""`extauthz audit --rebuild FILE`: a store that lost its books gets them back from an export of its journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Filter, FilterKind, Measure, Spent
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.audit import Auditor
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.exported import Exported, ExportUnusableError
from extauthz.ledger.journal import Journal, to_json
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import (
    SHORT,
    TAG,
    ask,
    booked_on,
    busy,
    configured,
    exported,
    extauthz,
    settle,
    spent,
    tagged,
    this_hour,
)
from tests.support.ledger import RealClock, a_counter, a_window, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TEAM = a_counter("research")
OTHER = a_counter("support", measure=Measure.TOKENS, only=Filter(FilterKind.MODEL, "gpt-4o"))
# More digits than a double keeps with a decimal point, and nearly as many bits as its integers have.
MUCH = 8_999_999 * 10**9 + 1
KEPT = 20
OPTIONS = RedisOptions(5.0, journal_entries_max=KEPT)


async def trimmed(redis: Redis, ledger: RedisLedger) -> None:
    """Trim the journal, as if the pause for those who read it was over."""
    await redis.hdel(ledger.keys.meta, "audited_until")
    await ledger.expire(1)


async def continued(ledger: RedisLedger, lines: list[str]) -> list[str]:
    """Go on with an export."""
    last = json.loads(lines[-1])
    after = None if last["how"] == "checkpoint" else last["at"]
    return lines + [to_json(item) + "\n" async for item in Journal(ledger).export(after)]


async def rebuilt(ledger: RedisLedger, lines: list[str]) -> int:
    """Rebuild from an export, and tell how many counters were wrong; they are right then."""
    found = await Auditor(ledger).rebuild(lines)
    audit = await Auditor(ledger).audit()
    assert () == audit.drifts
    return len(found.drifts)


class TestLost:
    """All is lost, and comes back to the nano-USD."""

    async def test_everything_comes_back(self, server: RedisServer, redis: Redis, tmp_path: Path) -> None:
        """As commands: spent of every counter, and when windows can be dropped; a second time changes nothing."""
        config, file = configured(tmp_path, tagged(server.url)), tmp_path / "journal"
        window = a_counter(window=this_hour())
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await settle(ledger, "much", MUCH, TEAM)
            await settle(ledger, "little", 1, OTHER, window)
            expiring = ask("late", window, lease=SHORT)
            await ledger.reserve(expiring)
            await eventually(lambda: ledger.expire(1), what="the lease has run out")
            await ledger.settle(expiring.hold, Spent(17))
            await extauthz("journal", "--config", config, "--output", file)
            expected = await spent(redis, ledger.keys), await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)
        await redis.flushall()
        first = await extauthz("audit", "--config", config, "--rebuild", file)
        restored = await spent(redis, ledger.keys), await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)
        second = await extauthz("audit", "--config", config, "--rebuild", file, "--json")
        again = await spent(redis, ledger.keys), await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)

        assert {TEAM.key: MUCH, OTHER.key: 1, window.key: 18} == expected[0]
        assert (0, "") == (first.code, first.err)
        assert "3 counters put right, by 8999999.000000019 USD in all\n" in first.out
        assert expected == restored == again
        assert (0, 0) == (second.code, json.loads(second.out)["corrected"])

    async def test_new_traffic_comes_on_top(self, server: RedisServer, redis: Redis) -> None:
        """What was spent on the empty store since then is kept, whether it was trimmed there or not."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await settle(ledger, "much", MUCH, TEAM)
            lines = await exported(ledger)
        await redis.flushall()
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            for number in range(2 * KEPT):
                await settle(ledger, f"new {number}", 3, TEAM, OTHER)
            await trimmed(redis, ledger)

            assert 1 == await rebuilt(ledger, lines)
            assert {TEAM.key: MUCH + 6 * KEPT, OTHER.key: 6 * KEPT} == await spent(redis, ledger.keys)
            assert 0 == await rebuilt(ledger, lines)
            await settle(ledger, "newer", 5, OTHER)
            assert 0 == await rebuilt(ledger, lines)
            assert {TEAM.key: MUCH + 6 * KEPT, OTHER.key: 6 * KEPT + 5} == await spent(redis, ledger.keys)

    async def test_while_verbs_go_on(self, server: RedisServer, redis: Redis) -> None:
        """Servers that did not even notice the loss need not stop."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await settle(ledger, "much", MUCH, TEAM)
            async with busy(ledger) as rounds:
                await eventually(lambda: sum(rounds) > 20, what="something happened")
            before, lines = await spent(redis, ledger.keys), await exported(ledger)
            await redis.flushall()
            await settle(ledger, "new", 4, OTHER)
            async with busy(ledger) as rounds, redis_ledger(server.url, tag=TAG) as looking:
                await eventually(lambda: sum(rounds) > 20, what="something happened")
                await Auditor(looking).rebuild(lines)
                audit = await Auditor(looking).audit()

            assert () == audit.drifts
            assert before[TEAM.key] < (await spent(redis, ledger.keys))[TEAM.key]
            assert both(before=before, since=await exported(ledger)) == await spent(redis, ledger.keys)

    async def test_what_is_told_again_counts_once(self, server: RedisServer, redis: Redis) -> None:
        """Gates tell a store that forgot the last seconds of them again: neither cost nor import is there twice."""
        amendment = Amendment("import", AmendmentKind.IMPORT, OTHER, 50, "ops")
        async with redis_ledger(server.url, tag=TAG) as ledger:
            request = await settle(ledger, "told twice", 70, TEAM)
            late = ask("late", TEAM, lease=SHORT)
            await ledger.reserve(late)
            await eventually(lambda: ledger.expire(1), what="the lease has run out")
            await ledger.settle(late.hold, Spent(40))
            await ledger.amend(amendment)
            lines = await exported(ledger)
            expected = await spent(redis, ledger.keys)
        await redis.flushall()
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await ledger.settle(request.hold, Spent(70))
            await ledger.settle(late.hold, Spent(40))
            await ledger.amend(amendment)
            across = await continued(ledger, lines)

            assert 0 == await rebuilt(ledger, lines)
            assert {TEAM.key: 110, OTHER.key: 50} == expected == await spent(redis, ledger.keys)
            assert expected == {name: amount for name, amount in Exported(across).spent().items() if amount}

    async def test_a_counter_that_is_over_is_left(self, server: RedisServer, redis: Redis) -> None:
        """What could have been dropped long ago is not brought back, where nobody would drop it again."""
        options = RedisOptions(5.0, tombstone_seconds=1)
        over = a_counter(window=a_window(RealClock().now_ms(), left_ms=100))
        async with redis_ledger(server.url, options=options, tag=TAG) as ledger:
            await settle(ledger, "r", 1, over)
            await settle(ledger, "s", 1, TEAM)
            lines = await exported(ledger)
            await redis.flushall()
            await RealClock().advance(1200)

            assert 1 == await rebuilt(ledger, lines)
            assert [TEAM.key] == await redis.hkeys(ledger.keys.checkpoint)


async def amended(redis: Redis, ledger: RedisLedger) -> tuple[dict[str, str], dict[str, str]]:
    """Read what was granted and which limits stand in for configured ones."""
    granted: Any = await redis.hgetall(ledger.keys.granted)
    limits: Any = await redis.hgetall(ledger.keys.limits)
    return granted, limits


class TestAmendments:
    """Grants and limits that were made by hand come back with the money."""

    async def test_they_come_back(self, server: RedisServer, redis: Redis) -> None:
        """Grants are added up, and the latest limit counts, be it 0; one that was taken away stays away."""
        window = a_counter(window=this_hour())
        async with redis_ledger(server.url, tag=TAG) as ledger:
            for number, (kind, counter, amount) in enumerate(
                (
                    (AmendmentKind.GRANT, TEAM, MUCH),
                    (AmendmentKind.GRANT, TEAM, 7),
                    (AmendmentKind.GRANT, window, 9),
                    (AmendmentKind.LIMIT, OTHER, 30),
                    (AmendmentKind.LIMIT, OTHER, 40),
                    (AmendmentKind.LIMIT, window, 50),
                    (AmendmentKind.LIMIT, window, None),
                    (AmendmentKind.LIMIT, a_counter("none"), 0),
                )
            ):
                await ledger.amend(Amendment(f"a{number}", kind, counter, amount, "ops"))
            lines, expected = await exported(ledger), await amended(redis, ledger)
            due = await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)
        await redis.flushall()
        async with redis_ledger(server.url, tag=TAG) as ledger:
            for _ in range(2):
                await rebuilt(ledger, lines)

                assert expected == await amended(redis, ledger)
                assert due == await redis.zrange(ledger.keys.windows, 0, -1, withscores=True)
        assert ({TEAM.key: f"{MUCH + 7}", window.key: "9"}, {OTHER.key: "40", "team:none|lifetime": "0"}) == expected

    async def test_what_was_amended_since(self, server: RedisServer, redis: Redis) -> None:
        """A grant that is told again counts once, a new one comes on top; a limit changed since then stays as it is."""
        third = a_counter("third")
        grant = Amendment("grant", AmendmentKind.GRANT, TEAM, 100, "ops")
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await ledger.amend(grant)
            for counter in (TEAM, OTHER, third):
                await ledger.amend(Amendment(f"limit {counter.key}", AmendmentKind.LIMIT, counter, 40, "ops"))
            lines = await exported(ledger)
        await redis.flushall()
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await ledger.amend(grant)
            await ledger.amend(Amendment("new grant", AmendmentKind.GRANT, TEAM, 5, "ops"))
            await ledger.amend(Amendment("new limit", AmendmentKind.LIMIT, OTHER, 60, "ops"))
            await ledger.amend(Amendment("no limit", AmendmentKind.LIMIT, third, None, "ops"))
            for _ in range(2):
                await rebuilt(ledger, lines)

                assert ({TEAM.key: "105"}, {TEAM.key: "40", OTHER.key: "60"}) == await amended(redis, ledger)

    async def test_a_limit_since_then_that_was_trimmed(self, server: RedisServer, redis: Redis) -> None:
        """It stays, also when the store's own journal has forgotten that it was set."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await ledger.amend(Amendment("old", AmendmentKind.LIMIT, TEAM, 40, "ops"))
            lines = await exported(ledger)
        await redis.flushall()
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await ledger.amend(Amendment("new", AmendmentKind.LIMIT, TEAM, 60, "ops"))
            for number in range(2 * KEPT):
                await settle(ledger, f"r{number}", 1, TEAM)
            await trimmed(redis, ledger)
            await rebuilt(ledger, lines)

            assert ({}, {TEAM.key: "60"}) == await amended(redis, ledger)

    async def test_nothing_is_taken_away(self, server: RedisServer, redis: Redis) -> None:
        """Books that were not lost keep what an export does not know, whether it began too late or ends too early."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await ledger.amend(Amendment("early", AmendmentKind.GRANT, TEAM, 100, "ops"))
            for number in range(2 * KEPT):
                await settle(ledger, f"r{number}", 1, TEAM)
            await trimmed(redis, ledger)
            await ledger.amend(Amendment("known", AmendmentKind.GRANT, TEAM, 20, "ops"))
            await ledger.amend(Amendment("known limit", AmendmentKind.LIMIT, OTHER, 20, "ops"))
            lines = await exported(ledger)
            await ledger.amend(Amendment("late", AmendmentKind.GRANT, TEAM, 3, "ops"))
            await ledger.amend(Amendment("late limit", AmendmentKind.LIMIT, OTHER, None, "ops"))

            assert 0 == await rebuilt(ledger, lines)
            assert ({TEAM.key: "123"}, {}) == await amended(redis, ledger)

    async def test_across_the_loss(self, server: RedisServer, redis: Redis) -> None:
        """An export that went on with the next books restores the grants of both, each once, and the latest limit."""
        lines: list[str] = []
        again = Amendment("again", AmendmentKind.GRANT, TEAM, 1000, "ops")
        for books in range(3):
            async with redis_ledger(server.url, tag=TAG) as ledger:
                await ledger.amend(again)
                await ledger.amend(Amendment(f"of {books}", AmendmentKind.GRANT, TEAM, 10**books, "ops"))
                await ledger.amend(Amendment(f"limit of {books}", AmendmentKind.LIMIT, TEAM, books, "ops"))
                lines = await (continued(ledger, lines) if lines else exported(ledger))
            await redis.flushall()
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await rebuilt(ledger, lines)

            assert ({TEAM.key: "1111"}, {TEAM.key: "2"}) == await amended(redis, ledger)

    async def test_a_window_that_is_over(self, server: RedisServer, redis: Redis) -> None:
        """What was granted in a window that could have been dropped is not brought back."""
        options = RedisOptions(5.0, tombstone_seconds=1)
        over = a_counter(window=a_window(RealClock().now_ms(), left_ms=100))
        async with redis_ledger(server.url, options=options, tag=TAG) as ledger:
            for counter in (over, TEAM):
                await ledger.amend(Amendment(counter.key, AmendmentKind.GRANT, counter, 5, "ops"))
            lines = await exported(ledger)
            await redis.flushall()
            await RealClock().advance(1200)
            await rebuilt(ledger, lines)

            assert ({TEAM.key: "5"}, {}) == await amended(redis, ledger)


class TestExports:
    """Which exports restore which books."""

    async def test_begun_late(self, server: RedisServer, redis: Redis) -> None:
        """An export's checkpoint has what was trimmed before it began."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            for number in range(3 * KEPT):
                await settle(ledger, f"r{number}", MUCH // 100, TEAM)
            await trimmed(redis, ledger)
            lines = await exported(ledger)
            expected = await spent(redis, ledger.keys)
            await redis.flushall()
            await rebuilt(ledger, lines)

            assert KEPT + 1 == len(lines)
            assert expected == await spent(redis, ledger.keys) == {TEAM.key: 3 * KEPT * (MUCH // 100)}

    async def test_with_a_gap(self, server: RedisServer, redis: Redis) -> None:
        """So has the checkpoint that stands in for what was trimmed while the export was away."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            lines: list[str] = []
            for number in range(3 * KEPT):
                await settle(ledger, f"r{number}", 7, TEAM, a_counter(f"of {number}"))
                if number == 5:
                    lines = await exported(ledger)
            await trimmed(redis, ledger)
            lines = await continued(ledger, lines)
            expected = await spent(redis, ledger.keys)
            await redis.flushall()
            await rebuilt(ledger, lines)

            assert 2 == sum(json.loads(line)["how"] == "checkpoint" for line in lines)
            assert 3 * KEPT + 1 == len(expected)
            assert expected == await spent(redis, ledger.keys)

    @pytest.mark.parametrize("gap", [False, True], ids=["followed", "with a gap after the loss"])
    async def test_continued_across_the_loss(self, server: RedisServer, redis: Redis, *, gap: bool) -> None:
        """An export that went on with the next books has both, and restores them together, again and again."""
        lines: list[str] = []
        for books in range(3):
            async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
                await settle(ledger, f"first of {books}", 100, TEAM)
                lines = await (continued(ledger, lines) if lines else exported(ledger))
                if gap:
                    for number in range(2 * KEPT):
                        await settle(ledger, f"{number} of {books}", 1, TEAM)
                    await trimmed(redis, ledger)
                await settle(ledger, f"last of {books}", 1000, OTHER)
                lines = await continued(ledger, lines)
                if books < 2:
                    await redis.flushall()
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            expected = {TEAM.key: 300 + 6 * KEPT * gap, OTHER.key: 3000}

            assert 2 == await rebuilt(ledger, lines)
            assert expected == await spent(redis, ledger.keys)
            await redis.flushall()
            assert 2 == await rebuilt(ledger, lines)
            assert 0 == await rebuilt(ledger, lines)
            assert expected == await spent(redis, ledger.keys)

    async def test_continued_after_a_rebuild(self, server: RedisServer, redis: Redis) -> None:
        """An export that went on with restored books is as good as the one that they were restored from."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await settle(ledger, "old", 100, TEAM)
            lines = await exported(ledger)
        await redis.flushall()
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await rebuilt(ledger, lines)
            for number in range(2 * KEPT):
                await settle(ledger, f"new {number}", 1, TEAM)
            early = await continued(ledger, lines)
            await trimmed(redis, ledger)
            late = await continued(ledger, lines)

            for export in (early, late, await exported(ledger)):
                await redis.flushall()
                await rebuilt(ledger, export)
                assert {TEAM.key: 100 + 2 * KEPT} == await spent(redis, ledger.keys)

    async def test_on_books_that_were_not_lost(self, server: RedisServer, redis: Redis) -> None:
        """An export of these very books, up to date or not, changes nothing in them."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            for number in range(KEPT):
                await settle(ledger, f"r{number}", 7, TEAM)
            lines = await exported(ledger)
            await settle(ledger, "later", 7, OTHER)

            assert 0 == await rebuilt(ledger, lines)
            assert {TEAM.key: 7 * KEPT, OTHER.key: 7} == await spent(redis, ledger.keys)

    async def test_after_a_counter_was_lost_in_the_checkpoint(self, server: RedisServer, redis: Redis) -> None:
        """Damage that the store's own journal cannot mend is mended by an export."""
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            lines: list[str] = []
            for number in range(2 * KEPT):
                await settle(ledger, f"r{number}", 7, TEAM)
                lines = await (continued(ledger, lines) if lines else exported(ledger))
            await trimmed(redis, ledger)
            await redis.delete(ledger.keys.checkpoint, ledger.keys.spent)

            assert 1 == await rebuilt(ledger, lines)
            assert {TEAM.key: 14 * KEPT} == await spent(redis, ledger.keys)

    async def test_in_neither(self, server: RedisServer, redis: Redis, tmp_path: Path) -> None:
        """Where entries are in neither the export nor the store, nothing is changed."""
        config, file = configured(tmp_path, tagged(server.url)), tmp_path / "journal"
        async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as ledger:
            await settle(ledger, "old", 100, TEAM)
            lines = await exported(ledger)
            file.write_text("".join(lines), encoding="utf-8")
            for number in range(2 * KEPT):
                await settle(ledger, f"r{number}", 1, TEAM)
            await trimmed(redis, ledger)
            before = await redis.hgetall(ledger.keys.checkpoint)

            run = await extauthz("audit", "--config", config, "--rebuild", file)

            assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines())), run.err
            assert "what happened in between is in neither" in run.err
            assert before == await redis.hgetall(ledger.keys.checkpoint)
            assert {TEAM.key: 100 + 2 * KEPT} == await spent(redis, ledger.keys)

    async def test_older_than_the_one_before(self, server: RedisServer, redis: Redis) -> None:
        """Restored books are not taken back to an export that ends earlier."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await settle(ledger, "r", 1, TEAM)
            early = await exported(ledger)
            await settle(ledger, "s", 1, TEAM)
            late = await exported(ledger)
            await redis.flushall()
            await rebuilt(ledger, late)

            with pytest.raises(ExportUnusableError, match="these books were restored from one that ends at"):
                await Auditor(ledger).rebuild(early)
            assert {TEAM.key: 2} == await spent(redis, ledger.keys)

    async def test_a_rebuild_that_broke_off(
        self, server: RedisServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a rebuild left that was stopped half-way is not added a second time."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            for number in range(10):
                await settle(ledger, f"r{number}", 7, TEAM, a_counter(f"of {number}"))
            lines, expected = await exported(ledger), await spent(redis, ledger.keys)
        await redis.flushall()
        async with redis_ledger(server.url, tag=TAG) as ledger:
            sets = 0

            async def ask_twice(*command: str | int) -> object:
                nonlocal sets
                sets += command[0] == "HSET" and str(command[1]).startswith(ledger.keys.checkpoint)
                if sets == 3:
                    raise StoreUnavailableError("gone")
                return await link_ask(*command)

            link_ask = ledger.link.ask
            with monkeypatch.context() as broken:
                broken.setattr("extauthz.ledger.audit.SCAN_COUNT", 3)
                broken.setattr(ledger.link, "ask", ask_twice)
                with pytest.raises(StoreUnavailableError, match="gone"):
                    await Auditor(ledger).rebuild(lines)
            await rebuilt(ledger, lines)

            assert expected == await spent(redis, ledger.keys)

    async def test_a_line_that_was_cut_off(self, server: RedisServer, redis: Redis) -> None:
        """The last line, half written when its writer died, is left out; another one is a mistake."""
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await settle(ledger, "r", 7, TEAM)
            await settle(ledger, "s", 8, TEAM)
            first, *_, last = lines = await exported(ledger)
            await redis.flushall()
            await rebuilt(ledger, [*lines[:-1], last[:-9]])

            assert {TEAM.key: 7} == await spent(redis, ledger.keys)
            with pytest.raises(ExportUnusableError, match=r"^line 2 is not a line of"):
                await Auditor(ledger).rebuild([first, last[:-9] + "\n", last])

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            pytest.param("", "there is no whole checkpoint", id="empty"),
            pytest.param("my notes\n", "line 1 is not a line of `extauthz journal --format jsonl`", id="notes"),
            pytest.param("{first}\n7\n", "line 2 is not a line of", id="a number"),
            pytest.param('{first}\n{{"how":"settled"}}\n', "line 2 is not a line of", id="nothing in it"),
            pytest.param("{entry}\n", "line 1: an export begins with a checkpoint", id="a part of one"),
            pytest.param("at,how,id\n1-0,settled,r\n", "line 1 is not a line of", id="CSV"),
            pytest.param("\udc80\udcff\n", "line 1 is not a line of", id="no text"),
        ],
    )
    async def test_no_export(self, server: RedisServer, redis: Redis, tmp_path: Path, text: str, words: str) -> None:
        """What is no export is refused with its line, and changes nothing."""
        config, file = configured(tmp_path, tagged(server.url)), tmp_path / "journal"
        async with redis_ledger(server.url, tag=TAG) as ledger:
            await settle(ledger, "r", 7, TEAM)
            first, entry = (line.rstrip() for line in await exported(ledger))
            written = text.format(first=first, entry=entry).encode("utf-8", "surrogateescape")
            file.write_bytes(written)
            run = await extauthz("audit", "--config", config, "--rebuild", file)

            assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines())), run.err
            assert words in run.err
            assert {TEAM.key: 7} == await spent(redis, ledger.keys)


def both(*, before: dict[str, int], since: list[str]) -> dict[str, int]:
    """Add what a store's own entries booked to what was spent before it was lost."""
    sums = dict(before)
    for row in map(json.loads, since[1:]):
        for counter in row["counters"]:
            sums[counter] = sums.get(counter, 0) + booked_on(counter, row)
    return {counter: amount for counter, amount in sums.items() if amount}
