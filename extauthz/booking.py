"""What a finished stream costs, and so how its reservation ends: decided purely, from what was held and what was seen.

An answer is paid at the prices that were held, or, when it names a model that the catalog knows, at those of that
model: fallbacks and aliases lead to others than the one that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.policy import OnAbort, OnMissingUsage
from extauthz.domain.prices import NO_UNITS, Prices, Usage
from extauthz.domain.reservation import Hold, Lease, Note, Signal
from extauthz.ledger.base import Promise, Release, Renew, Settle
from extauthz.pricing.cost import at_tier, cost, delivered_usage
from extauthz.usage import Report


class Outcome(StrEnum):
    """How a stream ended, as far as the books are concerned."""

    ANSWERED = "answered"  # the upstream's answer passed to its end
    ABORTED = "aborted"  # somebody gave up on an upstream that was at work: client, timeout, reset in the middle
    FAILED = "failed"  # no answer worth money: never sent, refused, or an error


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished stream: its hold, how it ended, what the meter saw, and its place in a trace if it has one.

    `promise` is that which its answer makes when it is pending, and that which it keeps when it is not.
    """

    hold: Hold
    outcome: Outcome
    report: Report
    trace: str | None = None
    promise: Promise | None = None

    @property
    def promised(self) -> str | None:
        """The name of the promise that is kept."""
        return None if self.promise is None or self.report.pending else self.promise.name

    @property
    def complete(self) -> bool:
        """Whether the answer was seen to its own end; one that may be under way in a session was not."""
        return self.report.finished or (self.outcome is Outcome.ANSWERED and not self.report.session)


@dataclass(frozen=True, slots=True)
class _Bill:
    """What was held, what was seen, and the prices that apply; `as_held` when these are those of the estimate."""

    hold: Hold
    report: Report
    prices: Prices
    as_held: bool

    def of(self, usage: Usage) -> int:
        return cost(self.prices, usage)

    def reported(self) -> int:
        """Tell what the usage of the answer costs; units that it does not show are those that were asked for."""
        usage = self.report.usage
        if usage is None:
            return 0
        asked = self.hold.estimate.units
        by_the_call = replace(usage.units, searches=0) == NO_UNITS
        # LiteLLM's map has rerankers that are paid by the query, with tokens at 0.
        says_nothing = self.prices.guessed_input or self.prices.guessed_output or not self.of(usage)
        if by_the_call and says_nothing:
            usage = replace(usage, units=replace(asked, searches=usage.units.searches))
        return self.of(usage)

    def told(self) -> bool:
        """Tell whether the answer says what it used in words that have a price: pictures have none where tokens do."""
        usage = self.report.usage
        return usage is not None and (usage.input_tokens > 0 or usage.output_tokens > 0 or self.reported() > 0)

    def estimated(self) -> int:
        expected = self.hold.estimate
        if self.as_held:
            return expected.cost_nanousd
        usage = Usage(expected.input_tokens, expected.output_tokens, units=expected.units)
        return max(expected.flat_nanousd, self.of(usage))

    def delivered(self) -> int:
        report = self.report
        usage = delivered_usage(
            self.hold.estimate,
            events=report.events,
            text_bytes=report.text_bytes,
            reasoning_bytes=report.reasoning_bytes,
        )
        return self.of(usage)

    def asked(self) -> int | None:
        """Tell what costs that which was asked for besides tokens; None where it was tokens alone."""
        expected = self.hold.estimate
        if expected.units == NO_UNITS:
            return self.estimated() if expected.flat_nanousd else None
        return self.of(Usage(0, 0, units=expected.units)) or self.estimated()


def ending_of(observation: Observation, config: Snapshot) -> Settle | Release | Renew | None:
    """Decide how a finished stream's reservation ends; None for one that was never made, and costs nothing."""
    hold, report, rules = observation.hold, observation.report, config.settings
    if observation.outcome is Outcome.FAILED:
        return None if hold.free else Release(hold.id, promised=observation.promised)
    note = Note(Signal.ACCESS_LOG, report.usage)
    if rules.trust_upstream_cost and report.cost_nanousd and observation.complete:
        return Settle(hold, min(report.cost_nanousd, AMOUNT_NANOUSD_MAX), note, observation.promised)
    bill = _bill(hold, report, config)
    if bill is None:
        return None
    if report.pending and not hold.free:
        return Renew(hold, _promised(bill, rules), note, observation.promise)
    if not observation.complete:
        return Settle(hold, _abort_cost(bill, config), note)
    if report.pending or not bill.told():
        return Settle(hold, _missing_usage(bill, rules.on_missing_usage), note, observation.promised)
    return Settle(hold, bill.reported(), note, observation.promised)


def lease_of(hold: Hold, report: Report, config: Snapshot) -> Lease:
    """Give the lease of a living stream: what is booked if nothing more is heard of it."""
    bill = _bill(hold, report, config)
    if bill is not None and report.pending:
        return _promised(bill, config.settings)
    return Lease(config.settings.lease_seconds * 1000, 0 if bill is None else _abort_cost(bill, config))


def _promised(bill: _Bill, rules: Settings) -> Lease:
    """Give the lease of what is still to be made: as long as its ending would be remembered, for all that it costs."""
    return Lease(min(rules.background_lease_seconds, rules.tombstone_seconds) * 1000, bill.estimated())


def _bill(hold: Hold, report: Report, config: Snapshot) -> _Bill | None:
    """Choose the prices that an answer is paid at; None for a free one.

    A model that the answer names is believed, but for one: a free one that the model which was asked for never leads
    to. Prices are those of the moment of reserving, so a configuration that came after it says nothing of them.
    """
    # Of a body that the Check saw only in part: its model's prices, when the rest named no other.
    held = hold.whole_prices if hold.whole_prices is not None and report.models == 1 else hold.prices
    current = hold.free or hold.priced_by == config.short_digest
    answered = config.catalog.answered(report.model, hold.model) if report.model is not None and current else None
    if answered is None or (answered.free and not answered.expected):
        prices = None if hold.free else held
    else:
        prices = None if hold.free and answered.free else answered.prices
    return None if prices is None else _Bill(hold, report, at_tier(prices, report.service_tier), prices == hold.prices)


def _abort_cost(bill: _Bill, config: Snapshot) -> int:
    rules, hold = config.settings, bill.hold
    match rules.on_abort if hold.streamed else rules.on_abort_unary:
        case OnAbort.DELIVERED:
            # Usage that came before the end is a running total: Anthropic's message_start tells of one output token.
            # Pictures and sound are made before they go out, and their events do not tell how much of them there is.
            return max(bill.delivered(), bill.reported(), bill.asked() or 0)
        case OnAbort.RESERVED:
            return bill.estimated()
        case OnAbort.INPUT:
            return bill.of(Usage(hold.estimate.input_tokens, 0, units=hold.estimate.units))
        case OnAbort.ZERO:
            return 0


def _missing_usage(bill: _Bill, rule: OnMissingUsage) -> int:
    """Tell what a finished answer costs that says nothing of its tokens: what was asked for besides, else by rule."""
    asked = bill.asked()
    if asked is not None:
        return asked
    match rule:
        case OnMissingUsage.ESTIMATE:
            return max(bill.estimated(), bill.delivered())
        case OnMissingUsage.DELIVERED:
            return bill.delivered()
        case OnMissingUsage.ZERO:
            return 0
