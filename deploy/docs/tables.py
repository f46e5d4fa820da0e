"""Tables in the documentation that are written from the program's own, between two comments, or checked (`--check`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Table:
    """A table called `name` in a document, which deploy/docs/<name>.py writes."""

    document: str
    name: str
    headings: Sequence[str]
    rows: Iterable[Sequence[str]]

    def write_or_check(self) -> int:
        """Write the table into its document, or with `--check` tell whether it is stale: the status to exit with."""
        document = DOCS / self.document
        begin, end = f"<!-- {self.name}: written by deploy/docs/{self.name}.py -->", f"<!-- end of {self.name} -->"
        text = document.read_text(encoding="utf-8")
        before, begun, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        fresh = "\n".join((f"{before}{begin}", *self._lines(), f"{end}{after}")) if rest else text
        if sys.argv[1:] == ["--check"]:
            if begun and text == fresh:
                return 0
            print(f"{document.name} is stale: run `make docs`")
            return 1
        document.write_text(fresh, encoding="utf-8")
        return 0

    def _lines(self) -> Iterable[str]:
        yield f"| {' | '.join(self.headings)} |"
        yield "|" + "---|" * len(self.headings)
        for cells in self.rows:
            yield f"| {' | '.join(cells)} |"
