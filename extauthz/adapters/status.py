"""How one replica is, in one message: what `GetStatus`, `extauthz top` and the status page show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.adapters.explanations import recorded, timestamp
from extauthz.adapters.measures import dollars
from extauthz.adapters.operator_messages import budget
from extauthz.config.snapshot import Snapshot
from extauthz.endings import Endings
from extauthz.errors import UnclearError
from extauthz.ledger.base import Ledger
from extauthz.observers import Observers
from extauthz.reload import Reloader
from extauthz.survey import Surveyor

BUDGETS_SHOWN = 10
BUDGETS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Puts together what others know. It asks the store nothing, and so costs next to nothing."""

    version: str
    started_ms: int
    configuration: Callable[[], Snapshot]
    reloader: Reloader
    ledger: Ledger
    surveyor: Surveyor
    endings: Endings
    observers: Observers
    draining: Callable[[], bool]

    def __call__(self, budgets: int = 0) -> messages.GetStatusResponse:
        """Tell how this replica is, with so many of the most used budgets. Raises UnclearError."""
        if not 0 <= budgets <= BUDGETS_SHOWN_MAX:
            raise UnclearError(
                f"`budgets` must be between 1 and {BUDGETS_SHOWN_MAX}, or left out for {BUDGETS_SHOWN}; "
                "ListBudgets shows all of them"
            )
        loaded, survey, check = self.reloader.status, self.surveyor.latest, self.observers.latencies.check
        return messages.GetStatusResponse(
            version=self.version,
            started_at=timestamp(self.started_ms),
            config_digest=loaded.digest,
            config_loaded_at=timestamp(loaded.loaded_ms),
            config_refused=loaded.refused or "",
            draining=self.draining(),
            store=self._store(),
            decisions=[
                messages.GetStatusResponse.DecisionCount(
                    route_class=route_class, decision=decision, reason=reason, count=count
                )
                for (route_class, decision, reason), count in self.observers.metrics.decisions().items()
            ],
            reservations_open=survey.reservations_open,
            held_usd=dollars(survey.held),
            budgets=map(budget, survey.budgets[: budgets or BUDGETS_SHOWN]),
            check_seconds_p50=check.p50_s,
            check_seconds_p99=check.p99_s,
            endings_waiting=self.endings.waiting,
            shadow_mode=self.configuration().settings.shadow_mode,
            denials=map(recorded, self.observers.feed.denials()),
        )

    def _store(self) -> messages.GetStatusResponse.Store:
        url, latency = self.configuration().settings.store, self.observers.latencies.store
        return messages.GetStatusResponse.Store(
            url="memory" if url is None else str(url),
            up=self.ledger.up(),
            seconds_p50=latency.p50_s,
            seconds_p99=latency.p99_s,
            errors=self.observers.metrics.store_error_count(),
        )
