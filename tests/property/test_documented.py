"""The meter on every documented answer, cut anywhere: what it tells never depends on how the bytes came."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.usage import Report, read_report
from tests.support.apis.priced import PRICED
from tests.support.apis.sample import Due, Sample
from tests.support.apis.samples import SAMPLES
from tests.support.lua_meter import Meter
from tests.support.metered import Answer
from tests.support.upstream import Received

METER = Meter()
USAGE_ASKED = Received("POST", "/", (), b'{"stream_options":{"include_usage":true}}')
# What is no JSON and no stream of events is not read, but passes.
ANSWERS = {
    str(sample): Answer(str(sample), wire.body, {}, wire.content_type)
    for sample in (*SAMPLES, *PRICED)
    for wire in [sample.answer(USAGE_ASKED)]
}
BILLED = [sample for sample in (*SAMPLES, *PRICED) if sample.due is Due.BILL]


def told(name: str, *cuts: int) -> Report:
    """Read what the meter tells of an answer that comes cut at these places. An id counts only with a promise."""
    answer = ANSWERS[name]
    fields, passed = METER.read(answer, cuts)
    assert answer.body == passed
    report = read_report(fields)  # type: ignore[arg-type] # a table of Lua holds anything
    return report if report.pending else replace(report, answer_id=None)


@pytest.mark.parametrize("sample", BILLED, ids=str)
def test_an_answer_is_read_as_it_is_documented(sample: Sample) -> None:
    """The tokens of input and output are those of the answer, whichever way its API counts them."""
    usage = told(str(sample)).usage
    read = (0, 0) if usage is None else (usage.input_tokens, usage.output_tokens)

    assert (sample.used.input, sample.used.output) == read


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_the_same_when_it_is_cut_at_any_byte(name: str) -> None:
    """Two chunks, cut at each byte in turn: the same is told, and the same bytes pass."""
    whole = told(name)

    assert {whole} == {told(name, cut) for cut in range(1, len(ANSWERS[name].body))}


@given(name=st.sampled_from(sorted(ANSWERS)), data=st.data())
def test_an_answer_is_read_the_same_in_any_chunks(name: str, data: st.DataObject) -> None:
    """Many chunks, some of them of a byte or two."""
    places = st.integers(1, max(1, len(ANSWERS[name].body) - 1))
    cuts = sorted(data.draw(st.sets(places, max_size=40)))

    assert told(name) == told(name, *cuts)
