"""What books in shards do beyond the contract: each organization's are in one of several sets of keys."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from extauthz.domain.budgets import Counter, Scope, ScopeKind, Spent, Standing
from extauthz.domain.reservation import Claim, Lease
from extauthz.domain.windows import LIFETIME, Window
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import (
    Amendment,
    AmendmentKind,
    Balance,
    Drift,
    Ending,
    Expired,
    Promise,
    Refused,
    Reserve,
    Reserved,
)
from extauthz.ledger.redis import RedisLedger
from extauthz.ledger.shards import ShardedLedger
from tests.support.ledger import Listener, RealClock, a_counter, a_reserve, sharded_ledger
from tests.support.processes import eventually
from tests.support.redis_cluster import Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.redis]

SHARDS = 4
LONG, SHORT = Lease(60_000, Spent(30)), Lease(1, Spent(30))
LIFE = Window(LIFETIME, 0, None)
USER = Counter(Scope(ScopeKind.USER, ("ana",)), LIFE)


def org(name: str) -> Counter:
    """Give an organization's counter."""
    return Counter(Scope(ScopeKind.ORGANIZATION, (name,)), LIFE)


def ask(name: str, *counters: Counter, lease: Lease = LONG, limit: int | None = None) -> Reserve:
    """Ask for a hundred on each counter, now."""
    claims = (Claim(counter, limit, 100) for counter in counters)
    return a_reserve(name, *claims, reserved_at_ms=RealClock().now_ms(), lease=lease)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Run a Cluster."""
    async with Cluster(appendonly=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def ledger(cluster: Cluster) -> AsyncIterator[ShardedLedger]:
    """Open a ledger in shards."""
    async with sharded_ledger(cluster.url, SHARDS, tag=f"shards.{RealClock().now_ms()}") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def other(cluster: Cluster, ledger: ShardedLedger) -> AsyncIterator[ShardedLedger]:
    """Open another process' ledger on the same books."""
    async with sharded_ledger(cluster.url, SHARDS, tag=ledger.shards[0].keys.tag.removesuffix(".0")) as opened:
        yield opened


async def shard_of(ledger: ShardedLedger, name: str) -> RedisLedger:
    """Find the shard that has an organization's books, by a reservation in it."""
    id_ = uuid.uuid4().hex
    before = [await shard.open_count() for shard in ledger.shards]
    await ledger.reserve(ask(id_, org(name)))
    after = [await shard.open_count() for shard in ledger.shards]
    await ledger.release(id_)
    (found,) = (shard for shard, few, more in zip(ledger.shards, before, after, strict=True) if more > few)
    return found


async def two_apart(ledger: ShardedLedger) -> tuple[str, str]:
    """Give two organizations whose books are in different shards."""
    first = await shard_of(ledger, "acme")
    for number in range(20):
        name = f"other {number}"
        if await shard_of(ledger, name) is not first:
            return "acme", name
    raise AssertionError("twenty organizations are in one shard")


async def test_organizations_are_spread(cluster: Cluster) -> None:
    """Many organizations use every shard about alike, and shards are on every node."""
    async with sharded_ledger(cluster.url, 16, tag="spread") as ledger:
        for number in range(160):
            await ledger.reserve(ask(f"r{number}", org(f"organization {number}")))
        counts = [await shard.open_count() for shard in ledger.shards]
        nodes = {shard.link.server.address for shard in ledger.shards if shard.link.server is not None}

        assert 160 == sum(counts) == await ledger.open_count()
        assert 2 <= min(counts) <= max(counts) <= 25
        assert {server.port for server in cluster.servers} == {node.port for node in nodes}


class TestVerbs:
    """All verbs of a reservation meet in one shard, whichever process calls them."""

    async def test_settle(self, ledger: ShardedLedger, other: ShardedLedger) -> None:
        """A settle ends what another process reserved, whatever the order of the hold's counters."""
        for number in range(20):
            request = ask(f"r{number}", a_counter(), org(f"organization {number}"), USER)
            backwards = replace(request.hold, counters=request.hold.counters[::-1])

            assert Reserved(None) == await ledger.reserve(request)
            assert Ending.FIRST == await other.settle(backwards, Spent(7))
            assert Ending.REPEATED == await ledger.settle(request.hold, Spent(7))
        assert 0 == await ledger.open_count()

    async def test_release_by_id(self, ledger: ShardedLedger, other: ShardedLedger) -> None:
        """A release, which knows only the id, finds the reservation, wherever it is."""
        for number in range(20):
            await ledger.reserve(ask(f"r{number}", org(f"organization {number}")))
            await ledger.reserve(ask(f"s{number}", org(f"organization {number}")))

            assert Ending.FIRST == await other.release(f"r{number}")
            assert Ending.REPEATED == await ledger.release(f"r{number}")
            assert Ending.FIRST == await other.release(f"s{number}", attempt="first")
        assert 0 == await ledger.open_count()

    async def test_promises(self, ledger: ShardedLedger, other: ShardedLedger) -> None:
        """What one process promised another finds by its name, wherever that is, and forgets."""
        names = [f"name {number}" for number in range(20)]
        for name in names:
            assert await ledger.promise(Promise(name, f"the hold of {name}"))
        assert {f"the hold of {name}" for name in names} == {await other.promised(name) for name in names}
        for name in names:
            await other.forget(name)

        assert {None} == {await ledger.promised(name) for name in names}

    async def test_renew_and_expire(self, ledger: ShardedLedger, other: ShardedLedger) -> None:
        """A lease is renewed where it is, and runs out in every shard."""
        requests = [ask(f"r{number}", org(f"organization {number}"), lease=SHORT) for number in range(20)]
        for request in requests:
            await ledger.reserve(request)
            assert await other.renew(request.hold, Lease(1, Spent(40)))
        expired: list[Expired] = []

        async def all_expired() -> bool:
            expired.extend(await other.expire(3))
            return len(expired) >= 20

        await eventually(all_expired, what="all leases have run out")

        assert {Expired(f"r{number}", Spent(40)) for number in range(20)} == {*expired}
        assert 20 == len(expired)
        assert not await ledger.renew(requests[0].hold, LONG)
        assert Ending.LATE == await ledger.settle(requests[0].hold, Spent(7))

    async def test_expire_while_a_shard_is_away(self, ledger: ShardedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
        """What ended in the others is told; when nothing did, that one is away is."""
        acme, apart = await two_apart(ledger)
        await ledger.reserve(ask("r", org(acme), lease=SHORT))

        async def away(count_max: int) -> tuple[Expired, ...]:
            raise StoreUnavailableError

        monkeypatch.setattr(await shard_of(ledger, apart), "expire", away)

        async def expire() -> tuple[Expired, ...]:
            try:
                return await ledger.expire(10)
            except StoreUnavailableError:
                return ()

        assert (Expired("r", Spent(30)),) == await eventually(expire, what="the lease has run out")
        with pytest.raises(StoreUnavailableError):
            await ledger.expire(10)


class TestQuestions:
    """What is asked of one organization's books, and of all."""

    async def test_standings(self, ledger: ShardedLedger) -> None:
        """A user of two organizations has a budget in each; all together they are added up."""
        acme, apart = await two_apart(ledger)
        for number, name in enumerate((acme, apart), start=1):
            settled = ask(f"settled {name}", org(name), USER)
            await ledger.reserve(settled)
            await ledger.settle(settled.hold, Spent(number * 10))
        await ledger.reserve(ask("open", org(apart), USER))

        for payers, expected in (
            ([org(acme).scope, USER.scope], (10, 0)),
            ([USER.scope, org(apart).scope], (20, 100)),
            ([], (30, 100)),
        ):
            assert (Standing(USER, 500, *expected),) == await ledger.standings([(USER, 500)], payers=payers)
        assert isinstance(await ledger.reserve(ask("r", org(apart), USER, limit=20)), Refused)
        assert Reserved(0) == await ledger.reserve(ask("s", org(acme), USER, limit=20))

    async def test_balances(self, ledger: ShardedLedger) -> None:
        """Balances of a counter in several shards are one, also where others are above it in each."""
        acme, apart = await two_apart(ledger)
        for name in (acme, apart):
            for counter, cost in ((USER, 10), (org(name), 11)):
                request = ask(f"{counter.key} of {name}", counter, *([org(name)] if counter is USER else []))
                await ledger.reserve(request)
                await ledger.settle(request.hold, Spent(cost))
        await ledger.reserve(ask("open", org(apart), USER))

        assert (Balance(org(apart), 21, 100), Balance(org(acme), 21, 0), Balance(USER, 20, 100)) == (
            await ledger.balances(9)
        )
        for number in range(3):
            request = ask(f"more {number}", org(apart), USER)
            await ledger.reserve(request)
            await ledger.settle(request.hold, Spent(1))

        assert (Balance(org(apart), 24, 100),) == await ledger.balances(1)

    async def test_what_is_little_in_each_is_much_together(self, ledger: ShardedLedger) -> None:
        """The most spent counter is named although it is not the most spent one in any shard."""
        acme, apart = await two_apart(ledger)
        for name in (acme, apart):
            for counters, cost in (((org(name),), 10), ((org(name), USER), 20)):
                request = ask(f"{cost} of {name}", *counters)
                await ledger.reserve(request)
                await ledger.settle(request.hold, Spent(cost))

        assert (Balance(USER, 40, 0),) == await ledger.balances(1)


class TestAmendments:
    """A change by hand is made where the counter is."""

    async def test_an_organizations(self, ledger: ShardedLedger) -> None:
        """It is made in the organization's shard and in no other, once."""
        acme, _ = await two_apart(ledger)
        amendment = Amendment("a", AmendmentKind.IMPORT, org(acme), 700, "ops")
        home = await shard_of(ledger, acme)

        assert [True, False] == [await ledger.amend(amendment) for _ in range(2)]
        for shard in ledger.shards:
            spent = 700 if shard is home else 0
            assert (Standing(org(acme), 1, spent, 0),) == await shard.standings([(org(acme), 1)])
        assert (Balance(org(acme), 700, 0),) == await ledger.balances(9)

    async def test_anybody_elses(self, ledger: ShardedLedger) -> None:
        """Of a user it is not known in which shards the counter is: a reset and a limit reach all of them."""
        acme, apart = await two_apart(ledger)
        for name in (acme, apart):
            request = ask(f"r {name}", org(name), USER)
            await ledger.reserve(request)
            await ledger.settle(request.hold, Spent(10))
        await ledger.amend(Amendment("a", AmendmentKind.RESET, USER, None, "ops"))
        await ledger.amend(Amendment("b", AmendmentKind.LIMIT, USER, 40, "ops"))

        for payers in ([], [org(acme).scope], [org(apart).scope]):
            assert (Standing(USER, 40, 0, 0),) == await ledger.standings([(USER, 500)], payers=payers)

    async def test_an_organizations_limit(self, ledger: ShardedLedger) -> None:
        """A limit is looked up in the shard that has it, also when nobody says who asks."""
        for name in await two_apart(ledger):
            await ledger.amend(Amendment(f"l {name}", AmendmentKind.LIMIT, org(name), 40, "ops"))
            await ledger.amend(Amendment(f"g {name}", AmendmentKind.GRANT, org(name), 2, "ops"))

            assert (Standing(org(name), 42, 0, 0),) == await ledger.standings([(org(name), 500)])


class TestLists:
    """What is listed and compared of all shards together."""

    async def test_reservations(self, ledger: ShardedLedger) -> None:
        """The oldest of all shards come first, and no more than asked for."""
        requests = [ask(f"r{number}", org(f"organization {number}")) for number in range(20)]
        aged = [
            replace(request, hold=replace(request.hold, reserved_at_ms=request.hold.reserved_at_ms - 1000 * age_s))
            for age_s, request in enumerate(requests)
        ]
        for request in aged:
            await ledger.reserve(request)
        listed = await ledger.reservations(99)

        assert [f"r{number}" for number in reversed(range(20))] == [reservation.id for reservation in listed]
        assert listed[:3] == await ledger.reservations(3)

    async def test_audit(self, ledger: ShardedLedger) -> None:
        """Every shard is compared with its own journal and reservations, and what is wrong in any is told."""
        acme, apart = await two_apart(ledger)
        for name in (acme, apart):
            await ledger.reserve(ask(f"r {name}", org(name), USER))
        right = await ledger.audit()
        damaged = await shard_of(ledger, apart)
        await damaged.link.ask("HINCRBY", damaged.keys.held, USER.key, 5)
        await damaged.link.ask("HINCRBY", damaged.keys.spent, org(apart).key, 7)

        assert right.ok
        assert (4, 2) == (right.counters_checked, right.reservations_open)
        assert {Drift("held", USER.key, 100, 105), Drift("spent", org(apart).key, 0, 7)} == {
            *(await ledger.audit()).drifts
        }

    async def test_announce(self, ledger: ShardedLedger, other: ShardedLedger) -> None:
        """What one process announced no other one does."""
        names = [f"team {number} is at 80 %" for number in range(20)]

        assert [True] * 20 == [await ledger.announce(name, 60_000) for name in names]
        assert [False] * 20 == [await other.announce(name, 60_000) for name in names]


async def test_another_number_is_refused(cluster: Cluster, ledger: ShardedLedger) -> None:
    """Books in four shards are not opened as books in five or two: organizations would lose what they have spent."""
    tag = ledger.shards[0].keys.tag.removesuffix(".0")
    for number in (2, 5):
        listener = Listener()
        async with sharded_ledger(cluster.url, number, listener, tag, found=False):
            pass

        assert (
            f"the books under {{{tag}.0}} are of version 1 in 4 shards, "
            f"and this program is to keep them in version 1 in {number} shards"
        ) in "\n".join(listener.lost)
