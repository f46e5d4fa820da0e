"""What the demo shows: a line for every step, as soon as it has happened."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.rule import Rule
from rich.status import Status
from rich.table import Table
from rich.text import Text

# Where the output is no terminal, nobody's window sets the width.
WIDTH_WITHOUT_TERMINAL = 120

MARK_WIDTH = 4
STEP_SHARE = 0.3


def new_console() -> Console:
    """Make a console for standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


class Report:
    """Prints the lines of one play and counts them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = 0
        self._different = 0

    @property
    def as_expected(self) -> bool:
        """Whether there were lines, and none differed."""
        return self._lines > 0 and self._different == 0

    def under_way(self, what: str) -> Status:
        """Show what is going on for as long as the `with` block runs."""
        return self._console.status(f"{what} …")

    def heading(self) -> None:
        """Name the columns."""
        self._row("", Text("step", "bold"), Text("expected", "bold"), Text("happened", "bold"))

    def act(self, title: str) -> None:
        """Begin a part of the story."""
        self._console.print(Rule(Text(title, "bold cyan"), align="left", style="cyan"))

    def line(self, step: str, expected: str, happened: str) -> None:
        """Print what was expected of a step and what happened."""
        fine = expected == happened
        self._lines += 1
        self._different += not fine
        mark, style = ("ok", "green") if fine else ("NO", "bold red")
        self._row(Text(mark, style), Text(step), Text(expected), Text(happened, style))

    def end(self, seconds: float) -> None:
        """Sum up."""
        if self.as_expected:
            text = Text(f"All {self._lines} lines as expected, in {seconds:.1f} s.", "bold green")
        else:
            text = Text(f"{self._different} of {self._lines} lines differ.", "bold red")
        self._console.print(Rule(text, align="left", style=text.style))

    def failure(self, message: str) -> None:
        """Say why the story could not be played."""
        self._console.print(Text(message, "bold red"))

    def logs(self, ends: Mapping[str, str]) -> None:
        """Print the ends of the processes' logs."""
        for name, text in ends.items():
            self._console.print(Rule(f"log of {name}", align="left", style="dim"))
            self._console.print(Text(text), soft_wrap=True)

    def commands(self, title: str, commands: Mapping[str, str]) -> None:
        """Print commands that can be copied as they are."""
        self._console.print(Rule(title, align="left"))
        for purpose, command in commands.items():
            self._console.print(Text(f"# {purpose}", "dim"))
            self._console.print(Text(command), soft_wrap=True)

    def _row(self, *cells: Text | str) -> None:
        """Print one row; its columns are as wide as those of every other row."""
        table = Table.grid(padding=(0, 1))
        step_width = int(self._console.width * STEP_SHARE) - MARK_WIDTH
        text_width = (self._console.width - step_width - MARK_WIDTH - 4) // 2
        for width in (MARK_WIDTH - 2, step_width, text_width, text_width):
            table.add_column(width=width, overflow="fold")
        table.add_row(*cells)
        self._console.print(table)
