"""A server whose books are in shards on a Redis Cluster: it answers, settles, and an audit of all shards is clean."""

from __future__ import annotations

import json
from pathlib import Path

import grpc.aio
import pytest

from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.books import export_journal
from extauthz.config.load import load
from extauthz.config.model import Settings
from extauthz.console.exports import Format
from extauthz.errors import NoBooksError
from tests.support.books import extauthz
from tests.support.gate import a_check, an_ending
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis_cluster import Cluster
from tests.support.stack import GateProcess

pytestmark = pytest.mark.redis

ORGANIZATIONS = 6
SHARDS = 4
ROUNDS = 3
# What a request costs of 100 tokens in and 10 out.
COST_NANOUSD = 350_000

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
extauthz:
  store: {url}/0?tag=gate
  store_timeout_seconds: 5
  shard_by: organization
  shards: {shards}
  organizations: {{{organizations}}}
  teams: {{{teams}}}
  keys: [{keys}]
"""


def configured(url: str) -> str:
    """Write the configuration: each organization has a team, and each team a key; the last key has no organization."""
    numbers = range(ORGANIZATIONS)
    return CONFIG.format(
        url=url,
        shards=SHARDS,
        organizations=", ".join(f"o{number}: {{max_budget: 0.001}}" for number in numbers),
        teams=", ".join(f"t{number}: {{organization: o{number}, max_budget: 10}}" for number in numbers),
        keys=", ".join((*(f"{{key: sk-{number}, team: t{number}}}" for number in numbers), "{key: sk-alone}")),
    )


@pytest.mark.timeout(120)
async def test_a_server_with_shards(tmp_path: Path) -> None:
    """Each organization has its own budget in its own shard; all that was spent is in the books, and they are right."""
    keys = [*(f"sk-{number}" for number in range(ORGANIZATIONS)), "sk-alone"]
    async with (
        Cluster(appendonly=False) as cluster,
        GateProcess(configured(cluster.url)) as gate,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}") as channel,
    ):
        check, logs = AuthorizationStub(channel).Check, AccessLogServiceStub(channel).StreamAccessLogs
        stream = logs()
        for _ in range(ROUNDS):
            for key in keys:
                answer = await check(a_check(key=key, padding_bytes=40))
                assert 0 == answer.status.code, answer
                await stream.write(an_ending(answer, input_tokens=100, output_tokens=10))
        await eventually(lambda: nothing_open(gate), what="all are settled")
        refused = [(await check(a_check(key=key))).denied_response.status.code for key in keys]
        spent = (await gate.metrics()).spent
        audit = await extauthz("audit", "--config", gate.config, "--json")
        settings = load(gate.config, {}).settings
        files = [tmp_path / str(shard) for shard in range(SHARDS)]
        for shard, file in enumerate(files):
            await export(settings, file, shard)
        with pytest.raises(NoBooksError, match="each shard has a journal of its own: choose one with --shard"):
            await export(settings, tmp_path / "all", None)
        with pytest.raises(NoBooksError, match=f"there is no shard {SHARDS}: they are 0 to {SHARDS - 1}"):
            await export(settings, tmp_path / "none", SHARDS)
    rows = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][1:] for file in files]

    assert [429] * ORGANIZATIONS + [0] == refused
    assert {(f"org:o{number}", "lifetime"): ROUNDS * COST_NANOUSD for number in range(ORGANIZATIONS)}.items() <= (
        spent.items()
    )
    assert (0, "") == (audit.code, audit.err)
    told = json.loads(audit.out)
    assert (True, 0.0, 1, ROUNDS * len(keys)) == (
        told["ok"],
        told["drift_usd"],
        told["reservations_open"],
        told["entries_read"],
    )
    assert ROUNDS * len(keys) == sum(map(len, rows))
    assert 2 <= sum(bool(of_shard) for of_shard in rows)
    for number in range(ORGANIZATIONS):
        assert [0] * (SHARDS - 1) + [ROUNDS] == sorted(
            sum(f"org:o{number}|lifetime" in row["counters"] for row in of_shard) for of_shard in rows
        )
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert not any(secret in text for secret in ("sk-", "x" * 40))


async def export(settings: Settings, output: Path, shard: int | None) -> None:
    """Export a shard's journal."""
    await export_journal(settings, output=output, form=Format.JSONL, after=None, follow=False, shard=shard)


async def nothing_open(gate: GateProcess) -> bool:
    """Tell whether all reservations have ended."""
    return (await gate.metrics()).open == 0
