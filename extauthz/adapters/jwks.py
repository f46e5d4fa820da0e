"""The keys of issuers, fetched from where they publish them, before anybody needs them.

However many tokens name a key that nobody knows, an issuer is asked once in a while and by one request at a time. While
it is away, the keys that were fetched last hold for as long as the configuration says.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from pathlib import Path

import aiohttp

from extauthz.authorities import trusting
from extauthz.config.credentials import JwtIssuer
from extauthz.config.snapshot import Snapshot
from extauthz.telemetry.events import Telemetry
from extauthz.tokens.keys import KEY_SET_BYTES_MAX, KeySet, read_key_set

# How long it may take an issuer to answer.
FETCH_S_MAX = 5.0

# An issuer is asked again at the earliest after so long: when it was away, and for keys that nobody knows.
AGAIN_S = 5.0

# Requests that wait for an answer of an issuer at a time; others are refused at once. Anybody can make one wait.
WAITING_MAX = 1000

# How often it is looked whether an issuer is to be asked.
LOOK_S = 0.5

_TOKEN_FILE_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class _Place:
    """What is known of an issuer; times are of the clock's. `tried_s` is when it was asked last."""

    issuer: JwtIssuer
    keys: KeySet | None = None
    fetched_s: float = -inf
    tried_s: float = -inf
    fetching: asyncio.Task[None] | None = None


class _UnfetchedError(Exception):
    """Says in a few words, without the URL, why there are no keys."""


class KeyServers:
    """The key ring of all issuers that the configuration in force has with a URL. `follow` is to be called again."""

    def __init__(
        self,
        configuration: Callable[[], Snapshot],
        telemetry: Telemetry,
        clock_s: Callable[[], float],
        *,
        again_s: float = AGAIN_S,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._configuration = configuration
        self._telemetry = telemetry
        self._clock_s = clock_s
        self._again_s = again_s
        self._waiting_max = waiting_max
        self._waiting = 0
        self._places: dict[str, _Place] = {}

    def keys_of(self, issuer: str) -> KeySet | None:
        """Give the keys of an issuer, None when there are none, or none that are young enough."""
        place = self._place(issuer)
        if place is None or self._clock_s() - place.fetched_s > float(place.issuer.jwks_stale_seconds):
            return None
        return place.keys

    async def renewed(self, issuer: str, patience_s: float) -> None:
        """Wait, for so long at most, until the keys of an issuer were fetched once more, if it is time for that."""
        place = self._place(issuer)
        if place is None:
            return
        fetching = place.fetching
        if fetching is None:
            if self._clock_s() - place.tried_s < self._again_s:
                return
            fetching = self._fetch(place)
        if self._waiting >= self._waiting_max:
            return
        self._waiting += 1
        try:
            await asyncio.wait({fetching}, timeout=patience_s)  # it goes on for the others
        finally:
            self._waiting -= 1

    async def follow(self) -> None:
        """Ask issuers when it is time to; runs until it is cancelled."""
        try:
            while True:
                for place in [*self._followed()]:
                    if place.fetching is None and self._clock_s() >= self._due_s(place):
                        self._fetch(place)
                await asyncio.sleep(LOOK_S)
        finally:
            for place in self._places.values():
                if place.fetching is not None:
                    place.fetching.cancel()

    def _followed(self) -> Iterator[_Place]:
        """Give the places of all issuers that are believed now, and forget those of others."""
        names = [issuer.issuer for issuer in self._configuration().settings.jwt]
        self._places = {name: place for name, place in self._places.items() if name in names}
        return (place for name in names if (place := self._place(name)) is not None)

    def _place(self, name: str) -> _Place | None:
        """Find the place of an issuer, a new one when the configuration says something else of it than before."""
        issuers = self._configuration().settings.jwt
        issuer = next((each for each in issuers if each.issuer == name and each.jwks_url is not None), None)
        if issuer is None:
            return None
        place = self._places.get(name)
        if place is None or place.issuer is not issuer:
            kept = place if place is not None and _source(place.issuer) == _source(issuer) else _Place(issuer)
            kept.issuer = issuer
            self._places[name] = place = kept
        return place

    def _due_s(self, place: _Place) -> float:
        missed = place.tried_s > place.fetched_s
        return place.tried_s + (self._again_s if missed else float(place.issuer.jwks_refresh_seconds))

    def _fetch(self, place: _Place) -> asyncio.Task[None]:
        place.tried_s = self._clock_s()
        place.fetching = asyncio.get_running_loop().create_task(self._fetched(place))
        return place.fetching

    async def _fetched(self, place: _Place) -> None:
        name = place.issuer.issuer
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                keys = await _keys_from(place.issuer)
        except TimeoutError:
            self._telemetry.keys_missed(name, f"no answer within {FETCH_S_MAX:g} s")
        except _UnfetchedError as error:
            self._telemetry.keys_missed(name, str(error))
        except Exception as error:  # noqa: BLE001 - whoever waits for it goes on without new keys
            self._telemetry.keys_missed(name, type(error).__name__)
            self._telemetry.failed("jwks", error)
        else:
            place.keys, place.fetched_s = keys, place.tried_s
            self._telemetry.keys_fetched(name, len({key.fingerprint for key in keys.keys}))
        finally:
            place.fetching = None


def _source(issuer: JwtIssuer) -> tuple[object, ...]:
    """Give what decides which keys come."""
    return issuer.jwks_url, issuer.jwks_ca, issuer.jwks_token_file


async def _keys_from(issuer: JwtIssuer) -> KeySet:
    """Fetch the keys of an issuer. A redirection is not followed: nobody has said where to."""
    headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "extauthz"}
    if issuer.jwks_token_file is not None:
        headers["authorization"] = f"Bearer {await asyncio.to_thread(_token, issuer.jwks_token_file)}"
    trust = True if issuer.jwks_ca is None else await asyncio.to_thread(_context, issuer.jwks_ca)
    connector = aiohttp.TCPConnector(ssl=trust, force_close=True, limit=1)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        raw = await _body(session, issuer.jwks_url or "", headers)
    try:
        return await asyncio.to_thread(read_key_set, raw)
    except ValueError as error:
        raise _UnfetchedError(str(error)) from None


async def _body(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> bytes:
    raw = bytearray()
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status != HTTPStatus.OK:
                raise _UnfetchedError(f"status {answer.status}")
            async for piece in answer.content.iter_any():
                raw += piece
                if len(raw) > KEY_SET_BYTES_MAX:
                    raise _UnfetchedError(f"larger than {KEY_SET_BYTES_MAX} bytes")
    except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
        # Their texts may hold the URL.
        raise _UnfetchedError(type(error).__name__) from None
    return bytes(raw)


def _context(ca: Path) -> ssl.SSLContext:
    try:
        return trusting(ca)
    except OSError as error:  # ssl's own errors are among them
        raise _UnfetchedError(f"jwks_ca cannot be read ({type(error).__name__})") from None


def _token(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        with path.open("rb") as file:
            token = file.read(_TOKEN_FILE_BYTES_MAX).decode("ascii").strip()
        if token.isprintable() and token:
            return token
    raise _UnfetchedError("jwks_token_file cannot be read")
