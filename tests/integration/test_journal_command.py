"""`extauthz journal` as people and scripts run it: to standard output, to files that grow, and without end."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import Usage
from extauthz.domain.windows import LIFETIME, Window
from extauthz.errors import NoBooksError
from extauthz.ledger.journal import CHECKPOINT_COUNTERS
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import (
    TAG,
    configured,
    export_file,
    exported,
    extauthz,
    settle,
    sums_of,
    tagged,
    told,
)
from tests.support.ledger import a_counter, redis_ledger
from tests.support.processes import LOOPBACK, WAIT_SECONDS, Process, eventually, free_port
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TEAM = a_counter("research")
KEY = Counter(Scope(ScopeKind.KEY, ("ab" * 32,)), Window(LIFETIME, 0, None))
COUNTERS = [TEAM.key, KEY.key]
USAGE = Usage(11, 22, cache_read_input_tokens=3, cache_creation_input_tokens=4, reasoning_output_tokens=5)
# Few, so that a test can make more.
KEPT = 20


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger whose journal keeps few entries."""
    async with redis_ledger(server.url, options=RedisOptions(5.0, journal_entries_max=KEPT), tag=TAG) as opened:
        yield opened


@pytest.fixture
def config(server: RedisServer, tmp_path: Path) -> Path:
    """Write the configuration of those books."""
    return configured(tmp_path, tagged(server.url))


def told_in(path: Path) -> list[str] | None:
    """Read which reservations an export tells of; None before its first line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [row["id"] for row in rows if row["how"] != "checkpoint"] if rows else None


async def looked_for(port: int) -> None:
    """Wait until somebody looks for a server that is away."""
    seen = asyncio.Event()

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set()
        writer.close()

    async with await asyncio.start_server(refuse, LOOPBACK, port), asyncio.timeout(WAIT_SECONDS):
        await seen.wait()


class TestCommand:
    """`extauthz journal` as people and scripts run it."""

    async def test_standard_output(self, ledger: RedisLedger, config: Path) -> None:
        """Without a file the lines are printed: the checkpoint, then each entry; with --after those behind it."""
        for number in range(3):
            await settle(ledger, f"r{number}", number + 1, TEAM)
        expected = await told(ledger)

        every, later = await asyncio.gather(
            extauthz("journal", "--config", config),
            extauthz("journal", "--config", config, "--after", expected[2]["at"]),
        )

        assert (0, "") == (every.code, every.err)
        assert expected == [json.loads(line) for line in every.out.splitlines()]
        assert expected[3:] == [json.loads(line) for line in later.out.splitlines()]

    async def test_csv(self, ledger: RedisLedger, config: Path) -> None:
        """CSV has a header and a row for each entry, and one for each counter of the checkpoint."""
        for number in range(KEPT + 2):
            await settle(ledger, f"r{number}", 10, TEAM)
        await ledger.expire(1)

        run = await extauthz("journal", "--config", config, "--format", "csv")

        rows = list(csv.DictReader(io.StringIO(run.out)))
        assert (0, "") == (run.code, run.err)
        assert ["checkpoint"] + ["settled"] * KEPT == [row["how"] for row in rows]
        assert (10 * (KEPT + 2), {TEAM.key}) == (
            sum(int(row["booked_nanousd"]) for row in rows),
            {row["counters"] for row in rows},
        )

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    @pytest.mark.parametrize("cut_off", [0, 1, 7], ids=["whole", "without its end", "in the middle"])
    async def test_a_file_is_continued(
        self, ledger: RedisLedger, config: Path, tmp_path: Path, form: str, cut_off: int
    ) -> None:
        """The second export goes on where the first ended, and mends its last line when that was cut off."""
        output, whole = tmp_path / "journal", tmp_path / "whole"
        for number in range(3):
            await settle(ledger, f"r{number}", 1, TEAM)
        await export_file(config, output, form)
        before = output.read_bytes()
        output.write_bytes(before[: len(before) - cut_off])
        await settle(ledger, "new", 1, TEAM)
        await export_file(config, output, form)
        await export_file(config, whole, form)

        assert whole.read_bytes() == output.read_bytes()

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    async def test_a_first_line_that_was_cut_off(
        self, ledger: RedisLedger, config: Path, tmp_path: Path, form: str
    ) -> None:
        """An export that ended within its first line begins again."""
        output, whole = tmp_path / "journal", tmp_path / "whole"
        await settle(ledger, "r", 1, TEAM)
        await export_file(config, whole, form)
        output.write_bytes(whole.read_bytes()[:9])
        await export_file(config, output, form)

        assert whole.read_bytes() == output.read_bytes()

    async def test_a_checkpoint_that_was_cut_off(self, ledger: RedisLedger, config: Path, tmp_path: Path) -> None:
        """When an export ended between the lines of its checkpoint, the whole checkpoint is told again."""
        output = tmp_path / "journal"
        for number in range(2 * CHECKPOINT_COUNTERS + KEPT):
            await settle(ledger, f"r{number}", 1, a_counter(f"team {number}"))
        for _ in range(3):
            await ledger.expire(1)
        lines = await exported(ledger)
        output.write_text(lines[0], encoding="utf-8")

        await export_file(config, output)

        continued = output.read_text(encoding="utf-8").splitlines(keepends=True)
        assert 2 + KEPT == len(lines)
        assert [lines[0], *lines] == continued
        assert 2 * CHECKPOINT_COUNTERS + KEPT == len(sums_of(continued))

    async def test_a_file_with_other_columns_is_left_alone(
        self, ledger: RedisLedger, config: Path, tmp_path: Path
    ) -> None:
        """CSV that an earlier version began, with fewer columns, is not continued with rows that do not fit."""
        output = tmp_path / "journal.csv"
        await settle(ledger, "r", 1, TEAM)
        await export_file(config, output, "csv")
        before = [line.rsplit(",", 4)[0] for line in output.read_text(encoding="utf-8").splitlines()]
        output.write_text("\r\n".join(before) + "\r\n", encoding="utf-8", newline="")
        written = output.read_bytes()

        run = await extauthz("journal", "--config", config, "--output", output, "--format", "csv")

        assert 1 == run.code
        assert "does not end in a line of the journal: write to another file" in run.err
        assert written == output.read_bytes()

    @pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"at": 5}\n', "at,how\n", "\x00\xff" * 9])
    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    async def test_another_file_is_left_alone(
        self, ledger: RedisLedger, config: Path, tmp_path: Path, form: str, text: str
    ) -> None:
        """A file that is no journal is refused in one line, and nothing in it changes."""
        output = tmp_path / "notes"
        output.write_text(text, encoding="utf-8")

        with pytest.raises(NoBooksError, match=f"^{output} does not end in a line of the journal: write to another f"):
            await export_file(config, output, form)

        assert text == output.read_text(encoding="utf-8")

    async def test_after_is_for_a_new_file(self, ledger: RedisLedger, config: Path, tmp_path: Path) -> None:
        """--after would leave a gap in a file that has begun, and what is no place is a wrong usage."""
        output = tmp_path / "journal"
        await extauthz("journal", "--config", config, "--output", output)
        begun = await extauthz("journal", "--config", config, "--output", output, "--after", "5-0")
        wrong = await extauthz("journal", "--config", config, "--after", "yesterday")

        assert (1, 1) == (begun.code, len(begun.err.splitlines()))
        assert "leave --after out" in begun.err
        assert (2, "") == (wrong.code, wrong.out)
        assert "'yesterday' is not the `at` of an entry" in wrong.err

    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
    async def test_follow(self, tmp_path: Path, stop: signal.Signals) -> None:
        """It tells what happens while it runs, goes on after the store was away, and an interrupt ends it well."""
        output = tmp_path / "journal"
        async with RedisServer() as server:
            config = configured(tmp_path, tagged(server.url))
            command = ("journal", "--config", config, "--follow", "--output", output)
            async with redis_ledger(server.url, tag=TAG):
                pass  # books are begun by who keeps them
            async with Process(sys.executable, "-m", "extauthz", *command) as journal:
                await eventually(lambda: told_in(output) is not None, what="it has begun")
                async with redis_ledger(server.url, tag=TAG) as ledger:
                    await settle(ledger, "before", 1, TEAM)
                await eventually(lambda: told_in(output) == ["before"], what="it tells of the first")
                await server.kill()
                await looked_for(server.port)
                await server.restart()
                async with redis_ledger(server.url, tag=TAG) as ledger:
                    await settle(ledger, "after", 1, TEAM)
                    await eventually(lambda: told_in(output) == ["before", "after"], what="it goes on")
                    journal.send(stop)

                    assert 0 == await journal.wait()
                    assert "" == journal.output
                    assert "".join(await exported(ledger)) == output.read_text(encoding="utf-8")

    @pytest.mark.parametrize("command", ["journal", "audit"])
    @pytest.mark.parametrize(
        ("store", "words"),
        [
            ("memory", "the memory store keeps no journal"),
            ("redis://ana:secret@127.0.0.1:{port}/0", "cannot be reached: "),
            ("redis+sentinel://:secret@127.0.0.1:{port}/mymaster?sentinel_password=secret", "cannot be reached: "),
        ],
        ids=["memory", "away", "no sentinel"],
    )
    async def test_no_books(self, tmp_path: Path, command: str, store: str, words: str) -> None:
        """Where there are none to look at, one line says so, without the store's password."""
        config = configured(tmp_path, store.format(port=free_port()))

        run = await extauthz(command, "--config", config)

        assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines())), run.err
        assert run.err.startswith("Error: ")
        assert words in run.err
        assert "secret" not in run.err

    async def test_a_wrong_password(self, tmp_path: Path) -> None:
        """The store's own words are told, and the password is not among them."""
        async with RedisServer(options=("requirepass right",)) as server:
            config = configured(tmp_path, f"redis://:wrong@{LOOPBACK}:{server.port}/0")
            run = await extauthz("journal", "--config", config)

        assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines())), run.err
        assert "cannot be reached: " in run.err
        assert "wrong@" not in run.err
