"""The configuration follows its files: what is taken, what is refused, and what nobody keeps afterwards."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from extauthz.config.origin import Origin
from extauthz.config.snapshot import Configuration, Snapshot
from extauthz.domain.address import Address
from extauthz.reload import MISTAKES_TOLD_MAX, Reloader, ReloadStatus
from tests.support.configmap import ConfigMap
from tests.support.processes import LOOPBACK, eventually
from tests.support.witness import Witness

CONFIG = """
model_list: [{model_name: gpt, litellm_params: {model: openai/gpt-4o}}]
extauthz:
  token: os.environ/TOKEN
  teams: {research: {max_budget: 10}}
"""
HIDING = f"{CONFIG}  hide_amounts: true\n"
BROKEN = f"{CONFIG}  hide_amounts: perhaps\n"


@dataclass(slots=True)
class Environment(Mapping[str, str]):
    """An environment in which reading a configuration stops for `asked`, in whatever thread it is read."""

    asked: Callable[[], object] = bool
    variables: Mapping[str, str] = field(default_factory=lambda: {"TOKEN": "t"})

    def __getitem__(self, name: str) -> str:
        self.asked()
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


class House:
    """A configuration file in a folder, and who follows it. Its clock is in the test's hand."""

    def __init__(self, folder: Path, text: str = CONFIG) -> None:
        self.path = folder / "config.yaml"
        self.path.parent.mkdir(exist_ok=True)
        self.environment = Environment()
        self.now_ms = 1_000
        self.write(text)
        self._origin = Origin(self.path, self.environment, http=Address(LOOPBACK, 1))
        self.configuration = Configuration(self._origin.load())
        self.witness = Witness()
        self.reloader = Reloader(self._origin, self.configuration, self.witness, lambda: self.now_ms)

    def write(self, text: str) -> None:
        """Replace the file in one step."""
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(self.path)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow the file inside the block."""

        async def follow() -> None:
            while True:
                await self.reloader.follow()

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.reloader.close()

    async def heard(self, *reloads: str) -> None:
        """Wait until this was told last."""
        try:
            await eventually(lambda: self.witness.reloads[-len(reloads) :] == [*reloads])
        except AssertionError:
            assert [*reloads] == self.witness.reloads


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Give a configuration that can be followed."""
    return House(tmp_path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files often, whether or not something tells of a change."""
    monkeypatch.setattr("extauthz.reload.POLL_S", 0.05)


@pytest.fixture
def unwatchable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a kernel that watches nothing."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.main.RustNotify", refuse)


async def test_a_new_configuration_is_in_force(house: House) -> None:
    """It is put in force whole, its changed sections are named, and the status tells since when."""
    before = house.configuration()
    async with house.followed():
        house.now_ms = 2_000
        house.write(HIDING.replace("10", "20"))
        await house.heard("loaded extauthz.teams, extauthz.hide_amounts")

    after = house.configuration()
    assert (False, True) == (before.settings.hide_amounts, after.settings.hide_amounts)
    assert Address(LOOPBACK, 1) == after.settings.listen.http  # what the command line says stays said
    assert ReloadStatus(2_000, after.digest) == house.reloader.status
    assert before.digest != after.digest


async def test_a_swapped_configmap_is_followed_again_and_again(tmp_path: Path) -> None:
    """Each swap leaves other folders to be watched: the second is seen as the first was."""
    volume = ConfigMap(tmp_path / "volume", {"config.yaml": CONFIG})
    origin = Origin(volume.path("config.yaml"), {"TOKEN": "t"})
    house = House(tmp_path / "unused")
    house.configuration = Configuration(origin.load())
    house.reloader = Reloader(origin, house.configuration, house.witness, lambda: 0)
    async with house.followed():
        for count in range(1, 4):
            volume.update({"config.yaml": f"{CONFIG}  lease_seconds: {count}\n"})
            await house.heard(*["loaded extauthz.lease_seconds"] * count)

    assert 3 == house.configuration().settings.lease_seconds


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        pytest.param(BROKEN, "6: extauthz.hide_amounts: write true or false", id="a mistake"),
        pytest.param(
            CONFIG[:-20],
            "6: this is not YAML: did not find expected ',' or '}'; check the indentation and the quotes around it",
            id="half of it",
        ),
        pytest.param("", "1: the file is empty: a running server takes it for one not written yet", id="nothing yet"),
        pytest.param(
            "extauthz: {listen: {grpc: '0.0.0.0:1'}}",
            "1: extauthz.listen: grpc at 0.0.0.0:1 would let anybody in who reaches it: set token or tls.client_ca, "
            "listen on 127.0.0.1, or write insecure_grpc: true where the mesh proves who calls",
            id="an open door",
        ),
    ],
)
async def test_what_is_wrong_changes_nothing(house: House, text: str, mistake: str) -> None:
    """The configuration stays, the status says why, and what is right again is taken again."""
    before = house.configuration()
    refused = f"{house.path}:{mistake}"
    async with house.followed():
        house.write(text)
        await house.heard(f"refused {refused}")
        assert ReloadStatus(1_000, before.digest, refused) == house.reloader.status
        assert before is house.configuration()

        house.write(CONFIG)
        await house.heard("unchanged")
        assert ReloadStatus(1_000, before.digest) == house.reloader.status
        assert before is house.configuration()

        house.write(HIDING)
        await house.heard("loaded extauthz.hide_amounts")


async def test_a_file_that_is_gone_changes_nothing(house: House) -> None:
    """It may be on its way: nobody is let in or refused for it."""
    before = house.configuration()
    async with house.followed():
        house.path.unlink()
        await eventually(lambda: "No such file" in str(house.reloader.status.refused), what="it is missed")
        assert before is house.configuration()

        house.write(HIDING)
        await house.heard("loaded extauthz.hide_amounts")


async def test_a_keys_file_that_comes_later_is_taken(house: House) -> None:
    """A configuration may name a keys file before it is mounted: it is refused until then, and needs no other word."""
    async with house.followed():
        house.write(f"{CONFIG}  keys_file: keys.yaml\n")
        await eventually(lambda: "keys.yaml:1" in str(house.reloader.status.refused), what="the file is missed")

        (house.path.parent / "keys.yaml").write_text("[]", encoding="utf-8")
        await house.heard("loaded extauthz.keys_file")


async def test_the_file_of_litellm_is_followed(house: House) -> None:
    """LiteLLM's file is watched like the configuration that names it, and a change is told by its section."""
    theirs = house.path.parent / "litellm.yaml"
    models, _, own = CONFIG.partition("extauthz:")
    theirs.write_text(models, encoding="utf-8")
    async with house.followed():
        house.write(f"extauthz:{own}  litellm_file: litellm.yaml\n")
        await house.heard("loaded extauthz.litellm_file")

        theirs.write_text(f"{models}litellm_settings: {{max_budget: 3}}", encoding="utf-8")
        await house.heard("loaded litellm_settings")


async def test_not_every_mistake_is_told(house: House) -> None:
    """The status and the log have room for some; the rest is counted."""
    async with house.followed():
        house.write("".join(f"extauthz{n}: {{}}\n" for n in range(MISTAKES_TOLD_MAX + 3)))
        await eventually(lambda: house.reloader.status.refused, what="it is refused")

    lines = str(house.reloader.status.refused).splitlines()
    assert (MISTAKES_TOLD_MAX + 1, "and 3 more mistakes") == (len(lines), lines[-1])


async def test_what_waits_for_a_restart_is_named_and_stays(house: House) -> None:
    """Its new value is in nothing that a request or a later reload sees; the rest of the file is in force."""
    store = house.configuration().settings.store
    async with house.followed():
        house.write(f"{HIDING}  store: redis://{LOOPBACK}:1\n  listen: {{grpc: {LOOPBACK}:7}}\n")
        await house.heard(
            "loaded extauthz.hide_amounts, extauthz.store, extauthz.listen; waiting listen, store",
        )
        settings = house.configuration().settings
        assert (True, store, 9191) == (settings.hide_amounts, settings.store, settings.listen.grpc.port)

        house.write(CONFIG)
        await house.heard("loaded extauthz.hide_amounts, extauthz.store, extauthz.listen")


async def test_no_global_budget_while_the_books_are_in_shards(tmp_path: Path) -> None:
    """The end of shard_by waits for a restart, and so must a budget that shards cannot keep."""
    sharded = f"{CONFIG}  store: redis://{LOOPBACK}:1\n"
    house = House(tmp_path, f"{sharded}  shard_by: organization\n")
    async with house.followed():
        house.write(f"{sharded}  global: {{max_budget: 5}}\n")
        await house.heard(
            f"refused {house.path}:1: a global budget needs the end of shard_by, which waits for a restart"
        )
        house.write(sharded)
        await house.heard("loaded extauthz.shard_by; waiting shard_by")


async def test_it_is_looked_at_when_asked(house: House) -> None:
    """SIGHUP: nothing new is said to be nothing new, and what is wrong is said again to be wrong."""
    async with house.followed():
        house.reloader.wake()
        await house.heard("unchanged")
        house.write(BROKEN)
        refused = f"refused {house.path}:6: extauthz.hide_amounts: write true or false"
        await house.heard(refused)
        house.reloader.wake()
        await house.heard(refused, refused)


async def test_what_cannot_be_watched_is_looked_at(house: House, hasty: None, unwatchable: None) -> None:
    """Without inotify a change is found a little later, the reason is told once, and idle looks are not counted."""
    async with house.followed():
        await house.heard("unwatched OS file watch limit reached")
        house.write(HIDING)
        await house.heard("loaded extauthz.hide_amounts")
        house.write(CONFIG)
        await house.heard("loaded extauthz.hide_amounts")

    assert 1 == len([told for told in house.witness.reloads if told.startswith("unwatched")])
    assert "unchanged" not in house.witness.reloads


async def test_a_folder_that_was_replaced_is_found(tmp_path: Path, hasty: None) -> None:
    """A watch stays with the folder that was moved away; a look finds its successor, and the next change is seen."""
    house = House(tmp_path / "etc")
    async with house.followed():
        await eventually(lambda: house.reloader._entries, what="the folder is watched")
        (tmp_path / "etc").rename(tmp_path / "old")
        (tmp_path / "etc").mkdir()
        house.write(HIDING)
        await house.heard("loaded extauthz.hide_amounts")
        house.write(CONFIG)
        await eventually(lambda: not house.configuration().settings.hide_amounts, what="the next change is seen")


async def test_it_is_read_in_a_thread(house: House) -> None:
    """Parsing thousands of keys must not keep the event loop, nor the interpreter, from Checks."""
    seen: list[tuple[str, bool, bool]] = []
    interval_s = sys.getswitchinterval()

    def look() -> None:
        seen.append((threading.current_thread().name, gc.isenabled(), sys.getswitchinterval() < interval_s))

    async with house.followed():
        house.environment.asked = look
        house.write(HIDING)
        await house.heard("loaded extauthz.hide_amounts")

    assert {("reload_0", False, True)} == set(seen)
    assert (True, interval_s) == (gc.isenabled(), sys.getswitchinterval())


async def test_files_that_hang_are_waited_for_aside(house: House, hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer stops nothing, is told of, and is taken when it answers."""
    monkeypatch.setattr("extauthz.reload.LOOK_S_MAX", 0.05)
    answers = threading.Event()
    house.environment.asked = partial(answers.wait, 10)
    async with house.followed():
        house.write(HIDING)
        await eventually(lambda: len(house.witness.failures) > 1, what="it is told of")
        assert {"reload"} == {where for where, _ in house.witness.failures}
        assert not house.configuration().settings.hide_amounts

        answers.set()
        await house.heard("loaded extauthz.hide_amounts")


async def test_a_failure_of_ours_is_refused_once(house: House) -> None:
    """What we did not think of is told without a word of the file, and not tried until the file changes."""

    def fail() -> None:
        raise ZeroDivisionError("sk-secret")

    async with house.followed():
        house.environment.asked = fail
        house.write(HIDING)
        await eventually(lambda: house.reloader.status.refused, what="it is refused")
        assert (
            f"{house.path}:1: reading it failed (ZeroDivisionError): see what `extauthz check-config` says of it"
            == (house.reloader.status.refused)
        )
        house.environment.asked = bool
        house.write(HIDING + "\n")
        await house.heard("loaded extauthz.hide_amounts")

    assert 1 == len([told for told in house.witness.reloads if told.startswith("refused")])


async def test_nobody_keeps_an_old_snapshot(house: House) -> None:
    """What is not in force any more is gone at once, its catalog and directory too: nobody has to look for cycles."""
    gc.collect()
    gc.disable()
    before = _count()
    try:
        async with house.followed():
            old = _weak(house.configuration())
            house.configuration().catalog.reach(("gpt",))
            house.write(HIDING)
            await house.heard("loaded extauthz.hide_amounts")
            assert [None] * 3 == [gone() for gone in old]
            house.write(BROKEN)
            await eventually(lambda: house.reloader.status.refused, what="it is refused")
            assert before == _count()
    finally:
        gc.enable()


def _count() -> int:
    # `isinstance` would wake lazy modules that pretend to be of another type.
    return sum(type(each) is Snapshot for each in gc.get_objects())


def _weak(snapshot: Snapshot) -> list[weakref.ref[object]]:
    return [weakref.ref(part) for part in (snapshot, snapshot.catalog, snapshot.directory)]
