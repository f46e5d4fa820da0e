"""How a finished stream's reservation ends, for every way that a stream can finish."""

from dataclasses import replace
from decimal import Decimal

import pytest

from extauthz.authorizer import first_lease
from extauthz.config.model import Settings
from extauthz.domain.policy import OnAbort, OnExpiry, OnMissingUsage
from extauthz.domain.prices import Estimate, Prices, TokenUsage
from extauthz.domain.reservation import Hold, Lease
from extauthz.settlement import Observation, Outcome, Release, Settle, abort_cost, ending_of
from extauthz.usage import Report

# A token of input costs 10 nano-USD, one of output 100.
PRICES = Prices(Decimal("0.00000001"), Decimal("0.0000001"))
ESTIMATE = Estimate(input_tokens=50, output_tokens=20, cost_nanousd=2_500, cost_nanousd_max=90_000)
USAGE = Report(TokenUsage(40, 10), events=9, finished=True)
USAGE_COST = 1_400
NOTHING = Report()
PART = Report(events=4, text_bytes=30)  # 30 bytes are worth 10 tokens, more than 4 events
PART_COST = 500 + 1_000


def hold(*, streamed: bool = True) -> Hold:
    """Make a hold of the estimate above."""
    return Hold("r", 0, (), "gpt-4o", PRICES, ESTIMATE, streamed)


@pytest.mark.parametrize(
    ("outcome", "report", "streamed", "ending"),
    [
        pytest.param(Outcome.ANSWERED, USAGE, True, Settle(USAGE_COST), id="answered with usage"),
        pytest.param(Outcome.ANSWERED, NOTHING, False, Settle(2_500), id="answered without usage: the estimate"),
        pytest.param(
            Outcome.ANSWERED, Report(events=90), True, Settle(500 + 9_000), id="answered, more delivered than estimated"
        ),
        pytest.param(Outcome.ABORTED, USAGE, True, Settle(USAGE_COST), id="aborted after the usage came"),
        pytest.param(
            Outcome.ABORTED,
            Report(TokenUsage(40, 1), events=4, text_bytes=30),
            True,
            Settle(PART_COST),
            id="aborted after a running total: what was delivered, if more",
        ),
        pytest.param(
            Outcome.ABORTED,
            Report(TokenUsage(90, 30), events=4),
            True,
            Settle(3_900),
            id="or the running total, if more",
        ),
        pytest.param(
            Outcome.ABORTED, Report(events=4, finished=True), True, Settle(2_500), id="hung up at the finish: finished"
        ),
        pytest.param(Outcome.ABORTED, PART, True, Settle(PART_COST), id="stream aborted: input and what was delivered"),
        pytest.param(Outcome.ABORTED, NOTHING, True, Settle(500), id="stream aborted before its first event"),
        pytest.param(Outcome.ABORTED, NOTHING, False, Settle(2_500), id="unary aborted: providers bill it"),
        pytest.param(Outcome.FAILED, NOTHING, True, Release(), id="failed"),
        pytest.param(Outcome.FAILED, USAGE, False, Release(), id="failed, whatever the error body says"),
    ],
)
def test_endings_by_default(outcome: Outcome, report: Report, streamed: bool, ending: Settle | Release) -> None:  # noqa: FBT001
    """Each way to finish is booked once, at what it was worth."""
    assert ending == ending_of(Observation(hold(streamed=streamed), outcome, report), Settings())


@pytest.mark.parametrize(
    ("rule", "cost_nanousd"),
    [(OnAbort.DELIVERED, PART_COST), (OnAbort.RESERVED, 2_500), (OnAbort.INPUT, 500), (OnAbort.ZERO, 0)],
)
def test_on_abort(rule: OnAbort, cost_nanousd: int) -> None:
    """The operator says what an aborted stream costs, and what an aborted plain answer costs."""
    assert cost_nanousd == abort_cost(hold(), PART, Settings(on_abort=rule))
    assert cost_nanousd == abort_cost(hold(streamed=False), PART, Settings(on_abort_unary=rule))


def test_a_running_total_does_not_overrule_the_operator() -> None:
    """Where an abort shall cost nothing, it costs nothing, whatever the upstream had counted by then."""
    assert 0 == abort_cost(hold(), Report(TokenUsage(90, 30), events=4), Settings(on_abort=OnAbort.ZERO))


@pytest.mark.parametrize(
    ("rule", "cost_nanousd"),
    [(OnMissingUsage.ESTIMATE, 2_500), (OnMissingUsage.DELIVERED, PART_COST), (OnMissingUsage.ZERO, 0)],
)
def test_on_missing_usage(rule: OnMissingUsage, cost_nanousd: int) -> None:
    """The operator says what a finished answer without usage costs."""
    ending = ending_of(Observation(hold(), Outcome.ANSWERED, PART), Settings(on_missing_usage=rule))

    assert ending == Settle(cost_nanousd)


@pytest.mark.parametrize(("rule", "cost_nanousd"), [(OnExpiry.RELEASE, 0), (OnExpiry.CHARGE, 2_500)])
def test_on_expiry(rule: OnExpiry, cost_nanousd: int) -> None:
    """The first lease says what is booked when nothing is ever heard of a request."""
    assert Lease(120_000, cost_nanousd) == first_lease(hold(), Settings(on_expiry=rule))


@pytest.mark.parametrize(
    ("models", "cost_nanousd"),
    [
        pytest.param(1, USAGE_COST, id="the whole body names one model: the one that was seen"),
        pytest.param(2, 2 * USAGE_COST, id="it names another as well: the dearest"),
        pytest.param(None, 2 * USAGE_COST, id="nobody looked to its end: the dearest"),
    ],
)
def test_a_body_that_was_seen_in_part(models: int | None, cost_nanousd: int) -> None:
    """What the unseen end of a body may ask for is paid, until it is known what it asked for."""
    twice = Prices(2 * PRICES.input, 2 * PRICES.output)
    partial = replace(hold(), prices=twice, whole_prices=PRICES)
    report = replace(USAGE, models=models)

    assert Settle(cost_nanousd) == ending_of(Observation(partial, Outcome.ANSWERED, report), Settings())


def test_an_estimate_is_paid_at_the_price_that_turned_out() -> None:
    """A long body that names one model only costs that model's price without usage too."""
    partial = replace(hold(), prices=Prices(2 * PRICES.input, 2 * PRICES.output), whole_prices=PRICES)

    assert Settle(2_500) == ending_of(Observation(partial, Outcome.ANSWERED, Report(models=1)), Settings())
