"""Writing the journal: to standard output, or to a file that is continued where it ends."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TextIO

from extauthz.errors import NoBooksError
from extauthz.ledger.journal import CHECKPOINT, COLUMNS, Checkpoint, Entry, position, to_csv, to_json

# How long something that was cancelled may take to notice.
CANCEL_S = 1.0

# The end of an export, where its last line is looked for.
TAIL_BYTES = 1024 * 1024

CSV_HEADER = ",".join(COLUMNS)


class Format(StrEnum):
    """How the journal is written."""

    JSONL = "jsonl"
    CSV = "csv"


class Source(Protocol):
    """Where the journal is read from: a store, or a server."""

    def export(self, after: str | None = None, *, follow: bool = False) -> AsyncIterator[Entry | Checkpoint]:
        """Give what happened after a place, or all from the checkpoint on; with `follow` without end."""
        ...


async def write_export(
    opening: AbstractAsyncContextManager[Source], *, output: Path | None, form: Format, after: str | None, follow: bool
) -> None:
    """Write the journal to a file, or to standard output; a file that has some of it already is continued.

    With `follow` until SIGINT or SIGTERM.
    """
    export = asyncio.create_task(_export(opening, output, form, after, follow=follow))
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
    opening: AbstractAsyncContextManager[Source], output: Path | None, form: Format, after: str | None, *, follow: bool
) -> None:
    async with opening as journal:
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
    journal: Source, file: TextIO, form: Format, after: str | None, *, follow: bool, begun: bool = False
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
        if len(row) != len(COLUMNS):
            raise ValueError(f"{len(row)} columns instead of {len(COLUMNS)}")
        at, how, *_ = row
    else:
        row = json.loads(line)
        at, how = row["at"], row["how"]
    position(at)
    return None if how == CHECKPOINT else at
