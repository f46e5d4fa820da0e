"""An issuer of tokens: keys of every kind, a real HTTP server that publishes them, and tokens good and forged."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.processes import LOOPBACK
from tests.support.tls import Certificates

AUDIENCE = "extauthz"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Json = Mapping[str, object]


@cache
def private_key(kind: str, number: int = 0) -> PrivateKey:
    """Make a key of a kind, such as RSA-2048, P-256 or Ed25519; `number` tells several apart. RSA keys take long."""
    match kind.partition("-"):
        case "RSA", _, bits:
            return rsa.generate_private_key(public_exponent=65537, key_size=int(bits))
        case "P", _, bits:
            curves = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "521": ec.SECP521R1()}
            return ec.generate_private_key(curves[bits])
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def public_jwk(kind: str, number: int = 0, **more: object) -> dict[str, object]:
    """Write the public half of a key as a JSON Web Key."""
    key = private_key(kind, number).public_key()
    match key:
        case rsa.RSAPublicKey():
            jwk = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
        case ec.EllipticCurvePublicKey():
            jwk = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
        case _:
            jwk = jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"} | more


def key_set(*keys: Json) -> bytes:
    """Write a key set."""
    return json.dumps({"keys": keys}).encode()


def encoded(part: object) -> str:
    """Write one part of a token: JSON, or bytes as they are."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(issuer: str, **more: object) -> dict[str, object]:
    """Write the claims of a good token, with others in their place; None leaves one out."""
    now_s = int(time.time())
    good = {"iss": issuer, "aud": AUDIENCE, "sub": "ana", "iat": now_s, "exp": now_s + 600}
    return {name: value for name, value in (good | more).items() if value is not None}


def signed(
    payload: object,
    kind: str = "RSA-2048",
    *,
    algorithm: str = "RS256",
    kid: str | None = "k1",
    number: int = 0,
    header: Json | None = None,
) -> str:
    """Sign a payload, whatever it is, with whatever stands in the header; None leaves a field of it out."""
    written = {"alg": algorithm, "typ": "JWT", "kid": kid, **(header or {})}
    head = encoded({name: value for name, value in written.items() if value is not None})
    message = f"{head}.{encoded(payload)}"
    return f"{message}.{encoded(signature(message, kind, algorithm, number))}"


def signature(message: str, kind: str, algorithm: str, number: int = 0) -> bytes:
    """Sign a text by an algorithm."""
    by = jwt.get_algorithm_by_name(algorithm)
    made: bytes = by.sign(message.encode(), private_key(kind, number))
    return made


@dataclass(slots=True)
class IssuerServer:
    """Publishes keys inside the `async with` block; `fetches` has the credential of each who asked.

    What it answers may be changed at any time; while there is a `pause`, it waits for that.
    """

    answer: bytes = field(default_factory=lambda: key_set(public_jwk("RSA-2048", kid="k1")))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fetches: list[str | None] = field(default_factory=list)
    tls: Certificates | None = None
    pause: asyncio.Event | None = None
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def name(self) -> str:
        """What stands in `iss`."""
        return f"http{'s' if self.tls else ''}://{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"{self.name}/jwks.json"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._give)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port, ssl_context=self._context()).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _context(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.tls.cert, self.tls.key)
        return context

    async def _give(self, request: web.Request) -> web.Response:
        self.fetches.append(request.headers.get("authorization"))
        if self.pause is not None:
            await self.pause.wait()
        return web.Response(body=self.answer, status=self.status, headers=self.headers)
