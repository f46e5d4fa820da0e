"""The commands that open the books in a store by themselves, with no server between: `journal`, `audit`, `import`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from extauthz.config.model import Settings
from extauthz.console.audits import Findings, show
from extauthz.console.exports import Format, write_export
from extauthz.domain.budgets import Counter
from extauthz.domain.money import usd, usd_text
from extauthz.errors import NoBooksError
from extauthz.ledger.audit import Auditor
from extauthz.ledger.base import Amendment, AmendmentKind, Audit, together
from extauthz.ledger.journal import Journal
from extauthz.ledger.link import Server
from extauthz.ledger.pieces import chunks
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.ledger.shards import ShardedLedger, new_ledgers

OPEN_S = 5.0
# A look at the books may meet a server that is busy, and nobody waits for it with a request.
TIMEOUT_S = 10.0
SEEDS_AT_ONCE = 500


class _Quiet:
    """Hears of the store, and keeps only why it is away."""

    def __init__(self) -> None:
        self.reason = "it does not answer"

    def store_lost(self, reason: str) -> None:
        """Remember why."""
        self.reason = reason

    def store_seen(self, server: Server) -> None:
        """Do nothing."""

    def store_replayed(self, count: int, lost: int) -> None:
        """Do nothing."""


@asynccontextmanager
async def opened_books(settings: Settings, shard: int | None) -> AsyncIterator[tuple[RedisLedger, ...]]:
    """Open the books of a configuration, of all shards or of one.

    Raises NoBooksError when there are none, or the store does not answer.
    """
    if settings.store is None:
        raise NoBooksError("the memory store keeps no journal, and its books are inside of the server: use a Redis")
    listener = _Quiet()
    shards = new_ledgers(
        settings.store,
        listener,
        shards=settings.shard_count,
        clock_s=time.monotonic,
        unix_ms=lambda: time.time_ns() // 1_000_000,
        chance=random.random,
        options=RedisOptions(TIMEOUT_S, settings.tombstone_seconds, settings.journal_entries_max, keeps_books=False),
    )
    if shard is not None and not 0 <= shard < len(shards):
        raise NoBooksError(f"there is no shard {shard}: they are 0 to {len(shards) - 1}")
    wanted = shards if shard is None else shards[shard : shard + 1]
    try:
        if not all(await asyncio.gather(*(ledger.open(OPEN_S) for ledger in wanted))):
            raise NoBooksError(f"the store {settings.store} cannot be reached: {listener.reason}")
        yield wanted
    finally:
        for ledger in wanted:
            await ledger.close()


async def export_journal(
    settings: Settings, *, output: Path | None, form: Format, after: str | None, follow: bool, shard: int | None
) -> None:
    """Write the journal to a file, or to standard output; a file that has some of it already is continued.

    With `follow` until SIGINT or SIGTERM.
    """
    await write_export(_opened_journal(settings, shard), output=output, form=form, after=after, follow=follow)


@asynccontextmanager
async def _opened_journal(settings: Settings, shard: int | None) -> AsyncIterator[Journal]:
    if settings.shard_count > 1 and shard is None:
        raise NoBooksError("each shard has a journal of its own: choose one with --shard")
    async with opened_books(settings, shard) as (ledger,):
        yield Journal(ledger)


async def audit_books(
    settings: Settings, *, rebuild: bool, export: Path | None, as_json: bool, shard: int | None
) -> bool:
    """Audit the books, or put them right; print what was found, and tell whether they are right now."""
    if settings.shard_count > 1 and export is not None and shard is None:
        raise NoBooksError("each shard has an export of its own: choose one with --shard")
    found, after = [], []
    async with opened_books(settings, shard) as ledgers:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            for ledger in ledgers:
                bar = progress.add_task("reading the journal", total=None)
                auditor = Auditor(ledger, partial(_show_progress, progress, bar))
                found.append(await _rebuild(auditor, export) if rebuild else await auditor.audit())
                after.append(await auditor.audit() if rebuild else found[-1])
    audit = together(after)
    _tell(Findings.of(audit), together(found) if rebuild else None, as_json=as_json)
    return audit.ok


def _tell(findings: Findings, corrected: Audit | None, *, as_json: bool) -> None:
    """Print what was found, and before it what was put right, if anything was tried."""
    if as_json:
        document = findings.document()
        if corrected is not None:
            document |= {"corrected": len(corrected.drifts), "corrected_usd": float(usd(corrected.drift_nanousd))}
        sys.stdout.write(json.dumps(document) + "\n")
        return
    if corrected is not None:
        amount = usd_text(corrected.drift_nanousd)
        sys.stdout.write(f"{len(corrected.drifts)} counters put right, by {amount} USD in all\n")
        sys.stdout.flush()
    show(findings)


async def seed_books(settings: Settings, seeds: Mapping[Counter, int], who: str) -> tuple[int, int]:
    """Let counters have spent so much at least, and tell on how many something was put, and how much in nano-USD.

    What is there already counts, and the same amount is put on a counter once: done again, this adds nothing.
    """
    added, total_nanousd = 0, 0
    async with opened_books(settings, None) as shards:
        store = shards[0] if len(shards) == 1 else ShardedLedger(shards)
        for piece in chunks([*seeds.items()], SEEDS_AT_ONCE):
            standings = await store.standings([(counter, 0) for counter, _ in piece])
            missing = [
                Amendment(_seed_id(counter, amount), AmendmentKind.IMPORT, counter, amount - standing.spent, who)
                for (counter, amount), standing in zip(piece, standings, strict=True)
                if amount > standing.spent
            ]
            changed = await asyncio.gather(*map(store.amend, missing))
            made = [amendment for amendment, made in zip(missing, changed, strict=True) if made]
            added += len(made)
            total_nanousd += sum(amendment.amount or 0 for amendment in made)
    return added, total_nanousd


def _seed_id(counter: Counter, amount: int) -> str:
    return f"seed:{sha256(f'{counter.key}={amount}'.encode()).hexdigest()}"


async def _rebuild(auditor: Auditor, export: Path | None) -> Audit:
    if export is None:
        return await auditor.rebuild()
    with export.open(encoding="utf-8", errors="replace") as lines:
        return await auditor.rebuild(lines)


def _show_progress(progress: Progress, bar: TaskID, done: int, of: int) -> None:
    progress.update(bar, completed=done, total=max(done, of))
