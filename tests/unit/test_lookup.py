"""The lookup of payers: how often a directory is asked, how long its answers hold, and what holds without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from extauthz.config.model import Settings
from extauthz.config.payers import BudgetFields, EndUserFields, KeyFields, TagFields, TeamFields
from extauthz.config.records import RecordMaker
from extauthz.directories.entries import ABSENT_MAX
from extauthz.directories.lookup import (
    ABSENT_S,
    EPOCHS_MAX,
    FETCHES_MAX,
    TRY_S,
    WANTED_MAX,
    KnownElsewhere,
    Lookup,
    Rules,
)
from extauthz.directories.source import EVERYTHING_CHANGED, FETCH_MAX, NOTHING_CHANGED, Changes
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.payers import Key
from extauthz.domain.policy import DirectoryFailure
from extauthz.errors import DirectoryUnavailableError
from extauthz.telemetry.events import LookupResult, Telemetry

TEAM = Scope(ScopeKind.TEAM, ("research",))
# Real time: so long nothing that ought to happen takes.
PATIENCE_S = 5.0
ENTRIES_MAX = 1000


def key_scope(number: int) -> Scope:
    """Name a key by a number."""
    return Scope(ScopeKind.KEY, (f"{number:064x}",))


def key(number: int, **fields: object) -> KeyFields:
    """Write what a directory says of a key."""
    return KeyFields.model_validate({"key_sha256": f"{number:064x}", **fields})


@dataclass
class Clock:
    """A clock that stands still until somebody moves it."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@dataclass
class Directory:
    """A directory of the test's own: what it knows, what it tells of changes, and all that it was asked."""

    known: dict[Scope, BudgetFields] = field(default_factory=dict)
    told: list[Changes | None] = field(default_factory=list)
    tells: bool = False
    away: bool = False
    asked: list[tuple[Scope, ...]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def fetch(self, scopes: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
        """Give what is known when the question is put; the answer comes when the directory is open."""
        self.asked.append(tuple(scopes))
        found = {scope: self.known[scope] for scope in scopes if scope in self.known}
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if self.away:
            raise DirectoryUnavailableError("the line is cut")
        return found

    async def changes(self) -> Changes | None:
        """Tell what is next in line."""
        if self.away and self.tells:
            raise DirectoryUnavailableError("the line is cut")
        if not self.tells:
            return None
        return self.told.pop(0) if self.told else NOTHING_CHANGED

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Ear(Telemetry):
    """Hears of the directory."""

    lines: list[str] = field(default_factory=list)
    counts: dict[LookupResult, int] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)

    def directory_lost(self, reason: str) -> None:
        """Note that it is away."""
        self.lines.append(f"away: {reason}")

    def directory_seen(self) -> None:
        """Note that it is there."""
        self.lines.append("there")

    def directory_asked(self, result: LookupResult, count: int) -> None:
        """Count."""
        self.counts[result] = self.counts.get(result, 0) + count

    def failed(self, where: str, error: BaseException) -> None:
        """Note a failure."""
        self.failures.append(error)


class House:
    """A lookup of a directory, under a clock that the test moves."""

    def __init__(self, directory: Directory, rules: Rules = Rules(), fetch_s: float = PATIENCE_S) -> None:  # noqa: B008
        self.directory = directory
        self.clock = Clock()
        self.ear = Ear()
        self.lookup = Lookup(directory, rules, self.ear, self.clock, entries_max=ENTRIES_MAX, fetch_s=fetch_s)
        self.payers = KnownElsewhere(self.lookup, RecordMaker(Settings()))

    async def load(self, *scopes: Scope, patience_s: float = PATIENCE_S) -> None:
        """Need some payers now."""
        await self.lookup.load(scopes, self.lookup.until(patience_s))

    async def fields(self, scope: Scope) -> BudgetFields | None:
        """Need a payer, and give what is known of it."""
        await self.load(scope)
        entry = self.lookup.entry(scope)
        assert entry is not None
        return None if entry.said is None else entry.said.fields()

    async def later(self, seconds: float) -> None:
        """Let time pass, and everything come to rest that needs none."""
        self.clock.now_s += seconds
        await self.rest()

    async def rest(self) -> None:
        """Let what is under way come to rest."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def hear(self) -> None:
        """Have the directory asked for its changes once."""
        following = asyncio.create_task(self.lookup.follow())
        await self.rest()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


@asynccontextmanager
async def built(**directory: object) -> AsyncIterator[House]:
    """Build a house, and close it."""
    house = House(Directory(**directory))  # type: ignore[arg-type]
    try:
        yield house
    finally:
        house.directory.open.set()
        await house.lookup.close()


def numbers_of(asked: Sequence[tuple[Scope, ...]]) -> list[int]:
    """Tell how many payers each question was about."""
    return [len(scopes) for scopes in asked]


class TestStorms:
    """A directory is asked no more than it has to be, whatever clients send."""

    async def test_one_unknown_key(self) -> None:
        """A thousand requests with one key that is not known yet ask for it once."""
        async with built(known={key_scope(1): key(1)}) as house:
            await asyncio.gather(*(house.load(key_scope(1)) for _ in range(1000)))

            assert house.directory.asked == [(key_scope(1),)]

    async def test_one_question_for_one_moment(self) -> None:
        """All who are needed at one moment are asked for together, in questions of a bounded size."""
        async with built() as house:
            await asyncio.gather(*(house.load(key_scope(number)) for number in range(FETCH_MAX + 10)))

            assert numbers_of(house.directory.asked) == [FETCH_MAX, 10]

    async def test_while_a_question_is_open(self) -> None:
        """Who is being asked for already is not asked for again, and so many questions are open at most."""
        async with built() as house:
            house.directory.open.clear()
            waiting = []
            for number in range(3 * FETCHES_MAX):
                waiting += [asyncio.create_task(house.load(key_scope(number))) for _ in range(2)]
                await house.rest()
            house.directory.open.set()
            await asyncio.gather(*waiting)

            assert house.directory.most_under_way == FETCHES_MAX
            assert sum(numbers_of(house.directory.asked)) == 3 * FETCHES_MAX

    async def test_a_flood_of_unknown_keys(self) -> None:
        """Keys that nobody knows, however many, push out none that is known, and are bounded themselves."""
        async with built(known={key_scope(1): key(1), TEAM: TeamFields()}) as house:
            await house.load(key_scope(1), TEAM)
            for start in range(100, 100_100, 5000):
                await house.load(*(key_scope(number) for number in range(start, start + 5000)))
            asked = len(house.directory.asked)
            await house.load(key_scope(1), TEAM)

            assert len(house.directory.asked) == asked
            assert sum(1 for _ in house.lookup.known()) == 2
            assert house.lookup.size <= 2 + min(ABSENT_MAX, ENTRIES_MAX)

    async def test_a_flood_of_end_users(self) -> None:
        """One client that goes through many end users pushes out nobody's key."""
        scopes = [Scope(ScopeKind.END_USER, (f"u{number}",)) for number in range(3 * ENTRIES_MAX)]
        async with built(known={key_scope(1): key(1), **{scope: EndUserFields() for scope in scopes}}) as house:
            await house.load(key_scope(1))
            for start in range(0, len(scopes), ENTRIES_MAX):
                await house.load(*scopes[start : start + ENTRIES_MAX])

            assert house.lookup.entry(key_scope(1)) is not None
            assert house.lookup.size == 1 + ENTRIES_MAX

    async def test_known_payers_go_first(self) -> None:
        """Keys that may be anybody's invention do not hold up those that were known before."""
        async with built(known={key_scope(1): key(1)}) as house:
            await house.load(key_scope(1))
            await house.later(60)
            house.directory.open.clear()
            flood = [asyncio.create_task(house.load(key_scope(number))) for number in range(100, 100 + 6 * FETCH_MAX)]
            await house.rest()
            known = asyncio.create_task(house.load(key_scope(1)))
            await house.rest()
            house.directory.open.set()
            await asyncio.gather(known, *flood)

            assert key_scope(1) in house.directory.asked[1 + FETCHES_MAX]

    async def test_too_many_wait(self) -> None:
        """Beyond a bound nobody waits: the answer is that nothing is known."""
        async with built() as house:
            house.directory.open.clear()
            waiting = asyncio.create_task(house.load(*(key_scope(number) for number in range(WANTED_MAX))))
            await house.rest()
            with pytest.raises(DirectoryUnavailableError):
                await house.load(key_scope(WANTED_MAX))
            house.directory.open.set()
            await waiting

    async def test_those_who_are_known_while_too_many_wait(self) -> None:
        """Whoever is remembered goes on by that, when there is no room to wait for news."""
        async with built(known={TEAM: TeamFields()}) as house:
            await house.load(TEAM)
            await house.later(60)
            house.directory.open.clear()
            waiting = asyncio.create_task(house.load(*(key_scope(number) for number in range(WANTED_MAX))))
            await house.rest()
            assert await house.fields(TEAM) == TeamFields()
            house.directory.open.set()
            await waiting

    async def test_a_change_of_those_who_are_known_while_too_many_wait(self) -> None:
        """However many others wait, whoever is in use is read again, and so a change is in force."""
        async with built(known={key_scope(1): key(1)}) as house:
            await house.load(key_scope(1))
            await house.later(3)
            house.directory.open.clear()
            waiting = asyncio.create_task(house.load(*(key_scope(number) for number in range(2, 2 + WANTED_MAX))))
            await house.rest()
            house.directory.known[key_scope(1)] = key(1, blocked=True)
            await house.load(key_scope(1))
            house.directory.open.set()
            await waiting

            assert await house.fields(key_scope(1)) == key(1, blocked=True)

    async def test_answers_that_there_is_no_room_for(self) -> None:
        """Who is nobody is told so, and not asked for again, although so many are nobody."""
        async with built() as house:
            scopes = [key_scope(number) for number in range(3 * ENTRIES_MAX)]
            until_s = house.lookup.until(PATIENCE_S)
            led_on = await asyncio.gather(*(house.lookup.load([scope], until_s) for scope in scopes))

            assert not any(led_on)
            assert sum(numbers_of(house.directory.asked)) == len(scopes)

    async def test_what_leads_on(self) -> None:
        """Only who was found leads on to others; what is remembered, or nobody, does not."""
        async with built(known={TEAM: TeamFields()}) as house:
            until_s = house.lookup.until(PATIENCE_S)
            led_on = [await house.lookup.load(scopes, until_s) for scopes in ([TEAM], [TEAM], [key_scope(1)])]
            house.directory.away = True
            await house.later(60)
            led_on += [await house.lookup.load([TEAM], until_s + 60) for _ in range(2)]

            assert led_on == [True, False, False, True, False]

    async def test_a_change_while_somebody_waits(self) -> None:
        """Who was known and became another while somebody waited for the rest leads on to others."""
        async with built(known={key_scope(1): key(1, team="gone")}) as house:
            await house.load(key_scope(1))
            until_s = house.lookup.until(PATIENCE_S)
            house.directory.open.clear()
            gone = Scope(ScopeKind.TEAM, ("gone",))
            waiting = asyncio.create_task(house.lookup.load([key_scope(1), gone], until_s))
            await house.rest()
            house.directory.known[key_scope(1)] = key(1, team="research")
            house.directory.tells, house.directory.told = True, [Changes(frozenset({key_scope(1)}))]
            await house.hear()
            house.directory.open.set()

            assert await waiting

    async def test_one_who_gives_up(self) -> None:
        """Who stops waiting takes the answer from nobody else."""
        async with built(known={key_scope(1): key(1)}) as house:
            house.directory.open.clear()
            gives_up = asyncio.create_task(house.load(key_scope(1)))
            waits = asyncio.create_task(house.fields(key_scope(1)))
            await house.rest()
            gives_up.cancel()
            await house.rest()
            house.directory.open.set()

            assert await waits == key(1)


class TestAge:
    """How long an answer holds."""

    @pytest.mark.parametrize(
        ("age_s", "questions"),
        [
            pytest.param(1.9, 1, id="young"),
            pytest.param(2.1, 2, id="read again in the background"),
            pytest.param(4.1, 2, id="old"),
        ],
    )
    async def test_known(self, age_s: float, questions: int) -> None:
        """A payer who is used after one interval is read again, and one that is older than two is waited for."""
        async with built(known={TEAM: TeamFields()}) as house:
            await house.load(TEAM)
            house.directory.known[TEAM] = changed = TeamFields(blocked=True)
            house.clock.now_s += age_s
            house.directory.open.clear()
            waits = asyncio.create_task(house.fields(TEAM))
            await house.rest()

            assert waits.done() is (age_s <= 4)
            house.directory.open.set()
            assert (await waits == changed) is (age_s > 4)
            await house.rest()
            assert len(house.directory.asked) == questions
            assert (await house.fields(TEAM) == changed) is (questions == 2)

    async def test_in_use(self) -> None:
        """A change is in force after two intervals at most for a payer in use, who is never waited for."""
        async with built(known={TEAM: TeamFields()}) as house:
            await house.load(TEAM)
            house.directory.known[TEAM] = TeamFields(blocked=True)
            seen = []
            for _ in range(8):
                await house.later(0.5)
                hits = house.ear.counts.get(LookupResult.HIT, 0)
                seen.append(await house.fields(TEAM))
                assert house.ear.counts[LookupResult.HIT] == hits + 1

            assert seen[-1] == TeamFields(blocked=True)
            assert len(house.directory.asked) == 2

    async def test_nobody(self) -> None:
        """That a key is unknown is believed for a moment, so one that was made just now works soon."""
        async with built() as house:
            assert await house.fields(key_scope(1)) is None
            house.directory.known[key_scope(1)] = key(1)
            await house.later(ABSENT_S)
            assert await house.fields(key_scope(1)) is None
            await house.later(0.1)

            assert await house.fields(key_scope(1)) == key(1)

    async def test_gone(self) -> None:
        """A key that was deleted is unknown, and its record with it."""
        async with built(known={key_scope(1): key(1)}) as house:
            await house.load(key_scope(1))
            house.directory.known.clear()
            await house.later(4.1)

            assert await house.fields(key_scope(1)) is None
            assert house.payers.record(key_scope(1)) is None


class TestChanges:
    """A directory that tells of changes."""

    async def test_nothing_changed(self) -> None:
        """Who has not changed is not asked for again, for as long as the directory tells."""
        async with built(known={TEAM: TeamFields()}, tells=True) as house:
            await house.hear()
            await house.load(TEAM)
            for _ in range(10):
                await house.later(2)
                await house.hear()
                await house.load(TEAM)

            assert len(house.directory.asked) == 1

    async def test_changed(self) -> None:
        """Who has changed is read again at once."""
        async with built(known={TEAM: TeamFields()}, tells=True) as house:
            await house.hear()
            await house.load(TEAM)
            house.directory.known[TEAM] = TeamFields(blocked=True)
            house.directory.told = [Changes(frozenset({TEAM}))]
            await house.later(1)
            await house.hear()

            assert await house.fields(TEAM) == TeamFields(blocked=True)

    async def test_a_change_under_way(self) -> None:
        """An answer that a change has overtaken is not kept for longer than any other."""
        async with built(known={TEAM: TeamFields()}, tells=True) as house:
            await house.hear()
            house.directory.open.clear()
            waits = asyncio.create_task(house.load(TEAM))
            await house.rest()
            house.directory.known[TEAM] = TeamFields(blocked=True)
            house.directory.told = [Changes(frozenset({TEAM}))]
            await house.hear()
            house.directory.open.set()
            await waits
            for _ in range(5):
                await house.later(1)
                await house.hear()

            assert await house.fields(TEAM) == TeamFields(blocked=True)

    async def test_everything(self) -> None:
        """When everything may have changed, payers in use are read again in the background, and others before use."""
        async with built(known={TEAM: TeamFields(), key_scope(1): key(1)}, tells=True) as house:
            await house.hear()
            await house.load(TEAM, key_scope(1))
            await house.later(100)
            await house.hear()
            house.directory.known[TEAM] = TeamFields(blocked=True)
            house.directory.told = [EVERYTHING_CHANGED]
            await house.later(1)
            await house.hear()
            assert await house.fields(TEAM) == TeamFields()  # as of 1 s ago
            await house.later(1.5)
            await house.load(TEAM)
            await house.rest()

            assert await house.fields(TEAM) == TeamFields(blocked=True)
            assert house.directory.asked == [(TEAM, key_scope(1)), (TEAM,)]

    async def test_a_failure_of_our_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a question for changes that failed in a way nobody foresaw, everything may have changed."""

        async def broken() -> Changes | None:
            raise KeyError

        async with built(known={TEAM: TeamFields()}, tells=True) as house:
            await house.hear()
            await house.load(TEAM)
            monkeypatch.setattr(house.directory, "changes", broken)
            with pytest.raises(KeyError):
                await house.lookup.follow()
            monkeypatch.undo()
            house.directory.known[TEAM] = TeamFields(blocked=True)
            await house.hear()
            await house.later(5)
            await house.hear()

            assert await house.fields(TEAM) == TeamFields(blocked=True)

    async def test_it_stops_telling(self) -> None:
        """Without news, what was told last is as old as that."""
        async with built(known={TEAM: TeamFields()}, tells=True) as house:
            await house.hear()
            await house.load(TEAM)
            await house.later(1000)
            await house.hear()
            house.directory.away = True
            for _ in range(2 * EPOCHS_MAX):
                await house.hear()
            await house.later(200)
            await house.load(TEAM)
            await house.later(101)

            with pytest.raises(DirectoryUnavailableError):
                await house.load(TEAM)


class TestAway:
    """A directory that does not answer."""

    async def test_never_seen(self) -> None:
        """Of whom nothing is known nothing is said: neither a no nor a yes."""
        async with built(away=True) as house:
            with pytest.raises(DirectoryUnavailableError):
                await house.load(key_scope(1))
            with pytest.raises(DirectoryUnavailableError):
                await house.load(key_scope(1))

            assert house.ear.lines == ["away: the line is cut"]
            assert len(house.directory.asked) == 1

    @pytest.mark.parametrize(
        ("failure", "age_s", "holds"),
        [
            (DirectoryFailure.DENY, 299, True),
            (DirectoryFailure.DENY, 301, False),
            (DirectoryFailure.STALE, 301, True),
            (DirectoryFailure.STALE, 1_000_000, True),
        ],
    )
    async def test_known(self, failure: DirectoryFailure, age_s: float, *, holds: bool) -> None:
        """What was heard holds for a time, and with `stale` for as long as it is remembered."""
        async with built(known={TEAM: TeamFields()}) as house:
            house.lookup.rules = Rules(stale_s=300, failure=failure)
            await house.load(TEAM)
            house.directory.away = True
            await house.later(age_s)
            try:
                await house.load(TEAM)
            except DirectoryUnavailableError:
                assert not holds
            else:
                assert holds
                assert house.ear.counts[LookupResult.STALE] == 1

    async def test_unknown_before(self) -> None:
        """That a key was unknown is no answer when it is old: it may be known by now."""
        async with built() as house:
            house.lookup.rules = Rules(failure=DirectoryFailure.STALE)
            await house.load(key_scope(1))
            house.directory.away = True
            await house.later(ABSENT_S + 1)

            with pytest.raises(DirectoryUnavailableError):
                await house.load(key_scope(1))

    async def test_nobody_waits(self) -> None:
        """Once it is known that the directory hangs, what is remembered is used at once, but for a try now and then."""
        async with built(known={TEAM: TeamFields()}) as house:
            await house.load(TEAM)
            house.directory.away = True
            await house.later(10)
            await house.load(TEAM)
            house.directory.open.clear()
            for _ in range(5):
                await house.later(TRY_S / 4)
                loaded = asyncio.create_task(house.load(TEAM))
                await house.rest()
                assert loaded.done()
                with pytest.raises(DirectoryUnavailableError):
                    await house.load(key_scope(1), patience_s=0)

            assert len(house.directory.asked) == 3

    async def test_told_once(self) -> None:
        """That it is away, and that it is back, are told once each; it is tried also when nobody asks."""
        async with built(known={TEAM: TeamFields()}) as house:
            await house.load(TEAM)
            house.directory.away = True
            for _ in range(5):
                await house.later(5)
                await house.load(TEAM)
            house.directory.away = False
            await house.later(5)
            await house.hear()

            assert house.ear.lines == ["there", "away: the line is cut", "there"]

    async def test_a_deadline(self) -> None:
        """A question that is not answered in time is given up, and whoever waits goes on."""
        house = House(Directory(), fetch_s=0.01)
        house.directory.open.clear()
        with pytest.raises(DirectoryUnavailableError):
            await house.load(TEAM)

        assert house.ear.lines == ["away: it did not answer in time"]
        await house.lookup.close()

    async def test_patience(self) -> None:
        """Nobody waits for longer than they can; the answer is there for the next."""
        async with built(known={TEAM: TeamFields()}) as house:
            house.directory.open.clear()
            with pytest.raises(DirectoryUnavailableError):
                await house.load(TEAM, patience_s=0.01)
            house.directory.open.set()
            await house.rest()

            assert await house.fields(TEAM) == TeamFields()
            assert len(house.directory.asked) == 1

    async def test_a_failure_of_our_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A source that fails in a way that nobody foresaw leaves nobody waiting."""

        async def broken(_: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
            raise KeyError

        async with built() as house:
            monkeypatch.setattr(house.directory, "fetch", broken)
            with pytest.raises(DirectoryUnavailableError):
                await house.load(TEAM)

            assert [type(error) for error in house.ear.failures] == [KeyError]


class TestRecords:
    """What is remembered, as records of a configuration."""

    async def test_the_same_object(self) -> None:
        """A record is the same object until it changes: then whatever was made of it is made anew."""
        async with built(known={TEAM: TeamFields(max_budget=1)}) as house:
            await house.load(TEAM)
            before = house.payers.record(TEAM)
            await house.later(5)
            await house.load(TEAM)
            assert house.payers.record(TEAM) is before
            house.directory.known[TEAM] = TeamFields(max_budget=2)
            await house.later(5)
            await house.load(TEAM)

            assert house.payers.record(TEAM) != before

    async def test_other_settings(self) -> None:
        """Under another configuration the same fields are read by its calendar, and nobody is asked again."""
        async with built(known={TEAM: TeamFields(max_budget=1, budget_duration="1d")}) as house:
            await house.load(TEAM)
            make = RecordMaker(Settings(timezone="Asia/Tokyo"))
            record = KnownElsewhere(house.lookup, make).record(TEAM)

            assert record is not None
            assert record.budgets[0].rule.zone == "Asia/Tokyo"
            assert len(house.directory.asked) == 1

    async def test_a_key_in_the_place_of_another(self) -> None:
        """A key is found by the one whose place it took, until it is forgotten."""
        old, new = f"{1:064x}", f"{2:064x}"
        async with built(known={key_scope(2): key(2, counts_as=old)}) as house:
            await house.load(key_scope(2))
            found = house.payers.successor(old)
            assert isinstance(found, Key)
            assert (found.sha256, found.counted_as) == (new, old)
            house.directory.known.clear()
            await house.later(5)
            await house.load(key_scope(2))

            assert house.payers.successor(old) is None

    async def test_several_keys_in_the_place_of_one(self) -> None:
        """A key that was rotated again does not take its successor's place with it when it is forgotten."""
        old = f"{1:064x}"
        known: dict[Scope, BudgetFields] = {key_scope(number): key(number, counts_as=old) for number in (2, 3)}
        async with built(known=known) as house:
            await house.load(key_scope(2), key_scope(3))
            del house.directory.known[key_scope(2)]
            await house.later(5)
            await house.load(key_scope(2))
            found = house.payers.successor(old)

            assert isinstance(found, Key)
            assert found.sha256 == key_scope(3).ids[0]

    async def test_those_who_are_known(self) -> None:
        """Those who have budgets are listed, each of the others has a place there, and nothing is made of these."""
        tag, part = Scope(ScopeKind.TAG, ("night",)), Scope(ScopeKind.TAG, ("part",))
        limits: dict[Scope, BudgetFields] = {
            tag: TagFields(max_tokens=1),
            part: TagFields.model_validate({"model_max_budget": {"gpt-4o": {"max_requests": 1}}}),
        }
        async with built(known={TEAM: TeamFields(), key_scope(2): key(2, key_alias="ana"), **limits}) as house:
            await house.load(TEAM, *limits, key_scope(1), key_scope(2))
            listed = [*house.payers.limited()]

            assert {found[0] for found in listed if found is not None} == {*limits}
            assert listed.count(None) == 2
            assert [made.sha256 for made in house.payers.called("ana")] == [key_scope(2).ids[0]]
            entry = house.lookup.entry(TEAM)
            assert entry is not None
            assert entry.record is None
