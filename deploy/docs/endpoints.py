"""Writes the table in docs/endpoints.md from the program's own, or tells whether it is stale (`--check`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from extauthz.domain.endpoints import DISCOVERY, ENDPOINTS, Api, BodyKind, Charge, Endpoint, EndpointRow

DOCUMENT = Path(__file__).parents[2] / "docs" / "endpoints.md"
BEGIN, END = "<!-- endpoints: written by deploy/docs/endpoints.py -->", "<!-- end of endpoints -->"

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


def table() -> Iterator[str]:
    """Write the table."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "|" + "---|" * len(HEADINGS)
    for row in ENDPOINTS:
        yield f"| {' | '.join(cells(row))} |"


def written(text: str) -> str:
    """Give the document with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join((f"{before}{BEGIN}", *table(), f"{END}{after}")) if rest else text


def main() -> int:
    """Write the document, or check it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    fresh = written(text)
    if sys.argv[1:] == ["--check"]:
        if BEGIN in text and text == fresh:
            return 0
        print(f"{DOCUMENT.name} is stale: run `make docs`")
        return 1
    DOCUMENT.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
