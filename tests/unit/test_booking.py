"""What a finished stream costs, for every way that a stream can finish and everything that its answer may show."""

from dataclasses import replace
from decimal import Decimal

import pytest

from extauthz.booking import Observation, Outcome, ending_of, lease_of
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Spent
from extauthz.domain.policy import OnAbort, OnMissingUsage
from extauthz.domain.prices import Estimate, Prices, Units, Usage
from extauthz.domain.reservation import Hold, Lease, Note, Signal
from extauthz.ledger.base import Release, Renew, Settle
from extauthz.usage import Report
from tests.support.snapshots import a_priced_snapshot, an_offer

# A token of input costs 10 nano-USD, one of output 100.
PRICES = Prices(Decimal("0.00000001"), Decimal("0.0000001"))
ESTIMATE = Estimate(input_tokens=50, output_tokens=20, cost_nanousd=2_500, cost_nanousd_max=90_000)
# The estimate, where it is booked.
ESTIMATED = Spent(2_500, 70, 1)
USAGE = Report(Usage(40, 10), events=9, finished=True)
USAGE_COST = 1_400
NOTHING = Report()
PART = Report(events=4, text_bytes=30)  # 30 bytes are worth 10 tokens, more than 4 events
PART_COST = 500 + 1_000
RULES = a_priced_snapshot()


def hold(*, streamed: bool = True) -> Hold:
    """Make a hold of the estimate above."""
    return Hold("r", 0, (), "gpt-4o", PRICES, ESTIMATE, streamed)


def noted(report: Report) -> Note:
    """Give what the journal keeps: that the access log told of it, and the usage as it was reported."""
    return Note(Signal.ACCESS_LOG, report.usage)


@pytest.mark.parametrize(
    ("outcome", "report", "streamed", "spent"),
    [
        pytest.param(Outcome.ANSWERED, USAGE, True, Spent(USAGE_COST, 50, 1), id="answered with usage"),
        pytest.param(
            Outcome.ANSWERED,
            Report(Usage(40, 10, 30, 10, 9), finished=True),
            True,
            Spent(USAGE_COST, 50, 1),
            id="cached input and reasoning are tokens once",
        ),
        pytest.param(Outcome.ANSWERED, NOTHING, False, ESTIMATED, id="answered without usage: the estimate"),
        pytest.param(
            Outcome.ANSWERED,
            Report(events=90),
            True,
            Spent(500 + 9_000, 50 + 90, 1),
            id="answered, more delivered than estimated",
        ),
        pytest.param(Outcome.ABORTED, USAGE, True, Spent(USAGE_COST, 50, 1), id="aborted after the usage came"),
        pytest.param(
            Outcome.ABORTED,
            Report(Usage(40, 1), events=4, text_bytes=30),
            True,
            Spent(PART_COST, 60, 1),
            id="aborted after a running total: what was delivered, if more",
        ),
        pytest.param(
            Outcome.ABORTED,
            Report(Usage(90, 30), events=4),
            True,
            Spent(3_900, 120, 1),
            id="or the running total, if more",
        ),
        pytest.param(
            Outcome.ABORTED, Report(events=4, finished=True), True, ESTIMATED, id="hung up at the finish: finished"
        ),
        pytest.param(
            Outcome.ABORTED, PART, True, Spent(PART_COST, 60, 1), id="stream aborted: input and what was delivered"
        ),
        pytest.param(Outcome.ABORTED, NOTHING, True, Spent(500, 50, 1), id="stream aborted before its first event"),
        pytest.param(Outcome.ABORTED, NOTHING, False, ESTIMATED, id="unary aborted: providers bill it"),
        pytest.param(Outcome.FAILED, NOTHING, True, None, id="failed"),
        pytest.param(Outcome.FAILED, USAGE, False, None, id="failed, whatever the error body says"),
    ],
)
def test_endings_by_default(outcome: Outcome, report: Report, streamed: bool, spent: Spent | None) -> None:  # noqa: FBT001
    """Each way to finish is booked once, at what it was worth, with its tokens and as a request; None is a release."""
    ended = hold(streamed=streamed)
    ending = Release("r") if spent is None else Settle(ended, spent, noted(report))

    assert ending == ending_of(Observation(ended, outcome, report), RULES)


@pytest.mark.parametrize(
    ("rule", "spent"),
    [
        (OnAbort.DELIVERED, Spent(PART_COST, 60, 1)),
        (OnAbort.RESERVED, ESTIMATED),
        (OnAbort.INPUT, Spent(500, 50, 1)),
        (OnAbort.ZERO, Spent(requests=1)),
    ],
)
def test_on_abort(rule: OnAbort, spent: Spent) -> None:
    """The operator says what an aborted stream comes to, and what an aborted plain answer; both were requests."""
    assert spent == lease_of(hold(), PART, a_priced_snapshot(on_abort=rule)).spent
    assert spent == lease_of(hold(streamed=False), PART, a_priced_snapshot(on_abort_unary=rule)).spent


def test_a_session_that_ends_in_the_middle_of_a_turn() -> None:
    """However orderly a session was closed, a turn that was under way is paid by what was delivered of it."""
    left = Report(Usage(40, 1), events=4, text_bytes=30, turns=1, session=True)

    assert PART_COST == booked(hold(), left, RULES)
    assert 500 == booked(hold(), replace(left, finished=True), RULES)


def test_a_running_total_does_not_overrule_the_operator() -> None:
    """Where an abort shall cost nothing, it costs nothing, whatever the upstream had counted by then."""
    rules = a_priced_snapshot(on_abort=OnAbort.ZERO)

    assert 0 == lease_of(hold(), Report(Usage(90, 30), events=4), rules).spent.cost_nanousd


@pytest.mark.parametrize(
    ("rule", "spent"),
    [
        (OnMissingUsage.ESTIMATE, ESTIMATED),
        (OnMissingUsage.DELIVERED, Spent(PART_COST, 60, 1)),
        (OnMissingUsage.ZERO, Spent(requests=1)),
    ],
)
def test_on_missing_usage(rule: OnMissingUsage, spent: Spent) -> None:
    """The operator says what a finished answer without usage comes to."""
    ending = ending_of(Observation(hold(), Outcome.ANSWERED, PART), a_priced_snapshot(on_missing_usage=rule))

    assert ending == Settle(hold(), spent, noted(PART))


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

    assert Settle(partial, Spent(cost_nanousd, 50, 1), noted(report)) == ending_of(
        Observation(partial, Outcome.ANSWERED, report), RULES
    )


def test_an_estimate_is_paid_at_the_price_that_turned_out() -> None:
    """A long body that names one model only costs that model's price without usage too."""
    partial = replace(hold(), prices=Prices(2 * PRICES.input, 2 * PRICES.output), whole_prices=PRICES)
    report = Report(models=1)

    assert Settle(partial, ESTIMATED, noted(report)) == ending_of(Observation(partial, Outcome.ANSWERED, report), RULES)


# --------------------------------------------------------------------------------------- the model that answers

DIGEST = "0123456789abcdef"
# What is held is the dearest that `gpt-4o` may lead to, and that is itself.
MODELS = a_priced_snapshot(
    an_offer("gpt-4o", "openai/gpt-4o", input_cost_per_token=10, output_cost_per_token=100),
    an_offer("mini", "openai/gpt-4o-mini", input_cost_per_token=1, output_cost_per_token=10),
    an_offer("opus", "anthropic/opus", input_cost_per_token=50, output_cost_per_token=500),
    an_offer("llama", "openai/llama", input_cost_per_token=0, output_cost_per_token=0),
    an_offer("qwen", "openai/qwen", input_cost_per_token=0, output_cost_per_token=0),
    fallbacks={"gpt-4o": ("mini", "llama")},
    digest=DIGEST,
)
HELD = replace(hold(), priced_by=MODELS.short_digest)
FREE = replace(hold(), model="llama", prices=Prices(Decimal(0), Decimal(0)), free=True)


def booked(held: Hold, report: Report, config: Snapshot = MODELS, outcome: Outcome = Outcome.ANSWERED) -> int | None:
    """Tell what is booked for an answer, None for nothing at all."""
    end = ending_of(Observation(held, outcome, report), config)
    assert end is None or isinstance(end, Settle)
    return None if end is None else end.spent.cost_nanousd


@pytest.mark.parametrize(
    ("model", "cost_nanousd"),
    [
        pytest.param(None, USAGE_COST, id="it names none"),
        pytest.param("gpt-4o", USAGE_COST, id="the one that was asked for"),
        pytest.param("gpt-4o-2024-11-20", USAGE_COST, id="one that nobody knows: as held"),
        pytest.param("mini", USAGE_COST // 10, id="a fallback"),
        pytest.param("gpt-4o-mini", USAGE_COST // 10, id="a fallback, as its upstream calls it"),
        pytest.param("opus", 5 * USAGE_COST, id="a dearer one that nothing leads to"),
        pytest.param("llama", 0, id="a free fallback"),
        pytest.param("qwen", USAGE_COST, id="a free one that nothing leads to is not believed"),
    ],
)
def test_the_model_that_answers_is_paid(model: str | None, cost_nanousd: int) -> None:
    """A model that the catalog knows is paid at its price, but no answer says by mistake that it is free."""
    assert cost_nanousd == booked(HELD, replace(USAGE, model=model))


def test_another_configuration_says_nothing_of_prices() -> None:
    """Prices are those of the moment of reserving: what was loaded since, or holds of before, change nothing."""
    for priced_by in ("", "another"):
        assert USAGE_COST == booked(replace(HELD, priced_by=priced_by), replace(USAGE, model="mini"))


def test_a_stream_that_broke_off_is_paid_as_the_model_that_spoke() -> None:
    """The answer's beginning names the model."""
    report = replace(PART, model="mini")

    assert (
        PART_COST // 10
        == booked(HELD, report, outcome=Outcome.ABORTED)
        == lease_of(HELD, report, MODELS).spent.cost_nanousd
    )


def test_the_estimate_of_another_model() -> None:
    """An answer without usage costs as many tokens as were expected, at the price of who answered."""
    assert (2_500, 250) == (booked(HELD, NOTHING), booked(HELD, replace(NOTHING, model="mini")))


@pytest.mark.parametrize(
    ("report", "outcome", "cost_nanousd"),
    [
        pytest.param(USAGE, Outcome.ANSWERED, None, id="it names none"),
        pytest.param(replace(USAGE, model="llama"), Outcome.ANSWERED, None, id="itself"),
        pytest.param(replace(USAGE, model="qwen"), Outcome.ANSWERED, None, id="another free one"),
        pytest.param(replace(USAGE, model="nobody"), Outcome.ANSWERED, None, id="one that nobody knows"),
        pytest.param(replace(USAGE, model="mini"), Outcome.ANSWERED, USAGE_COST // 10, id="a paid one"),
        pytest.param(replace(NOTHING, model="mini"), Outcome.ANSWERED, 250, id="a paid one, without usage"),
        pytest.param(replace(PART, model="mini"), Outcome.ABORTED, 150, id="a paid one, broken off"),
        pytest.param(replace(NOTHING, model="mini", pending=True), Outcome.ANSWERED, 250, id="a paid one, later"),
        pytest.param(replace(USAGE, model="mini"), Outcome.FAILED, None, id="an error is nobody's answer"),
    ],
)
def test_what_passed_as_free(report: Report, outcome: Outcome, cost_nanousd: int | None) -> None:
    """A free answer leaves the books alone; one that a paid model gave is booked, under any configuration."""
    assert cost_nanousd == booked(FREE, report, outcome=outcome)


# ---------------------------------------------------------------------------------------- tiers, and others' figures

TIERED = Prices(PRICES.input, PRICES.output, tiers=(("flex", Prices(PRICES.input / 2, PRICES.output / 2)),))


@pytest.mark.parametrize(
    ("tier", "cost_nanousd"), [("flex", USAGE_COST // 2), ("default", USAGE_COST), (None, USAGE_COST)]
)
def test_the_tier_of_service(tier: str | None, cost_nanousd: int) -> None:
    """The tier that the answer names is paid."""
    assert cost_nanousd == booked(replace(HELD, prices=TIERED), replace(USAGE, service_tier=tier))


@pytest.mark.parametrize(
    ("trusts", "report", "outcome", "cost_nanousd"),
    [
        pytest.param(True, replace(USAGE, cost_nanousd=77), Outcome.ANSWERED, 77, id="trusted"),
        pytest.param(True, replace(NOTHING, cost_nanousd=77), Outcome.ANSWERED, 77, id="without usage"),
        pytest.param(True, replace(USAGE, cost_nanousd=0), Outcome.ANSWERED, USAGE_COST, id="nothing is no figure"),
        pytest.param(True, USAGE, Outcome.ANSWERED, USAGE_COST, id="none"),
        pytest.param(True, replace(PART, cost_nanousd=1), Outcome.ABORTED, PART_COST, id="of a part of the answer"),
        pytest.param(False, replace(USAGE, cost_nanousd=77), Outcome.ANSWERED, USAGE_COST, id="not trusted"),
    ],
)
def test_the_upstreams_own_figure(*, trusts: bool, report: Report, outcome: Outcome, cost_nanousd: int) -> None:
    """What an upstream says that its answer cost is booked where the operator trusts it."""
    assert cost_nanousd == booked(hold(), report, a_priced_snapshot(trust_upstream_cost=trusts), outcome)


@pytest.mark.parametrize(
    ("held", "report", "tokens"),
    [
        pytest.param(hold(), USAGE, 50, id="as it says"),
        pytest.param(hold(), NOTHING, 70, id="without usage: the estimate"),
        pytest.param(hold(), replace(NOTHING, events=90), 140, id="without usage, more delivered"),
        pytest.param(FREE, USAGE, 50, id="of what passed as free"),
        pytest.param(FREE, NOTHING, 0, id="of what passed as free, without usage"),
    ],
)
def test_the_tokens_of_a_trusted_figure(held: Hold, report: Report, tokens: int) -> None:
    """The upstream's figure is one in USD: tokens are those of the answer, by the same rules as without it."""
    trusting = a_priced_snapshot(trust_upstream_cost=True)
    end = ending_of(Observation(held, Outcome.ANSWERED, replace(report, cost_nanousd=77)), trusting)

    assert isinstance(end, Settle)
    assert Spent(77, tokens, 1) == end.spent


def test_a_model_that_costs_nothing_uses_tokens() -> None:
    """Where budgets in tokens hold what a free model may use, its answer is booked with its tokens and no cost."""
    held = replace(FREE, free=False)
    end = ending_of(Observation(held, Outcome.ANSWERED, replace(USAGE, model="llama")), MODELS)

    assert isinstance(end, Settle)
    assert Spent(0, 50, 1) == end.spent


def test_a_trusted_figure_of_what_passed_as_free() -> None:
    """Whoever trusts the upstream does so where the catalog says that nothing was to be paid."""
    assert 77 == booked(FREE, replace(USAGE, cost_nanousd=77), a_priced_snapshot(trust_upstream_cost=True))


# ------------------------------------------------------------------------------------------------------------- units

# Two pictures of 5,000 nano-USD were asked for, and their prompt has tokens.
PICTURES = replace(
    hold(streamed=False),
    prices=replace(PRICES, per_image=Decimal("0.000005")),
    estimate=Estimate(50, 0, 10_500, 10_500, units=Units(images=2)),
)


@pytest.mark.parametrize("rule", OnMissingUsage)
def test_units_are_paid_when_the_answer_shows_nothing(rule: OnMissingUsage) -> None:
    """What was asked for is known, so no rule about missing usage makes it free, or dearer."""
    assert 10_000 == booked(PICTURES, NOTHING, a_priced_snapshot(on_missing_usage=rule))


@pytest.mark.parametrize(
    ("usage", "cost_nanousd"),
    [
        pytest.param(Usage(40, 10), USAGE_COST, id="tokens"),
        pytest.param(Usage(40, 0, units=Units(images=1)), 400 + 5_000, id="tokens and pictures"),
        pytest.param(Usage(0, 0, units=Units(images=3)), 15_000, id="pictures"),
    ],
)
def test_what_the_answer_shows_counts_instead(usage: Usage, cost_nanousd: int) -> None:
    """Usage of the answer goes before what was asked for."""
    assert cost_nanousd == booked(PICTURES, Report(usage))


def test_tokens_of_a_model_that_is_paid_by_the_picture() -> None:
    """Where nobody has said what tokens cost, and the answer shows nothing else, what was asked for is paid."""
    guessing = replace(PICTURES, prices=replace(PICTURES.prices, guessed_input=True, guessed_output=True))

    assert 10_000 == booked(guessing, Report(Usage(40, 10)))
    assert 5_000 == booked(guessing, Report(Usage(40, 10, units=Units(images=1))))


def test_tokens_that_cost_nothing_do_not_stand_for_units() -> None:
    """An answer that counts but tokens, where these are free and units are not, costs the units that were asked for."""
    by_picture = replace(PICTURES, prices=replace(PICTURES.prices, input=Decimal(0), output=Decimal(0)))

    assert 10_000 == booked(by_picture, Report(Usage(40, 10)))
    assert 0 == booked(replace(hold(), prices=Prices(Decimal(0), Decimal(0))), Report(Usage(40, 10)))


@pytest.mark.parametrize("rule", OnMissingUsage)
def test_units_without_a_price_cost_the_estimate(rule: OnMissingUsage) -> None:
    """They are paid by their tokens then, as expected."""
    by_tokens = replace(PICTURES, prices=PRICES)

    assert 10_500 == booked(by_tokens, NOTHING, a_priced_snapshot(on_missing_usage=rule))


def test_an_answer_that_counts_only_what_has_no_price_says_nothing() -> None:
    """Pictures of a model that is paid by its tokens are no usage, and not free."""
    by_tokens = replace(PICTURES, prices=PRICES)

    assert 10_500 == booked(by_tokens, Report(Usage(0, 0, units=Units(images=2))))


def test_pictures_of_a_stream_that_broke_off() -> None:
    """They were asked for and are made, however little of them the events tell."""
    streamed = replace(PICTURES, prices=PRICES, streamed=True)

    assert 10_500 == lease_of(streamed, Report(events=3), RULES).spent.cost_nanousd


@pytest.mark.parametrize("rule", OnMissingUsage)
def test_a_flat_amount_is_paid(rule: OnMissingUsage) -> None:
    """What nobody can estimate costs what is configured, at another model's prices as well."""
    flat = replace(HELD, estimate=Estimate(5, 0, 7_000, 7_000, flat_nanousd=7_000))
    config = replace(MODELS, settings=MODELS.settings.model_copy(update={"on_missing_usage": rule}))

    assert 7_000 == booked(flat, NOTHING, config) == booked(flat, replace(NOTHING, model="mini"), config)
    assert USAGE_COST == booked(flat, USAGE, config)


@pytest.mark.parametrize(
    ("rule", "cost_nanousd"),
    [(OnAbort.DELIVERED, 10_500), (OnAbort.RESERVED, 10_500), (OnAbort.INPUT, 10_500), (OnAbort.ZERO, 0)],
)
def test_units_of_an_answer_that_nobody_waited_for(rule: OnAbort, cost_nanousd: int) -> None:
    """They were asked for, and are made."""
    assert cost_nanousd == lease_of(PICTURES, NOTHING, a_priced_snapshot(on_abort_unary=rule)).spent.cost_nanousd


# ---------------------------------------------------------------------------------- answers that are still to be made


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.ABORTED])
@pytest.mark.parametrize("seconds", [600, 86_400])
def test_a_promise_is_held(outcome: Outcome, seconds: int) -> None:
    """Neither released nor free: the estimate stays held, and is booked if nothing more is heard."""
    report = replace(NOTHING, pending=True)
    end = ending_of(Observation(hold(), outcome, report), a_priced_snapshot(background_lease_seconds=seconds))

    assert Renew(hold(), Lease(seconds * 1_000, ESTIMATED), noted(report)) == end


def test_a_promise_is_held_no_longer_than_endings_are_remembered() -> None:
    """An answer that came after that would be booked twice."""
    end = ending_of(
        Observation(hold(), Outcome.ANSWERED, replace(NOTHING, pending=True)), a_priced_snapshot(tombstone_seconds=60)
    )

    assert isinstance(end, Renew)
    assert 60_000 == end.lease.lease_ms


def test_a_refused_promise_is_released() -> None:
    """An error is no promise."""
    assert Release("r") == ending_of(Observation(hold(), Outcome.FAILED, replace(NOTHING, pending=True)), RULES)


def test_a_sign_of_life_of_a_promise_does_not_shorten_it() -> None:
    """Signals come in any order: what was heard before the answer's end holds as long as what was heard at it."""
    assert Lease(86_400_000, ESTIMATED) == lease_of(hold(), replace(NOTHING, pending=True), RULES)
    assert Lease(120_000, Spent(500, 50, 1)) == lease_of(hold(), NOTHING, RULES)
