"""What the meter reports, read with suspicion."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.prices import TokenUsage
from extauthz.usage import TOKENS_MAX, Field, Report, read_report


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

    assert report == Report(TokenUsage(120, 30, 100, 20, 25), events=12, text_bytes=90, finished=True)


def test_no_usage_is_not_a_usage_of_zero() -> None:
    """Progress alone gives a report without usage."""
    report = read_report({"events": 3.0, "text_bytes": 10.0})

    assert report == Report(events=3, text_bytes=10)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        pytest.param("input_tokens", -5.0, 0, id="negative"),
        pytest.param("input_tokens", math.nan, 0, id="not a number"),
        pytest.param("input_tokens", math.inf, TOKENS_MAX, id="infinite"),
        pytest.param("input_tokens", 1e30, TOKENS_MAX, id="huge"),
        pytest.param("input_tokens", "12", 0, id="a string"),
        pytest.param("input_tokens", True, 0, id="a boolean"),
    ],
)
def test_absurd_numbers_are_put_right_and_named(field: str, value: Field, read: int) -> None:
    """An upstream cannot book nonsense."""
    report = read_report({field: value, "output_tokens": 1.0})

    assert report.usage == TokenUsage(read, 1)
    assert report.absurd == (field,)


def test_parts_are_never_larger_than_the_whole() -> None:
    """Cached input is part of the input, reasoning is part of the output."""
    report = read_report(
        {
            "input_tokens": 10.0,
            "output_tokens": 5.0,
            "cache_read_input_tokens": 11.0,
            "cache_creation_input_tokens": 1.0,
            "reasoning_output_tokens": 6.0,
        }
    )

    assert report.usage == TokenUsage(10, 5, 10, 0, 5)
    assert report.absurd == ("cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_output_tokens")


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
