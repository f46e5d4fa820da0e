"""What was measured, as a table, as JSON, and as one picture of all parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.chart import Group, Row, picture
from bench.figures import Figure, Results
from bench.interpreter import described
from bench.machine import description
from bench.rig import Plan

FOLDER = Path(__file__).parent / "results"
PICTURE = FOLDER / "ratios.svg"


def write(part: str, results: Results, plan: Plan) -> Path:
    """Write a part's figures down, with every single value."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{part}.json"
    document = {
        "part": part,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": description() | {"python": described()},
        "pairs": plan.pairs,
        "seconds": plan.seconds,
        "figures": [_entry(figure) for figure in results.figures],
        "notes": results.notes,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def show(part: str, results: Results, console: Console) -> None:
    """Print a part's figures."""
    table = Table(title=part, title_justify="left")
    for heading in ("figure", "ours, and what it is held against"):
        table.add_column(heading)
    for heading in ("ours", "theirs", "ratio", "spread", "asked for"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in results.figures:
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
        spread = "-" if figure.spread is None else "{:.2f} to {:.2f}".format(*figure.spread)
        asked = "" if figure.target is None else f"{figure.target} {figure.verdict}"
        table.add_row(
            figure.name,
            f"{figure.subject} / {figure.peer}",
            _amount(median(figure.values), figure.unit),
            _amount(median(figure.peer_values), figure.unit),
            ratio,
            spread,
            asked,
        )
    console.print(table)
    for note in results.notes:
        console.print(f"  {note}", markup=False)


def draw() -> Path:
    """Draw the ratios of all parts that were ever written down."""
    groups = []
    for path in sorted(FOLDER.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(_row(entry) for entry in document["figures"] if entry["ratio"] is not None)
        groups.append(
            Group(f"{document['part']} · {document['taken_at'][:10]} · {document['pairs']} pairs of runs", rows)
        )
    FOLDER.mkdir(exist_ok=True)
    PICTURE.write_text(picture(groups), encoding="utf-8")
    return PICTURE


def _entry(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "subject": figure.subject,
        "peer": figure.peer,
        "values": figure.values,
        "peer_values": figure.peer_values,
        "ratios": figure.ratios,
        "ratio": figure.ratio,
        "spread": figure.spread,
        "target": None if figure.target is None else str(figure.target),
        "verdict": figure.verdict,
    }


def _row(entry: dict[str, object]) -> Row:
    ratio, spread, target = entry["ratio"], entry["spread"], entry["target"]
    assert isinstance(ratio, float)
    assert isinstance(spread, list)
    return Row(
        label=f"{entry['name']}, {entry['subject']} / {entry['peer']}",
        ratio=ratio,
        low=spread[0],
        high=spread[1],
        bound=float(target.split()[1]) if isinstance(target, str) else None,
        verdict=str(entry["verdict"]),
    )


def _amount(number: float, unit: str) -> str:
    digits = 0 if abs(number) >= 100 else 2
    return f"{number:,.{digits}f} {unit}"
