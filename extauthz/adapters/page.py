"""The status page: `/status` on the HTTP port, one page that needs nothing from elsewhere, and its stream of events.

It shows what GetStatus and ListReservations show, and changes nothing. Whoever may ask the admin port may see it: with
`admin_token` as a bearer token, or as the password that a browser asks for. Without a token it is open only where the
HTTP port listens on loopback, and there only under a name of the loopback, so that no page from elsewhere can have it
read by a name that it points here (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.adapters.operator_messages import reservations
from extauthz.adapters.proof import AUTHORIZATION, BEARER, operators_proof
from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.errors import StoreUnavailableError
from extauthz.holdings import Custody, ReservationQuery

# A page hears of everything this often, and so many pages may be open at once.
EVENTS_S = 2.0
PAGES_MAX = 16

# What is shown at most; the commands and the admin port show more.
BUDGETS_SHOWN = 100
RESERVATIONS_SHOWN = 20

# How long a page waits for the store to tell of reservations, the first time and later; and for a browser that reads
# too slowly.
FIRST_LOOK_S = 10.0
LOOK_S = 1.0
SEND_S = 10.0

# The most of all time that is spent on looking at reservations, for however many pages: there may be very many.
TIME_SHARE_MAX = 0.05

# Browsers that keep their state by name know the realm; it is no secret.
CHALLENGE = {"www-authenticate": 'Basic realm="extauthz", charset="UTF-8"'}
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_PAGE = files("extauthz.adapters").joinpath("status.html").read_text(encoding="utf-8")
_NONCE = "{{nonce}}"
NONCE_BYTES = 16


class _Oldest:
    """The oldest reservations, looked at once for all pages, and the rarer the longer a look takes."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._latest: object = None
        self._look: asyncio.Task[None] | None = None
        self._due_s = 0.0

    async def latest(self) -> object:
        """Give what the last look saw, None while the store is away; a look that takes long is not waited for."""
        look = self._look
        if look is None or (look.done() and asyncio.get_running_loop().time() >= self._due_s):
            look = self._look = asyncio.get_running_loop().create_task(self._take())
        await asyncio.wait((look,), timeout=FIRST_LOOK_S if self._latest is None else LOOK_S)
        if look.done() and not look.cancelled():
            look.result()  # raises what is a failure of ours
        return self._latest

    def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()

    async def _take(self) -> None:
        clock_s = asyncio.get_running_loop().time
        began_s = clock_s()
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                found = await self._custody.find(ReservationQuery(count_max=RESERVATIONS_SHOWN))
            self._latest = _document(reservations(found))
        except (StoreUnavailableError, TimeoutError):
            self._latest = None
        self._due_s = clock_s() + max(EVENTS_S / 2, (clock_s() - began_s) / TIME_SHARE_MAX)


class StatusPage:
    """Serves the page and its events. `refresh` brings what `status` tells up to date, as far as that costs little."""

    def __init__(
        self,
        configuration: Callable[[], Snapshot],
        status: Callable[[int], messages.GetStatusResponse],
        custody: Custody,
        refresh: Callable[[], Awaitable[object]],
    ) -> None:
        self._configuration = configuration
        self._status = status
        self._oldest = _Oldest(custody)
        self._refresh = refresh
        self._closing = asyncio.Event()
        self._open = 0

    def add_to(self, app: web.Application) -> None:
        """Add the page's routes to the HTTP port, and end its streams before that port closes."""
        app.add_routes(
            [
                web.get("/", self._lead),
                web.get("/status", self._show),
                web.get("/status/events", self._stream),
            ]
        )
        app.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._closing.set()
        self._oldest.close()

    async def _lead(self, _: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/status"})

    async def _show(self, request: web.Request) -> web.Response:
        if (refusal := refused(request, self._configuration().settings)) is not None:
            return refusal
        nonce = secrets.token_urlsafe(NONCE_BYTES)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return web.Response(
            text=_PAGE.replace(_NONCE, nonce),
            content_type="text/html",
            headers={**HEADERS, "content-security-policy": policy},
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send everything anew every EVENTS_S, until the browser goes, its token does, or the server stops."""
        if (refusal := refused(request, self._configuration().settings)) is not None:
            return refusal
        if self._open >= PAGES_MAX:
            return _plain(503, f"{PAGES_MAX} status pages of this server are open already: close one of them\n")
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream"})
        async with self._counted():
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                while refused(request, self._configuration().settings) is None:
                    event = f"data: {json.dumps(await self._everything(), separators=(',', ':'))}\n\n"
                    async with asyncio.timeout(SEND_S):
                        await response.write(event.encode())
                    if await _happens(self._closing, EVENTS_S):
                        break
        return response

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _everything(self) -> dict[str, object]:
        """Give what GetStatus says, with the oldest reservations; None in their place while the store is away."""
        await self._refresh()
        held = await self._oldest.latest()
        return {"status": _document(self._status(BUDGETS_SHOWN)), "reservations": held}


def refused(request: web.Request, settings: Settings) -> web.Response | None:
    """Tell whether somebody may not see the page, and what to do about it; None when they may."""
    proof = operators_proof(settings)
    if proof is not None:
        if proof.accepts(AUTHORIZATION, _as_bearer(request.headers.get(AUTHORIZATION, ""))):
            return None
        return _plain(401, "give extauthz.admin_token as the password, with any name\n", CHALLENGE)
    if not settings.listen.http.loopback:
        return _plain(
            403, "the status page is closed: set extauthz.admin_token, or let extauthz.listen.http be on 127.0.0.1\n"
        )
    if _host(request) not in LOOPBACK_NAMES:
        return _plain(403, "open the status page as http://localhost or http://127.0.0.1\n")
    return None


def _as_bearer(authorization: str) -> str:
    """Read the password that a browser asked for as the bearer token that it is."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except ValueError:  # neither Base64 nor UTF-8, or not even ASCII
        return ""
    return f"{BEARER} {decoded.partition(':')[2]}"


def _host(request: web.Request) -> str:
    """Give the name under which a request reached this server, without its port."""
    name, _, port = request.host.rpartition(":")
    host = name if name and port.isdigit() else request.host
    return host.strip("[]").lower()


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers={**HEADERS, **(headers or {})})


def _document(message: Message) -> object:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def _happens(event: asyncio.Event, seconds_max: float) -> bool:
    """Wait for an event, and tell whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            await event.wait()
    return event.is_set()
