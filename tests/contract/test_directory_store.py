"""What every store of keys and payers does alike: in memory, in each version of Redis, and in a Cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import count

import pytest
import pytest_asyncio

from extauthz.config.payers import KeyFields, TeamFields, UserFields, hashed
from extauthz.directories.source import EVERYTHING_CHANGED, NOTHING_CHANGED, Changes
from extauthz.directories.store import registry
from extauthz.directories.store.archive import WRITTEN_MAX, Archive, Author, OvertakenError
from extauthz.directories.store.listing import PayerQuery, page
from extauthz.directories.store.memory import MemoryRecords
from extauthz.directories.store.records import (
    DROPPED_AFTER_MS,
    Change,
    Edit,
    Outcome,
    Place,
    Records,
    Table,
)
from extauthz.directories.store.redis import RedisRecords
from extauthz.directories.store.references import naming
from extauthz.directories.store.registry import PREVIOUS_MAX, Done, Registry
from extauthz.directories.store.source import ENTRIES_MAX, StoreSource
from extauthz.directories.store.written import place_of
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import AbsentError, ImpossibleError, UnclearError
from tests.contract.conftest import Servers
from tests.support.ledger import RealClock, redis_ledger
from tests.support.redis import REDIS_VERSIONS, RedisServer
from tests.support.redis_cluster import Cluster

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="session")]

TEAM = Scope(ScopeKind.TEAM, ("research",))
LISTED = Scope(ScopeKind.TEAM, ("listed",))
ANA = Author("ana", "a-change")


@asynccontextmanager
async def in_memory(servers: Servers) -> AsyncIterator[Records]:
    """Keep records in memory."""
    yield MemoryRecords(RealClock().now_ms)


@asynccontextmanager
async def in_redis(
    name: str, start: Callable[[], AbstractAsyncContextManager[RedisServer | Cluster]], servers: Servers
) -> AsyncIterator[Records]:
    """Keep records beside the books, under a tag of their own."""
    async with redis_ledger(await servers.url(name, start)) as ledger:
        yield RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)


KEPT: dict[str, Callable[[Servers], AbstractAsyncContextManager[Records]]] = {
    "memory": in_memory,
    **{
        version.name: partial(in_redis, version.name, partial(RedisServer, version, appendonly=False))
        for version in REDIS_VERSIONS
    },
    "Cluster": partial(in_redis, "Cluster", Cluster),
}


@pytest_asyncio.fixture(loop_scope="session", params=KEPT)
async def records(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Records]:
    """Open each in turn, empty."""
    async with KEPT[request.param](servers) as opened:
        yield opened


@dataclass(slots=True)
class Office:
    """Somebody who changes keys and payers, with what was told of it."""

    records: Records
    now_s: float = field(default_factory=lambda: RealClock().now_ms() // 1000)
    told: list[tuple[str, str, str]] = field(default_factory=list)
    keys: Iterator[int] = field(default_factory=count)
    changes: Iterator[int] = field(default_factory=count)
    unreadable: list[Scope] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        """Who changes them."""
        return Registry(
            Archive(self.records, lambda what, subject, who: self.told.append((what, subject, who))),
            listed=lambda scope: scope == LISTED,
            new_key=lambda: f"sk-new-{next(self.keys)}",
            unix_s=lambda: self.now_s,
        )

    def source(self) -> StoreSource:
        """Make a replica's view of it."""
        return StoreSource(self.records, lambda scope, _: self.unreadable.append(scope))

    def author(self, who: str = "ana") -> Author:
        """Give a change a name of its own."""
        return Author(who, f"change-{next(self.changes)}")

    async def create(self, **fields: object) -> Done:
        """Make a key."""
        return await self.registry.create(fields, self.author())


@pytest.fixture
def office(records: Records) -> Office:
    """Begin with no key."""
    return Office(records)


def key(done: Done) -> Scope:
    """Give the scope of the key that came of it."""
    assert done.after is not None
    return done.after.scope


class TestKeys:
    """Keys are created, rotated, blocked and revoked."""

    async def test_create(self, office: Office) -> None:
        """A new key is shown once, is known by its hash, and has its fields, numbers to the last digit."""
        done = await office.create(
            team="listed", max_budget=Decimal("0.123456789"), budget_duration="1mo", models=["a"]
        )

        assert ("sk-new-0", None, True) == (done.key, done.before, done.changed)
        fields = (await office.source().fetch([key(done)]))[key(done)]
        expected = {"team": "listed", "max_budget": "0.123456789", "budget_duration": "1mo", "models": ["a"]}
        assert KeyFields.model_validate({"key_sha256": hashed("sk-new-0"), **expected}) == fields

    async def test_nothing_of_the_key_is_kept(self, office: Office) -> None:
        """Neither the record nor the log has the key in it."""
        done = await office.create(key_alias="ana-laptop")

        assert done.after is not None
        assert done.key is not None
        (entry,) = await office.records.latest(10)
        raw = (await office.records.read([place_of(key(done))]))[place_of(key(done))]
        assert done.key.encode() not in raw
        assert done.key not in repr((entry, done.after, office.told))
        assert [("create", f"key:{hashed(done.key)[:8]} (ana-laptop)", "ana")] == office.told

    async def test_sent_twice(self, office: Office) -> None:
        """A creation that is sent twice makes one key, and nobody can be shown it again."""
        first = await office.registry.create({}, ANA)
        second = await office.registry.create({}, ANA)

        assert (True, False, None) == (first.changed, second.changed, second.key)
        assert first.after is not None
        assert second.after is not None
        assert first.after.scope == second.after.scope
        assert 1 == await office.records.count(Table.KEY)

    async def test_aliases(self, office: Office) -> None:
        """A key is found by its alias, which no other can have, until it is given up."""
        done = await office.create(key_alias="ana-laptop")

        assert key(done) == (await office.registry.find("ana-laptop")).scope
        with pytest.raises(ImpossibleError, match="another key has the alias `ana-laptop`"):
            await office.create(key_alias="ana-laptop")
        await office.registry.update("ana-laptop", {"key_alias": "ana-old"}, office.author())
        other = await office.create(key_alias="ana-laptop")
        assert [key(done), key(other)] == [
            (await office.registry.find(alias)).scope for alias in ("ana-old", "ana-laptop")
        ]
        await office.registry.revoke("ana-old", office.author())
        with pytest.raises(AbsentError):
            await office.registry.find("ana-old")

    async def test_rotate_with_grace(self, office: Office) -> None:
        """A rotated key works until its grace period ends; the new one has its fields, alias and counters."""
        old = await office.create(team="listed", key_alias="ana-laptop")
        new = await office.registry.rotate("ana-laptop", 3600, office.author())

        assert new.key is not None
        assert key(new) == (await office.registry.find("ana-laptop")).scope
        fields = await office.source().fetch([key(old), key(new)])
        was, comes = fields[key(old)], fields[key(new)]
        assert isinstance(was, KeyFields)
        assert isinstance(comes, KeyFields)
        assert was.expires is not None
        assert office.now_s + 3600 == was.expires.timestamp()
        assert ("listed", "ana-laptop", None, key(old).ids[0]) == (
            comes.team,
            comes.key_alias,
            comes.expires,
            comes.counts_as,
        )

    async def test_a_rotated_key_goes_with_its_successor(self, office: Office) -> None:
        """Whoever blocks or revokes a key means those as well in whose place it came, as long as they work."""
        old = await office.create(key_alias="a")
        middle = await office.registry.rotate("a", 3600, office.author())
        new = await office.registry.rotate("a", 3600, office.author())
        keys = [key(old), key(middle), key(new)]
        await office.registry.block("a", office.author(), blocked=True)
        blocked = (await office.source().fetch(keys)).values()
        await office.registry.block("a", office.author(), blocked=False)
        again = (await office.source().fetch(keys)).values()
        await office.registry.revoke("a", office.author())

        assert [True] * 3 == [fields.blocked for fields in blocked if isinstance(fields, KeyFields)]
        assert [False] * 3 == [fields.blocked for fields in again if isinstance(fields, KeyFields)]
        assert {} == await office.source().fetch(keys)
        assert 0 == await office.records.count(Table.ALIAS)

    async def test_what_cannot_be_rotated(self, office: Office) -> None:
        """A key that was rotated, or has expired, is not: the new one would end with it."""
        old = await office.create(key_alias="a")
        await office.create(key_alias="b", expires="2026-01-31T08:00:00Z")
        await office.registry.rotate("a", 3600, office.author())

        for name, word in ((key(old).ids[0], "another key came in the place"), ("b", "has expired")):
            with pytest.raises(ImpossibleError, match=word):
                await office.registry.rotate(name, 60, office.author())

    async def test_rotate_again(self, office: Office) -> None:
        """However often a key is rotated, its counters stay those of the first, and only the last has the alias."""
        first = await office.create(key_alias="a")
        await office.registry.rotate("a", 0, office.author())
        last = await office.registry.rotate("a", 0, office.author())

        fields = (await office.source().fetch([key(last)]))[key(last)]
        assert isinstance(fields, KeyFields)
        assert key(first).ids[0] == fields.counts_as
        assert 1 == await office.records.count(Table.KEY)

    async def test_rotated_keys_are_dropped(self, office: Office) -> None:
        """A key that was rotated is taken away a day after its end, by whatever is changed then."""
        await office.create(key_alias="a")
        await office.registry.rotate("a", 60, office.author())
        assert 2 == await office.records.count(Table.KEY)

        office.now_s -= 2 * DROPPED_AFTER_MS / 1000
        await office.create(key_alias="b")
        await office.registry.rotate("b", 60, office.author())
        await office.create()

        assert 4 == await office.records.count(Table.KEY)

    @pytest.mark.parametrize("grace_s", [0, 60])
    async def test_a_key_with_a_longer_grace_than_its_successor(self, office: Office, grace_s: float) -> None:
        """Whoever revokes a key means those before it as well where one between them ended first, or went at once."""
        office.now_s -= 2 * DROPPED_AFTER_MS / 1000
        old = await office.create(key_alias="a")
        await office.registry.rotate("a", 30 * 86_400, office.author())
        await office.registry.rotate("a", grace_s, office.author())
        await office.create()
        office.now_s += 2 * DROPPED_AFTER_MS / 1000
        assert key(old) in await office.source().fetch([key(old)])
        await office.registry.block("a", office.author(), blocked=True)
        await office.registry.update("a", {"max_budget": 1}, office.author())
        await office.registry.revoke("a", office.author())

        assert {} == await office.source().fetch([key(old)])
        assert 1 == await office.records.count(Table.KEY)

    async def test_more_keys_in_a_row_than_can_be_revoked(self, office: Office) -> None:
        """A key is not rotated so often that some before it would be forgotten; without a grace period it is."""
        first = await office.create(key_alias="a")
        for _ in range(PREVIOUS_MAX - 2):
            await office.registry.rotate("a", 3600, office.author())
        with pytest.raises(ImpossibleError, match="still work"):
            await office.registry.rotate("a", 3600, office.author())
        await office.registry.rotate("a", 0, office.author())
        assert key(first) in await office.source().fetch([key(first)])
        await office.registry.revoke("a", office.author())

        assert 0 == await office.records.count(Table.KEY)

    async def test_many_rotations_one_after_the_other(self, office: Office) -> None:
        """A key may be rotated for ever where those before it have ended."""
        office.now_s -= 100 * PREVIOUS_MAX
        await office.create(key_alias="a")
        for _ in range(2 * PREVIOUS_MAX):
            office.now_s += 40
            await office.registry.rotate("a", 30, office.author())

    async def test_block(self, office: Office) -> None:
        """A key is blocked and let in again, and nothing else of it changes."""
        done = await office.create(team="listed", key_alias="a")
        blocked = await office.registry.block("a", office.author(), blocked=True)
        again = await office.registry.block("a", office.author(), blocked=False)

        assert blocked.after is not None
        assert done.after is not None
        assert again.after is not None
        assert {**done.after.document, "blocked": True} == blocked.after.document
        assert done.after.document == again.after.document

    async def test_revoke(self, office: Office) -> None:
        """A revoked key is unknown."""
        done = await office.create()
        gone = await office.registry.revoke(key(done).ids[0], office.author())

        assert (key(done), None) == (gone.before.scope if gone.before else None, gone.after)
        assert {} == await office.source().fetch([key(done)])

    async def test_update(self, office: Office) -> None:
        """Fields are changed and taken away one by one, and none is, where one of them is wrong."""
        await office.create(key_alias="a", team="listed", max_budget=5)
        with pytest.raises(UnclearError, match="max_budget"):
            await office.registry.update("a", {"max_budget": -1, "team": None}, office.author())
        done = await office.registry.update("a", {"max_budget": 7, "team": None}, office.author())

        assert done.after is not None
        assert {"key_alias": "a", "max_budget": 7} == done.after.document

    async def test_at_the_same_time(self, office: Office) -> None:
        """Of many changes at once none is lost."""
        await office.create(key_alias="a")
        fields = ("max_budget", "max_tokens", "max_requests")
        await asyncio.gather(
            *(office.registry.update("a", {name: 5}, office.author()) for name in fields), return_exceptions=False
        )

        assert {"key_alias": "a", **dict.fromkeys(fields, 5)} == (await office.registry.find("a")).document

    @pytest.mark.parametrize("name", ["sk-secret", ""])
    async def test_a_key_is_no_name(self, office: Office, name: str) -> None:
        """Who names a key by itself is told not to, and the key is not repeated."""
        with pytest.raises(UnclearError) as refused:
            await office.registry.find(name)

        assert "secret" not in str(refused.value).replace("keep it secret", "")

    async def test_what_is_put_over_a_key_that_was_rotated(self, office: Office) -> None:
        """A key that is written whole, as an import does, still leads to those before it."""
        old = await office.create(key_alias="a")
        new = await office.registry.rotate("a", 3600, office.author())
        assert new.after is not None
        await office.registry.load([(key(new), new.after.document)], office.author())
        await office.registry.revoke("a", office.author())

        assert {} == await office.source().fetch([key(old)])

    async def test_names_that_are_numbers(self, office: Office) -> None:
        """A team that is written as a number is the one of that name: it is looked for, and found by who names it."""
        with pytest.raises(ImpossibleError, match="team:42"):
            await office.create(team=42)
        team = Scope(ScopeKind.TEAM, ("42",))
        await office.registry.put(team, {"max_budget": 1}, office.author())
        made = await office.create(team=42, key_alias=7, blocked="no", tags=[])
        assert made.after is not None
        assert {"team": "42", "key_alias": "7", "blocked": False, "tags": []} == made.after.document
        with pytest.raises(ImpossibleError, match="whose budgets would bind it no more"):
            await office.registry.delete(team, office.author())

    async def test_a_key_that_nobody_can_read(self, office: Office) -> None:
        """What was a key with limits does not become one without them by a change of something else."""
        made = await office.create(key_alias="a", max_budget=1)
        edits = [Edit(place_of(key(made)), b"[]")]
        assert Outcome.MADE is await office.records.change(Change("x", "ana", "by hand"), edits)
        for change in (
            partial(office.registry.update, "a", {"key_alias": "b"}),
            partial(office.registry.rotate, "a", 0),
            partial(office.registry.block, "a", blocked=False),
        ):
            with pytest.raises(ImpossibleError, match="cannot be read"):
                await change(author=office.author())
        await office.registry.revoke("a", office.author())

        assert {} == await office.source().fetch([key(made)])

    async def test_mistakes(self, office: Office) -> None:
        """Fields are judged by the sentences of the configuration, all at once."""
        with pytest.raises(UnclearError) as refused:
            await office.create(max_budgets=1, budget_duration="often", key="sk-mine")
        assert "`key` is no field here" in str(refused.value)
        with pytest.raises(UnclearError) as refused:
            await office.create(max_budgets=1, budget_duration="often")

        assert "did you mean `max_budget`?" in str(refused.value)
        assert "budget_duration" in str(refused.value)

    async def test_who_is_named(self, office: Office) -> None:
        """A key can name only payers that are known: by the files, by the store, or by themselves."""
        with pytest.raises(ImpossibleError, match="team:research is named, whom nobody knows"):
            await office.create(team="research")
        await office.registry.put(TEAM, {}, office.author())
        await office.create(team="research", key_alias="a")
        await office.records.change(Change("x", "ana", "by hand"), [Edit(place_of(TEAM), None)])

        # Whom it named before is no reason not to block it.
        assert (await office.registry.block("a", office.author(), blocked=True)).changed

    @pytest.mark.parametrize(
        ("who", "change_id"), [("", "c"), ("a" * 65, "c"), ("a\x1b", "c"), ("a", ""), ("a", "a b")]
    )
    async def test_authors(self, office: Office, who: str, change_id: str) -> None:
        """A name that the log has no room for, or that a terminal would obey, is refused."""
        with pytest.raises(UnclearError):
            await office.registry.create({}, Author(who, change_id))


class TestPayers:
    """Payers of the other kinds are put, found and deleted."""

    async def test_put(self, office: Office) -> None:
        """A payer has the fields that were put last, and who wrote it first stays known."""
        await office.registry.put(TEAM, {"max_budget": 5, "models": ["a"]}, office.author())
        done = await office.registry.put(TEAM, {"max_budget": 7}, office.author("bo"))

        assert done.after is not None
        assert ({"max_budget": 7}, "ana") == (done.after.document, done.after.made_by)
        assert TeamFields(max_budget=Decimal(7)) == (await office.source().fetch([TEAM]))[TEAM]

    async def test_members(self, office: Office) -> None:
        """Members of a team are payers of their own, of known teams and users."""
        member = Scope(ScopeKind.MEMBER, ("listed", "ana b/c"))
        with pytest.raises(ImpossibleError, match="user:ana%20b%2Fc"):
            await office.registry.put(member, {"max_budget": 1}, office.author())
        await office.registry.put(Scope(ScopeKind.USER, ("ana b/c",)), {}, office.author())
        await office.registry.put(member, {"max_budget": 1}, office.author())

        assert [member] == [*await office.source().fetch([member])]
        with pytest.raises(UnclearError, match="member:TEAM/USER"):
            await office.registry.put(TEAM, {"members": {"ana": {}}}, office.author())

    async def test_delete(self, office: Office) -> None:
        """A payer that was deleted is unknown; one that is not there cannot be deleted."""
        await office.registry.put(TEAM, {}, office.author())
        await office.registry.delete(TEAM, office.author())

        assert {} == await office.source().fetch([TEAM])
        with pytest.raises(AbsentError, match="team:research is not in the store"):
            await office.registry.delete(TEAM, office.author())

    @pytest.mark.parametrize(
        ("payer", "fields"),
        [
            ("team:named", {"team": "named"}),
            ("user:named", {"user": "named"}),
            ("org:named", {"organization": "named"}),
            ("project:named", {"project": "named"}),
            ("tag:named", {"tags": ["other", "named"]}),
        ],
    )
    async def test_delete_somebody_who_is_named(self, office: Office, payer: str, fields: dict[str, object]) -> None:
        """A payer that a key names cannot be deleted: its budgets would bind that key no more."""
        scope = Scope.parse(payer)
        await office.registry.put(Scope.parse("tag:other"), {}, office.author())
        await office.registry.put(scope, {}, office.author())
        await office.create(**fields, key_alias="a")
        await office.create(key_alias="named")
        with pytest.raises(ImpossibleError, match=f"names {payer}"):
            await office.registry.delete(scope, office.author())
        await office.registry.revoke("a", office.author())

        assert (await office.registry.delete(scope, office.author())).changed

    async def test_delete_somebody_who_is_named_meanwhile(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who is named while a deletion looks for that stays; who was looked up before one is not named after it."""
        team = Scope(ScopeKind.TEAM, ("t",))
        await office.registry.put(team, {"max_budget": 1}, office.author())
        looked = naming

        async def meanwhile(records: Records, payer: Scope) -> Scope | None:
            found = await looked(records, payer)
            monkeypatch.undo()
            await office.create(team="t", key_alias="a")
            return found

        monkeypatch.setattr(registry, "naming", meanwhile)
        with pytest.raises(ImpossibleError, match="names team:t"):
            await office.registry.delete(team, office.author())
        assert team in await office.source().fetch([team])
        await office.registry.revoke("a", office.author())
        archive = Archive(office.records, lambda *_: None)
        needed = [await archive.of(team)]
        await office.registry.delete(team, office.author())

        with pytest.raises(OvertakenError):
            await archive.write("put", [], office.author(), needed=needed)

    async def test_a_record_that_nobody_can_read(self, office: Office) -> None:
        """What somebody wrote by hand, wrongly, is refused, and is told; a field of a newer version is skipped.

        Who names such a payer is bound by it as long as it says anything, so that it is not one without limits.
        """
        other = Scope(ScopeKind.TEAM, ("other",))
        user, odd = Scope(ScopeKind.USER, ("ana",)), Scope(ScopeKind.KEY, ("0" * 64,))
        wrong = [*(Scope(ScopeKind.TEAM, (name,)) for name in ("list", "text", "made", "bytes", "inside")), user, odd]
        newer = b'{"budget_limits": [{"max_budget": 5, "per": "day"}]}'
        raw = [b'{"max_budget": []}', b"[]", b'{"@": 5}', b"\xff", newer, b"[]", b"[]"]
        edits = [Edit(place_of(other), b'{"max_budget": 1, "new": 2}'), *map(Edit, map(place_of, wrong), raw)]
        assert Outcome.MADE is await office.records.change(Change("x", "ana", "by hand"), edits)

        assert {
            other: TeamFields(max_budget=Decimal(1)),
            **dict.fromkeys(wrong[:5], TeamFields(blocked=True)),
            user: UserFields(max_budget=Decimal(0)),
        } == await office.source().fetch([*wrong, other])
        assert {*wrong} == {*office.unreadable}
        assert 6 == len((await page(office.records, PayerQuery((ScopeKind.TEAM,)))).records)
        await office.registry.put(wrong[0], {"max_budget": 2}, office.author())
        assert (await office.registry.delete(wrong[1], office.author())).changed
        assert TeamFields(max_budget=Decimal(2)) == (await office.source().fetch([wrong[0]]))[wrong[0]]


class TestLoading:
    """Many payers are written at once."""

    async def test_load(self, office: Office) -> None:
        """Payers that name each other are written together, in any order, over what was there."""
        scopes = [Scope(ScopeKind.KEY, (hashed(f"sk-{number}"),)) for number in range(WRITTEN_MAX - 1)]
        documents = [(scope, {"team": "research", "key_alias": "shared"}) for scope in scopes]
        loaded = await office.registry.load([*documents, (TEAM, {"max_budget": 1})], office.author())
        again = await office.registry.load([(TEAM, {"max_budget": 2})], office.author())

        assert loaded
        assert again
        assert WRITTEN_MAX - 1 == await office.records.count(Table.KEY)
        assert TeamFields(max_budget=Decimal(2)) == (await office.source().fetch([TEAM]))[TEAM]
        assert scopes[-1] == (await office.registry.find("shared")).scope

    async def test_all_or_none(self, office: Office) -> None:
        """One mistake, and nothing is written; every mistake is told."""
        keys = [Scope(ScopeKind.KEY, (hashed(f"sk-{number}"),)) for number in range(3)]
        with pytest.raises(UnclearError) as refused:
            await office.registry.load([(keys[0], {"tea": 1}), (keys[1], {}), (keys[2], {"max": 1})], office.author())

        assert all(scope.ids[0][:8] in str(refused.value) for scope in (keys[0], keys[2]))
        assert 0 == await office.records.count(Table.KEY)

    async def test_sent_twice(self, office: Office) -> None:
        """The same load is done once."""
        assert await office.registry.load([(TEAM, {})], ANA)
        assert not await office.registry.load([(TEAM, {"max_budget": 1})], ANA)


class TestListing:
    """Records are listed in pages."""

    async def test_pages(self, office: Office) -> None:
        """Page by page every payer of the kinds that are asked for is given."""
        keys = [Scope(ScopeKind.KEY, (hashed(f"sk-{number}"),)) for number in range(WRITTEN_MAX)]
        for part in range(3):
            half = [Scope(ScopeKind.TEAM, (f"t{part}-{number}",)) for number in range(WRITTEN_MAX)]
            await office.registry.load([(scope, {}) for scope in half], office.author())
        await office.registry.load([(scope, {"team": "listed"}) for scope in keys], office.author())

        found: set[Scope] = set()
        pages, after = 0, ""
        while True:
            some = await page(office.records, PayerQuery((ScopeKind.TEAM, ScopeKind.KEY), {}, 50, after))
            found |= {record.scope for record in some.records}
            pages, after = pages + 1, some.end
            if not after:
                break
        assert 4 * WRITTEN_MAX == len(found)
        assert 10 < pages <= 4 * WRITTEN_MAX

    async def test_by_fields(self, office: Office) -> None:
        """Only those with certain fields are given."""
        mine = await office.create(team="listed")
        await office.create()

        found = await page(office.records, PayerQuery((ScopeKind.KEY,), {"team": "listed"}))
        assert ([key(mine)], "") == ([record.scope for record in found.records], found.end)

    @pytest.mark.parametrize("place", ["nothing", "key/x", "team/00"])
    async def test_a_place_that_is_none(self, office: Office, place: str) -> None:
        """A token that is none of ours is refused."""
        with pytest.raises(UnclearError, match="page_token"):
            await page(office.records, PayerQuery((ScopeKind.KEY,), after=place))


class TestChanges:
    """Replicas learn what changed."""

    async def test_one_after_the_other(self, office: Office) -> None:
        """A replica begins with everything, and then hears of each change once."""
        source = office.source()
        begun = await source.changes()
        done = await office.create()
        await office.registry.put(TEAM, {}, office.author())

        assert EVERYTHING_CHANGED == begun
        assert Changes(frozenset({key(done), TEAM})) == await source.changes()
        assert NOTHING_CHANGED == await source.changes()
        await office.registry.delete(TEAM, office.author())
        assert Changes(frozenset({TEAM})) == await source.changes()

    async def test_both_keys_of_a_rotation(self, office: Office) -> None:
        """A rotation changes the old key and the new one."""
        old = await office.create(key_alias="a")
        source = office.source()
        await source.changes()
        new = await office.registry.rotate("a", 60, office.author())

        assert Changes(frozenset({key(old), key(new)})) == await source.changes()

    async def test_several_replicas(self, office: Office) -> None:
        """Each replica hears of everything, whoever made the change."""
        sources = [office.source() for _ in range(3)]
        for source in sources:
            await source.changes()
        done = await office.create()

        assert [Changes(frozenset({key(done)}))] * 3 == [await source.changes() for source in sources]

    async def test_a_gap(self, office: Office) -> None:
        """After more changes than one look reads, everything may have changed; then it goes on as before."""
        source = office.source()
        await source.changes()
        for _ in range(ENTRIES_MAX):
            await office.records.change(Change(office.author().change_id, "ana", "put", (TEAM.text,)), [])

        assert EVERYTHING_CHANGED == await source.changes()
        done = await office.create()
        assert Changes(frozenset({key(done)})) == await source.changes()

    async def test_a_load(self, office: Office) -> None:
        """After a load of many, everything may have changed."""
        source = office.source()
        await source.changes()
        await office.registry.load([(Scope(ScopeKind.TEAM, (f"t{n}",)), {}) for n in range(WRITTEN_MAX)], ANA)

        assert EVERYTHING_CHANGED == await source.changes()

    async def test_the_log(self, office: Office) -> None:
        """The log says who did what to whom, and in which order."""
        await office.create(key_alias="a")
        await office.registry.rotate("a", 60, office.author("bo"))
        await office.registry.put(TEAM, {}, office.author("cy"))

        entries = await office.records.latest(10)
        assert [("put", "cy"), ("rotate", "bo"), ("create", "ana")] == [
            (entry.change.what, entry.change.who) for entry in entries
        ]
        assert "team:research" == entries[0].change.remark
        assert entries == tuple(reversed(await office.records.entries("-", 10)))

    async def test_a_change_that_comes_twice(self, office: Office) -> None:
        """A change whose name was used does nothing, whatever it is, and is found by its name."""
        place = Place(Table.TEAM, b"a")
        change = Change("1", "ana", "put", ("team:a",), "team:a")
        assert Outcome.MADE is await office.records.change(change, [Edit(place, b"{}")])
        assert Outcome.REPEATED is await office.records.change(change, [Edit(place, b"[]")])

        assert {place: b"{}"} == await office.records.read([place])
        entry = await office.records.made("1")
        assert entry is not None
        assert change == entry.change
        assert await office.records.made("2") is None

    async def test_a_change_that_comes_late(self, office: Office) -> None:
        """An edit of what is no longer as it was changes nothing, and neither does any other of the same change."""
        place, other = Place(Table.TEAM, b"a"), Place(Table.TEAM, b"b")
        assert Outcome.MADE is await office.records.change(Change("1", "ana", "put"), [Edit(place, b"{}", None)])
        for before in (None, b"{ }"):
            late = [Edit(other, b"{}"), Edit(place, b"[]", before)]
            assert Outcome.CONFLICT is await office.records.change(Change("2", "ana", "put"), late)

        assert {place: b"{}"} == await office.records.read([place, other])
        assert Outcome.MADE is await office.records.change(Change("2", "ana", "put"), [Edit(place, None, b"{}")])
