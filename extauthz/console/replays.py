"""`extauthz replay`: what another configuration would have made of what was recorded."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.progress import Progress
from rich.text import Text

from extauthz.config.snapshot import Snapshot
from extauthz.console.text import cell, new_console, new_table
from extauthz.domain.money import usd_text
from extauthz.replay.opening import read_spent
from extauthz.replay.records import Record, RecordsUnusableError, read_records
from extauthz.replay.replayer import Outcome, Replayer
from extauthz.replay.summary import SHOWN_MAX, Change, Refusing, Summary

# A line of a checkpoint has 500 counters, with names of 1,600 characters at most.
LINE_CHARS_MAX = 1024 * 1024

STYLES = {
    Outcome.DENIED: "red",
    Outcome.ALLOWED: "green",
    Outcome.COST: "yellow",
    Outcome.OTHERWISE: "yellow",
    Outcome.UNKNOWN: "dim",
}


def replay(config: Snapshot, file: Path, spent: Path | None) -> Summary:
    """Decide the records of a file again. Raises RecordsUnusableError, or OSError."""
    opening = None if spent is None else read_spent(spent.read_text(encoding="utf-8"), config.directory)
    replayer = Replayer(config, None if opening is None else opening.amounts)
    summary = Summary(config.directory, budgets_left_out=0 if opening is None else opening.left_out)
    with (
        file.open(encoding="utf-8", errors="replace") as text,
        Progress(console=new_console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        bar = progress.add_task("deciding again", total=file.stat().st_size)
        lines = _lines(text, lambda count: progress.update(bar, advance=count))
        asyncio.run(_replay(read_records(lines), replayer, summary))
    return summary


async def _replay(records: Iterable[Record], replayer: Replayer, summary: Summary) -> None:
    for record in records:
        found = await replayer.replay(record)
        if found is not None:
            summary.add(found)


def _lines(text: TextIO, read: Callable[[int], None]) -> Iterator[str]:
    """Give the lines, and tell how much of the file each was."""
    number = 0
    while line := text.readline(LINE_CHARS_MAX):
        number += 1
        if len(line) == LINE_CHARS_MAX:
            raise RecordsUnusableError(f"line {number} is longer than any record")
        read(len(line))
        yield line


def show(summary: Summary) -> None:
    """Print what was found."""
    console = new_console()
    if summary.from_ms is not None and summary.until_ms is not None:
        console.print(f"{summary.records:,} records, {_clock(summary.from_ms)} to {_clock(summary.until_ms)}")
    outcomes = new_table("outcome", "records", right=("records",))
    for outcome in Outcome:
        outcomes.add_row(cell(outcome, STYLES.get(outcome, "")), f"{summary.outcomes[outcome]:,}")
    console.print(outcomes)
    console.print(
        f"cost: {usd_text(summary.before_nanousd)} USD before, {usd_text(summary.after_nanousd)} USD now", style="bold"
    )
    for notice in _notices(summary):
        console.print(notice, style="dim", soft_wrap=True)
    if refusing := summary.refusing[:SHOWN_MAX]:
        console.print("\nscopes that refuse", style="bold")
        table = new_table("scope", "reason", "from", "refusals", "new ones", right=("refusals", "new ones"))
        for each in refusing:
            table.add_row(*_refusing(each))
        console.print(table)
    if changes := summary.changes[:SHOWN_MAX]:
        console.print("\nwhat changes most", style="bold")
        numbers = ("records", "cost before", "cost now")
        table = new_table("outcome", "reason", "principal", "model", "from", *numbers, right=numbers)
        for change in changes:
            table.add_row(*_change(change))
        console.print(table)
    if summary.not_shown:
        console.print(f"and {summary.not_shown:,} more", style="dim")


def _notices(summary: Summary) -> Iterator[str]:
    for why, count in summary.whys.most_common():
        yield f"cannot tell about {count:,}: {why}"
    if summary.unpriced:
        yield f"{summary.unpriced:,} costs were taken over as they were, because no tokens stand behind them"
    if summary.budgets_left_out:
        yield f"{summary.budgets_left_out:,} budgets of the list have no counter in this configuration"


def _refusing(each: Refusing) -> tuple[str, ...]:
    return each.scope, each.reason, _clock(each.from_ms), f"{each.count:,}", f"{each.newly:,}"


def _change(each: Change) -> tuple[str | Text, ...]:
    return (
        cell(each.outcome, STYLES.get(each.outcome, "")),
        each.reason,
        cell(each.principal),
        cell(each.model),
        _clock(each.from_ms),
        f"{each.count:,}",
        usd_text(each.before_nanousd),
        usd_text(each.after_nanousd),
    )


def _clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00") + " UTC"
