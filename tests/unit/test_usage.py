"""What the meter reports, read with suspicion."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.prices import Units, Usage
from extauthz.usage import TOKENS_MAX, Field, Report, Result, read_report, within


def test_a_full_report_is_read() -> None:
    """Every field of the meter arrives as it is."""
    report = read_report(
        {
            "input_tokens": 120.0,
            "output_tokens": 30.0,
            "cache_read_input_tokens": 100.0,
            "cache_creation_input_tokens": 20.0,
            "reasoning_output_tokens": 25.0,
            "cache_creation_1h_input_tokens": 5.0,
            "cache_read_audio_input_tokens": 6.0,
            "audio_input_tokens": 7.0,
            "audio_output_tokens": 8.0,
            "image_input_tokens": 9.0,
            "image_output_tokens": 10.0,
            "images": 2.0,
            "milliseconds": 8471.0,
            "queries": 3.0,
            "searches": 4.0,
            "events": 12.0,
            "text_bytes": 90.0,
            "reasoning_bytes": 60.0,
            "finished": True,
            "models": 1.0,
            "model": "gpt-4o-2024-08-06",
            "service_tier": "flex",
            "upstream_cost": "0.00035000000000000005",
            "pending": True,
            "answer_id": "resp_1",
            "result": "failed",
            "turns": 2.0,
        }
    )

    assert report == Report(
        Usage(
            120,
            30,
            cache_read_input_tokens=100,
            cache_creation_input_tokens=20,
            reasoning_output_tokens=25,
            cache_creation_1h_input_tokens=5,
            cache_read_audio_input_tokens=6,
            audio_input_tokens=7,
            audio_output_tokens=8,
            image_input_tokens=9,
            image_output_tokens=10,
            units=Units(images=2, milliseconds=8471, queries=3, searches=4),
        ),
        events=12,
        text_bytes=90,
        reasoning_bytes=60,
        finished=True,
        models=1,
        model="gpt-4o-2024-08-06",
        service_tier="flex",
        cost_nanousd=350_001,
        pending=True,
        answer_id="resp_1",
        result=Result.FAILED,
        turns=2,
        session=True,
    )


def test_no_usage_is_not_a_usage_of_zero() -> None:
    """Progress alone gives a report without usage."""
    report = read_report({"events": 3.0, "text_bytes": 10.0})

    assert report == Report(events=3, text_bytes=10)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(-5.0, id="negative"),
        pytest.param(math.nan, id="not a number"),
        pytest.param(math.inf, id="infinite"),
        pytest.param(1e30, id="huge"),
        pytest.param("many", id="a text"),
        pytest.param("²", id="a digit that is none"),
        pytest.param("1" * 13, id="more digits than tokens have"),
        pytest.param(True, id="a boolean"),
    ],
)
@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
def test_absurd_usage_is_no_usage(field: str, value: Field) -> None:
    """An upstream can book neither nonsense nor nothing: what is missing is estimated."""
    report = read_report({"input_tokens": 1.0, "output_tokens": 1.0, field: value})

    assert report.usage is None
    assert report.absurd == (field,)


@pytest.mark.parametrize(
    ("value", "read"), [pytest.param(-5.0, 0, id="negative"), pytest.param(1e30, TOKENS_MAX, id="huge")]
)
def test_absurd_parts_are_put_right_and_named(value: Field, read: int) -> None:
    """A part that makes no sense becomes the nearest value that does."""
    report = read_report({"input_tokens": 1.0, "output_tokens": 1.0, "cache_read_input_tokens": value})

    assert report.usage == Usage(1, 1, cache_read_input_tokens=read)
    assert report.absurd == ("cache_read_input_tokens",)


def test_numbers_in_quotes_are_numbers() -> None:
    """Some servers write counts as texts."""
    assert read_report({"input_tokens": "12", "output_tokens": "3"}) == Report(Usage(12, 3))


def test_usage_that_counts_nothing_is_no_usage() -> None:
    """No answer uses nothing, so it is booked as one that reported nothing."""
    assert read_report({"input_tokens": 0.0, "output_tokens": 0.0}) == Report()


def test_text_without_output_tokens_is_no_usage() -> None:
    """An upstream that forgets the output does not give it away; embeddings have none."""
    assert read_report({"input_tokens": 9.0, "text_bytes": 30.0}) == Report(text_bytes=30)
    assert read_report({"input_tokens": 9.0}) == Report(Usage(9, 0))


@pytest.mark.parametrize(
    ("field", "units"),
    [
        ("images", Units(images=1)),
        ("milliseconds", Units(milliseconds=1)),
        ("queries", Units(queries=1)),
    ],
)
def test_what_is_paid_by_the_unit_is_usage_without_tokens(field: str, units: Units) -> None:
    """Pictures, seconds and searches in documents are what such an answer costs, with a text beside them or not."""
    assert read_report({field: 1.0}).usage == Usage(0, 0, units=units)
    assert read_report({field: 1.0, "text_bytes": 30.0}).usage == Usage(0, 0, units=units)


def test_a_search_in_the_web_does_not_make_up_for_missing_output() -> None:
    """It comes beside a text that costs tokens."""
    assert read_report({"input_tokens": 9.0, "searches": 1.0, "text_bytes": 30.0}).usage is None


@pytest.mark.parametrize(
    ("field", "at_most"), [("images", 1_000), ("milliseconds", 86_400_000), ("queries", 10_000), ("searches", 1_000)]
)
def test_units_have_their_own_maximum(field: str, at_most: int) -> None:
    """More of a unit than any answer has is cut, and named."""
    fits = read_report({"input_tokens": 1.0, field: float(at_most)})
    report = read_report({"input_tokens": 1.0, field: float(at_most + 1)})

    assert fits.absurd == ()
    assert report.usage == Usage(1, 0, units=Units(**{field: at_most}))
    assert report.absurd == (field,)


@pytest.mark.parametrize("value", [-1.0, math.nan, "many", True], ids=repr)
@pytest.mark.parametrize("field", ["images", "milliseconds", "queries", "searches"])
def test_absurd_units_are_none(field: str, value: Field) -> None:
    """Units that make no sense are not counted."""
    report = read_report({"input_tokens": 1.0, field: value})

    assert report.usage == Usage(1, 0)
    assert report.absurd == (field,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("model", "", id="nothing"),
        pytest.param("model", "a\nb", id="a line break"),
        pytest.param("model", "a\u200bb", id="a space that is not seen"),
        pytest.param("model", "é" * 129, id="more bytes than a name has"),
        pytest.param("model", 7.0, id="a number"),
        pytest.param("model", True, id="a boolean"),
        pytest.param("service_tier", "t" * 33, id="more bytes than a tier has"),
    ],
)
def test_names_that_are_none_are_left_out(field: str, value: Field) -> None:
    """What an answer calls itself is told in logs and looked up in the catalog, so it is a short word in print."""
    report = read_report({field: value})

    assert report == Report(absurd=(field,))


def test_the_longest_names_are_read() -> None:
    """A name may have as many bytes as the meter tells."""
    report = read_report({"model": "é" * 128, "service_tier": "t" * 32})

    assert report == Report(model="é" * 128, service_tier="t" * 32)


@pytest.mark.parametrize(
    ("value", "nanousd"),
    [
        pytest.param("0.1", 100_000_000, id="no float has this value"),
        pytest.param("1.5e-05", 15_000, id="scientific"),
        pytest.param("1e-12", 1, id="less than a nano-USD, which is rounded up"),
        pytest.param("1e-999999999", 1, id="less than a decimal can tell"),
        pytest.param(0.25, 250_000_000, id="a number"),
        pytest.param("9999.999999999", 9_999_999_999_999, id="the most"),
    ],
)
def test_the_cost_that_an_upstream_states_is_read_exactly(value: Field, nanousd: int) -> None:
    """USD become whole nano-USD by decimals, rounded once and up."""
    assert read_report({"upstream_cost": value}) == Report(cost_nanousd=nanousd)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-0.1",
        "nan",
        "sNaN",
        "inf",
        "1_0 USD",
        "10000",
        "1e400",
        "1e999999999",
        True,
        0.0,
        -1.0,
        math.inf,
        math.nan,
    ],
    ids=repr,
)
def test_absurd_costs_are_none(value: Field) -> None:
    """What is no amount, nothing, or more than any answer costs is not believed."""
    assert read_report({"upstream_cost": value}) == Report(absurd=("upstream_cost",))


@pytest.mark.parametrize("value", ["OVER", "", True, 1.0, None], ids=repr)
def test_only_known_results_count(value: Field) -> None:
    """What is neither over nor failed shows no result."""
    assert read_report({"result": value}).result is None


@pytest.mark.parametrize("value", ["true", 1.0, False], ids=repr)
def test_only_a_true_is_a_promise(value: Field) -> None:
    """An answer is pending when the meter says so, and not otherwise."""
    assert not read_report({"pending": value}).pending


def test_a_session_may_use_a_context_for_each_of_its_turns() -> None:
    """Usage that adds up over turns is cut to what they could all have used."""
    report = Report(Usage(90, 31), turns=3)

    assert within(report, 30) == report
    assert within(report, 10) == Report(Usage(30, 30), turns=3, absurd=("input_tokens", "output_tokens"))


@pytest.mark.parametrize(
    ("tokens_max", "usage", "absurd"),
    [
        pytest.param(30, Usage(30, 30, 30, 30, 30), (), id="as much as there can be"),
        pytest.param(
            20,
            Usage(20, 20, 20, 20, 20),
            (
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "reasoning_output_tokens",
            ),
            id="more of every kind",
        ),
        pytest.param(None, Usage(30, 30, 30, 30, 30), (), id="nobody knows how much there can be"),
    ],
)
def test_usage_is_cut_to_the_context(tokens_max: int | None, usage: Usage, absurd: tuple[str, ...]) -> None:
    """Each kind of token is cut to what the model can read, and named; the rest of the report stays."""
    report = Report(Usage(30, 30, 30, 30, 30), events=99, text_bytes=99, finished=True)

    assert Report(usage, events=99, text_bytes=99, finished=True, absurd=absurd) == within(report, tokens_max)


def test_no_usage_stays_none() -> None:
    """What was delivered is measured here and not told by an upstream: it is not cut."""
    assert Report(events=99) == within(Report(events=99), 1)


def test_what_is_put_right_twice_is_named_once() -> None:
    """A field beyond all reason is also beyond the context; it is one absurd field of one answer."""
    report = read_report({"input_tokens": 500.0, "cache_read_input_tokens": 1e30, "reasoning_output_tokens": -1.0})
    absurd = ("cache_read_input_tokens", "reasoning_output_tokens", "input_tokens")

    assert absurd == within(report, 100).absurd


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "events",
                "text_bytes",
                "finished",
                "images",
                "milliseconds",
                "queries",
                "searches",
                "upstream_cost",
                "model",
                "service_tier",
                "turns",
            ]
        ),
        st.one_of(
            st.floats(),
            st.floats(width=16).map(str),
            st.integers().map(str),
            st.booleans(),
            st.text(max_size=5),
            st.none(),
        ),
    )
)
def test_no_report_raises_or_goes_below_zero(fields: dict[str, Field]) -> None:
    """Whatever arrives, the numbers that leave are counts."""
    report = read_report(fields)

    assert min(report.events, report.text_bytes) >= 0
    assert report.turns >= 1
    assert report.cost_nanousd is None or 0 < report.cost_nanousd <= 10**13
    if report.usage is not None:
        units = report.usage.units
        assert min(report.usage.input_tokens, report.usage.output_tokens) >= 0
        assert min(units.images, units.milliseconds, units.queries, units.searches) >= 0
