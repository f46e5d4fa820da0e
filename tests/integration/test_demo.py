"""`extauthz demo` as a person starts it: every line as expected, and a loud end when something is not."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.envoy import NEWEST_ENVOY
from tests.support.processes import Process, eventually, listening

pytestmark = pytest.mark.envoy

PLAY_SECONDS_MAX = 90.0

ENVOY_VARIABLE = "EXTAUTHZ_DEMO_ENVOY"


def demo(*arguments: str, envoy: Path = NEWEST_ENVOY.program) -> Process:
    """Make the process of a demo, with an Envoy of our choice."""
    return Process(sys.executable, "-m", "extauthz", "demo", *arguments, environment={ENVOY_VARIABLE: os.fspath(envoy)})


def marks(output: str) -> list[str]:
    """Give the mark of every line of the story."""
    return re.findall(r"^(ok|NO) ", output, re.MULTILINE)


def children(pid: int) -> list[str]:
    """Give the ids of a process's children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()


def running(pids: list[str]) -> list[str]:
    """Give those of the processes that still run."""
    return [pid for pid in pids if Path("/proc", pid).exists()]


async def curl(line: str) -> str:
    """Do what a line says that the demo offers to copy."""
    async with Process(*shlex.split(line)) as process:
        await process.wait()
        return process.output


async def test_every_line_is_as_expected_and_keep_leaves_it_running() -> None:
    """The whole story reads as expected; --keep offers commands that work, and SIGTERM ends everything with exit 0."""
    async with demo("--keep") as process:
        await process.wait_for_line("the configuration", PLAY_SECONDS_MAX)
        commands = dict(re.findall(r"^# (.*)\n(.*)$", process.output, re.MULTILINE))
        port = int(re.findall(r"http://127.0.0.1:(\d+)/v1/models", process.output)[0])

        assert ["ok"] * 30 == marks(process.output)
        assert "All 30 lines as expected" in process.output
        assert await listening(port)
        assert '"data":[{"id":"local-llama"' in await curl(commands["the model list of a team whose budget is spent"])
        assert "429 Too Many Requests" in await curl(commands["its paid chat"])
        assert "data: [DONE]" in await curl(commands["a stream of the team that has money"])
        process.terminate()
        await process.wait()

    assert 0 == process.returncode
    assert not await listening(port)


async def test_a_difference_ends_in_exit_1_and_shows_the_logs(tmp_path: Path) -> None:
    """With a meter that loses the output tokens the books differ: those lines say so, and the exit status is 1."""
    envoy = tmp_path / "envoy"
    envoy.write_text(
        f"""#!/bin/sh
        sed -i 's/"output_tokens"/"lost_tokens"/' "$2"
        exec {shlex.quote(os.fspath(NEWEST_ENVOY.program))} "$@"
        """,
        encoding="utf-8",
    )
    envoy.chmod(0o755)

    async with demo(envoy=envoy) as process:
        await process.wait(PLAY_SECONDS_MAX)

    assert 1 == process.returncode
    assert re.search(r"^NO the books .*spent \$0\.00099, held \$0\.0 ", process.output, re.MULTILINE)
    assert 30 == len(marks(process.output))
    assert re.search(r"^\d+ of 30 lines differ\.", process.output, re.MULTILINE)
    assert "log of extauthz-free_only" in process.output


@pytest.mark.parametrize(
    ("envoy", "message"),
    [
        pytest.param(Path("/bin/false"), "envoy-blocked ended at its start with code 1", id="ends at once"),
        pytest.param(Path("/no/envoy"), "envoy-blocked cannot be started", id="is not there"),
    ],
)
async def test_an_envoy_that_does_not_start_ends_in_exit_1(envoy: Path, message: str) -> None:
    """Without Envoy there is no story: one sentence says why, and the exit status is 1."""
    async with demo(envoy=envoy) as process:
        await process.wait(PLAY_SECONDS_MAX)

    assert 1 == process.returncode
    assert message in process.output
    assert not marks(process.output)


async def test_stopping_it_early_ends_all_its_processes() -> None:
    """SIGTERM before the end is exit 1, and none of the seven processes stays behind."""
    async with demo() as process:
        await eventually(lambda: len(children(process.pid)) == 7, PLAY_SECONDS_MAX, "seven processes run")
        started = children(process.pid)
        process.terminate()
        await process.wait()

    assert 1 == process.returncode
    assert "Stopped before the end." in process.output
    assert not running(started)
