"""The commands that look at the books in a store by themselves, with no server between: `journal` and `audit`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, TaskID

from extauthz.config.model import Settings
from extauthz.domain.money import usd, usd_text
from extauthz.errors import ExtauthzError
from extauthz.ledger.audit import DRIFTS_SHOWN_MAX, Audit, Auditor, Drift, together
from extauthz.ledger.journal import CHECKPOINT, COLUMNS, Journal, position, to_csv, to_json
from extauthz.ledger.link import Server
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.ledger.shards import new_ledgers

OPEN_S = 5.0
# A look at the books may meet a server that is busy, and nobody waits for it with a request.
TIMEOUT_S = 10.0

# How long something that was cancelled may take to notice.
CANCEL_S = 1.0

# The end of an export, where its last line is looked for.
TAIL_BYTES = 1024 * 1024

CSV_HEADER = ",".join(COLUMNS)


class NoBooksError(ExtauthzError):
    """The books cannot be looked at."""


class Format(StrEnum):
    """How the journal is written."""

    JSONL = "jsonl"
    CSV = "csv"


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
    export = asyncio.create_task(_export(settings, output, form, after, follow=follow, shard=shard))
    stop = asyncio.Event()
    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((export, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        while not export.done():  # not once: see Link.close
            export.cancel()
            await asyncio.wait((export,), timeout=CANCEL_S)
        stopped.cancel()
    if not export.cancelled():
        export.result()


async def _export(
    settings: Settings, output: Path | None, form: Format, after: str | None, *, follow: bool, shard: int | None
) -> None:
    if settings.shard_count > 1 and shard is None:
        raise NoBooksError("each shard has a journal of its own: choose one with --shard")
    async with opened_books(settings, shard) as (ledger,):
        journal = Journal(ledger)
        if output is None:
            _write_utf8(sys.stdout)
            await _write(journal, sys.stdout, form, after, follow=follow)
            return
        begun, place = _continued(output, form)
        if begun and after is not None:
            raise NoBooksError(f"{output} is continued where it ends: leave --after out, or write to another file")
        with output.open("a", encoding="utf-8", newline="") as file:
            await _write(journal, file, form, after or place, follow=follow, begun=begun)


async def _write(
    journal: Journal, file: TextIO, form: Format, after: str | None, *, follow: bool, begun: bool = False
) -> None:
    if form is Format.CSV and not begun:
        file.write(CSV_HEADER + "\r\n")
    async for item in journal.export(after, follow=follow):
        file.write(to_json(item) + "\n" if form is Format.JSONL else to_csv([item]))
        if follow:
            file.flush()


def _write_utf8(file: TextIO) -> None:
    """Write the journal in the same way everywhere: names in it need not fit into a terminal's encoding."""
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(encoding="utf-8")


def _continued(path: Path, form: Format) -> tuple[bool, str | None]:
    """Tell whether a file has some of an export, and after which entry it goes on, None: with a checkpoint.

    A line that was cut off is taken away. Raises NoBooksError for a file that ends in something else, and leaves it.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False, None
    with path.open("rb+") as file:
        size = path.stat().st_size
        file.seek(max(0, size - TAIL_BYTES))
        whole, newline, rest = file.read().rpartition(b"\n")
        last = whole.rpartition(b"\n")[2].decode(errors="replace").rstrip("\r")
        first_cut_off = not newline and size <= TAIL_BYTES and _begins(rest, form)
        try:
            begun, place = (False, None) if first_cut_off else (True, _place(last, form))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoBooksError(f"{path} does not end in a line of the journal: write to another file") from error
        file.truncate(size - len(rest))
    return begun, place


def _begins(line: bytes, form: Format) -> bool:
    """Tell whether this can be the beginning of an export's first line."""
    wanted = b'{"at":"' if form is Format.JSONL else CSV_HEADER.encode()
    return line.startswith(wanted) if form is Format.JSONL else wanted.startswith(line.rstrip(b"\r"))


def _place(line: str, form: Format) -> str | None:
    """Read which entry a line is; None for a checkpoint, of which more may have been to come."""
    if form is Format.CSV:
        if line == CSV_HEADER:
            return None
        (row,) = csv.reader([line], strict=True)
        at, how, *_ = row
    else:
        row = json.loads(line)
        at, how = row["at"], row["how"]
    position(at)
    return None if how == CHECKPOINT else at


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
    audit, corrected = together(after), together(found) if rebuild else None
    if as_json:
        sys.stdout.write(json.dumps(_to_json(audit, corrected)) + "\n")
    else:
        _show(audit, corrected)
    return audit.ok


async def _rebuild(auditor: Auditor, export: Path | None) -> Audit:
    if export is None:
        return await auditor.rebuild()
    with export.open(encoding="utf-8", errors="replace") as lines:
        return await auditor.rebuild(lines)


def _show_progress(progress: Progress, bar: TaskID, done: int, of: int) -> None:
    progress.update(bar, completed=done, total=max(done, of))


def _to_json(audit: Audit, corrected: Audit | None) -> dict[str, object]:
    document: dict[str, object] = {
        "ok": audit.ok,
        "drift_usd": float(usd(audit.drift_nanousd)),
        "scopes_checked": audit.scopes_checked,
        "counters_checked": audit.counters_checked,
        "reservations_open": audit.reservations_open,
        "entries_read": audit.entries_read,
        "drifts": [
            {
                "of": drift.of,
                "counter": drift.name,
                "expected_nanousd": drift.expected_nanousd,
                "found_nanousd": drift.found_nanousd,
            }
            for drift in audit.drifts[:DRIFTS_SHOWN_MAX]
        ],
    }
    if corrected is not None:
        document |= {"corrected": len(corrected.drifts), "corrected_usd": float(usd(corrected.drift_nanousd))}
    return document


def _show(audit: Audit, corrected: Audit | None) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if corrected is not None:
        console.print(f"{len(corrected.drifts)} counters put right, by {usd_text(corrected.drift_nanousd)} USD in all")
    verdict = "[green]the books are right[/]" if audit.ok else "[red]the books are wrong[/]"
    console.print(
        f"{verdict}: {audit.counters_checked} counters of {audit.scopes_checked} scopes, "
        f"{audit.reservations_open} open reservations, {audit.entries_read} journal entries"
    )
    for drift in audit.drifts[:DRIFTS_SHOWN_MAX]:
        console.print(_told(drift), markup=False)
    if len(audit.drifts) > DRIFTS_SHOWN_MAX:
        console.print(f"and {len(audit.drifts) - DRIFTS_SHOWN_MAX} more")
    if not audit.ok:
        console.print("`extauthz audit --rebuild` puts them right by the journal")


def _told(drift: Drift) -> str:
    if drift.of == "lease":
        return f"reservation {drift.name}: its record and its lease are not both there"
    return (
        f"{drift.of} of {drift.name}: should be {usd_text(drift.expected_nanousd)} USD, "
        f"is {usd_text(drift.found_nanousd)} USD"
    )
