"""Writes the table in docs/endpoints.md from the program's own, or tells whether it is stale (`--check`)."""

from __future__ import annotations

import sys

from deploy.docs.tables import Table
from extauthz.domain.endpoints import DISCOVERY, ENDPOINTS, Api, BodyKind, Charge, Endpoint, EndpointRow

HEADINGS = ("call", "paths", "methods", "model from", "body", "costs by", "streams", "refused as")
BODIES = {BodyKind.JSON: "JSON", BodyKind.FORM: "form or JSON", BodyKind.NONE: "not read"}
CHARGES = {
    Charge.TOKENS: "tokens of the answer",
    Charge.UNITS: "what is asked for",
    Charge.FLAT: "the flat amount",
    Charge.NOTHING: "nothing",
}
APIS = {Api.OPENAI: "OpenAI", Api.ANTHROPIC: "Anthropic", Api.GEMINI: "Gemini"}


def model_source(row: EndpointRow) -> str:
    """Tell where the model of a call is looked for."""
    if any("{model}" in path for path in row.paths):
        return "path"
    if row.endpoint is Endpoint.REALTIME:
        return "query `model`, `deployment`"
    if row.body is BodyKind.NONE or row.endpoint is Endpoint.FILES:
        return "none"
    return "body, if it names one" if row.charge in (Charge.FLAT, Charge.NOTHING) else "body"


def cells(row: EndpointRow) -> tuple[str, ...]:
    """Give what the table says of a row."""
    return (
        f"`{row.endpoint}`",
        ", ".join(f"`{path}`" for path in row.paths),
        " ".join(row.methods),
        model_source(row),
        BODIES[row.body],
        "discovery" if row.endpoint in DISCOVERY else CHARGES[row.charge],
        "yes" if row.streams else "",
        APIS[row.api],
    )


if __name__ == "__main__":
    sys.exit(Table("endpoints.md", "endpoints", HEADINGS, map(cells, ENDPOINTS)).write_or_check())
