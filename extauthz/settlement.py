"""The other half of a request: a finished stream → what it used → how its reservation ends.

`booking` decides, purely; `Settlement` carries it out on the ledger. Each signal may come twice, late, out of order
or never: the ledger's verbs are idempotent, and what never comes is ended by the lease.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from extauthz.booking import Observation, ending_of, lease_of
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import NOTHING_SPENT, Spent
from extauthz.domain.reservation import Hold, Note, Signal, State
from extauthz.endings import Endings
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending, Ledger, Release, Renew, Settle
from extauthz.pricing.estimate import UsualAnswer
from extauthz.telemetry.events import Finished, Telemetry
from extauthz.usage import Report, within

# Reservations ended by one pass over the leases; the next pass takes the rest.
EXPIRIES_MAX = 1000

# Without a word of any access log for so long, what ends by leases was not merely lost on its way.
BLIND_MS = 300_000

_BOOKED = (Ending.FIRST, Ending.LATE, Ending.UNKNOWN)


class Settlement:
    """Ends reservations on the signals that arrive; what the store cannot take now is kept until it can."""

    def __init__(
        self,
        ledger: Ledger,
        endings: Endings,
        configuration: Callable[[], Snapshot],
        usual: UsualAnswer,
        telemetry: Telemetry,
    ) -> None:
        self._ledger = ledger
        self._endings = endings
        self._configuration = configuration
        self._usual = usual
        self._telemetry = telemetry
        self._began_ms = ledger.now_ms()

    async def finished(self, observation: Observation) -> None:
        """End a reservation because its stream is over."""
        hold, report = observation.hold, within(observation.report, observation.hold.tokens_max)
        if report is not observation.report:
            observation = replace(observation, report=report)
        if report.absurd:
            self._telemetry.usage_absurd(hold.model, report.absurd)
        end = ending_of(observation, self._configuration())
        if end is not None:
            await self._endings.carry_out(end, lambda ending: self._ended(observation, end, ending))

    def _ended(self, observation: Observation, end: Settle | Release | Renew, ending: Ending) -> None:
        """Tell of an ending, and learn from the answer."""
        if ending is Ending.OPEN:
            return
        hold, report = observation.hold, observation.report
        how = State.RELEASED if isinstance(end, Release) else State.SETTLED
        self._telemetry.ended(how, Signal.ACCESS_LOG, ending)
        strayed = ending in _BOOKED and _was_free(hold) and (hold.free or _spent(end).cost_nanousd > 0)
        if strayed:
            self._telemetry.free_answer_paid(hold.model, report.model)
        finished = Finished(hold, how, ending, _spent(end), report.usage, observation.trace)
        self._telemetry.finished(finished)
        if isinstance(end, Settle) and ending is Ending.FIRST and observation.complete and not strayed:
            self._learn(hold, report)

    def _learn(self, hold: Hold, report: Report) -> None:
        """Take note of what answers need; one that is paid by the unit says nothing of it, nor do many in a batch."""
        usage = report.usage
        if hold.model and usage is not None and (usage.input_tokens or usage.output_tokens):
            self._usual.observe(hold.model, usage, hold.choices)

    async def progressed(self, hold: Hold, report: Report) -> None:
        """Renew the lease of a living stream; if nothing more is heard, what it delivered so far is booked.

        A store that is away misses it, and hears the next one: several of them fit into a lease.
        """
        if hold.free:
            return
        lease = lease_of(hold, within(report, hold.tokens_max), self._configuration())
        with suppress(StoreUnavailableError):
            await self._ledger.renew(hold, lease)

    async def cancelled(self, reservation_id: str, attempt: str) -> None:
        """End what one Check may have reserved, because Envoy gave up on that Check."""
        await self._release(Release(reservation_id, attempt, Note(Signal.CANCELLATION)))

    async def unanswered(self, reservation_id: str) -> None:
        """End what a Check reserved whose answer never reached Envoy: the stream ended without our metadata."""
        await self._release(Release(reservation_id))

    async def _release(self, end: Release) -> None:
        await self._endings.carry_out(
            end, lambda ending: self._telemetry.ended(State.RELEASED, end.note.signal, ending)
        )

    async def expire(self) -> int:
        """End reservations whose lease ran out and tell how many they were.

        Where leases end what access logs should, and none were heard of for BLIND_MS, settlement is blind: Envoys
        send no access logs, or send them elsewhere, and the books are estimates.
        """
        expired = await self._ledger.expire(EXPIRIES_MAX)
        for _ in expired:
            self._telemetry.ended(State.EXPIRED, Signal.LEASE, Ending.FIRST)
        quiet = self._ledger.now_ms() - max(self._ledger.heard_ms(), self._began_ms) >= BLIND_MS
        if expired or not quiet:
            self._telemetry.settlement_blind(blind=quiet)
        return len(expired)


def _was_free(hold: Hold) -> bool:
    """Tell whether a request could cost nothing; one that tokens or requests limit is reserved all the same."""
    return hold.free or not (hold.estimate.cost_nanousd_max or hold.prices.input or hold.prices.output)


def _spent(end: Settle | Release | Renew) -> Spent:
    match end:
        case Settle(spent=spent):
            return spent
        case Renew(lease=lease):
            return lease.spent
        case Release():
            return NOTHING_SPENT
