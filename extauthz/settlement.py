"""The other half of a request: a finished stream → what it used → how its reservation ends.

`ending_of` decides, purely; `Settlement` carries it out on the ledger. Each signal may come twice, late, out of order
or never: the ledger's verbs are idempotent, and what never comes is ended by the lease.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from extauthz.config.model import Settings
from extauthz.domain.policy import OnAbort, OnMissingUsage
from extauthz.domain.prices import Prices, Usage
from extauthz.domain.reservation import Hold, Lease, Note, Signal, State
from extauthz.endings import Endings
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending, Ledger, Release, Settle
from extauthz.pricing.cost import cost, delivered_usage
from extauthz.pricing.estimate import UsualAnswer
from extauthz.telemetry.events import Finished, Telemetry
from extauthz.usage import Report, within

# Reservations ended by one pass over the leases; the next pass takes the rest.
EXPIRIES_MAX = 1000

HTTP_ERROR = 400

# Without a word of any access log for so long, what ends by leases was not merely lost on its way.
BLIND_MS = 300_000


class Outcome(StrEnum):
    """How a stream ended, as far as the books are concerned."""

    ANSWERED = "answered"  # the upstream's answer passed to its end
    ABORTED = "aborted"  # somebody gave up on an upstream that was at work: client, timeout, reset in the middle
    FAILED = "failed"  # no answer worth money: never sent, refused, or an error


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished stream: its hold, how it ended, what the meter saw, and its place in a trace if it has one."""

    hold: Hold
    outcome: Outcome
    report: Report
    trace: str | None = None


def ending_of(observation: Observation, rules: Settings) -> Settle | Release:
    """Decide how a finished stream's reservation ends."""
    hold, report = observation.hold, observation.report
    note = Note(Signal.ACCESS_LOG, report.usage)
    match observation.outcome:
        case Outcome.FAILED:
            return Release(hold.id)
        case Outcome.ABORTED if not report.finished:
            return Settle(hold, abort_cost(hold, report, rules), note)
        case _ if report.usage is None:
            return Settle(hold, _missing_usage(hold, report, rules.on_missing_usage), note)
        case _:
            return Settle(hold, _reported_cost(hold, report), note)


def _complete(observation: Observation) -> bool:
    return observation.outcome is Outcome.ANSWERED or observation.report.finished


def _reported_cost(hold: Hold, report: Report) -> int:
    return 0 if report.usage is None else cost(_prices(hold, report), report.usage)


def _prices(hold: Hold, report: Report) -> Prices:
    """Choose the prices of a body that the Check saw only in part: its model's, when the rest named no other."""
    return hold.whole_prices if hold.whole_prices is not None and report.models == 1 else hold.prices


def abort_cost(hold: Hold, report: Report, rules: Settings) -> int:
    """Tell what a request costs that is given up now, in nano-USD."""
    match rules.on_abort if hold.streamed else rules.on_abort_unary:
        case OnAbort.DELIVERED:
            # Usage that came before the end is a running total: Anthropic's message_start tells of one output token.
            return max(_delivered_cost(hold, report), _reported_cost(hold, report))
        case OnAbort.RESERVED:
            return _estimated_cost(hold, report)
        case OnAbort.INPUT:
            return cost(_prices(hold, report), Usage(hold.estimate.input_tokens, 0))
        case OnAbort.ZERO:
            return 0


def _missing_usage(hold: Hold, report: Report, rule: OnMissingUsage) -> int:
    delivered = _delivered_cost(hold, report)
    match rule:
        case OnMissingUsage.ESTIMATE:
            return max(_estimated_cost(hold, report), delivered)
        case OnMissingUsage.DELIVERED:
            return delivered
        case OnMissingUsage.ZERO:
            return 0


def _estimated_cost(hold: Hold, report: Report) -> int:
    usage = Usage(hold.estimate.input_tokens, hold.estimate.output_tokens)
    return cost(_prices(hold, report), usage)


def _delivered_cost(hold: Hold, report: Report) -> int:
    usage = delivered_usage(
        hold.estimate,
        events=report.events,
        text_bytes=report.text_bytes,
        reasoning_bytes=report.reasoning_bytes,
    )
    return cost(_prices(hold, report), usage)


class Settlement:
    """Ends reservations on the signals that arrive; what the store cannot take now is kept until it can."""

    def __init__(
        self,
        ledger: Ledger,
        endings: Endings,
        rules: Callable[[], Settings],
        usual: UsualAnswer,
        telemetry: Telemetry,
    ) -> None:
        self._ledger = ledger
        self._endings = endings
        self._rules = rules
        self._usual = usual
        self._telemetry = telemetry
        self._began_ms = ledger.now_ms()

    async def finished(self, observation: Observation) -> None:
        """End a reservation because its stream is over."""
        hold, report = observation.hold, within(observation.report, observation.hold.tokens_max)
        observation = replace(observation, report=report)
        if report.absurd:
            self._telemetry.usage_absurd(hold.model, report.absurd)
        end = ending_of(observation, self._rules())

        def ended(ending: Ending) -> None:
            settled = isinstance(end, Settle)
            how = State.SETTLED if settled else State.RELEASED
            cost_nanousd = end.cost_nanousd if isinstance(end, Settle) else 0
            self._telemetry.ended(how, Signal.ACCESS_LOG, ending)
            self._telemetry.finished(Finished(hold, how, ending, cost_nanousd, report.usage, observation.trace))
            if settled and report.usage is not None and ending is Ending.FIRST and _complete(observation):
                self._usual.observe(hold.model, report.usage, hold.choices)

        await self._endings.carry_out(end, ended)

    async def progressed(self, hold: Hold, report: Report) -> None:
        """Renew the lease of a living stream; if nothing more is heard, what it delivered so far is booked.

        A store that is away misses it, and hears the next one: several of them fit into a lease.
        """
        rules = self._rules()
        cost_nanousd = abort_cost(hold, within(report, hold.tokens_max), rules)
        with suppress(StoreUnavailableError):
            await self._ledger.renew(hold, Lease(rules.lease_seconds * 1000, cost_nanousd))

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
