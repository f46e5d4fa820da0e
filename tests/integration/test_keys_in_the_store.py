"""Keys and payers in the store: commands as they are typed, against running servers that Envoy asks."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio import create_subprocess_exec
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
from extauthz._proto.extauthz.diagnostics.v1.directory_pb2_grpc import DirectoryStub
from extauthz.config.payers import hashed
from extauthz.server import ADMIN_SERVICES
from tests.support.books import Run, tagged
from tests.support.gate import a_check
from tests.support.operators import ADMIN_TOKEN, CONFIG, COST_USD, House, operated, typed
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.redis import CACHE, RedisServer
from tests.support.stack import GateProcess

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

GRPCURL = shutil.which("grpcurl", path=CACHE / "grpcurl") or shutil.which("grpcurl")
COMMAND_SECONDS_MAX = 30.0

# A change is in force by then.
IN_FORCE_SECONDS = 5.0

STORE = "directory: store"
CONFIG_OF_ONE = """\
model_list: []
extauthz:
  store: {store}
  admin_token: the-operators-own-token
  drain_seconds: 0
  directory: store
"""

COMMANDS = [
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "show", "a"],
    ["keys", "rotate", "a"],
    ["keys", "update", "a", "max_budget=1"],
    ["keys", "block", "a"],
    ["keys", "unblock", "a"],
    ["keys", "revoke", "a"],
    ["payers", "put", "team:a"],
    ["payers", "show", "team:a"],
    ["payers", "list"],
    ["payers", "delete", "team:a"],
    ["payers", "export"],
    ["payers", "log"],
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Serve with keys in the store."""
    async with operated(STORE) as running:
        yield running


@asynccontextmanager
async def another(house: House) -> AsyncIterator[House]:
    """Serve once more on the same store."""
    async with GateProcess(CONFIG.format(store=tagged(house.store.url)) + f"  {STORE}\n") as gate:
        yield replace(house, gate=gate)


async def created(house: House, *fields: str) -> str:
    """Make a key, and give it."""
    run = await house.run("keys", "create", *fields)
    assert 0 == run.code, run
    return run.out.strip()


async def status(house: House, key: str) -> int:
    """Tell what a client with a key gets."""
    answer = await house.check(a_check(key=key))
    return int(answer.denied_response.status.code) or 200


async def in_force(house: House, key: str, expected: int) -> None:
    """Wait until a client with a key gets this."""

    async def got() -> bool:
        return expected == await status(house, key)

    await eventually(got, IN_FORCE_SECONDS, f"a client gets {expected}")


def refused(run: Run, *words: str) -> bool:
    """Tell whether a command failed with one line that has these words."""
    return (1, "") == (run.code, run.out) and all(word in run.err for word in words) and 1 == run.err.count("\n")


class TestKeys:
    """`extauthz keys`."""

    async def test_a_life(self, house: House) -> None:
        """A key works when it was created, and not while it is blocked, nor after it was revoked, each within 5 s."""
        key = await created(house, "team=research", "key_alias=life")
        await in_force(house, key, 200)
        for command, expected in (("block", 401), ("unblock", 200), ("revoke", 401)):
            assert 0 == (await house.run("keys", command, "life")).code
            await in_force(house, key, expected)

    async def test_a_key_alone(self, house: House) -> None:
        """Only the key is on standard output, so that a script can keep it; what people should know is beside it."""
        run = await house.run("keys", "create", "key_alias=alone")

        assert run.out.startswith("sk-")
        assert 46 == len(run.out.strip())
        assert f"key:{hashed(run.out.strip())[:8]}… (alone): it is shown this once" in run.err

    async def test_json(self, house: House) -> None:
        """Scripts get the key, and what is kept of it; whole numbers are whole."""
        made = await house.json("keys", "create", "team=research", "max_budget=2", "max_tokens=1000")
        shown = await house.json("keys", "show", made["payer"]["scope"])

        assert made["payer"]["scope"] == f"key:{hashed(made['api_key'])}"
        assert {"team": "research", "max_budget": 2, "max_tokens": 1000} == shown["fields"]
        assert ("active", False, None) == (shown["status"], shown["replaced"], made["replaced"])

    async def test_once(self, house: House) -> None:
        """A creation that is sent twice makes one key; the second time there is none to print, and the status is 1."""
        first = await house.run("keys", "create", "--change-id", "once")
        second = await house.run("keys", "create", "--change-id", "once")

        assert (0, 1, "") == (first.code, second.code, second.out)
        assert "was made before" in second.err

    async def test_a_budget(self, house: House) -> None:
        """A key's budget binds, and is in force within 5 s after it was changed."""
        key = await created(house, "key_alias=poor", "max_budget=0")
        await in_force(house, key, 429)
        assert 0 == (await house.run("keys", "update", "poor", "max_budget=5")).code
        await in_force(house, key, 200)

    async def test_rotation_keeps_the_budget(self, house: House) -> None:
        """A rotated key goes on with what the old one spent, which still works for its grace period."""
        old = await created(house, "key_alias=spent", f"max_budget={COST_USD}")
        await house.end(await house.check(a_check(key=old)))
        await in_force(house, old, 429)

        rotated = await house.json("keys", "rotate", "spent", "--grace", "1h")
        answer = await house.check(a_check(key=rotated["api_key"]))
        assert "budget_exceeded" in answer.denied_response.body
        (budget,) = await house.json("budgets", "get", rotated["payer"]["scope"])
        assert (f"key:{hashed(old)}", COST_USD) == (budget["scope"], budget["spent_usd"])
        assert 429 == (await house.json("explain", "--key-alias", "spent", "--model", "gpt-4o"))["decision"]["status"]
        assert 0 == (await house.run("keys", "update", "spent", "max_budget=5")).code
        await in_force(house, rotated["api_key"], 200)
        assert 429 == await status(house, old)
        assert "expires" in (await house.json("keys", "show", hashed(old)))["fields"]

    async def test_rotation_without_grace(self, house: House) -> None:
        """Without a grace period the old key is unknown at once."""
        old = await created(house, "key_alias=at-once")
        await in_force(house, old, 200)
        new = (await house.json("keys", "rotate", "at-once", "--grace", "0"))["api_key"]

        await in_force(house, old, 401)
        assert 200 == await status(house, new)

    async def test_named_by_itself(self, house: House) -> None:
        """A key is named by the variable that has it, and hashed before it is sent; written out it is refused."""
        key = await created(house, "key_alias=itself")
        run = await house.run("keys", "show", "os.environ/MINE", environment={"MINE": key})

        assert (0, "") == (run.code, run.err)
        assert hashed(key) in run.out
        assert refused(await house.run("keys", "show", key), "keep it secret")
        assert 2 == (await house.run("keys", "show", "os.environ/NOT_SET")).code

    async def test_list(self, house: House) -> None:
        """Keys are listed, all or those of somebody; a list that is cut off says so."""
        await created(house, "team=several", "user=", "key_alias=listed-1")
        await created(house, "team=several", "key_alias=listed-2")
        keys = await house.json("keys", "list", "--team", "several")
        table = await house.run("keys", "list", "--team", "several")
        short = await house.run("keys", "list", "--limit", "1")

        assert {"listed-1", "listed-2"} == {key["fields"]["key_alias"] for key in keys}
        assert all(alias in table.out for alias in ("listed-1", "listed-2", "several", "active"))
        assert "a higher --limit shows more" in short.err

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (["tea=research"], ["did you mean `team`?"]),
            (["team=reserch"], ["team:reserch is named, whom nobody knows"]),
            (["max_budget=-1"], ["max_budget"]),
            (["key=sk-mine"], ["`key` is no field here"]),
        ],
    )
    async def test_mistakes(self, house: House, fields: list[str], words: list[str]) -> None:
        """What is wrong with fields is told in a line, and makes no key."""
        assert refused(await house.run("keys", "create", *fields), *words)

    @pytest.mark.parametrize("arguments", [["max_budget"], ["=1"], ["a=1", "a=2"], ["models=[a"]])
    async def test_wrong_usage(self, house: House, arguments: list[str]) -> None:
        """Fields that are none are a wrong usage."""
        assert 2 == (await house.run("keys", "create", *arguments)).code

    async def test_explain(self, house: House) -> None:
        """A key is found by its alias for an explanation, also one that no request had yet."""
        await created(house, "team=research", "key_alias=explained", "max_budget=0")
        told = await house.json("explain", "--key-alias", "explained", "--model", "gpt-4o")

        assert (429, "explained") == (told["decision"]["status"], told["principal"])
        assert refused(
            await house.run("explain", "--key-alias", "nobody", "--model", "gpt-4o"), "no key with this alias"
        )

    async def test_an_alias_of_another(self, house: House) -> None:
        """Two keys cannot have one alias."""
        await created(house, "key_alias=taken")

        assert refused(await house.run("keys", "create", "key_alias=taken"), "another key has the alias `taken`")


class TestPayers:
    """`extauthz payers`."""

    async def test_a_team(self, house: House) -> None:
        """A team in the store pays for its keys, and what is changed about it is in force within 5 s."""
        await house.json("payers", "put", "team:store", "max_budget=0", "models=[gpt-4o]")
        key = await created(house, "team=store")
        await in_force(house, key, 429)
        done = await house.json("payers", "put", "team:store", "max_budget=5", "budget_duration=1d")
        await in_force(house, key, 200)
        budgets = await house.json("budgets", "get", "team:store")

        assert {"max_budget": 0, "models": ["gpt-4o"]} == done["before"]["fields"]
        assert {"max_budget": 5, "budget_duration": "1d"} == done["after"]["fields"]
        assert [5.0] == [budget["limit_usd"] for budget in budgets]

    async def test_delete(self, house: House) -> None:
        """A payer that was deleted is not there."""
        await house.json("payers", "put", "org:gone")
        done = await house.json("payers", "delete", "org:gone")

        assert (None, True) == (done["after"], done["changed"])
        assert refused(await house.run("payers", "show", "org:gone"), "org:gone is not in the store")

    async def test_list(self, house: House) -> None:
        """Payers are listed, all but keys or those of a kind."""
        await house.json("payers", "put", "user:ana")
        await house.json("payers", "put", "member:research/ana", "max_budget=3")
        every, members = await house.json("payers", "list"), await house.json("payers", "list", "member")

        assert {"user:ana", "member:research/ana"} <= {payer["scope"] for payer in every}
        assert not [payer for payer in every if payer["scope"].startswith("key:")]
        assert ["member:research/ana"] == [payer["scope"] for payer in members]
        assert refused(await house.run("payers", "list", "teams"), "'teams' is not a kind of payer")

    @pytest.mark.parametrize("scope", ["global", "anonymous", "key:abc", "reserch"])
    async def test_no_payer(self, house: House, scope: str) -> None:
        """What can have no record in the store cannot be put there."""
        assert refused(await house.run("payers", "put", scope))

    async def test_log(self, house: House) -> None:
        """The log says who did what to which key, by the beginning of its hash and its alias."""
        key = await created(house, "key_alias=logged", "--who", "ana")
        await house.run("keys", "block", "logged", "--who", "bo", "--change-id", "b1")
        block, create = (await house.json("payers", "log"))[:2]
        table = await house.run("payers", "log", "--limit", "1")

        assert ("block", "bo", "b1") == (block["what"], block["who"], block["change_id"])
        assert ("create", "ana", f"key:{hashed(key)[:8]} (logged)") == (create["what"], create["who"], create["payers"])
        assert [f"key:{hashed(key)}"] == create["scopes"]
        assert "block" in table.out
        assert "create" not in table.out


class TestImport:
    """`extauthz payers import`."""

    async def test_a_configuration(self, house: House, tmp_path: Path) -> None:
        """All payers of a configuration come into the store, whatever else it says; its keys work."""
        file = tmp_path / "config.yaml"
        file.write_text(
            """
model_list: [{model_name: a, litellm_params: {model: b}}]
extauthz:
  admin_token: secret
  teams:
    loaded: {organization: loaded, max_budget: 0.5, members: {loaded: {max_budget: 0.25}}}
  users: {loaded: }
  organizations: {loaded: {max_budget: 1, budget_duration: 1mo}}
  keys:
    - {key: os.environ/LOADED, team: loaded, user: loaded, key_alias: loaded}
    - key_sha256: 5E884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8
      budget_limits: [{max_budget: 1.5, budget_duration: 1d}]
""",
            encoding="utf-8",
        )
        run = await house.run("payers", "import", str(file), "--json", environment={"LOADED": "sk-loaded-7Yh3"})

        assert (0, "") == (run.code, run.err)
        assert 6 == json.loads(run.out)["payers"]
        await in_force(house, "sk-loaded-7Yh3", 200)
        team, key = (
            await house.json("payers", "show", "team:loaded"),
            await house.json("keys", "show", hashed("password")),
        )
        assert {"organization": "loaded", "max_budget": 0.5} == team["fields"]
        assert {"budget_limits": [{"max_budget": 1.5, "budget_duration": "1d"}]} == key["fields"]
        assert 0.25 == (await house.json("payers", "show", "member:loaded/loaded"))["fields"]["max_budget"]

    async def test_many_keys(self, house: House, tmp_path: Path) -> None:
        """A list of keys goes in steps, and goes on where it broke off."""
        file = tmp_path / "keys.yaml"
        lines = [f"- {{key_sha256: {hashed(f'sk-many-{number}')}, team: research}}\n" for number in range(600)]
        file.write_text("".join([*lines, "- {key: sk-last, tea: research}\n"]), encoding="utf-8")
        broken = await house.run("payers", "import", str(file), "--change-id", "many")
        file.write_text("".join([*lines, "- {key: sk-last, team: research}\n"]), encoding="utf-8")
        whole = await house.run("payers", "import", str(file), "--change-id", "many")

        assert refused(broken, "lines 501 to 601", "nothing is written", "did you mean `team`?", "500 were before")
        assert (0, "601 payers are in the store\n") == (whole.code, whole.out)
        await in_force(house, "sk-last", 200)

    async def test_export(self, tmp_path: Path) -> None:
        """What was exported and imported elsewhere is exported alike, and no key is in it."""
        file = tmp_path / "payers.yaml"
        async with operated(STORE) as own:
            await own.json("payers", "put", "org:acme", "max_budget=0.1")
            await own.json("payers", "put", "user:ana b")
            await own.json("payers", "put", "team:a%2Fb", "organization=acme")
            await own.json("payers", "put", "member:a%2Fb/ana%20b", "max_budget=1")
            key = await created(own, "team=a/b", "user=ana b", "key_alias=moved")
            whole = await own.run("payers", "export", "--output", str(file))
        async with operated(STORE) as other:
            imported = await other.run("payers", "import", str(file))
            again = await other.run("payers", "export")
            await in_force(other, key, 200)

        assert (0, "", "5 payers are written\n") == (whole.code, whole.out, whole.err)
        assert (0, "5 payers are in the store\n") == (imported.code, imported.out)
        assert file.read_text(encoding="utf-8") == again.out
        assert key not in again.out

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("- {key_sha256: abc}", ["64 hex digits"]),
            ("- {team: research}", ["keys.yaml:1", "write one of key"]),
            ("- {scope: reserch}", ["keys.yaml:1", "this is not a scope"]),
            ("- [", ["this is not YAML"]),
            ("- {key: os.environ/NOT_SET}", ["NOT_SET is not set"]),
            ("teams: {a: 5}", ["a payer is a mapping"]),
        ],
    )
    async def test_mistakes(self, house: House, tmp_path: Path, text: str, words: list[str]) -> None:
        """A mistake in a file is told with its place, and nothing behind it is written."""
        file = tmp_path / "keys.yaml"
        file.write_text(text, encoding="utf-8")

        assert refused(await house.run("payers", "import", str(file)), *words)


class TestReplicas:
    """Several servers on one store."""

    async def test_what_one_does_the_other_knows(self, house: House) -> None:
        """A key that was made at one replica works at another, and one that was revoked there at none, within 5 s."""
        async with another(house) as second:
            key = await created(house, "team=research", "key_alias=shared")
            await in_force(second, key, 200)
            await in_force(house, key, 200)
            assert 0 == (await second.run("keys", "revoke", "shared")).code
            await in_force(house, key, 401)
            await in_force(second, key, 401)

    async def test_a_replica_dies(self, house: House) -> None:
        """What a replica acknowledged is there when it was killed right after."""
        async with another(house) as second:
            key = await created(second, "team=research", "key_alias=outlives")
            second.gate.process.kill()
            await second.gate.process.wait()

        await in_force(house, key, 200)
        assert "outlives" == (await house.json("keys", "show", hashed(key)))["fields"]["key_alias"]

    async def test_nothing_is_in_the_logs(self) -> None:
        """No key that was made, sent or imported is in what a server writes, only the beginnings of their hashes."""
        async with operated(STORE, "log: {level: debug, allowed_share: 1}") as own:
            key = await created(own, "team=research", "key_alias=quiet")
            await in_force(own, key, 200)
            rotated = (await own.json("keys", "rotate", "quiet"))["api_key"]
            await in_force(own, rotated, 200)
            await own.run("keys", "show", key)
            await own.run("keys", "revoke", "quiet")
            await in_force(own, rotated, 401)
            output = own.gate.process.output

        assert "directory_rotate" in output
        assert hashed(key)[:8] in output
        assert "sk-" not in output
        assert key[3:] not in output
        assert rotated[3:] not in output


async def test_without_a_directory() -> None:
    """Where no keys are in the store, every command says what to do about it."""
    async with operated() as own:
        runs = [await own.run(*command) for command in COMMANDS]

    assert all(refused(run, "write `directory: store`") for run in runs), runs


async def test_in_memory() -> None:
    """With the memory store, keys are kept as long as the server runs."""
    config = CONFIG.format(store="memory") + f"  {STORE}\n"
    async with GateProcess(config) as gate:
        environment = {"EXTAUTHZ_ADMIN": f"{LOOPBACK}:{gate.admin_port}", "EXTAUTHZ_ADMIN_TOKEN": ADMIN_TOKEN}
        made = await typed("keys", "create", "team=research", environment=environment)
        listed = await typed("keys", "list", "--json", environment=environment)

    assert 0 == made.code
    assert [f"key:{hashed(made.out.strip())}"] == [key["scope"] for key in json.loads(listed.out)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_nobody_there(command: list[str]) -> None:
    """Each command says in one line that nobody listens."""
    run = await typed(*command, environment={"EXTAUTHZ_ADMIN": f"{LOOPBACK}:{free_port()}"})

    assert refused(run, "nobody listens on")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_without_the_token(house: House, command: list[str]) -> None:
    """Nobody changes or sees keys without the operators' token."""
    run = await house.run(*command, environment={"EXTAUTHZ_ADMIN_TOKEN": "another"})

    assert refused(run, "wants another token")


@asynccontextmanager
async def directory_of(gate: GateProcess) -> AsyncIterator[Any]:
    """Call the service as programs do."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.admin_port}") as channel:
        yield DirectoryStub(channel)


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """Give the status that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_statuses() -> None:
    """Programs tell by the status of a call what was wrong with it."""
    async with RedisServer(appendonly=False) as redis:
        config = CONFIG_OF_ONE.format(store=redis.url)
        async with GateProcess(config) as gate, directory_of(gate) as directory:
            metadata = (("authorization", f"Bearer {ADMIN_TOKEN}"),)

            async def code(method: str, request: Message, **more: Any) -> grpc.StatusCode:  # noqa: ANN401 - of grpc
                return await code_of(getattr(directory, method)(request, timeout=10, **{"metadata": metadata, **more}))

            codes = [
                await code("CreateKey", pb.CreateKeyRequest(), metadata=()),
                await code("CreateKey", pb.CreateKeyRequest(who="a" * 65)),
                await code("CreateKey", pb.CreateKeyRequest(change_id="a b")),
                await code("GetKey", pb.GetKeyRequest(key="nobody")),
                await code("GetPayer", pb.GetPayerRequest(scope="team:nobody")),
                await code("PutPayer", pb.PutPayerRequest(scope="member:nobody/ana")),
                await code("ListKeys", pb.ListKeysRequest(page_size=1001)),
                await code("ListPayers", pb.ListPayersRequest(page_token="none of ours")),
                await code("ImportPayers", pb.ImportPayersRequest(payers=["[]"])),
                await code("ImportPayers", pb.ImportPayersRequest(payers=['{"scope": "team:a"}'])),
            ]
            await redis.kill()
            away = await code("GetKey", pb.GetKeyRequest(key="nobody"))
    async with (
        GateProcess(CONFIG_OF_ONE.format(store="memory").replace("directory: store", "")) as gate,
        directory_of(gate) as directory,
    ):
        elsewhere = await code_of(directory.ListChanges(pb.ListChangesRequest(), timeout=10, metadata=metadata))

    refused_codes = {
        grpc.StatusCode.UNAUTHENTICATED: 1,
        grpc.StatusCode.INVALID_ARGUMENT: 5,
        grpc.StatusCode.NOT_FOUND: 2,
        grpc.StatusCode.FAILED_PRECONDITION: 1,
        grpc.StatusCode.OK: 1,
    }
    assert refused_codes == Counter(codes)
    assert (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION) == (away, elsewhere)


@pytest.mark.skipif(GRPCURL is None, reason="no grpcurl: `make setup` builds it where there is a Go")
async def test_grpcurl(house: House) -> None:
    """Without any file of ours a key is made, found and revoked by grpcurl."""
    service = ADMIN_SERVICES[1]
    made = await _grpcurl(house, f"{service}/CreateKey", {"fields": {"team": "research", "max_budget": 2.5}})
    sha256 = hashed(made["api_key"])
    shown = await _grpcurl(house, f"{service}/GetKey", {"key": sha256})
    gone = await _grpcurl(house, f"{service}/RevokeKey", {"key": sha256})

    assert {"team": "research", "max_budget": 2.5} == shown["payer"]["fields"]
    assert f"key:{sha256}" == gone["before"]["scope"]


async def _grpcurl(house: House, method: str, request: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
    assert GRPCURL is not None
    process = await create_subprocess_exec(
        *(GRPCURL, "-plaintext", "-H", f"authorization: Bearer {ADMIN_TOKEN}", "-d", json.dumps(request)),
        *(f"{LOOPBACK}:{house.gate.admin_port}", method),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        out, err = await process.communicate()
    assert 0 == process.returncode, err.decode()
    return json.loads(out)
