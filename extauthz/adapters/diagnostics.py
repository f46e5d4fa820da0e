"""`extauthz.diagnostics.v1.Diagnostics`: what operators ask a running server.

Each call reads its question, has it answered by who knows, and writes the answer. Whatever goes wrong is a status with
a sentence that says what to do next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2_grpc
from extauthz.adapters import explanations
from extauthz.adapters import operator_messages as written
from extauthz.adapters.answering import Context, answering
from extauthz.adapters.status import StatusReport
from extauthz.config.effective import effective
from extauthz.config.snapshot import Snapshot
from extauthz.directories.store.registry import Registry
from extauthz.errors import BusyError, ImpossibleError, UnclearError
from extauthz.explanation import Explainer
from extauthz.holdings import Custody
from extauthz.inspection import Inspector
from extauthz.ledger.journal import Journal, to_json
from extauthz.ledger.reading import StoredBooks
from extauthz.telemetry.decisions import DecisionFeed
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.log import Verbosity
from extauthz.treasury import Treasury

# How long an audit may take, which reads all books.
AUDIT_S = 600.0

# Readers of the journal at once, and how long one of them may keep an entry waiting.
JOURNAL_READERS_MAX = 4
JOURNAL_WRITE_S = 60.0

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Experts:
    """Who knows the answers.

    `books` are the store's own, one for each shard, none where it keeps no journal; `registry` knows the keys in it,
    where they are there.
    """

    configuration: Callable[[], Snapshot]
    treasury: Treasury
    custody: Custody
    inspector: Inspector
    books: tuple[StoredBooks, ...]
    explainer: Explainer
    registry: Registry | None
    feed: DecisionFeed
    status: StatusReport
    verbosity: Verbosity
    telemetry: Telemetry
    new_id: Callable[[], str]


class Diagnostics(diagnostics_pb2_grpc.DiagnosticsServicer):
    """Answers operators."""

    def __init__(self, experts: Experts) -> None:
        self._experts = experts
        self._journal_readers = 0

    @answering()
    async def ListBudgets(  # noqa: N802 - gRPC's names, here and below
        self, request: messages.ListBudgetsRequest, context: Context
    ) -> messages.ListBudgetsResponse:
        """List budgets, in pages."""
        return written.budget_page(await self._experts.treasury.page(written.budget_query(request)))

    @answering()
    async def GetBudget(  # noqa: N802
        self, request: messages.GetBudgetRequest, context: Context
    ) -> messages.GetBudgetResponse:
        """Show the budgets of one scope."""
        found = await self._experts.treasury.budgets_of(request.scope)
        return messages.GetBudgetResponse(budgets=map(written.budget, found))

    @answering()
    async def SetLimit(  # noqa: N802
        self, request: messages.SetLimitRequest, context: Context
    ) -> messages.ChangeBudgetResponse:
        """Put a limit in the place of the configured one."""
        return await self._change(request, context)

    @answering()
    async def ResetBudget(  # noqa: N802
        self, request: messages.ResetBudgetRequest, context: Context
    ) -> messages.ChangeBudgetResponse:
        """Forget what was spent in the current window."""
        return await self._change(request, context)

    @answering()
    async def GrantBudget(  # noqa: N802
        self, request: messages.GrantBudgetRequest, context: Context
    ) -> messages.ChangeBudgetResponse:
        """Raise the limit of the current window."""
        return await self._change(request, context)

    @answering()
    async def ListReservations(  # noqa: N802
        self, request: messages.ListReservationsRequest, context: Context
    ) -> messages.ListReservationsResponse:
        """List open reservations, the oldest first."""
        return written.reservations(await self._experts.custody.find(written.reservation_query(request)))

    @answering()
    async def ReleaseReservation(  # noqa: N802
        self, request: messages.ReleaseReservationRequest, context: Context
    ) -> messages.ReleaseReservationResponse:
        """End one open reservation with no cost."""
        released = await self._experts.custody.release(request.id, context.peer())
        return messages.ReleaseReservationResponse(released=released)

    @answering()
    async def Explain(  # noqa: N802
        self, request: messages.ExplainRequest, context: Context
    ) -> messages.ExplainResponse:
        """Decide about a request as a Check would now, and reserve nothing."""
        experts, config = self._experts, self._experts.configuration()
        short = request.request
        if short.key_alias and experts.registry is not None and config.directory.sha256_of(short.key_alias) is None:
            short.key_alias, short.key_sha256 = "", await experts.registry.sha256_of(short.key_alias)
        return await explanations.explain(request, context, explainer=experts.explainer, config=config)

    async def WatchDecisions(  # noqa: N802
        self, request: messages.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[messages.WatchDecisionsResponse]:
        """Stream decisions as they are made."""
        async for decision in explanations.watch(request, context, feed=self._experts.feed):
            yield decision

    @answering(AUDIT_S)
    async def Audit(  # noqa: N802
        self, request: messages.AuditRequest, context: Context
    ) -> messages.AuditResponse:
        """Prove that every counter is what the journal and the open reservations say."""
        return written.audited(await self._experts.inspector.audit())

    async def ReadJournal(  # noqa: N802
        self, request: messages.ReadJournalRequest, context: Context
    ) -> None:
        """Stream what happened to money. A reader that stops reading is let go."""
        await self._read_journal(request, context)

    @answering()
    async def GetStatus(  # noqa: N802
        self, request: messages.GetStatusRequest, context: Context
    ) -> messages.GetStatusResponse:
        """Tell how this replica is."""
        return self._experts.status(request.budgets)

    @answering()
    async def GetConfig(  # noqa: N802
        self, request: messages.GetConfigRequest, context: Context
    ) -> messages.GetConfigResponse:
        """Show the configuration in force, with every secret masked."""
        config = self._experts.configuration()
        yaml = await effective(config)
        return messages.GetConfigResponse(yaml=yaml, digest=config.digest, notices=config.notices)

    @answering()
    async def SetLogLevel(  # noqa: N802
        self, request: messages.SetLogLevelRequest, context: Context
    ) -> messages.SetLogLevelResponse:
        """Change how much this replica logs, or only tell."""
        verbosity, level = self._experts.verbosity, request.level
        if level and level not in LEVELS:
            raise UnclearError(f"{level[:16]!r} is not a level: send one of {', '.join(LEVELS)}")
        if level:
            verbosity.chosen = level
            self._experts.telemetry.changed_by_hand("log_level", level, context.peer())
        return messages.SetLogLevelResponse(level=verbosity.least)

    async def _change(self, request: written.ChangeRequest, context: Context) -> messages.ChangeBudgetResponse:
        wanted = written.change(request, context.peer(), self._experts.new_id)
        after, changed = await self._experts.treasury.change(wanted)
        return messages.ChangeBudgetResponse(budget=written.budget(after), changed=changed)

    @answering(None)
    async def _read_journal(self, request: messages.ReadJournalRequest, context: Context) -> None:
        books, shard = self._experts.books, request.shard
        if not books:
            raise ImpossibleError("the memory store keeps no journal: it needs a Redis as `store`")
        if not 0 <= shard < len(books):
            raise UnclearError(f"there is no shard {shard}: they are 0 to {len(books) - 1}")
        place = written.journal_place(request.after)
        if self._journal_readers >= JOURNAL_READERS_MAX:
            raise BusyError(f"{JOURNAL_READERS_MAX} readers are at the journal already: end one of them, or ask later")
        self._journal_readers += 1
        try:
            async for item in Journal(books[shard]).export(place, follow=request.follow):
                async with asyncio.timeout(JOURNAL_WRITE_S):
                    await context.write(messages.ReadJournalResponse(line=to_json(item)))
        finally:
            self._journal_readers -= 1

    def failed(self, error: Exception) -> None:
        """Tell the log of a failure of ours."""
        self._experts.telemetry.failed("diagnostics", error)
