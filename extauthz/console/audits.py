"""What an audit found, for people and as JSON, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from extauthz.console.text import cell, new_console
from extauthz.domain.budgets import Measure
from extauthz.domain.measures import measured
from extauthz.domain.money import usd, usd_text
from extauthz.ledger.amounts import measure_of
from extauthz.ledger.base import Audit, Drift

# Drifts that are shown; all are counted.
DRIFTS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit found. `drifts` are the first of them; there may be more in `drift_nanousd`."""

    ok: bool
    drift_nanousd: int
    scopes_checked: int
    counters_checked: int
    reservations_open: int
    entries_read: int
    drifts: tuple[Drift, ...]

    @classmethod
    def of(cls, audit: Audit) -> Findings:
        """Take what is shown of an audit."""
        return cls(
            audit.ok,
            audit.drift_nanousd,
            audit.scopes_checked,
            audit.counters_checked,
            audit.reservations_open,
            audit.entries_read,
            audit.drifts[:DRIFTS_SHOWN_MAX],
        )

    def document(self) -> dict[str, object]:
        """Give it as JSON's values."""
        return {
            "ok": self.ok,
            "drift_usd": float(usd(self.drift_nanousd)),
            "scopes_checked": self.scopes_checked,
            "counters_checked": self.counters_checked,
            "reservations_open": self.reservations_open,
            "entries_read": self.entries_read,
            "drifts": [{"of": drift.of, "counter": drift.name, **_amounts(drift)} for drift in self.drifts],
        }


def _amounts(drift: Drift) -> dict[str, object]:
    measure = measure_of(drift.name)
    if measure is Measure.USD:
        return {"expected_nanousd": drift.expected, "found_nanousd": drift.found}
    return {"measure": measure.value, "expected": drift.expected, "found": drift.found}


def show(findings: Findings) -> None:
    """Print what was found."""
    console = new_console()
    verdict = Text("the books are right", "green") if findings.ok else Text("the books are wrong", "red")
    verdict.append(
        f": {findings.counters_checked} counters of {findings.scopes_checked} scopes, "
        f"{findings.reservations_open} open reservations, {findings.entries_read} journal entries",
        "default",
    )
    console.print(verdict, soft_wrap=True)
    for drift in findings.drifts:
        console.print(cell(_told(drift)), soft_wrap=True)
    if len(findings.drifts) == DRIFTS_SHOWN_MAX:
        console.print(f"these are the first {DRIFTS_SHOWN_MAX}; together it is {usd_text(findings.drift_nanousd)} USD")
    if not findings.ok:
        console.print("`extauthz audit --config FILE --rebuild` puts them right by the journal", soft_wrap=True)


def _told(drift: Drift) -> str:
    if drift.of == "lease":
        return f"reservation {drift.name}: its record and its lease are not both there"
    measure = measure_of(drift.name)
    expected, found = measured(drift.expected, measure), measured(drift.found, measure)
    return f"{drift.of} of {drift.name}: should be {expected}, is {found}"
