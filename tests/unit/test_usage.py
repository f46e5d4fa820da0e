"""What the meter reports, read with suspicion."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.prices import Usage
from extauthz.usage import TOKENS_MAX, Field, Report, read_report, within


def test_a_full_report_is_read() -> None:
    """Every field of the meter arrives as it is."""
    report = read_report(
        {
            "input_tokens": 120.0,
            "output_tokens": 30.0,
            "cache_read_input_tokens": 100.0,
            "cache_creation_input_tokens": 20.0,
            "reasoning_output_tokens": 25.0,
            "events": 12.0,
            "text_bytes": 90.0,
            "finished": True,
        }
    )

    assert report == Report(Usage(120, 30, 100, 20, 25), events=12, text_bytes=90, finished=True)


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
            ["input_tokens", "output_tokens", "cache_read_input_tokens", "events", "text_bytes", "finished"]
        ),
        st.one_of(st.floats(), st.booleans(), st.text(max_size=5), st.none()),
    )
)
def test_no_report_raises_or_goes_below_zero(fields: dict[str, Field]) -> None:
    """Whatever arrives, the numbers that leave are counts."""
    report = read_report(fields)

    assert min(report.events, report.text_bytes) >= 0
    if report.usage is not None:
        assert min(report.usage.input_tokens, report.usage.output_tokens) >= 0
