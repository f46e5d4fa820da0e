"""When an issuer is asked for its keys, and how long the ones hold that it gave: with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from extauthz.adapters.jwks import AGAIN_S, KeyServers
from extauthz.config.load import load
from extauthz.config.snapshot import Configuration
from extauthz.telemetry.events import Telemetry
from tests.support.issuers import IssuerServer, key_set, public_jwk
from tests.support.processes import eventually
from tests.support.tls import Certificates

REFRESH_S, STALE_S = 60, 600


class Ear(Telemetry):
    """Remembers what was heard of issuers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def keys_fetched(self, issuer: str, count: int) -> None:
        """Remember how many keys came."""
        self.heard.append(f"{count} keys")

    def keys_missed(self, issuer: str, reason: str) -> None:
        """Remember why none came."""
        self.heard.append(reason)

    def failed(self, where: str, error: BaseException) -> None:
        """Let no failure of ours pass."""
        raise AssertionError(where) from error


@dataclass(slots=True)
class House:
    """A key ring, its issuer, and the time."""

    issuer: IssuerServer
    ring: KeyServers
    ear: Ear
    configuration: Configuration
    folder: Path
    now_s: float = 1000.0

    def load(self, **more: object) -> None:
        """Put a configuration in force that believes the issuer."""
        file = self.folder / "config.yaml"
        lines = {
            "issuer": self.issuer.name,
            "audience": "gate",
            "jwks_url": self.issuer.url,
            "jwks_refresh_seconds": REFRESH_S,
            "jwks_stale_seconds": STALE_S,
            **more,
        }
        written = "".join(f"      {name}: {value}\n" for name, value in lines.items())
        file.write_text(f"extauthz:\n  jwt:\n    -\n{written}", encoding="utf-8")
        self.configuration.replace(load(file, {}))

    def was_asked(self, count: int) -> bool:
        """Tell whether the issuer was asked so often."""
        return len(self.issuer.fetches) == count

    def has_keys(self) -> bool:
        """Tell whether there are keys of the issuer."""
        return self.ring.keys_of(self.issuer.name) is not None

    async def renew(self, patience_s: float = 5.0) -> int:
        """Ask for other keys, and tell how often the issuer was asked in all."""
        await self.ring.renewed(self.issuer.name, patience_s)
        return len(self.issuer.fetches)


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """Give a house whose ring follows nothing by itself."""
    empty = folder / "empty.yaml"
    empty.write_text("model_list: []\n", encoding="utf-8")
    async with IssuerServer() as issuer:
        ear, configuration = Ear(), Configuration(load(empty, {}))
        built = House(issuer, KeyServers(configuration, ear, lambda: built.now_s), ear, configuration, folder)
        built.load()
        yield built


@asynccontextmanager
async def following(ring: KeyServers) -> AsyncIterator[None]:
    """Have a ring follow its issuers inside the block."""
    task = asyncio.get_running_loop().create_task(ring.follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_asked_by_itself_when_it_is_time(tmp_path: Path) -> None:
    """An issuer is asked at the start, and again each time that its keys are old."""
    async with house(tmp_path) as built, following(built.ring):
        await eventually(built.has_keys, what="keys are there")
        for count in (2, 3):
            built.now_s += REFRESH_S
            await eventually(partial(built.was_asked, count), what=f"fetch {count}")

        assert ["1 keys"] * 3 == built.ear.heard


async def test_asked_again_at_the_earliest(tmp_path: Path) -> None:
    """However often others are wanted, an issuer is asked once in AGAIN_S, and by all who wait together."""
    async with house(tmp_path) as built:
        await asyncio.gather(*(built.renew() for _ in range(100)))
        assert 1 == len(built.issuer.fetches)
        built.now_s += AGAIN_S - 0.01
        assert await built.renew() == 1
        built.now_s += 0.02
        assert await built.renew() == 2


async def test_old_keys_hold_for_a_while(tmp_path: Path) -> None:
    """While the issuer is away its keys hold up to the limit, and not longer."""
    async with house(tmp_path) as built:
        await built.renew()
        built.issuer.status = 503
        built.now_s += STALE_S
        await built.renew()
        assert built.has_keys()
        built.now_s += 0.01
        assert not built.has_keys()
        built.issuer.status = 200
        built.now_s += AGAIN_S
        await built.renew()

        assert built.has_keys()
        assert ["1 keys", "status 503", "1 keys"] == built.ear.heard


async def test_a_reload(tmp_path: Path) -> None:
    """Keys outlive a reload that changes nothing about where they come from; another place begins anew."""
    async with house(tmp_path) as built:
        await built.renew()
        built.load(clock_skew_seconds=1)
        assert built.has_keys()
        built.load(jwks_url=f"{built.issuer.name}/other.json")
        assert not built.has_keys()
        await built.renew()
        assert built.has_keys()
        built.load(issuer="https://another.example")
        assert not built.has_keys()
        assert built.ring.keys_of("https://nobody.example") is None
        await built.ring.renewed("https://nobody.example", 1.0)


async def test_nobody_waits_longer_than_it_may(tmp_path: Path) -> None:
    """An issuer that takes its time holds nobody up: it is gone on with, and its answer counts when it is there."""
    async with house(tmp_path) as built:
        built.issuer.pause = asyncio.Event()
        await built.renew(0.01)
        assert not built.has_keys()
        built.issuer.pause.set()
        await eventually(built.has_keys, what="the answer counts")


async def test_only_so_many_wait(tmp_path: Path) -> None:
    """Of a flood that waits for a slow issuer, those beyond a number go on at once."""
    async with house(tmp_path) as built:
        built.ring = KeyServers(built.configuration, built.ear, lambda: built.now_s, waiting_max=2)
        built.issuer.pause = asyncio.Event()
        tasks = [asyncio.create_task(built.renew(60.0)) for _ in range(5)]
        await eventually(lambda: sum(task.done() for task in tasks) == 3, what="three go on")
        built.issuer.pause.set()
        await asyncio.gather(*tasks)

        assert 1 == len(built.issuer.fetches)


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason"),
    [
        (404, b"", {}, "status 404"),
        (301, b"", {"location": "http://127.0.0.1:1/"}, "status 301"),
        (200, b"{}", {}, "this is no JSON Web Key Set: it must be an object with a list of at most 100 `keys`"),
        (200, b" " * 300_000, {}, "larger than 262144 bytes"),
    ],
)
async def test_why_there_are_none(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str], reason: str
) -> None:
    """What is wrong is told in a few words, without the URL."""
    async with house(tmp_path) as built:
        built.issuer.status, built.issuer.answer, built.issuer.headers = status, body, headers
        await built.renew()

        assert [reason] == built.ear.heard


async def test_over_tls_with_a_ca_and_a_token(tmp_path: Path) -> None:
    """Keys are fetched over TLS by a CA of one's own, with a bearer token that is read each time; not by another CA."""
    certificates, others = Certificates(tmp_path), Certificates(tmp_path / "others")
    token = tmp_path / "token"
    token.write_text("first\n", encoding="utf-8")
    async with house(tmp_path) as built, IssuerServer(tls=certificates) as secure:
        built.issuer = secure
        secure.answer = key_set(public_jwk("P-256", kid="e1"))
        built.load(jwks_ca=others.ca)
        await built.renew()
        assert not built.has_keys()
        built.load(jwks_ca=certificates.ca, jwks_token_file=token)
        await built.renew()
        assert built.has_keys()
        token.write_text("second", encoding="utf-8")
        built.now_s += AGAIN_S
        await built.renew()
        token.write_text("no\nheader", encoding="utf-8")
        built.now_s += AGAIN_S
        await built.renew()
        built.load(jwks_ca=tmp_path / "missing.pem")
        await built.renew()

        assert ["Bearer first", "Bearer second"] == secure.fetches
        assert ["jwks_token_file cannot be read", "jwks_ca cannot be read (FileNotFoundError)"] == built.ear.heard[-2:]
