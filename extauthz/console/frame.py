"""The picture that `extauthz top` draws of a server, for any size of terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.budgets import PERCENT, used_share, used_style
from extauthz.console.decisions import STYLES
from extauthz.console.load import Kind, Load
from extauthz.console.measures import Unit
from extauthz.console.text import WIDE, cell, clean, clock, duration, milliseconds, scope_short, short, until

# Lines that are always there: three on top, a heading for each of three parts, one at the bottom.
FIXED_LINES = 7
# No part is squeezed below this.
PART_LINES_MIN = 2
PARTS = 3
DIGEST_SHOWN = 8

SPARKS = "▁▂▃▄▅▆▇█"
BAR_MIN, BAR_MAX = 6, 60


@dataclass(frozen=True, slots=True)
class View:
    """What is drawn. `trouble` is why `status` is old, and empty when it is not; `status` is None before the first."""

    address: str
    now_s: float
    status: pb.GetStatusResponse | None
    load: Load | None
    trouble: str
    hint: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit as a bar: what is spent, what is held, and the rest."""

    spent: float
    held: float
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, BAR_MAX)
        spent = min(width, round(self.spent * width))
        held = min(width - spent, round((self.spent + self.held) * width) - spent)
        yield Segment("█" * spent, Style.parse(self.style))
        yield Segment("▒" * held, Style.parse(self.style))
        yield Segment("·" * (width - spent - held), Style.parse("dim"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(BAR_MIN, BAR_MAX)


def frame(view: View, width: int, height: int) -> RenderableType:
    """Draw a server, `height` lines at most."""
    if view.status is None:
        return Group(*_waiting(view))
    status, load = view.status, view.load
    decisions, budgets, denials = _kinds(load), status.budgets, status.denials
    lines = max(height - FIXED_LINES - bool(view.trouble) - bool(status.config_refused), PARTS * PART_LINES_MIN)
    for_decisions, for_budgets, for_denials = _shared(lines, [len(part) or 1 for part in (decisions, budgets, denials)])
    return Group(
        *_head(view, status, width),
        _heading("decisions", len(decisions), for_decisions),
        _decisions(load, decisions[:for_decisions]),
        _heading("most used budgets: spent + held of limit, in USD", len(budgets), for_budgets),
        _budgets(view, budgets[:for_budgets], width),
        _heading("last refusals", len(denials), for_denials),
        _denials(denials[:for_denials], width),
        Text(view.hint, "dim", no_wrap=True, overflow="ellipsis"),
    )


def _waiting(view: View) -> Iterator[Text]:
    yield Text(f"extauthz at {view.address}", "bold")
    yield Text(view.trouble or "asking …", "yellow" if view.trouble else "dim")
    yield Text(view.hint, "dim")


def _head(view: View, status: pb.GetStatusResponse, width: int) -> Iterator[Text]:
    load, store = view.load, status.store
    yield _line(
        ("extauthz", "bold cyan"),
        (clean(status.version), "bold cyan"),
        (f"at {view.address}", ""),
        (f"up {duration(view.now_s - status.started_at.ToMilliseconds() / 1000)}", ""),
        (f"config {clean(status.config_digest[:DIGEST_SHOWN])}", ""),
        ("draining", "bold yellow") if status.draining else None,
        ("shadow mode", "bold yellow") if status.shadow_mode else None,
    )
    rate = None if load is None else load.per_second
    figures = _line(
        ("load", "dim"),
        ("…" if rate is None else f"{_rate(rate)}/s", "bold"),
        (f"p50 {milliseconds(status.check_seconds_p50)}", ""),
        (f"p99 {milliseconds(status.check_seconds_p99)}", ""),
        (f"open {status.reservations_open:,}", "bold"),
        (f"held {short(status.held_usd)} USD", "bold"),
        (f"endings waiting {status.endings_waiting:,}", "yellow") if status.endings_waiting else None,
    )
    room = width - figures.cell_len - 2
    yield figures.append("  ").append(_sparks(load.history, room), "cyan") if load is not None and room > 0 else figures
    yield _line(
        ("store", "dim"),
        ("up", "green") if store.up else ("AWAY", "bold red"),
        (clean(store.url), ""),
        (f"p50 {milliseconds(store.seconds_p50)}", ""),
        (f"p99 {milliseconds(store.seconds_p99)}", ""),
        (f"errors {store.errors:,}", "red" if store.errors else ""),
    )
    if status.config_refused:
        yield _line(("newest configuration refused:", "bold red"), (clean(status.config_refused), "red"))
    if view.trouble:
        yield _line((view.trouble, "bold yellow"))


def _line(*words: tuple[str, str] | None) -> Text:
    shown = [Text(text, style) for text, style in (word for word in words if word is not None) if text]
    line = Text("  ").join(shown)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _heading(title: str, there: int, shown: int) -> Rule:
    rest = f" ({there - shown} more)" if there > shown else ""
    return Rule(Text(f"{title}{rest}", "bold"), align="left", style="dim")


def _kinds(load: Load | None) -> Sequence[Kind]:
    """Order the kinds of decisions, the most frequent first, so that lines do not jump."""
    return [] if load is None else sorted(load.counts, key=lambda kind: (-load.counts[kind], kind))


def _decisions(load: Load | None, kinds: Sequence[Kind]) -> RenderableType:
    if load is None or not kinds:
        return Text("none yet", "dim")
    table = _grid()
    for justify in ("left", "left", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for kind in kinds:
        route_class, decision, reason = kind
        rate = load.rates.get(kind)
        table.add_row(
            cell(decision, STYLES.get(decision, "")),
            cell(reason),
            cell(route_class, "dim"),
            f"{_rate(rate)}/s" if rate else "",
            f"{load.counts[kind]:,} in all",
        )
    return table


def _budgets(view: View, budgets: Sequence[pb.Budget], width: int) -> RenderableType:
    if not budgets:
        return Text("none", "dim")
    table = _grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=width // (4 if width >= WIDE else 3))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for _ in range(3 if width >= WIDE else 2):
        table.add_column(justify="right", no_wrap=True)
    for budget in budgets:
        unit, style = Unit.of(budget), used_style(budget)
        limit = unit.amount(budget, "limit")
        row: list[RenderableType] = [
            cell(scope_short(budget.scope)),
            cell(budget.window, "dim"),
            Bar(unit.amount(budget, "spent") / limit, unit.amount(budget, "held") / limit, style)
            if limit
            else Bar(used_share(budget), 0, style),
            Text(f"{used_share(budget) * PERCENT:.0f} %", style),
            _amounts(budget),
        ]
        if width >= WIDE:
            resets = until(budget.resets_at, view.now_s) if budget.HasField("resets_at") else "never"
            row.append(Text(f"anew in {resets}" if resets != "never" else "lifetime", "dim"))
        table.add_row(*row)
    return table


def _amounts(budget: pb.Budget) -> str:
    """Write spent, held and limit alike: in cents, a limit of less than one USD more finely, and counts as they are."""
    unit = Unit.of(budget)
    spent, held, limit = (unit.amount(budget, name) for name in ("spent", "held", "limit"))
    digits = (2 if limit >= 1 else 4) if unit.in_usd else 0
    amounts = (spent, held, limit)
    return "{} + {} of {}".format(*(f"{amount:,.{digits}f}" for amount in amounts))


def _denials(denials: Sequence[pb.WatchDecisionsResponse], width: int) -> RenderableType:
    if not denials:
        return Text("none", "dim")
    table = _grid()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for _ in range(4 if width >= WIDE else 2):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for denied in denials:
        decision = denied.decision
        row = [
            Text(clock(denied.decided_at), "dim"),
            cell(f"{decision.status} {decision.reason}", STYLES.get(decision.decision, "")),
            cell(scope_short(decision.scope or denied.principal)),
            cell(denied.model),
        ]
        if width >= WIDE:
            row.insert(3, cell(scope_short(denied.principal) if decision.scope else "", "dim"))
            row.append(cell(denied.path, "dim"))
        table.add_row(*row)
    return table


def _grid(*, expand: bool = False) -> Table:
    return Table.grid(padding=(0, 2, 0, 0), expand=expand, pad_edge=False)


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"  # noqa: PLR2004


def _sparks(history: Sequence[float], room: int) -> str:
    """Draw the latest loads as columns of letters."""
    shown = history[-room:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return ""
    return "".join(SPARKS[min(len(SPARKS) - 1, int(load / highest * len(SPARKS)))] for load in shown)


def _shared(lines: int, wanted: Sequence[int]) -> list[int]:
    """Share lines out, one each in turn, to parts that want more."""
    given = [0] * len(wanted)
    while sum(given) < lines and any(has < wants for has, wants in zip(given, wanted, strict=True)):
        for part, wants in enumerate(wanted):
            if given[part] < wants and sum(given) < lines:
                given[part] += 1
    return given
