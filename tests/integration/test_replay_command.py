"""`extauthz replay` as people run it, on what a real server's watch and a real journal recorded."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.config.load import load
from extauthz.console import replays
from extauthz.console.budgets import to_listed
from extauthz.console.documents import document
from extauthz.server import Ports, running
from extauthz.telemetry.log import new_logger
from tests.support.books import export_file, extauthz, tagged
from tests.support.explained import a_house
from tests.support.gate import CONFIG, a_check, an_ending
from tests.support.processes import LOOPBACK, START_SECONDS, Process, eventually
from tests.support.recorded import CONFIGS, RECORDED, chat, configured
from tests.support.redis import RedisServer

INPUT_TOKENS, OUTPUT_TOKENS = 12, 34
COST_USD = 0.00037  # of one request
LIMIT_USD = 0.0037  # of ten
REQUESTS = 12

# What a record is too little for, by what each request is, and what then comes of it under the same configuration.
DIFFERENT = {
    # A record has the first model of a request, and not its fallbacks, nor its route's extensions.
    "several models": "cost_changed",
    "its own fallbacks": "cost_changed",
    "a route that tries out": "now_denied",
    # What others held at the moment is not there.
    "others hold what is left": "cannot_tell",
    "held out, amounts hidden": "cannot_tell",
    "tried out: held": "cannot_tell",
    # Nobody was known.
    "no key": "cannot_tell",
    "an unknown key": "cannot_tell",
    "a blocked key": "cannot_tell",
    "models of a key that has expired": "cannot_tell",
    "two keys": "cannot_tell",
    "a key twice": "cannot_tell",
    "two end users": "cannot_tell",
    "another route of nobody": "cannot_tell",
    "models of nobody": "cannot_tell",
    "tried out: nobody": "cannot_tell",
}


async def replayed(config: Path, record: Path, spent: Path | None = None) -> Any:  # noqa: ANN401 - a JSON document
    """Do what the command does, in this process."""
    found = await asyncio.to_thread(replays.replay, load(config, {}), record, spent)
    return found.document()


def outcomes(found: Any) -> dict[str, int]:  # noqa: ANN401 - a JSON document
    """Give the outcomes that there are."""
    return {name: count for name, count in found["outcomes"].items() if count}


class TestAWatch:
    """What a watch wrote down while each kind of request came."""

    @pytest.mark.parametrize("name", CONFIGS)
    async def test_the_same_configuration(self, name: str, tmp_path: Path) -> None:
        """Every recorded kind of request is decided as it was; where the record is not enough, that is said."""
        requests = [each for each in RECORDED if each.config == name]
        spent, lines = tmp_path / "spent.json", []
        async with a_house(tmp_path, name) as house:
            await house.fill()
            budgets = await house.diagnostics.ListBudgets(messages.ListBudgetsRequest(page_size=1000))
            spent.write_text(json.dumps([to_listed(budget) for budget in budgets.budgets]), encoding="utf-8")
            async with house.watching() as decisions:
                for each in requests:
                    await house.check(each.request)
                    lines.append(json.dumps(document(await anext(decisions))) + "\n")
        config, record = tmp_path / "same.yaml", tmp_path / "record.jsonl"
        config.write_text(configured(name, "memory"), encoding="utf-8")

        differing = {}
        for each, line in zip(requests, lines, strict=True):
            record.write_text(line, encoding="utf-8")
            (outcome,) = outcomes(await replayed(config, record, spent))
            if outcome != "same":
                differing[each.what] = outcome

        assert {each.what: DIFFERENT[each.what] for each in requests if each.what in DIFFERENT} == differing

    async def test_from_one_command_to_the_other(self, tmp_path: Path) -> None:
        """`extauthz watch --json` writes what `extauthz replay` reads."""
        record, config = tmp_path / "record.jsonl", tmp_path / "same.yaml"
        config.write_text(configured("blocked", "memory"), encoding="utf-8")
        async with a_house(tmp_path, "blocked") as house:
            admin = f"{LOOPBACK}:{house.admin_port}"
            async with Process(sys.executable, "-m", "extauthz", "watch", "--json", "--admin", admin) as watching:

                async def watched() -> bool:
                    await house.check(chat("sk-rich"))
                    return '"decided_at"' in watching.output

                await eventually(watched, START_SECONDS, "the watch sees decisions")
            lines = [line for line in watching.output.splitlines(keepends=True) if line.startswith("{")]
            record.write_text("".join(lines), encoding="utf-8")

        run = await extauthz("replay", "--config", config, record, "--json")

        assert (0, "") == (run.code, run.err)
        assert ["same"] == [*outcomes(json.loads(run.out))]


@dataclass(frozen=True, slots=True)
class Recording:
    """A journal of real requests, and the configuration that they came to."""

    folder: Path
    journal: Path
    text: str
    reserved_at: list[str]

    def config(self, *changes: tuple[str, str]) -> Path:
        """Write the configuration, changed."""
        text = self.text
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        path = self.folder / "new.yaml"
        path.write_text(text, encoding="utf-8")
        return path


@pytest.mark.redis
class TestAJournal:
    """What a real Redis wrote down of real endings."""

    @pytest.fixture
    async def recording(self, tmp_path: Path) -> AsyncIterator[Recording]:
        """Let requests come until the budget is spent, and export the journal."""
        async with RedisServer(appendonly=False) as redis:
            own = (
                f"listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}",
                "drain_seconds: 0",
                f"store: {tagged(redis.url)}",
            )
            text = CONFIG.replace("max_budget: 10", f"max_budget: {LIMIT_USD}")
            text += "".join(f"  {line}\n" for line in own)
            path, journal = tmp_path / "old.yaml", tmp_path / "journal.jsonl"
            path.write_text(text, encoding="utf-8")
            async with running(load(path, {}), new_logger(io.StringIO())) as ports:
                admitted = await self._spend(ports)
            await export_file(path, journal)
            assert 10 == admitted
            rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
            yield Recording(tmp_path, journal, text, [row["reserved_at"] for row in rows if row["how"] == "settled"])

    async def test_the_same_configuration(self, recording: Recording) -> None:
        """Nothing changes: each of the ten is let through and costs what it did."""
        found = await replayed(recording.config(), recording.journal)

        assert {"same": 10} == outcomes(found)
        assert (10 * COST_USD, 10 * COST_USD) == (found["cost_before_usd"], found["cost_after_usd"])
        assert ([], []) == (found["refusing"], found["changes"])

    async def test_half_of_the_limit(self, recording: Recording) -> None:
        """Five are let through, and the team refuses from the sixth on."""
        half = (f"max_budget: {LIMIT_USD}", f"max_budget: {LIMIT_USD / 2}")

        found = await replayed(recording.config(half), recording.journal)

        assert {"same": 5, "now_denied": 5} == outcomes(found)
        (refusing,) = found["refusing"]
        assert ("team:research", "budget_exceeded", 5, 5) == (
            refusing["scope"],
            refusing["reason"],
            refusing["count"],
            refusing["newly"],
        )
        assert recording.reserved_at[5].removesuffix("+00:00") == refusing["from"].removesuffix("Z")
        assert 5 * COST_USD == found["cost_after_usd"]

    async def test_a_removed_key(self, recording: Recording) -> None:
        """Nobody is let through any more, because nobody is known."""
        found = await replayed(recording.config(("key: sk-team", "key: sk-new")), recording.journal)

        assert {"now_denied": 10} == outcomes(found)
        assert ["unauthenticated"] == [change["reason"] for change in found["changes"]]

    async def test_a_dearer_price(self, recording: Recording) -> None:
        """The tokens that were used are paid at the new price, until the budget is spent, and that is sooner."""
        dearer = ("output_cost_per_token: 0.00001", "output_cost_per_token: 0.00002")

        found = await replayed(recording.config(dearer), recording.journal)

        cost = INPUT_TOKENS * 0.0000025 + OUTPUT_TOKENS * 0.00002
        assert {"cost_changed": 6, "now_denied": 4} == outcomes(found)
        assert pytest.approx(6 * cost) == found["cost_after_usd"]

    async def test_a_change_by_hand(self, recording: Recording) -> None:
        """A reset in the journal happens again, and lets through what came after it."""
        lines = recording.journal.read_text(encoding="utf-8").splitlines()
        fifth = json.loads(lines[5])
        reset = fifth | {"at": f"{fifth['at'].partition('-')[0]}-9", "how": "reset", "id": "x", "who": "ops"}
        reset |= {"cost_nanousd": 0, "booked_nanousd": 0, "counters": ["team:research|lifetime"]}
        recording.journal.write_text("\n".join([*lines[:6], json.dumps(reset), *lines[6:]]) + "\n", encoding="utf-8")
        half = (f"max_budget: {LIMIT_USD}", f"max_budget: {LIMIT_USD / 2}")

        assert {"same": 10} == outcomes(await replayed(recording.config(half), recording.journal))

    async def test_the_checkpoint_is_where_books_begin(self, recording: Recording) -> None:
        """What was spent before the export counts; what --spent says counts instead."""
        lines = recording.journal.read_text(encoding="utf-8").splitlines()
        checkpoint = json.loads(lines[0]) | {"spent": {"team:research|lifetime": 3_000_000}}
        recording.journal.write_text("\n".join([json.dumps(checkpoint), *lines[1:]]) + "\n", encoding="utf-8")
        nothing = recording.folder / "spent.json"
        nothing.write_text("[]", encoding="utf-8")

        assert {"same": 2, "now_denied": 8} == outcomes(await replayed(recording.config(), recording.journal))
        known = await replayed(recording.config(), recording.journal, nothing)
        assert {"same": 10} == outcomes(known)

    async def test_a_table(self, recording: Recording) -> None:
        """Without --json people read counts, costs, who refuses since when, and what changes."""
        half = (f"max_budget: {LIMIT_USD}", f"max_budget: {LIMIT_USD / 2}")

        run = await extauthz("replay", "--config", recording.config(half), recording.journal)

        assert (0, "") == (run.code, run.err)
        for text in ("10 records", "now denied", "0.0037 USD before, 0.00185 USD now", "team:research", "gpt-4o"):
            assert text in run.out

    async def _spend(self, ports: Ports) -> int:
        """Ask REQUESTS times, each after the last one was booked, and tell how many were let through."""
        admitted = 0
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}") as channel:
            for _ in range(REQUESTS):
                answer = await external_auth_pb2_grpc.AuthorizationStub(channel).Check(a_check())
                if not answer.HasField("ok_response"):
                    continue
                admitted += 1
                ended = an_ending(answer, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
                await als_pb2_grpc.AccessLogServiceStub(channel).StreamAccessLogs(iter([ended]))
        return admitted


async def test_something_else(tmp_path: Path) -> None:
    """A file that is no record is refused with its line; one that is not there, too."""
    config, record = tmp_path / "config.yaml", tmp_path / "record"
    config.write_text(CONFIG, encoding="utf-8")
    record.write_text("{}\n", encoding="utf-8")

    wrong = await extauthz("replay", "--config", config, record)
    missing = await extauthz("replay", "--config", config, tmp_path / "missing")

    assert (1, "Error: line 1 is neither a line of `extauthz watch --json` nor of `extauthz journal`") == (
        wrong.code,
        wrong.err.strip(),
    )
    assert 1 == missing.code
    assert "No such file" in missing.err
