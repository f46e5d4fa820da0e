"""Every path of the table, as a call: written out, below each prefix, and answered whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from extauthz.domain.endpoints import DISCOVERY, ENDPOINTS, Api, Charge, Endpoint, EndpointRow
from tests.support.apis.asking import Asking
from tests.support.apis.sample import Sample
from tests.support.apis.samples import SAMPLES

# What the operator says the API stands below as well.
OWN_PREFIX = "/team/llm"
PREFIXES = ("", "/v1", "/openai", "/openai/v1", OWN_PREFIX, f"{OWN_PREFIX}/v1")
GEMINI_PREFIXES = ("", "/v1beta", "/v1", f"{OWN_PREFIX}/v1beta")
BLANKS = {"{id}": "some-1", "{rest}": "some-1/more"}


def calls(row: EndpointRow) -> Iterator[Sample]:
    """Give a call for each path of a row below each prefix, and by each of its methods; none without a sample."""
    sample = sample_of(row)
    if sample is None:
        return
    for template in row.paths:
        for path in written(row, template, sample):
            for method in row.methods:
                asking = (
                    sample.asking if method == "POST" and sample.asking.method == "POST" else Asking("", method=method)
                )
                name = f"{method} {path}"
                yield replace(sample, name=name, asking=replace(asking, path=path, method=method))


def written(row: EndpointRow, template: str, sample: Sample) -> Iterator[str]:
    """Write a path out below each prefix."""
    filled = template.replace("{model}", sample.model or "omni")
    for blank, text in BLANKS.items():
        filled = filled.replace(blank, text)
    if filled.startswith("/"):
        yield filled
        return
    prefixes = GEMINI_PREFIXES if row.api is Api.GEMINI else PREFIXES
    yield from (f"{prefix}/{filled}" for prefix in prefixes)
    if row.charge in (Charge.TOKENS, Charge.UNITS) and row.api is Api.OPENAI and sample.model is not None:
        for word in ("engines", "deployments"):
            yield f"/{word}/{sample.model}/{filled}"
            yield f"/openai/{word}/{sample.model}/{filled}?api-version=2025-01-01"


def sample_of(row: EndpointRow) -> Sample | None:
    """Give the sample that a row's calls are like: the first that is not streamed."""
    plain = (sample for sample in SAMPLES if not sample.streamed)
    return next((sample for sample in plain if (sample.endpoint, sample.api) == (row.endpoint, row.api)), None)


ROWS = tuple(row for row in ENDPOINTS if row.endpoint not in DISCOVERY and row.endpoint is not Endpoint.REALTIME)
