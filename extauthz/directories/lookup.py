"""A directory's payers as they are known here: looked up once, kept while they are in use, and never all at once.

How long holds what was heard of a payer:

- It is used for AGE_REFRESHES times `directory_refresh_seconds`. Whoever is in use by then has been read again in the
  background, so that a Check waits only for whom nobody has asked for lately. A directory that tells of changes need
  not be asked again for those of whom it tells none.
- While the directory does not answer, it is used for `directory_stale_seconds`, and with `directory_failure: stale` for
  as long as it is remembered.
- That nobody knows whom a client named is believed for ABSENT_S.

Who is needed, and was not heard of in time, raises DirectoryUnavailableError: that is never a no, and never a yes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from extauthz.config.payers import BudgetFields
from extauthz.directories.entries import UNFOLLOWED, Entries, Entry, Make, Said
from extauthz.directories.source import FETCH_MAX, Changes, Source
from extauthz.domain.budgets import Scope
from extauthz.domain.payers import Key, Record
from extauthz.domain.policy import DirectoryFailure
from extauthz.errors import DirectoryUnavailableError
from extauthz.telemetry.events import LookupResult, Telemetry

# A fetch, or a question for changes, that takes longer is given up.
FETCH_S = 2.0
# So many fetches are under way at once.
FETCHES_MAX = 4
# Payers who are waited for; more are refused at once.
WANTED_MAX = 20_000
# How long nobody looks again for whom a client named and the directory does not know.
ABSENT_S = 5.0
# A directory that does not answer is tried again this often; nobody else waits for it meanwhile.
TRY_S = 0.5
# What is read again after one `directory_refresh_seconds`, when somebody uses it, is in use for so many of them.
AGE_REFRESHES = 2
# Times between which a directory lost count of its changes, that are remembered.
EPOCHS_MAX = 100


@dataclass(frozen=True, slots=True)
class Rules:
    """How long what was heard holds, in seconds, and what holds when that is over."""

    refresh_s: float = 2.0
    stale_s: float = 300.0
    failure: DirectoryFailure = DirectoryFailure.DENY


@dataclass(slots=True, eq=False)
class _Want:
    """A payer who is waited for: `overtaken` when the directory told of a change after it was asked.

    `absent` when it answered that nobody is there: of so many who are nobody, not each is remembered for long.
    """

    scope: Scope
    done: asyncio.Future[None]
    overtaken: bool = False
    absent: bool = False


class Lookup:
    """Looks payers up, by `rules` that may be others at any time. `follow` is to be called again and again."""

    def __init__(
        self,
        source: Source,
        rules: Rules,
        telemetry: Telemetry,
        clock_s: Callable[[], float],
        *,
        entries_max: int,
        fetch_s: float = FETCH_S,
    ) -> None:
        self.rules = rules
        self._source = source
        self._telemetry = telemetry
        self._clock_s = clock_s
        self._fetch_s = fetch_s
        self._entries = Entries(entries_max)
        self._wants: dict[str, _Want] = {}
        # Those of them who are still to be asked for: whom we knew before those who may be anybody's invention.
        self._next: tuple[dict[str, _Want], dict[str, _Want]] = ({}, {})
        self._fetches: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._up: bool | None = None
        self._tried_s = -TRY_S
        # Until when the directory told of all changes, by the epochs in which it did; in this one, not yet.
        self._epoch = 1
        self._told: dict[int, float] = {}

    @property
    def size(self) -> int:
        """How many payers are remembered, those who are known to be nobody included."""
        return len(self._entries)

    def entry(self, scope: Scope) -> Entry | None:
        """Give what is remembered of a payer, however old."""
        return self._entries.get(scope)

    def successor(self, key_sha256: str) -> Entry | None:
        """Give what is remembered of a key that took the place of another."""
        return self._entries.successor(key_sha256)

    def known(self) -> Iterator[Entry]:
        """List the payers who are remembered."""
        return self._entries.known()

    def until(self, patience_s: float) -> float:
        """Tell until when, by the lookup's clock, somebody waits who has so much patience."""
        return self._clock_s() + patience_s

    async def load(self, scopes: Sequence[Scope], until_s: float) -> bool:
        """See to it that what is remembered of payers may be used, and tell whether that may lead to others by now.

        It waits for the directory if need be. Raises DirectoryUnavailableError.
        """
        now_s = self._clock_s()
        missing = [scope for scope in scopes if not self._used(scope, now_s)]
        if len(missing) < len(scopes):
            self._telemetry.directory_asked(LookupResult.HIT, len(scopes) - len(missing))
        if not missing:
            return False
        others = [(scope, self._entries.get(scope)) for scope in set(scopes).difference(missing)]
        wants: list[_Want] = []
        if self._may_try(now_s) and (self._up is not False or not self._all_hold(missing, now_s)):
            wants += (want for scope in missing if (want := self._want(scope)) is not None)
        if wants:
            await asyncio.wait([want.done for want in wants], timeout=max(0.0, until_s - now_s))
        absent = {want.scope for want in wants if want.absent}
        for scope in missing:
            self._settle(scope, absent=scope in absent)
        # While somebody waits, what was there before may have had to go, or have become something else: a key of
        # another team, for whom nobody was asked to look.
        gone = any(self._entries.get(scope) is None for scope in missing if scope not in absent)
        changed = any(self._entries.get(scope) is not entry for scope, entry in others)
        return gone or changed or len(absent) < len(wants)

    async def follow(self) -> None:
        """Hear of changes, try a directory that was away, and wait until it is time to do so again."""
        begun_s = self._clock_s()
        try:
            async with asyncio.timeout(self._fetch_s):
                changes = await self._source.changes()
        except (DirectoryUnavailableError, TimeoutError) as error:
            self._end_epoch()
            self._lost(error)
        except Exception:
            self._end_epoch()
            raise
        else:
            self._learn(changes, begun_s)
        anybody = next(self._entries.known(), None)
        if self._up is False and anybody is not None and self._may_try(self._clock_s()):
            self._want(anybody.scope)
        await asyncio.sleep(self.rules.refresh_s / AGE_REFRESHES)

    async def close(self) -> None:
        """Give up what is under way."""
        fetches = [*self._fetches]
        for fetch in fetches:
            fetch.cancel()
        if fetches:
            await asyncio.wait(fetches)
        await self._source.close()

    def _used(self, scope: Scope, now_s: float) -> bool:
        """Note that a payer is in use, have it read again in time, and tell whether what is remembered may be used."""
        entry = self._entries.get(scope)
        if entry is None:
            return False
        self._entries.use(entry)
        age_s = now_s - self._heard_s(entry)
        if age_s < self.rules.refresh_s:
            return True
        fresh = self._fresh(entry, now_s)
        if fresh and not entry.foreign and self._may_try(now_s):
            self._want(scope, remembered=True)
        return fresh

    def _fresh(self, entry: Entry, now_s: float) -> bool:
        age_s = now_s - self._heard_s(entry)
        return age_s <= (ABSENT_S if entry.foreign else AGE_REFRESHES * self.rules.refresh_s)

    def _holds(self, entry: Entry, now_s: float) -> bool:
        """Tell whether an entry holds although the directory has not said so in time."""
        if entry.foreign:
            return False
        return self.rules.failure is DirectoryFailure.STALE or now_s - self._heard_s(entry) <= self.rules.stale_s

    def _all_hold(self, scopes: Iterable[Scope], now_s: float) -> bool:
        return all((entry := self._entries.get(scope)) is not None and self._holds(entry, now_s) for scope in scopes)

    def _heard_s(self, entry: Entry) -> float:
        """Tell as of when an entry is known to be right."""
        told_s = self._told.get(entry.epoch)
        return entry.read_s if told_s is None else max(entry.read_s, told_s)

    def _settle(self, scope: Scope, *, absent: bool) -> None:
        """Go on with what is known of a payer by now. Raises DirectoryUnavailableError."""
        entry, now_s = self._entries.get(scope), self._clock_s()
        if entry is None and absent:
            result = LookupResult.ABSENT
        elif entry is not None and self._fresh(entry, now_s):
            result = LookupResult.ABSENT if entry.said is None else LookupResult.FETCHED
        elif entry is not None and self._holds(entry, now_s):
            result = LookupResult.STALE
        else:
            self._telemetry.directory_asked(LookupResult.UNAVAILABLE, 1)
            raise DirectoryUnavailableError
        self._telemetry.directory_asked(result, 1)

    def _may_try(self, now_s: float) -> bool:
        return self._up is not False or now_s - self._tried_s >= TRY_S

    def _want(self, scope: Scope, *, remembered: bool = False) -> _Want | None:
        """Have a payer asked for, with all others of this tick; None where it would be one too many.

        Those who are `remembered` are bounded by that: no crowd of others keeps a change of theirs from being heard.
        """
        want = self._wants.get(scope.text)
        if want is not None:
            return want
        if len(self._wants) >= WANTED_MAX and not remembered:
            return None
        loop = asyncio.get_running_loop()
        want = self._wants[scope.text] = _Want(scope, loop.create_future())
        entry = self._entries.get(scope)
        known, others = self._next
        (others if entry is None or entry.foreign else known)[scope.text] = want
        if not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump)
        return want

    def _pump(self) -> None:
        """Begin as many fetches as may be under way."""
        self._pumping = False
        known, others = self._next
        while (known or others) and len(self._fetches) < FETCHES_MAX:
            piece = [*islice(chain(known.values(), others.values()), FETCH_MAX)]
            for want in piece:
                known.pop(want.scope.text, None)
                others.pop(want.scope.text, None)
            fetch = asyncio.get_running_loop().create_task(self._fetch(piece))
            self._fetches.add(fetch)
            fetch.add_done_callback(self._fetched)

    def _fetched(self, fetch: asyncio.Task[None]) -> None:
        self._fetches.discard(fetch)
        self._pump()

    async def _fetch(self, wants: Sequence[_Want]) -> None:
        begun_s = self._tried_s = self._clock_s()
        try:
            async with asyncio.timeout(self._fetch_s):
                found = await self._source.fetch([want.scope for want in wants])
        except (DirectoryUnavailableError, TimeoutError) as error:
            self._lost(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._telemetry.failed("directory", error)
            self._lost(error)
        else:
            for want in wants:
                self._keep(want, found.get(want.scope), begun_s)
            self._seen()
            self._telemetry.directory_fetched(self._clock_s() - begun_s, len(self._entries))
        finally:
            for want in wants:
                self._wants.pop(want.scope.text, None)
                if not want.done.done():
                    want.done.set_result(None)

    def _keep(self, want: _Want, fields: BudgetFields | None, begun_s: float) -> None:
        want.absent = fields is None
        epoch = UNFOLLOWED if want.overtaken or self._epoch not in self._told else self._epoch
        entry, said = self._entries.get(want.scope), None if fields is None else Said.of(fields)
        if entry is not None and entry.said == said:
            entry.read_s, entry.epoch = begun_s, epoch
        else:
            self._entries.put(Entry(want.scope, said, begun_s, epoch))

    def _learn(self, changes: Changes | None, begun_s: float) -> None:
        if changes is None:
            return
        if changes.everything:
            self._end_epoch()
        for scope in changes.scopes:
            self._note_changed(scope)
        self._told[self._epoch] = begun_s

    def _end_epoch(self) -> None:
        """Take everything for changed: entries have to be read again, those in use in the background."""
        self._epoch += self._epoch in self._told
        self._told.pop(self._epoch - EPOCHS_MAX, None)
        for want in self._wants.values():
            want.overtaken = True

    def _note_changed(self, scope: Scope) -> None:
        want, entry = self._wants.get(scope.text), self._entries.get(scope)
        if want is not None:
            want.overtaken = True
        if entry is not None:
            entry.read_s, entry.epoch = self._heard_s(entry), UNFOLLOWED
            if want is None and self._may_try(self._clock_s()):
                self._want(scope, remembered=True)

    def _lost(self, error: Exception) -> None:
        if self._up is not False:
            self._up = False
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
            self._telemetry.directory_lost(reason)

    def _seen(self) -> None:
        if self._up is not True:
            self._up = True
            self._telemetry.directory_seen()


class KnownElsewhere:
    """The payers whom a lookup remembers, as records of one configuration."""

    def __init__(self, lookup: Lookup, make: Make) -> None:
        self._lookup = lookup
        self._make = make

    def record(self, scope: Scope) -> Record | None:
        """Give a payer, the same object for as long as nothing about it changes; None for one who is not known."""
        entry = self._lookup.entry(scope)
        return None if entry is None else self._record(entry)

    def successor(self, key_sha256: str) -> Key | None:
        """Give a key that took the place of another one, as far as it is remembered."""
        entry = self._lookup.successor(key_sha256)
        record = None if entry is None else self._record(entry)
        return record if isinstance(record, Key) else None

    def called(self, alias: str) -> Iterator[Key]:
        """List the keys with an alias that are remembered; of the many others no record is made for it."""
        for entry in self._lookup.known():
            if entry.said is not None and entry.said.alias == alias and isinstance(key := self._record(entry), Key):
                yield key

    def limited(self) -> Iterator[tuple[Scope, Record] | None]:
        """List those with budgets who are remembered, and None for each of the others."""
        for entry in self._lookup.known():
            limited = entry.said is not None and entry.said.limited
            record = self._record(entry) if limited else None
            yield None if record is None else (entry.scope, record)

    def _record(self, entry: Entry) -> Record | None:
        if entry.said is None:
            return None
        if entry.record is None or entry.made_by is not self._make:
            entry.record, entry.made_by = self._make(entry.said.fields()), self._make
        return entry.record
