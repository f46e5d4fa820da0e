"""The books as a running server tells them: its audit, and its journal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.audits import DRIFTS_SHOWN_MAX, Findings, show
from extauthz.console.connection import Server, ServerRefusedError, ask_once, connected
from extauthz.console.documents import json_line
from extauthz.console.measures import Unit
from extauthz.console.target import Target
from extauthz.domain.money import NANOUSD_PER_USD
from extauthz.ledger.base import Drift
from extauthz.ledger.journal import Checkpoint, Entry, from_json

# A long journal takes a while; servers give up before.
AUDIT_S = 610.0
JOURNAL_S = 3600.0


def audit_books(target: Target, *, as_json: bool) -> bool:
    """Let a server audit its books, print what was found, and tell whether they are right."""
    findings = ask_once(target, audited)
    if as_json:
        sys.stdout.write(json_line(findings.document()) + "\n")
    else:
        show(findings)
    return findings.ok


async def audited(server: Server) -> Findings:
    """Let the server audit its books."""
    answer = await server.ask("Audit", pb.AuditRequest(), pb.AuditResponse, seconds=AUDIT_S)
    return Findings(
        ok=answer.ok,
        drift_nanousd=_nanousd(answer.drift_usd),
        scopes_checked=answer.scopes_checked,
        counters_checked=answer.counters_checked,
        reservations_open=answer.reservations_open,
        entries_read=answer.entries_read,
        drifts=tuple(Drift(drift.of, drift.counter, *_amounts(drift)) for drift in answer.drifts[:DRIFTS_SHOWN_MAX]),
    )


def _amounts(drift: pb.AuditResponse.Drift) -> tuple[int, int]:
    """Read what is expected and what was found, in the unit of the counter."""
    if Unit.of(drift).in_usd:
        return _nanousd(drift.expected_usd), _nanousd(drift.found_usd)
    return drift.expected, drift.found


class ServedJournal:
    """Reads the journal through a server."""

    def __init__(self, server: Server, shard: int) -> None:
        self._server = server
        self._shard = shard

    async def export(self, after: str | None = None, *, follow: bool = False) -> AsyncIterator[Entry | Checkpoint]:
        """Give what happened after a place in the journal, or all from the checkpoint on; with `follow` without end."""
        request = pb.ReadJournalRequest(after=after or "", follow=follow, shard=self._shard)
        seconds = None if follow else JOURNAL_S
        async for answer in self._server.stream("ReadJournal", request, pb.ReadJournalResponse, seconds=seconds):
            try:
                item = from_json(answer.line)
            except (ValueError, KeyError, TypeError) as error:
                raise ServerRefusedError(
                    "the server tells its journal in another way: use a client of its version"
                ) from error
            yield item


@asynccontextmanager
async def served_journal(target: Target, shard: int | None) -> AsyncIterator[ServedJournal]:
    """Read a server's journal inside the block."""
    async with connected(target) as server:
        yield ServedJournal(server, shard or 0)


def _nanousd(usd: float) -> int:
    return round(usd * NANOUSD_PER_USD)
