"""Records that are decided again: by the same configuration nothing changes, by another what it says."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest

from extauthz.adapters.explanations import recorded
from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.model import DirectoryKind
from extauthz.config.snapshot import Snapshot
from extauthz.console.documents import document
from extauthz.domain.budgets import Counter, Scope
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, Decision
from extauthz.domain.windows import WindowRule, parse_duration
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.replay.opening import read_spent
from extauthz.replay.records import LOOKAHEAD_MAX, RecordsUnusableError, read_records
from extauthz.replay.replayer import (
    IN_A_DIRECTORY,
    NO_KEY,
    NO_TOKENS,
    OF_THE_MOMENT,
    UNKNOWN_BOOKS,
    Outcome,
    Replayer,
)
from extauthz.replay.summary import Summary
from extauthz.telemetry.decisions import DecisionFeed, DecisionFilter

NOON_MS = 1_795_003_200_000  # a day in UTC begins twelve hours before
LATER_MS = NOON_MS + 60_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
CHAT, EMBEDDINGS, MODELS = "/v1/chat/completions", "/v1/embeddings", "/v1/models"

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: {input}, output_cost_per_token: {output}}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: {llama}}}
general_settings: {{master_key: sk-admin, budget_exceeded_models_policy: {policy}}}
extauthz:
  shadow_mode: {shadow}
  teams:
    research: {{max_budget: {limit}, budget_duration: 1d}}
    strict: {{max_budget: 2, admission: strict}}
    free: {{}}
  end_users: {{default: {{max_budget: {default}}}, "a,b": {{max_budget: {end_user}}}}}
  keys:
    - {{key: sk-team, key_alias: laptop, team: {team}}}
    - {{key: sk-strict, team: strict}}
    - {{key: {other}}}
"""
DEFAULTS: dict[str, object] = {
    "input": 0.0000025,
    "output": 0.00001,
    "llama": 0,
    "policy": "blocked",
    "shadow": "false",
    "limit": 0.05,
    "default": 100,
    "end_user": 1,
    "team": "research",
    "other": "sk-other",
}


def configured(folder: Path, **changes: object) -> Snapshot:
    """Load the configuration with some changes."""
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(**DEFAULTS | changes), encoding="utf-8")
    return load(path, {})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and when it came."""

    at_ms: int = NOON_MS
    key: str | None = "sk-team"
    model: str = "gpt-4o"
    method: str = "POST"
    path: str = CHAT
    user: str | None = None
    text: str = "hi"

    @property
    def facts(self) -> RequestFacts:
        """The request as the gate sees it."""
        body = {"model": self.model, "messages": [{"role": "user", "content": self.text}]}
        body |= {} if self.user is None else {"user": self.user}
        headers = {} if self.key is None else {"authorization": (f"Bearer {self.key}",)}
        return RequestFacts(
            self.method, self.path, headers, json.dumps(body).encode() if self.method == "POST" else b""
        )


class Gate:
    """The gate that is watched: its decisions, each settled at once at what was expected of it."""

    def __init__(self, config: Snapshot) -> None:
        self.now_ms = NOON_MS
        self.ledger = MemoryLedger(lambda: self.now_ms, b"key")
        self._config = config
        self._authorizer = Authorizer(self.ledger, UsualAnswer(UsualTokens(512), UsualTokens(0)))
        self._feed = DecisionFeed(lambda: self.now_ms, random.random, lambda _: None)

    async def watched(self, requests: Iterable[Asked]) -> list[str]:
        """Decide about requests, and give the lines of whoever watches."""
        lines = []
        with self._feed.subscribe(DecisionFilter()) as seen:
            for number, asked in enumerate(requests):
                self.now_ms = asked.at_ms
                name = f"r{number}"
                decision = await self._authorizer.decide(asked.facts, Call(name, name, 1.0), self._config)
                await self._settle(decision)
                self._feed.decided(decision, asked.facts, 0.001)
                lines.append(json.dumps(document(recorded(*await anext(seen)))) + "\n")
        return lines

    async def _settle(self, decision: Decision) -> None:
        if isinstance(decision.verdict, Admit):
            await self.ledger.settle(decision.verdict.hold, decision.verdict.hold.estimate.spent)


def watched(config: Snapshot, *requests: Asked) -> list[str]:
    """Give the lines that a watch of these requests has."""
    return asyncio.run(Gate(config).watched(requests))


def replayed(config: Snapshot, lines: Iterable[str], spent: dict[Counter, int] | None = None) -> Summary:
    """Decide lines again."""

    async def replay() -> Summary:
        summary, replayer = Summary(config.directory), Replayer(config, spent)
        for record in read_records(lines):
            found = await replayer.replay(record)
            if found is not None:
                summary.add(found)
        return summary

    return asyncio.run(replay())


def outcomes(summary: Summary) -> dict[Outcome, int]:
    """Give the outcomes that there are."""
    return {outcome: count for outcome, count in summary.outcomes.items() if count}


# Each costs 0.0051 to 0.0052 USD, so that a budget of 0.05 is spent by the tenth.
TWELVE = [Asked(NOON_MS + number * 1000) for number in range(12)]


def test_keys_of_a_directory(tmp_path: Path) -> None:
    """Nobody asks a directory for keys that files do not have, and what became of them is not known here."""
    lines = watched(configured(tmp_path), Asked())
    config = configured(tmp_path, other="sk-third")
    config = replace(config, settings=config.settings.model_copy(update={"directory": DirectoryKind.STORE}))
    of_another = watched(configured(tmp_path), Asked(key="sk-other"))

    assert {Outcome.SAME: 1} == outcomes(replayed(config, lines))
    summary = replayed(config, of_another)
    assert {Outcome.UNKNOWN: 1} == outcomes(summary)
    assert {IN_A_DIRECTORY: 1} == summary.whys


class TestTheSameConfiguration:
    """What was recorded is decided again as it was."""

    def test_nothing_changes(self, tmp_path: Path) -> None:
        """Whatever was asked, let through or refused: it is the same again, and costs the same."""
        config = configured(tmp_path)
        lines = watched(
            config,
            *TWELVE,
            Asked(LATER_MS, model="local-llama"),
            Asked(LATER_MS, method="GET", path=MODELS),
            Asked(LATER_MS, method="GET", path=MODELS, key="sk-other"),
            Asked(LATER_MS, key="sk-other", user="a,b"),
            Asked(LATER_MS, key="sk-other", user="mia", path=EMBEDDINGS),
            Asked(LATER_MS, key="sk-admin", user="mia"),
            Asked(LATER_MS, key="sk-strict", text="x" * 9_000),
            Asked(LATER_MS, model="gpt-9"),
            Asked(LATER_MS, path="/openai/deployments/gpt-4o/chat/completions", key="sk-other"),
            Asked(LATER_MS, method="GET", path="/health"),
        )

        summary = replayed(config, lines)

        assert {Outcome.SAME: len(lines)} == outcomes(summary)
        assert summary.before_nanousd == summary.after_nanousd > 0
        assert [("team:research", "budget_exceeded", 0)] == [
            (each.scope, each.reason, each.newly) for each in summary.refusing if each.scope == "team:research"
        ]

    def test_a_window_resets_at_its_own_time(self, tmp_path: Path) -> None:
        """The records' time decides which window they are in, not when they are decided again."""
        config = configured(tmp_path)
        lines = watched(config, *TWELVE, Asked(NOON_MS + 12 * HOUR_MS))
        assert ["deny", "deny", "allow"] == [json.loads(line)["decision"]["decision"] for line in lines[-3:]]

        assert {Outcome.SAME: 13} == outcomes(replayed(config, lines))

    def test_lines_in_another_order(self, tmp_path: Path) -> None:
        """Files of several replicas come one after the other: what counts is when it was decided."""
        config = configured(tmp_path)
        lines = watched(config, *TWELVE)

        assert {Outcome.SAME: 12} == outcomes(replayed(config, reversed(lines)))

    def test_protobufs_own_json(self, tmp_path: Path) -> None:
        """Lines may leave out what is not set, and write whole numbers as texts."""
        config = configured(tmp_path)

        def thin(value: object) -> object:
            match value:
                case dict():
                    return {name: thin(each) for name, each in value.items() if each not in (None, "", [], 0, False)}
                case bool() | float() | str() | None:
                    return value
                case int():
                    return str(value)
                case _:
                    return value

        lines = [json.dumps(thin(json.loads(line))) + "\n" for line in watched(config, *TWELVE)]

        assert {Outcome.SAME: 12} == outcomes(replayed(config, lines))


class TestAnotherConfiguration:
    """What it changes is told, since when, and to whom."""

    def test_a_lower_limit_refuses_from_the_right_record_on(self, tmp_path: Path) -> None:
        """Half of the limit is spent by the fifth request; the sixth and those after it are refused."""
        lines = watched(configured(tmp_path), *TWELVE)

        summary = replayed(configured(tmp_path, limit=0.025), lines)

        assert {Outcome.SAME: 7, Outcome.DENIED: 5} == outcomes(summary)
        (refusing,) = summary.refusing
        assert ("team:research", "budget_exceeded", 7, 5, TWELVE[5].at_ms) == (
            refusing.scope,
            refusing.reason,
            refusing.count,
            refusing.newly,
            refusing.from_ms,
        )
        (change,) = summary.changes
        assert (Outcome.DENIED, "budget_exceeded", "laptop", "gpt-4o", 5) == (
            change.outcome,
            change.reason,
            change.principal,
            change.model,
            change.count,
        )
        assert 0 == change.after_nanousd < change.before_nanousd

    def test_a_higher_limit(self, tmp_path: Path) -> None:
        """What was refused is let through, where it is known what had been spent; else that cannot be told."""
        lines = watched(configured(tmp_path), *TWELVE)
        richer = configured(tmp_path, limit=1)

        assert {Outcome.SAME: 10, Outcome.ALLOWED: 2} == outcomes(replayed(richer, lines, {}))
        unknown = replayed(richer, lines)
        assert {Outcome.SAME: 10, Outcome.UNKNOWN: 2} == outcomes(unknown)
        assert {UNKNOWN_BOOKS: 2} == dict(unknown.whys)

    def test_no_limit_needs_no_books(self, tmp_path: Path) -> None:
        """A team without a budget refuses nothing, whatever it had spent."""
        lines = watched(configured(tmp_path), *TWELVE)

        assert {Outcome.SAME: 10, Outcome.ALLOWED: 2} == outcomes(replayed(configured(tmp_path, team="free"), lines))

    def test_what_had_been_spent_before(self, tmp_path: Path) -> None:
        """It counts against the new limit from the first record on."""
        config = configured(tmp_path)
        lines = watched(config, *TWELVE[:3])
        reset = datetime.fromtimestamp((NOON_MS + DAY_MS // 2) / 1000, UTC).isoformat()
        listed = [
            {"scope": "team:research", "window": "1d", "spent_usd": 0.045, "resets_at": reset},
            {"scope": "team:research", "window": "1mo", "spent_usd": 7, "resets_at": reset},
            {"scope": "team:gone", "window": "lifetime", "spent_usd": 0, "resets_at": None},
        ]

        spent = read_spent(json.dumps(listed), config.directory)

        assert (45_000_000, 1) == (sum(spent.amounts.values()), spent.left_out)
        assert {Outcome.SAME: 1, Outcome.DENIED: 2} == outcomes(replayed(config, lines, dict(spent.amounts)))

    def test_what_had_been_spent_of_tokens(self, tmp_path: Path) -> None:
        """A budget in tokens is found by its label, and what the list says of it is in tokens."""
        file = tmp_path / "tokens.yaml"
        file.write_text("extauthz: {teams: {t: {max_budget: 1, max_tokens: 100}}}", encoding="utf-8")
        scope = {"scope": "team:t", "resets_at": None}
        listed = [
            {**scope, "window": "lifetime", "spent_usd": 0.5},
            {**scope, "window": "lifetime/tokens", "measure": "tokens", "spent": 70},
            {**scope, "window": "lifetime/requests", "measure": "requests", "spent": 3},
        ]

        spent = read_spent(json.dumps(listed), load(file, {}).directory)

        assert {"lifetime": 500_000_000, "lifetime/tokens": 70} == {
            counter.label: amount for counter, amount in spent.amounts.items()
        }
        assert 1 == spent.left_out

    def test_limits_changed_by_hand(self, tmp_path: Path) -> None:
        """A limit of 0 refuses all that come after it; one that was taken back leaves the configured one again."""
        config = configured(tmp_path)
        lines = watched(config, *TWELVE[:6])
        counter = Counter(Scope.parse("team:research"), WindowRule(parse_duration("1d")).at(NOON_MS)).key
        for at_ms, how in ((NOON_MS + 1500, "limit"), (NOON_MS + 3500, "limit_removed")):
            row = {"at": f"{at_ms}-0", "how": how, "id": how, "cost_nanousd": 0, "booked_nanousd": 0}
            lines.append(json.dumps({**row, "counters": [counter]}) + "\n")

        assert {Outcome.SAME: 4, Outcome.DENIED: 2} == outcomes(replayed(config, lines))

    def test_a_removed_key(self, tmp_path: Path) -> None:
        """Nobody knows who asks any more."""
        lines = watched(configured(tmp_path), Asked(key="sk-other"), Asked())

        summary = replayed(configured(tmp_path, other="sk-new"), lines)

        assert {Outcome.SAME: 1, Outcome.DENIED: 1} == outcomes(summary)
        (change,) = summary.changes
        assert ("unauthenticated", f"key {sha256(b'sk-other').hexdigest()[:8]}") == (change.reason, change.principal)

    def test_a_dearer_price(self, tmp_path: Path) -> None:
        """The recorded tokens are paid at the new price, and budgets end sooner by it."""
        lines = watched(configured(tmp_path, limit=1), Asked(text="x" * 3_000))

        summary = replayed(configured(tmp_path, limit=1, input=0.0000125), lines)

        assert {Outcome.COST: 1} == outcomes(summary)
        tokens = json.loads(lines[0])["estimate"]["input_tokens"]
        assert tokens * 10_000 == summary.after_nanousd - summary.before_nanousd

    def test_a_strict_maximum_grows_with_the_price(self, tmp_path: Path) -> None:
        """A whole maximum that fitted does not fit any more at a price that is much higher."""
        config = configured(tmp_path)
        lines = watched(config, Asked(key="sk-strict"))

        assert {Outcome.SAME: 1} == outcomes(replayed(config, lines))
        summary = replayed(configured(tmp_path, output=0.00002), lines)
        assert ["request_too_dear"] == [each.reason for each in summary.refusing]

    def test_a_free_model_that_costs_now(self, tmp_path: Path) -> None:
        """Nobody knows how many tokens a free answer had, so what it costs now cannot be told."""
        lines = watched(configured(tmp_path), Asked(model="local-llama"))

        assert {NO_TOKENS: 1} == dict(replayed(configured(tmp_path, llama=0.00001), lines).whys)

    def test_shadow_mode_ends(self, tmp_path: Path) -> None:
        """What shadow mode let through is refused; what would have been, would be again."""
        trying = configured(tmp_path, shadow="true")
        lines = watched(trying, *TWELVE)

        assert {Outcome.SAME: 12} == outcomes(replayed(trying, lines))
        assert {Outcome.SAME: 10, Outcome.DENIED: 2} == outcomes(replayed(configured(tmp_path), lines))

    def test_shadow_mode_begins(self, tmp_path: Path) -> None:
        """What was refused is let through, and says so."""
        lines = watched(configured(tmp_path), *TWELVE)

        summary = replayed(configured(tmp_path, shadow="true"), lines)

        assert {Outcome.SAME: 10, Outcome.ALLOWED: 2} == outcomes(summary)

    def test_the_model_lists_policy(self, tmp_path: Path) -> None:
        """A list that was refused is pruned now."""
        lines = watched(configured(tmp_path), *TWELVE, Asked(NOON_MS + 12_000, method="GET", path=MODELS))

        summary = replayed(configured(tmp_path, policy="free_only"), lines, {})

        assert {Outcome.SAME: 12, Outcome.ALLOWED: 1} == outcomes(summary)

    def test_an_end_user_with_a_comma(self, tmp_path: Path) -> None:
        """An id that no header carries came in the body, and its budget binds again."""
        lines = watched(configured(tmp_path), Asked(key="sk-other", user="a,b"))

        assert {Outcome.DENIED: 1} == outcomes(replayed(configured(tmp_path, end_user=0), lines))

    def test_whom_a_token_named(self, tmp_path: Path) -> None:
        """A request without a key is asked again by the payers that it was counted on; who is not listed is refused."""
        rows = [json.loads(line) for line in watched(configured(tmp_path), Asked(), Asked())]
        for row, scopes in zip(rows, (["global", "team:research"], ["global", "user:zoe"]), strict=True):
            row["scopes"] = scopes
        lines = [json.dumps(row) + "\n" for row in rows]

        assert {Outcome.SAME: 1, Outcome.DENIED: 1} == outcomes(replayed(configured(tmp_path), lines))
        assert {Outcome.DENIED: 2} == outcomes(replayed(configured(tmp_path, limit=0), lines))

    def test_a_stranger_stays_one(self, tmp_path: Path) -> None:
        """Who was refused is not taken for somebody anonymous now."""
        lines = watched(configured(tmp_path), Asked(key="sk-nobody"))
        opened = configured(tmp_path, other="sk-other}\n  anonymous: {max_budget: 1")

        assert {NO_KEY: 1} == dict(replayed(opened, lines).whys)


class TestWhatCannotBeTold:
    """What a record does not say is not guessed."""

    def test_who_asked(self, tmp_path: Path) -> None:
        """Of an unknown key nothing was recorded, so it cannot be known whether it is known now."""
        config = configured(tmp_path)
        lines = watched(config, Asked(key="sk-nobody"), Asked(key=None))

        assert {NO_KEY: 2} == dict(replayed(config, lines).whys)

    @pytest.mark.parametrize("reason", ["budget_held", "store_unavailable", "internal_error", "already_ended"])
    def test_the_moment(self, tmp_path: Path, reason: str) -> None:
        """A refusal for what others held at that moment, or for the store, says nothing of a configuration."""
        config = configured(tmp_path)
        line = json.loads(watched(config, Asked())[0])
        line["decision"] |= {"decision": "deny", "reason": reason}

        assert {OF_THE_MOMENT: 1} == dict(replayed(config, [json.dumps(line) + "\n"]).whys)


class TestLines:
    """What is in the file."""

    @pytest.mark.parametrize(
        "line",
        [
            "{}",
            "[]",
            "17",
            "null",
            "not JSON",
            '{"how":"settled"}',
            '{"decided_at":"yesterday"}',
            '{"how":"checkpoint","at":"1-0","began_at":1,"first":true,"last":true,"spent_nanousd":{"nobody":1}}',
            '{"how":"settled","at":"1-0","cost_nanousd":1,"booked_nanousd":1,"counters":["nobody"]}',
            '{"decided_at":"2026-11-25T12:00:00Z","decision":{"decision":"maybe","reason":"info"},"route_class":"info"}',
        ],
    )
    def test_something_else(self, tmp_path: Path, line: str) -> None:
        """It is refused with the number of its line; cut off at the end of the file it was never written."""
        config = configured(tmp_path)
        good = watched(config, Asked())
        with pytest.raises(RecordsUnusableError, match=r"^line 2 is neither"):
            replayed(config, [*good, line + "\n", *good])

        assert {Outcome.SAME: 1} == outcomes(replayed(config, [*good, "\n", line]))

    def test_no_list_of_budgets(self, tmp_path: Path) -> None:
        """What is not a list of budgets is refused."""
        for text in ("{}x", "17", '[{"scope":"team:x"}]', '[{"scope":"x:y","spent_usd":1,"window":"1d"}]'):
            with pytest.raises(RecordsUnusableError, match="budgets list"):
                read_spent(text, configured(tmp_path).directory)

    def test_few_are_looked_at_together(self) -> None:
        """However long the file is, it is read as it goes, and no more of it waits than LOOKAHEAD_MAX."""
        asked = 0

        def endless() -> Iterable[str]:
            nonlocal asked
            while True:
                asked += 1
                yield f'{{"at":"{asked}-0","how":"released","id":"r","cost_nanousd":0,"booked_nanousd":0}}\n'

        records = iter(read_records(endless()))
        first = [next(records).at_ms for _ in range(5)]

        assert [1, 2, 3, 4, 5] == first
        assert asked <= LOOKAHEAD_MAX + 5


def test_a_summary_is_bounded(tmp_path: Path) -> None:
    """What there is no room for is counted, and nothing else is lost of it."""
    users = [Asked(key="sk-other", user=f"user {number}") for number in range(6)]
    lines = watched(configured(tmp_path), *users)

    with patch("extauthz.replay.summary.REFUSALS_MAX", 4):
        summary = replayed(configured(tmp_path, default=0), lines)

    assert {Outcome.DENIED: 6} == outcomes(summary)
    assert (4, 2) == (len(summary.refusing), summary.not_shown)
    assert 6 == sum(change.count for change in summary.changes)
