"""Commands as the documents show them, with what they print: read, run, and compared."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from shlex import quote

from tests.support.processes import Process

COMMAND_SECONDS_MAX = 30.0

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r" # exit status (\d+)$")

# What differs from run to run: ids and hashes, dates and times of day, durations, other numbers, bars and rules.
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_HASH = re.compile(r"\b[0-9a-f]{8,64}\b")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?|\b\d\d:\d\d:\d\d\b")
_DURATION = re.compile(r"\b\d+(?:\.\d+)? (?:d|h|min|s|ms)\b(?: \d+ (?:h|min|s)\b)?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_DRAWN = re.compile(r"[─·█▒]+")
_BLANKS = re.compile(r" +")


@dataclass(frozen=True, slots=True)
class Example:
    """A command with the line that it stands on, the exit status it should have, and what it prints where shown."""

    line: int
    command: str
    status: int = 0
    shown: tuple[str, ...] | None = None


def read_examples(document: str) -> Iterator[Example]:
    """Give every command of the document's `sh` blocks; what follows a block of one command is what that prints."""
    blocks = list(_BLOCK.finditer(document))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] != "sh":
            continue
        first_line = document.count("\n", 0, block.start()) + 2
        commands = list(_commands(block[2], first_line))
        shown = None
        if following is not None and following[1] in {"text", "json"}:
            between = document[block.end() : following.start()]
            if not between.strip():
                shown = tuple(following[2].splitlines())
        for number, (line, command) in enumerate(commands, 1):
            status = _STATUS.search(command)
            yield Example(
                line,
                _STATUS.sub("", command),
                0 if status is None else int(status[1]),
                shown if number == len(commands) else None,
            )


def _commands(block: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Give the commands of a block; lines that are indented, and `done`, go on with the command before."""
    begun: tuple[int, str] | None = None
    for number, line in enumerate(block.splitlines(), first_line):
        if begun is not None and line.startswith(("  ", "done")):
            begun = begun[0], f"{begun[1]}\n{line}"
            continue
        if begun is not None:
            yield begun
        begun = (number, line) if line else None
    if begun is not None:
        yield begun


@dataclass(slots=True)
class Shell:
    """Runs commands in a folder. `places` are the addresses that documents name, with those that they really are.

    Ids that a document shows become those that were really printed in the same place.
    """

    folder: Path
    environment: Mapping[str, str]
    places: Mapping[str, str]
    _ids: dict[str, str] = field(default_factory=dict)

    def begin(self, command: str) -> Process:
        """Make a process of a command that goes on; `async with` runs it."""
        program = self.real(command).removesuffix("&")
        return Process("bash", "-c", f"cd {quote(str(self.folder))} && exec {program}", environment=self.environment)

    def real(self, command: str) -> str:
        """Write a command as it is to be run here."""
        for named, really in (*self.places.items(), *self._ids.items()):
            command = command.replace(named, really)
        return command

    async def run(self, command: str) -> tuple[int, str]:
        """Run a command, and give its exit status and all that it wrote."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", self.real(command)),
            cwd=self.folder,
            env=self.environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        async with asyncio.timeout(COMMAND_SECONDS_MAX):
            written, _ = await process.communicate()
        return process.returncode or 0, written.decode()

    def learn(self, shown: Sequence[str], written: str) -> None:
        """Take the ids that were written for those that the document shows in the same places."""
        self._ids |= dict(zip(_UUID.findall("\n".join(shown)), _UUID.findall(written), strict=True))


def differing(shown: Sequence[str], written: str) -> str:
    """Tell the first line in which the two differ in more than numbers, ids and times; empty when none does."""
    for wanted, line in zip_longest(shown, written.rstrip().splitlines(), fillvalue=""):
        if _plain(wanted) != _plain(line):
            return f"shown:   {wanted}\nwritten: {line}"
    return ""


def _plain(line: str) -> str:
    """Leave out of a line what is another one in each run."""
    for pattern in (_UUID, _MOMENT, _DURATION, _HASH, _NUMBER, _DRAWN):
        line = pattern.sub("0", line)
    return _BLANKS.sub(" ", line).strip()
