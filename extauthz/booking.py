"""What a finished stream used, and so how its reservation ends: decided purely, from what was held and what was seen.

An answer is paid at the prices that were held, or, when it names a model that the catalog knows, at those of that
model: fallbacks and aliases lead to others than the one that was asked for. Its tokens are those that it is paid for,
and it is one request; what failed is none.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import NOTHING_SPENT, Spent
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.policy import OnAbort, OnMissingUsage
from extauthz.domain.prices import NO_UNITS, Prices, Usage
from extauthz.domain.reservation import Hold, Lease, Note, Signal
from extauthz.domain.value import value
from extauthz.ledger.base import Promise, Release, Renew, Settle
from extauthz.pricing.cost import at_tier, cost, delivered_usage
from extauthz.usage import Report

# A request that was served, and for which nothing else is booked.
_FOR_NOTHING = Spent(requests=1)


class Outcome(StrEnum):
    """How a stream ended, as far as the books are concerned."""

    ANSWERED = "answered"  # the upstream's answer passed to its end
    ABORTED = "aborted"  # somebody gave up on an upstream that was at work: client, timeout, reset in the middle
    FAILED = "failed"  # no answer worth money: never sent, refused, or an error


@value
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


@value
class _Bill:
    """What was held, what was seen, and the prices that apply; `as_held` when these are those of the estimate."""

    hold: Hold
    report: Report
    prices: Prices
    as_held: bool

    def of(self, usage: Usage) -> Spent:
        return Spent(cost(self.prices, usage), usage.tokens, requests=1)

    def reported(self) -> Spent:
        """Tell what the usage of the answer comes to; units that it does not show are those that were asked for."""
        usage = self.report.usage
        if usage is None:
            return _FOR_NOTHING
        spent = self.of(usage)
        # LiteLLM's map has rerankers that are paid by the query, with tokens at 0.
        says_nothing = self.prices.guessed_input or self.prices.guessed_output or not spent.cost_nanousd
        if says_nothing and replace(usage.units, searches=0) == NO_UNITS:
            asked = self.hold.estimate.units
            return self.of(replace(usage, units=replace(asked, searches=usage.units.searches)))
        return spent

    def told(self) -> bool:
        """Tell whether the answer says what it used in words that have a price: pictures have none where tokens do."""
        usage = self.report.usage
        return usage is not None and (usage.tokens > 0 or self.reported().cost_nanousd > 0)

    def estimated(self) -> Spent:
        expected = self.hold.estimate
        if self.as_held:
            return expected.spent
        usage = Usage(expected.input_tokens, expected.output_tokens, units=expected.units)
        return _most(self.of(usage), Spent(expected.flat_nanousd))

    def delivered(self) -> Spent:
        report = self.report
        usage = delivered_usage(
            self.hold.estimate,
            events=report.events,
            text_bytes=report.text_bytes,
            reasoning_bytes=report.reasoning_bytes,
        )
        return self.of(usage)

    def asked(self) -> Spent | None:
        """Tell what comes of that which was asked for besides tokens; None where it was tokens alone."""
        expected = self.hold.estimate
        if expected.units == NO_UNITS:
            return self.estimated() if expected.flat_nanousd else None
        units = self.of(Usage(0, 0, units=expected.units))
        return units if units.cost_nanousd else self.estimated()

    def finished(self, rule: OnMissingUsage) -> Spent:
        """Tell what a finished answer comes to: as it says, else what was asked for besides tokens, else by rule."""
        if self.told() and not self.report.pending:
            return self.reported()
        asked = self.asked()
        if asked is not None:
            return asked
        match rule:
            case OnMissingUsage.ESTIMATE:
                return _most(self.estimated(), self.delivered())
            case OnMissingUsage.DELIVERED:
                return self.delivered()
            case OnMissingUsage.ZERO:
                return _FOR_NOTHING


def ending_of(observation: Observation, config: Snapshot) -> Settle | Release | Renew | None:
    """Decide how a finished stream's reservation ends; None for one that was never made, and costs nothing."""
    hold, report, rules = observation.hold, observation.report, config.settings
    if observation.outcome is Outcome.FAILED:
        return None if hold.free else Release(hold.id, promised=observation.promised)
    note = Note(Signal.ACCESS_LOG, report.usage)
    bill = _bill(hold, report, config)
    if rules.trust_upstream_cost and report.cost_nanousd and observation.complete:
        spent = _free(report) if bill is None else bill.finished(rules.on_missing_usage)
        told = replace(spent, cost_nanousd=min(report.cost_nanousd, AMOUNT_NANOUSD_MAX))
        return Settle(hold, told, note, observation.promised)
    if bill is None:
        return None
    if report.pending and not hold.free:
        return Renew(hold, _promised(bill, rules), note, observation.promise)
    if not observation.complete:
        return Settle(hold, _aborted(bill, config), note)
    return Settle(hold, bill.finished(rules.on_missing_usage), note, observation.promised)


def lease_of(hold: Hold, report: Report, config: Snapshot) -> Lease:
    """Give the lease of a living stream: what is booked if nothing more is heard of it."""
    bill = _bill(hold, report, config)
    if bill is not None and report.pending:
        return _promised(bill, config.settings)
    return Lease(config.settings.lease_seconds * 1000, NOTHING_SPENT if bill is None else _aborted(bill, config))


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


def _aborted(bill: _Bill, config: Snapshot) -> Spent:
    rules, hold = config.settings, bill.hold
    match rules.on_abort if hold.streamed else rules.on_abort_unary:
        case OnAbort.DELIVERED:
            # Usage that came before the end is a running total: Anthropic's message_start tells of one output token.
            # Pictures and sound are made before they go out, and their events do not tell how much of them there is.
            return _most(bill.delivered(), bill.reported(), bill.asked() or _FOR_NOTHING)
        case OnAbort.RESERVED:
            return bill.estimated()
        case OnAbort.INPUT:
            return bill.of(Usage(hold.estimate.input_tokens, 0, units=hold.estimate.units))
        case OnAbort.ZERO:
            return _FOR_NOTHING


def _free(report: Report) -> Spent:
    """Tell what an answer used that has no price of ours."""
    return Spent(0, 0 if report.usage is None else report.usage.tokens, requests=1)


def _most(*amounts: Spent) -> Spent:
    """Give the most in each measure."""
    return Spent(
        max(spent.cost_nanousd for spent in amounts),
        max(spent.tokens for spent in amounts),
        max(spent.requests for spent in amounts),
    )
