"""The operators' commands about budgets, reservations, decisions and books, against a running server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict, Parse

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from tests.support.books import Run
from tests.support.gate import FREE, PAID, a_check
from tests.support.operators import (
    ADMIN_TOKEN,
    BUSY,
    CHANGED,
    COST_USD,
    HOLDING,
    KEYS,
    RESEARCH,
    SPENT,
    House,
    operated,
    spent_key,
    typed,
)
from tests.support.processes import LOOPBACK, Process, eventually, free_port
from tests.support.tls import Certificates

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

LISTED = ["scope", "window", "limit_usd", "spent_usd", "held_usd", "available_usd", "resets_at"]
SCOPES = [
    ("team:busy", "lifetime"),
    ("team:changed", "24h"),
    ("team:holding", "lifetime"),
    ("team:research", "30d"),
    ("team:several", "24h"),
    ("team:several", "30d"),
    ("team:shown", "lifetime"),
    ("team:spent", "24h"),
]

# Every command that speaks to a server, with the least that it needs.
COMMANDS = [
    ["budgets", "list"],
    ["budgets", "get", "team:research"],
    ["budgets", "set", "team:research", "1"],
    ["budgets", "unset", "team:research"],
    ["budgets", "reset", "team:research"],
    ["budgets", "grant", "team:research", "1"],
    ["reservations", "list"],
    ["reservations", "release", "r1"],
    ["explain", "--model", "gpt-4o"],
    ["audit"],
    ["journal"],
    ["watch"],
    ["top", "--once", "--interval", "0.2"],
    ["config"],
    ["log-level"],
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Serve, with something spent and something held."""
    async with operated() as running:
        await running.end(await running.check(a_check(key=BUSY)))
        await running.check(a_check(key=HOLDING, reservation_id="held-for-long"))

        async def settled() -> bool:
            (budget,) = await running.json("budgets", "get", "team:busy")
            return bool(budget["spent_usd"])

        await eventually(settled, what="the first answer is settled")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house_with_tls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[House, Certificates]]:
    """Serve with TLS, and ask for certificates."""
    certificates = Certificates(tmp_path_factory.mktemp("tls"))
    files = {"cert": certificates.cert, "key": certificates.key, "client_ca": certificates.ca}
    async with operated(f"tls: {json.dumps({name: str(path) for name, path in files.items()})}") as running:
        yield running, certificates


class TestBudgets:
    """`extauthz budgets`."""

    async def test_list(self, house: House) -> None:
        """All budgets are listed in the order of their scopes, with exactly the fields that scripts rely on."""
        listed = await house.json("budgets", "list")

        assert SCOPES == [(budget["scope"], budget["window"]) for budget in listed]
        assert all(LISTED == list(budget) for budget in listed)
        (busy,) = (budget for budget in listed if budget["scope"] == "team:busy")
        expected = {"limit_usd": 10.0, "spent_usd": COST_USD, "held_usd": 0.0, "available_usd": 10 - COST_USD}
        assert {"scope": "team:busy", "window": "lifetime", **expected, "resets_at": None} == busy

    async def test_when_it_resets(self, house: House) -> None:
        """The end of a window is a time in UTC, in the future."""
        (budget,) = await house.json("budgets", "list", "team:research")

        assert datetime.now(UTC) < datetime.fromisoformat(budget["resets_at"])
        assert budget["resets_at"].endswith("Z")

    async def test_a_prefix_and_a_share(self, house: House) -> None:
        """PREFIX chooses scopes, --used those of which so many percent are spent or held."""
        several = await house.json("budgets", "list", "team:se")
        used = await house.json("budgets", "list", "--used", "0.02")

        assert ["24h", "30d"] == [budget["window"] for budget in several]
        assert ["team:holding"] == [budget["scope"] for budget in used]

    async def test_a_table(self, house: House) -> None:
        """People get a table, with a line for each budget."""
        run = await house.run("budgets", "list")
        heading, *rows = run.out.splitlines()

        assert (0, "") == (run.code, run.err)
        assert ["scope", "window", "limit", "spent", "held", "available", "used", "resets"] == heading.split()
        assert SCOPES == [tuple(row.split()[:2]) for row in rows]

    async def test_many(self) -> None:
        """More budgets than the server gives at once are listed all the same, each once."""
        users = ", ".join(f"u{number:04}: {{max_budget: 1}}" for number in range(2500))
        async with operated(f"users: {{{users}}}") as own:
            listed = await own.json("budgets", "list", "user:")

        assert [f"user:u{number:04}" for number in range(2500)] == [budget["scope"] for budget in listed]

    async def test_nothing_to_list(self, house: House) -> None:
        """A prefix that no scope has is an empty list, and no failure."""
        people, scripts = await house.run("budgets", "list", "org:"), await house.json("budgets", "list", "org:")

        assert (0, "no such budgets\n") == (people.code, people.out)
        assert scripts == []

    async def test_get(self, house: House) -> None:
        """One scope is shown with everything that is known of its budgets."""
        (shown,) = await house.json("budgets", "get", "team:shown")

        assert {field.name for field in messages.Budget.DESCRIPTOR.fields} == set(shown)
        assert (4.0, 3.0, False) == (shown["configured_limit_usd"], shown["soft_limit_usd"], shown["exhausted"])

    async def test_an_unknown_scope(self, house: House) -> None:
        """A slip is one line that names what was meant."""
        run = await house.run("budgets", "get", "team:reserch")

        assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines()))
        assert "team:research" in run.err

    async def test_a_limit_is_set_and_taken_back(self, house: House) -> None:
        """`set` puts a limit in the place of the configured one, and `unset` brings that back."""
        changed = await house.json("budgets", "set", "team:changed", "7.25")
        table = await house.run("budgets", "get", "team:changed")
        back = await house.json("budgets", "unset", "team:changed")

        assert [5.0, 7.25, True] == [changed["before"]["limit_usd"], changed["after"]["limit_usd"], changed["changed"]]
        assert "7.25*" in table.out
        assert "* not the configured limit" in table.out
        assert [7.25, 5.0] == [back["before"]["limit_usd"], back["after"]["limit_usd"]]

    async def test_a_grant_and_a_reset(self, house: House) -> None:
        """`grant` raises the limit of this window, and `reset` forgets what was spent in it."""
        await house.end(await house.check(a_check(key=CHANGED)))
        await eventually(lambda: self._spent(house, "team:changed"), what="the answer is settled")

        granted = await house.json("budgets", "grant", "team:changed", "2.5")
        reset = await house.json("budgets", "reset", "team:changed")

        assert 2.5 == granted["after"]["limit_usd"] - granted["before"]["limit_usd"]
        assert [COST_USD, 0.0] == [reset["before"]["spent_usd"], reset["after"]["spent_usd"]]

    async def test_before_and_after_for_people(self, house: House) -> None:
        """People see the budget before and after, in two lines."""
        run = await house.run("budgets", "set", "team:shown", "4")
        rows = [line.split() for line in run.out.splitlines()]

        assert 0 == run.code
        assert [["before", "team:shown"], ["after", "team:shown"]] == [row[:2] for row in rows[1:3]]

    async def test_sent_twice_it_is_made_once(self, house: House) -> None:
        """A change with a name is made once, and the second time it says so."""
        grant = ("budgets", "grant", "team:several", "1", "--window", "24h", "--change-id", "ticket-42")

        first, second = await house.json(*grant), await house.run(*grant)

        assert first["changed"] is True
        assert "nothing happened: this change was made before" in second.out
        assert [2.0, 5.0] == [budget["limit_usd"] for budget in await house.json("budgets", "get", "team:several")]

    async def test_which_of_several(self, house: House) -> None:
        """Where a scope has several budgets the window must be said, and be one of them."""
        none = await house.run("budgets", "set", "team:several", "1")
        other = await house.run("budgets", "set", "team:several", "1", "--window", "7d")
        (_, month) = await house.json("budgets", "get", "team:several")
        changed = await house.json("budgets", "set", "team:several", "6", "--window", "30d")

        assert (1, "Error: team:several has several budgets: choose one by --window (24h, 30d)\n") == (
            none.code,
            none.err,
        )
        assert (1, "Error: team:several has no budget for 7d: its windows are 24h, 30d\n") == (other.code, other.err)
        assert month == changed["before"]

    async def test_the_journal_knows_who(self, house: House) -> None:
        """Changes are journalled under the name that was said, or the one of the operating system's user."""
        await house.json("budgets", "set", "team:shown", "4.5", "--who", "ana (on call)")
        await house.run("budgets", "unset", "team:shown", environment={"LOGNAME": "ben"})

        entries = [json.loads(line) for line in (await house.run("journal")).out.splitlines()]
        shown = [entry for entry in entries if "team:shown|lifetime" in entry.get("counters", [])]

        assert ["ana (on call)", "ben"] == [entry["who"] for entry in shown][-2:]

    @staticmethod
    async def _spent(house: House, scope: str) -> bool:
        (budget,) = await house.json("budgets", "get", scope)
        return bool(budget["spent_usd"])


class TestReservations:
    """`extauthz reservations`."""

    async def test_list(self, house: House) -> None:
        """An open reservation is shown with its age, its lease, and what it holds of each scope."""
        listed = await house.json("reservations", "list", "--scope", "team:holding")
        (reservation,) = listed

        assert {field.name for field in messages.Reservation.DESCRIPTOR.fields} == set(reservation)
        assert ("held-for-long", "gpt-4o") == (reservation["id"], reservation["model"])
        assert {"global", "team:holding"} < {held["scope"] for held in reservation["held"]}
        assert all(["scope", "window", "held_usd", "measure", "held"] == list(held) for held in reservation["held"])
        assert all(held["held_usd"] > 0 for held in reservation["held"])
        assert 0 <= reservation["age_seconds"]

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            pytest.param(["--model", "gpt-4o"], True, id="its model"),
            pytest.param(["--model", "gpt-5"], False, id="another model"),
            pytest.param(["--scope", "team:research"], False, id="another scope"),
            pytest.param(["--older", "0"], True, id="its age"),
            pytest.param(["--older", "86400"], False, id="an age that it has not"),
        ],
    )
    async def test_filters(self, options: list[str], found: object, house: House) -> None:
        """Each filter chooses."""
        listed = await house.json("reservations", "list", *options)

        assert found == ("held-for-long" in [reservation["id"] for reservation in listed])

    async def test_a_table(self, house: House) -> None:
        """People get a table, and how many are open in all."""
        run = await house.run("reservations", "list", "--scope", "team:holding")

        assert (0, "") == (run.code, run.err)
        assert run.out.splitlines()[1].startswith("held-for-long")
        assert "1 shown of " in run.out.splitlines()[-1]

    @pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "scripts"])
    async def test_release(self, form: list[str], house: House) -> None:
        """A reservation that is released holds nothing any more; what is not open cannot be released."""
        id_ = f"released{''.join(form)}"
        await house.check(a_check(key=RESEARCH, reservation_id=id_))
        released = await house.run("reservations", "release", id_, *form)
        again = await house.run("reservations", "release", id_, *form)

        assert (0, "") == (released.code, released.err)
        assert released.out == (json.dumps({"id": id_, "released": True}) if form else "released") + "\n"
        assert (1, "") == (again.code, again.out)
        assert id_ in again.err
        assert [] == await house.json("reservations", "list", "--scope", "team:research")


class TestExplain:
    """`extauthz explain`."""

    @pytest.mark.parametrize(
        "caller",
        [
            pytest.param(["--key-env", "MY_KEY"], id="the key"),
            pytest.param(["--key-sha256", hashlib.sha256(RESEARCH.encode()).hexdigest()], id="its hash"),
            pytest.param(["--key-alias", "research-laptop"], id="its alias"),
        ],
    )
    async def test_allowed(self, caller: list[str], house: House) -> None:
        """A request that would pass is explained as such, whichever way its key is named, and holds nothing."""
        run = await house.run("explain", *caller, "--model", PAID, "--json", environment={"MY_KEY": RESEARCH})
        answer = json.loads(run.out)

        assert 0 == run.code
        assert ("allow", "within_budget") == (answer["decision"]["decision"], answer["decision"]["reason"])
        assert ["inference", "gpt-4o"] == [answer["route_class"], answer["model_entry"]]
        assert {field.name for field in messages.ExplainResponse.DESCRIPTOR.fields} == set(answer)
        assert [] == await house.json("reservations", "list", "--scope", "team:research")

    async def test_refused_for_people(self, house: House) -> None:
        """The first line is the verdict; then comes what stands in the way, and the scope that refuses is marked."""
        run = await house.run("explain", "--key-env", "K", "--model", PAID, environment={"K": SPENT})
        verdict, why, what_helps, *rest = run.out.splitlines()

        assert (0, "") == (run.code, run.err)
        assert verdict.startswith("denied: 429 budget_exceeded: ")
        assert why.startswith("team:spent has spent 0.0 of 0.0 USD; it begins anew in ")
        assert what_helps == "more now: extauthz budgets grant team:spent AMOUNT --window 24h"
        (marked,) = (line for line in rest if "▶" in line)
        assert ["▶", "team:spent", "24h"] == marked.split()[:3]

    async def test_the_table_and_json_say_the_same(self, house: House) -> None:
        """JSON names the scope that refuses as well."""
        run = await house.run("explain", "--key-env", "K", "--model", PAID, "--json", environment={"K": SPENT})

        assert ["team:spent"] == [scope["scope"] for scope in json.loads(run.out)["scopes"] if scope["refuses"]]

    async def test_held_out(self, house: House) -> None:
        """Where open reservations take what is left, it says how to see which they are."""
        await house.json("budgets", "set", "team:holding", "0.001")
        try:
            run = await house.run("explain", "--key-env", "K", "--model", PAID, environment={"K": HOLDING})
        finally:
            await house.json("budgets", "unset", "team:holding")

        assert run.out.startswith("denied: 429 budget_held: ")
        assert "extauthz reservations list --scope team:holding" in run.out

    @pytest.mark.parametrize("file", ["-", "body.json"])
    async def test_a_body(self, file: str, house: House, tmp_path: Path) -> None:
        """The body comes from a file or from standard input, and says the model."""
        body = json.dumps({"model": FREE, "messages": [{"role": "user", "content": "hi"}]})
        (tmp_path / "body.json").write_text(body, encoding="utf-8")
        path = file if file == "-" else str(tmp_path / file)

        run = await house.run("explain", "--body", path, "--key-alias", "research-laptop", text=body)

        assert run.out.startswith("allowed: free_model")
        assert "local-llama" in run.out

    async def test_another_route(self, house: House) -> None:
        """Method, path, headers, and what Envoy's route says, reach the decision."""
        models = ("explain", "--method", "GET", "--path", "/v1/models")
        spent = {"K": SPENT}

        without = await house.run(*models, "--json", environment=spent)
        bearer = await house.run(*models, "--header", "X-Api-Key: sk-nobody-2Ff1", "--json")
        shadowed = await house.run(
            *("explain", "--key-env", "K", "--model", PAID, "--context", "extauthz.shadow_mode:on", "--json"),
            environment=spent,
        )

        assert [401, 401] == [json.loads(run.out)["decision"]["status"] for run in (without, bearer)]
        assert "discovery" == json.loads(without.out)["route_class"]
        assert "shadow_deny" == json.loads(shadowed.out)["decision"]["decision"]
        assert "sk-nobody-2Ff1" not in bearer.out + bearer.err

    async def test_a_check(self, house: House, tmp_path: Path) -> None:
        """A CheckRequest as grpcurl prints it is explained as it is, with fields in it that nobody here reads."""
        document = MessageToDict(a_check(key=SPENT))
        document["attributes"]["source"] = {"principal": "spiffe://mesh/gateway"}
        path = tmp_path / "check.json"
        path.write_text(json.dumps(document), encoding="utf-8")

        run = await house.run("explain", "--check", str(path), "--json")

        assert "budget_exceeded" == json.loads(run.out)["decision"]["reason"]

    async def test_no_check(self, house: House) -> None:
        """Something else is one line, which repeats nothing of it."""
        secret = base64.b64encode(SPENT.encode()).decode()

        run = await house.run("explain", "--check", "-", text=f'{{"attributes": {secret}')

        assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines()))
        assert "this is no CheckRequest as JSON" in run.err
        assert secret not in run.err

    async def test_keys_are_not_shown(self, house: House, tmp_path: Path) -> None:
        """No key is in any output, whichever way it was given, also where something is wrong."""
        document = json.dumps(MessageToDict(a_check(key=RESEARCH)))
        runs = [
            await house.run("explain", "--key-env", "K", "--model", "x", *form, environment={"K": RESEARCH})
            for form in ([], ["--json"], ["--key-alias", "x"], ["--body", "/nowhere"], ["--admin", "127.0.0.1:1"])
        ]
        runs += [await house.run("explain", "--check", "-", *form, text=document) for form in ([], ["--json"])]
        runs.append(await house.run("explain", "--header", RESEARCH))
        runs.append(await house.run("explain", "--header", f"authorization: Bearer {RESEARCH}", "--model", PAID))

        assert [0, 0, 2, 2, 1, 0, 0, 2, 0] == [run.code for run in runs]
        assert not any(RESEARCH in run.out + run.err for run in runs)


class TestBooks:
    """`extauthz audit` and `extauthz journal`, by a running server."""

    async def test_audit(self, house: House) -> None:
        """Books that are right: one line, or JSON of exactly these fields."""
        people, scripts = await house.run("audit"), await house.json("audit")

        assert 0 == people.code
        assert people.out.startswith("the books are right: ")
        expected = [
            "ok",
            "drift_usd",
            "scopes_checked",
            "counters_checked",
            "reservations_open",
            "entries_read",
            "drifts",
        ]
        assert expected == list(scripts)
        assert (True, 0.0, []) == (scripts["ok"], scripts["drift_usd"], scripts["drifts"])

    async def test_wrong_books(self, house: House) -> None:
        """Books that are wrong: status 1, and which counter is, with what it should be."""
        await house.redis.hset(spent_key(), "team:nobody|lifetime", "10000000")
        try:
            people, scripts = await house.run("audit"), await house.run("audit", "--json")
        finally:
            await house.redis.hdel(spent_key(), "team:nobody|lifetime")
        found = json.loads(scripts.out)

        assert (1, 1) == (people.code, scripts.code)
        assert "spent of team:nobody|lifetime: should be 0.0 USD, is 0.01 USD" in people.out
        assert (False, 0.01) == (found["ok"], found["drift_usd"])
        drift = {"of": "spent", "counter": "team:nobody|lifetime", "expected_nanousd": 0, "found_nanousd": 10_000_000}
        assert [drift] == found["drifts"]

    async def test_the_same_as_with_the_store_itself(self, house: House) -> None:
        """With --config the same is found, by no server."""
        config = ("--config", str(house.gate.config))

        audited = json.loads((await house.run("audit", "--json", *config)).out)
        told = await house.run("journal", *config)

        assert await house.json("audit") == audited
        assert (await house.run("journal")).out == told.out
        assert told.out

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    async def test_an_export_goes_on(self, form: str, house: House, tmp_path: Path) -> None:
        """A file is continued where it ends, and is then what an export in one go is."""
        output = tmp_path / "journal"
        export = ("journal", "--format", form, "--output", str(output))
        first = await house.run(*export)
        await house.json("budgets", "set", "team:shown", "4")
        second = await house.run(*export)
        whole = await house.run("journal", "--format", form)

        assert (0, "", "") == (first.code, first.out, first.err)
        assert (0, "", "") == (second.code, second.out, second.err)
        assert whole.out.splitlines() == output.read_text(encoding="utf-8").splitlines()

    async def test_after(self, house: House) -> None:
        """--after leaves out what came before."""
        lines = (await house.run("journal")).out.splitlines()
        entry = json.loads(lines[-2])

        assert [lines[-1]] == (await house.run("journal", "--after", entry["at"])).out.splitlines()

    async def test_follow(self, house: House) -> None:
        """--follow tells what happens from then on, until it is interrupted."""
        command = (sys.executable, "-m", "extauthz", "journal", "--follow")
        async with Process(*command, environment=house.environment) as process:
            await process.wait_for_line('"how":"checkpoint"')
            await house.json("budgets", "grant", "team:shown", "0.5", "--who", "the follower")
            await process.wait_for_line('"who":"the follower"')
            process.terminate()

            assert 0 == await process.wait()

    async def test_follow_ends_with_the_server(self) -> None:
        """A server that goes away is told in one line, with status 1: whoever keeps an export going hears of it."""
        command = (sys.executable, "-m", "extauthz", "journal", "--follow")
        async with operated() as own, Process(*command, environment=own.environment) as process:
            await process.wait_for_line('"how":"checkpoint"')
            own.gate.process.kill()

            assert 1 == await process.wait()
            assert process.output.splitlines()[-1].startswith(f"Error: the server at {LOOPBACK}:{own.gate.admin_port} ")

    async def test_a_shard_that_is_not_there(self, house: House) -> None:
        """The server says which there are."""
        run = await house.run("journal", "--shard", "3")

        assert (1, "") == (run.code, run.out)
        assert "there is no shard 3" in run.err


class TestServer:
    """`extauthz config` and `extauthz log-level`."""

    async def test_config(self, house: House) -> None:
        """The configuration in force is YAML, and secrets are masked."""
        people, scripts = await house.run("config"), await house.json("config")

        assert 0 == people.code
        assert people.out.startswith(f"# digest {scripts['digest']}\n")
        assert "max_budget: 10" in people.out
        assert ["yaml", "digest", "notices"] == list(scripts)
        assert not any(secret in people.out + scripts["yaml"] for secret in (*KEYS, ADMIN_TOKEN))

    async def test_log_level(self, house: House) -> None:
        """The level is told, changed, and told again."""
        before = await house.run("log-level")
        changed = await house.json("log-level", "debug")
        after = await house.run("log-level")
        await house.run("log-level", "info")

        assert ("info\n", {"level": "debug"}, "debug\n") == (before.out, changed, after.out)


class TestConnection:
    """Whom the commands speak to, and what they say when that does not work."""

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    async def test_no_server(self, command: list[str]) -> None:
        """Without a server each command is one line that says what to do, and status 1."""
        address = f"{LOOPBACK}:{free_port()}"

        run = await typed(*command, environment={"EXTAUTHZ_ADMIN": address})

        assert (1, "") == (run.code, run.out)
        assert (
            f"Error: nobody listens on {address}: start `extauthz serve`, or name its admin port by --admin or "
            "EXTAUTHZ_ADMIN (in Kubernetes after `kubectl port-forward`)\n"
        ) == run.err

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    @pytest.mark.parametrize(("token", "wanted"), [("", "a token"), ("wrong", "another token than was sent")])
    async def test_a_wrong_token(self, command: list[str], token: str, wanted: str, house: House) -> None:
        """Without the token, or with another, each command is one line that says where to put it."""
        run = await house.run(*command, environment={"EXTAUTHZ_ADMIN_TOKEN": token})

        assert (1, "", 1) == (run.code, run.out, len(run.err.splitlines()))
        assert f"wants {wanted}: put its extauthz.admin_token into EXTAUTHZ_ADMIN_TOKEN" in run.err

    async def test_a_token_in_a_file(self, house: House, tmp_path: Path) -> None:
        """The token may stand in a file, with a newline at its end; the file is what counts then."""
        file = tmp_path / "token"
        file.write_text(f"{ADMIN_TOKEN}\n", encoding="utf-8")

        run = await house.run(
            "budgets", "list", "--admin-token-file", str(file), environment={"EXTAUTHZ_ADMIN_TOKEN": "wrong"}
        )

        assert 0 == run.code

    @pytest.mark.parametrize("text", ["", "two words", "x" * 5000, "gebühr"])
    async def test_a_file_that_is_no_token(self, text: str, house: House, tmp_path: Path) -> None:
        """A file that cannot be a token is named, and not shown."""
        file = tmp_path / "token"
        file.write_text(text, encoding="utf-8")

        run = await house.run("budgets", "list", "--admin-token-file", str(file))

        assert (1, f"Error: {file} is no token: it must be one line of printable ASCII without blanks\n") == (
            run.code,
            run.err,
        )

    async def test_another_port_of_the_server(self, house: House) -> None:
        """On Envoy's port the commands say which one it is not."""
        address = f"{LOOPBACK}:{house.gate.grpc_port}"

        run = await house.run("budgets", "list", "--admin", address)

        assert 1 == run.code
        assert run.err.startswith(f"Error: {address} is no admin port of extauthz")

    async def test_a_server_that_stands_still(self) -> None:
        """Nobody waits for ever: after some seconds it is one line."""
        async with operated() as own, own.gate.process.paused():
            run = await own.run("top", "--once")

        assert (1, "") == (run.code, run.out)
        assert "did not answer within 5 s" in run.err

    async def test_the_store_is_away(self) -> None:
        """What the server says of its store is passed on."""
        async with operated("store_failure: deny") as own:
            await own.store.stop()

            async def told() -> Run | None:
                run = await own.run("budgets", "get", "team:research")
                return run if run.code else None

            run = await eventually(told, what="the store is away")

        assert run is not None
        assert "the store does not answer" in run.err
        assert 1 == len(run.err.splitlines())

    @pytest.mark.parametrize(
        ("options", "code", "says"),
        [
            pytest.param(["--admin-ca", "{ca}", "--admin-cert", "{client_cert}", "--admin-key", "{client_key}"], 0, "",
                         id="right"),
            pytest.param(["--admin-ca", "{ca}", "--admin-cert", "{client_cert}", "--admin-key", "{client_key}",
                          "--admin-server-name", "localhost"], 0, "", id="by another of its names"),
            pytest.param(["--admin-ca", "{ca}", "--admin-cert", "{client_cert}", "--admin-key", "{client_key}",
                          "--admin-server-name", "elsewhere"], 1, "is made out to another name", id="by another name"),
            pytest.param([], 1, "--admin-ca turns on", id="plain"),
            pytest.param(["--admin-ca", "{client_cert}"], 1, "no TLS with", id="another CA"),
            pytest.param(["--admin-ca", "{ca}"], 1, "", id="no certificate"),
            pytest.param(["--admin-ca", "nowhere.pem"], 1, "nowhere.pem", id="no file"),
            pytest.param(["--admin-cert", "{client_cert}"], 2, "go together", id="no key"),
        ],
    )  # fmt: skip
    async def test_tls(
        self, options: list[str], code: int, says: str, house_with_tls: tuple[House, Certificates]
    ) -> None:
        """With certificates the commands speak TLS; what is wrong is one line."""
        tls, certificates = house_with_tls

        run = await tls.run("budgets", "list", *(option.format_map(vars(certificates)) for option in options))

        assert code == run.code, run
        assert says in run.err
        if code == 1:
            assert 1 == len(run.err.splitlines())


class TestUsage:
    """Wrong calls are status 2, before anything is asked."""

    @pytest.mark.parametrize(
        "command",
        [
            pytest.param("budgets", id="no command of the group"),
            pytest.param("budgets get", id="no scope"),
            pytest.param("budgets set team:research", id="no limit"),
            pytest.param("budgets set team:research ten", id="a limit that is none"),
            pytest.param("budgets set team:research nan", id="not a number"),
            pytest.param("budgets set team:research 1e30", id="more than a budget can hold"),
            pytest.param("budgets set team:research -- -1", id="a limit below 0"),
            pytest.param("budgets grant team:research 0", id="a grant of nothing"),
            pytest.param(f"budgets grant team:research 1 --who {'w' * 65}", id="a name too long"),
            pytest.param("budgets list --used -1", id="a share below 0"),
            pytest.param("reservations list --older soon", id="an age that is none"),
            pytest.param("explain --key-env EXTAUTHZ_TEST_UNSET", id="a variable that is not set"),
            pytest.param("explain --key-sha256 a --key-alias b", id="two callers"),
            pytest.param("explain --check - --model gpt-4o", id="a check and more"),
            pytest.param("explain --body - --model gpt-4o", id="a body and a model"),
            pytest.param("explain --header nothing", id="a header that is none"),
            pytest.param("watch --decision maybe", id="no such decision"),
            pytest.param("watch --reason maybe", id="no such reason"),
            pytest.param("watch --sample 2", id="a share above 1"),
            pytest.param("top", id="a live view without a terminal"),
            pytest.param("top --once --interval 0", id="no interval"),
            pytest.param("log-level loud", id="no such level"),
            pytest.param("audit --rebuild", id="a rebuild without the store"),
            pytest.param("audit --shard 0", id="a shard without the store"),
            pytest.param("journal --after then", id="a place that is none"),
            pytest.param("budgets list --admin 9192", id="an address that is none"),
        ],
    )
    async def test_wrong_usage(self, command: str) -> None:
        """It says what is wrong, and nothing on standard output."""
        run = await typed(*command.split(), environment={"EXTAUTHZ_ADMIN": f"{LOOPBACK}:1"})

        assert (2, "") == (run.code, run.out)


async def test_a_body_that_is_too_long(house: House) -> None:
    """A body is read to a bound, and must be text."""
    long = await house.run("explain", "--body", "-", text="x" * (3 * 1024 * 1024 + 1))

    assert (2, "") == (long.code, long.out)
    assert "longer than" in long.err


async def test_as_programs(house: House) -> None:
    """As a program of its own a command prints the same, and a reader that leaves early is no failure to tell of."""
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "extauthz", "budgets", "list", "--json"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **house.environment},
    )
    out, err = await process.communicate()

    assert (0, b"") == (process.returncode, err)
    assert SCOPES == [(budget["scope"], budget["window"]) for budget in json.loads(out)]


async def test_gRPC_and_rich_are_loaded_only_where_they_are_needed() -> None:  # noqa: N802
    """Help and usage come without gRPC, rich, pydantic and redis: a slip is told at once."""
    code = "import sys, extauthz.cli; print(*{'grpc', 'rich', 'pydantic', 'redis', 'yaml'} & sys.modules.keys())"
    process = await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    out, _ = await process.communicate()

    assert out == b"\n"


async def test_json_is_protobufs_own(house: House) -> None:
    """What --json prints of a message is read back by protobuf's parser."""
    run = await house.run("explain", "--key-alias", "research-laptop", "--model", PAID, "--json")

    answer = Parse(run.out, messages.ExplainResponse())

    assert "allow" == answer.decision.decision
    assert answer.estimate.input_tokens == json.loads(run.out)["estimate"]["input_tokens"] > 0
