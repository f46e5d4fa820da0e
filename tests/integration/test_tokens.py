"""Tokens before a real server: the good ones get in, each forged one is refused, and only the log knows why."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest
import pytest_asyncio

from extauthz.adapters import jwks
from extauthz.domain.tokens import TokenFault
from tests.support.identified import IdentifyingGate, identifying
from tests.support.issuers import (
    AUDIENCE,
    IssuerServer,
    claims,
    encoded,
    key_set,
    private_key,
    public_jwk,
    signed,
)
from tests.support.processes import eventually
from tests.support.stack import Metrics

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = (
    public_jwk("RSA-2048", kid="k1"),
    public_jwk("P-256", kid="e1", alg="ES256"),
    public_jwk("Ed25519", kid="o1"),
)

PLAIN = {
    "message": "This token is not accepted here.",
    "type": "authentication_error",
    "param": None,
    "code": "invalid_api_key",
}
# Shorter parts of tokens may stand in a log by chance.
PART_CHARS = 20

IN_FILE = """  jwt: [{{issuer: {name}, audience: extauthz, jwks_file: jwks.json}}]
  users: {{ana: {{max_budget: 5}}}}
"""

SERVICE_ACCOUNTS = """  jwt:
    - profile: kubernetes
      issuer: {issuer.name}
      audience: [another, extauthz]
      jwks_url: {issuer.url}
      jwks_token_file: {folder}/token
  teams: {{research: {{max_budget: 5}}}}
"""

SECTION = """  jwt:
    - issuer: {name}
      audience: extauthz
      jwks_url: {url}
  users: {{ana: {{max_budget: 5}}}}
  keys: [{{key: {odd_key}, user: ana}}]
"""

# A key that is written as tokens are.
ODD_KEY = "sk-abc.def.ghi"


def one_issuer(issuer: IssuerServer) -> str:
    """Believe one issuer, and a key."""
    return SECTION.format(name=issuer.name, url=issuer.url, odd_key="sk-ana")


class House(NamedTuple):
    """A gate, and the issuer that it believes."""

    gate: IdentifyingGate
    issuer: IssuerServer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Give a gate that believes one issuer, whose keys it has."""
    async with IssuerServer(key_set(*KEYS)) as issuer:
        section = SECTION.format(name=issuer.name, url=issuer.url, odd_key=ODD_KEY)
        async with identifying(section, tmp_path_factory.mktemp("gate")) as gate:
            await eventually(lambda: issuer.fetches, what="the keys are fetched")
            yield House(gate, issuer)


@pytest.mark.parametrize(
    ("kind", "algorithm", "kid"),
    [("RSA-2048", "RS256", "k1"), ("P-256", "ES256", "e1"), ("Ed25519", "EdDSA", "o1"), ("RSA-2048", "RS256", None)],
)
async def test_a_good_token_gets_in(house: House, kind: str, algorithm: str, kid: str | None) -> None:
    """Whoever the issuer names pays, whichever kind of key it signs with, and whether or not it names the key."""
    token = signed(claims(house.issuer.name), kind, algorithm=algorithm, kid=kid)

    answer = await house.gate.bearer(token)

    assert (200, True) == (answer.status, answer.charged)


async def test_a_key_that_looks_like_a_token_is_a_key(house: House) -> None:
    """What is known by its hash is never looked at as a token."""
    assert 200 == (await house.gate.bearer(ODD_KEY)).status
    assert 401 == (await house.gate.bearer(ODD_KEY + "x")).status


Forge = Callable[[str], str]


def without_signature(issuer: str) -> str:
    """Take the signature off a good token."""
    return signed(claims(issuer)).rpartition(".")[0] + "."


def by_public_key(issuer: str) -> str:
    """Sign with the public key as a secret, as a verifier falls for that lets the token choose the algorithm."""
    head, body = encoded({"alg": "HS256", "typ": "JWT", "kid": "k1"}), encoded(claims(issuer))
    public = private_key("RSA-2048").public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - this once

    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{head}.{body}".encode(), secret)
    return f"{head}.{body}.{encoded(made)}"


def own_key(**header: object) -> Forge:
    """Sign with a key of one's own, and say in the header where it is."""
    return lambda issuer: signed(claims(issuer), number=7, header=header)


def by_another_algorithm(issuer: str) -> str:
    """Sign with the right key by an algorithm that was not asked for."""
    return signed(claims(issuer), algorithm="RS512")


def of(**more: object) -> Forge:
    """Sign, as the issuer would never do, other claims."""
    return lambda issuer: signed(claims(issuer, **more))


def headed(**header: object) -> Forge:
    """Sign the claims of a good token under another header."""
    return lambda issuer: signed(claims(issuer), header=header)


def unsigned(algorithm: str | None, made: bytes = b"") -> Forge:
    """Say that nothing is signed."""
    header = {"kid": "k1"} if algorithm is None else {"alg": algorithm, "kid": "k1"}
    return lambda issuer: f"{encoded(header)}.{encoded(claims(issuer))}.{encoded(made)}"


def encrypted(_: str) -> str:
    """Write an encrypted token, whatever is in it."""
    return ".".join([encoded({"alg": "dir", "enc": "A256GCM"}), "", "aaaa", "bbbb", "cccc"])


def of_bytes(payload: bytes) -> Forge:
    """Sign something that is no claims."""
    return lambda _: signed(payload)


def replaced(before: str, after: str) -> Forge:
    """Sign claims in which a text stands for another one."""

    def forge(issuer: str) -> str:
        written = json.dumps(claims(issuer))
        assert before in written
        return signed(written.replace(before, after).encode())

    return forge


def other_body(issuer: str) -> str:
    """Put other claims under the signature of good ones."""
    head, _, made = signed(claims(issuer)).split(".")
    return f"{head}.{encoded(claims(issuer, sub='root'))}.{made}"


def confused(issuer: str) -> str:
    """Sign by ES256, and name the RSA key."""
    return signed(claims(issuer), "P-256", algorithm="ES256", kid="k1")


def padded(issuer: str) -> str:
    """Write a good token with bits behind its end, which another reader drops."""
    token = signed(claims(issuer), "Ed25519", algorithm="EdDSA", kid="o1")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + last[last.index(token[-1]) | 1]


NOW_S = int(time.time())

ATTACKS: dict[str, tuple[Forge, TokenFault]] = {
    "none": (unsigned("none"), TokenFault.ALGORITHM),
    "None": (unsigned("None"), TokenFault.ALGORITHM),
    "none, with a signature": (unsigned("none", b"x"), TokenFault.ALGORITHM),
    "no algorithm": (unsigned(None, b"x"), TokenFault.ALGORITHM),
    "HS256 by the public key": (by_public_key, TokenFault.ALGORITHM),
    "an algorithm that is not pinned": (by_another_algorithm, TokenFault.ALGORITHM),
    "an empty signature": (without_signature, TokenFault.SIGNATURE),
    "another's signature": (other_body, TokenFault.SIGNATURE),
    "bits behind the end": (padded, TokenFault.MALFORMED),
    "another key": (own_key(), TokenFault.SIGNATURE),
    "a key of another type": (confused, TokenFault.KEY_UNKNOWN),
    "jku": (own_key(jku="http://127.0.0.1:1/jwks.json"), TokenFault.SIGNATURE),
    "x5u": (own_key(x5u="http://127.0.0.1:1/cert.pem"), TokenFault.SIGNATURE),
    "jwk": (own_key(jwk=public_jwk("RSA-2048", 7)), TokenFault.SIGNATURE),
    "jwk and its kid": (own_key(jwk=public_jwk("RSA-2048", 7, kid="k9"), kid="k9"), TokenFault.KEY_UNKNOWN),
    "a path as kid": (headed(kid="../../../dev/null"), TokenFault.KEY_UNKNOWN),
    "SQL as kid": (headed(kid="k1' OR '1'='1"), TokenFault.KEY_UNKNOWN),
    "a number as kid": (headed(kid=1), TokenFault.MALFORMED),
    "a huge kid": (headed(kid="k" * 2000), TokenFault.KEY_UNKNOWN),
    "crit": (headed(crit=["exp"]), TokenFault.CRITICAL),
    "an unencoded payload": (headed(b64=False, crit=["b64"]), TokenFault.CRITICAL),
    "compressed": (headed(zip="DEF"), TokenFault.CRITICAL),
    "a token in a token": (headed(cty="JWT"), TokenFault.TYPE),
    "a token for logging out": (headed(typ="logout+jwt"), TokenFault.TYPE),
    "encrypted": (encrypted, TokenFault.ENCRYPTED),
    "no JSON": (of_bytes(b"nonsense"), TokenFault.MALFORMED),
    "a list": (of_bytes(b'["iss"]'), TokenFault.MALFORMED),
    "nested deep": (of_bytes(b"[" * 5000), TokenFault.MALFORMED),
    "no UTF-8": (of_bytes(b'{"iss": "\xff"}'), TokenFault.MALFORMED),
    "a claim twice": (replaced('"sub": "ana"', '"sub": "ana", "sub": "root"'), TokenFault.MALFORMED),
    "another issuer": (of(iss="https://evil.example"), TokenFault.ISSUER),
    "an issuer that begins alike": (lambda issuer: signed(claims(f"{issuer}/")), TokenFault.ISSUER),
    "no issuer": (of(iss=None), TokenFault.ISSUER),
    "a list of issuers": (lambda issuer: signed(claims(issuer, iss=[issuer])), TokenFault.ISSUER),
    "another audience": (of(aud="another"), TokenFault.AUDIENCE),
    "an audience inside": (of(aud=f"not-{AUDIENCE}"), TokenFault.AUDIENCE),
    "no audience": (of(aud=None), TokenFault.AUDIENCE),
    "an object as audience": (of(aud={AUDIENCE: True}), TokenFault.AUDIENCE),
    "expired": (of(exp=NOW_S - 3600), TokenFault.EXPIRED),
    "no end": (of(exp=None), TokenFault.CLAIM),
    "an endless end": (replaced('"exp": ', '"exp": 1e999, "e": '), TokenFault.CLAIM),
    "a text as end": (of(exp=str(NOW_S + 3600)), TokenFault.CLAIM),
    "true as end": (of(exp=True), TokenFault.CLAIM),
    "an end beyond time": (of(exp=10**18), TokenFault.CLAIM),
    "not yet valid": (of(nbf=NOW_S + 3600), TokenFault.NOT_YET_VALID),
    "issued tomorrow": (of(iat=NOW_S + 86_400), TokenFault.NOT_YET_VALID),
    "issued before time": (of(iat=-1), TokenFault.CLAIM),
    "no subject": (of(sub=None), TokenFault.CLAIM),
    "an empty subject": (of(sub=""), TokenFault.CLAIM),
    "an object as subject": (of(sub={"name": "ana"}), TokenFault.CLAIM),
    "a subject too long for a payer": (of(sub="a" * 257), TokenFault.CLAIM),
    "huge": (of(filling="x" * 10_000), TokenFault.TOO_LARGE),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_forged_token_is_refused(house: House, name: str) -> None:
    """Each is the same plain 401; what was wrong is counted, and nothing of the token is written down."""
    forge, fault = ATTACKS[name]
    token = forge(house.issuer.name)
    before = await house.gate.metrics()

    answer = await house.gate.bearer(token)

    after = await house.gate.metrics()
    assert (401, False) == (answer.status, answer.charged)
    assert PLAIN == json.loads(answer.text)["error"]
    assert [fault] == [each for each in TokenFault if refused(after, each) > refused(before, each)]
    assert not [part for part in token.split(".") if len(part) >= PART_CHARS and part in house.gate.logged()]


def refused(metrics: Metrics, fault: TokenFault) -> float:
    """Tell how many tokens had this fault."""
    return metrics.value("extauthz_tokens_refused_total", fault)


async def test_the_log_says_why(tmp_path: Path) -> None:
    """Whoever looks into the log finds what was wrong with a token, beside what it was sent for."""
    async with IssuerServer() as issuer, identifying(one_issuer(issuer), tmp_path) as gate:
        await eventually(lambda: issuer.fetches, what="the keys are fetched")
        for count, (forge, fault) in enumerate(list(ATTACKS.values())[:5], start=1):
            await gate.bearer(forge(issuer.name))
            refusal = await gate.last_refusal(count)

            assert ("unauthenticated", 401, fault) == (refusal["reason"], refusal["status"], refusal["fault"])


@pytest.mark.parametrize(
    "text", ["Bearer ä.b.c", "Bearer a.b", "Bearer ...", "Bearer a.b.c.d", f"Bearer {'a' * 70_000}.b.c"]
)
async def test_what_is_no_token_is_an_unknown_key(house: House, text: str) -> None:
    """Anything else is refused like any key that nobody knows."""
    answer = await house.gate.ask({"authorization": text})

    assert (401, False) == (answer.status, answer.charged)


async def test_a_withdrawn_key_is_believed_no_longer(tmp_path: Path) -> None:
    """After a rotation the new key's tokens get in at once, and the old one's are refused although they were good."""
    async with IssuerServer() as issuer, identifying(one_issuer(issuer), tmp_path) as gate:
        old = signed(claims(issuer.name))
        assert 200 == (await gate.bearer(old)).status
        issuer.answer = key_set(public_jwk("P-256", kid="e1"))
        new = signed(claims(issuer.name), "P-256", algorithm="ES256", kid="e1")

        async def is_believed() -> bool:
            return (await gate.bearer(new)).status == 200

        await eventually(is_believed, seconds=3 * jwks.AGAIN_S, what="the new key is believed")
        assert 401 == (await gate.bearer(old)).status


async def test_a_flood_of_unknown_keys_makes_few_fetches(tmp_path: Path) -> None:
    """However many tokens name keys that nobody has, the issuer is asked once in a while."""
    async with IssuerServer() as issuer, identifying(one_issuer(issuer), tmp_path) as gate:
        began_s = time.monotonic()
        for round_ in range(20):
            tokens = [signed(claims(issuer.name), kid=f"unknown-{round_}-{each}") for each in range(20)]
            assert {401} == {answer.status for answer in await asyncio.gather(*map(gate.bearer, tokens))}
        most = 2 + (time.monotonic() - began_s) / jwks.AGAIN_S

        assert 1 <= len(issuer.fetches) <= most


async def test_an_issuer_that_is_away(tmp_path: Path) -> None:
    """A gate starts without its issuer: its tokens are a passing 503, keys go on, and the log says so once."""
    issuer = IssuerServer()
    async with issuer:
        pass
    async with identifying(one_issuer(issuer), tmp_path) as gate:
        answer = await gate.bearer(signed(claims(issuer.name)))
        assert (503, False) == (answer.status, answer.charged)
        assert "x-should-retry" in str(answer.response.denied_response.headers)
        assert 200 == (await gate.bearer("sk-ana")).status

        async with issuer:

            async def is_believed() -> bool:
                return (await gate.bearer(signed(claims(issuer.name)))).status == 200

            await eventually(is_believed, seconds=3 * jwks.AGAIN_S, what="the issuer is back")
        assert 200 == (await gate.bearer(signed(claims(issuer.name)))).status  # away again, and its keys hold
        events = [line["event"] for line in gate.lines() if "issuer" in line]
        assert ["an issuer's keys could not be fetched", "the issuer's keys are there"] == events


BAD_ANSWERS = {
    "an error": (500, b"", {}),
    "another place": (302, b"", {"location": "http://127.0.0.1:1/"}),
    "no JSON": (200, b"<html>", {}),
    "no key of use": (200, key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}), {}),
    "too large": (200, b" " * 300_000 + key_set(*KEYS), {}),
    "compressed": (200, gzip.compress(key_set(*KEYS) + b" " * 100_000_000), {"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_issuer_that_answers_badly(tmp_path: Path, name: str) -> None:
    """What is no key set of a fair size is none, and the gate goes on."""
    status, body, headers = BAD_ANSWERS[name]
    async with IssuerServer(body, status, headers) as issuer, identifying(one_issuer(issuer), tmp_path) as gate:
        answer = await gate.bearer(signed(claims(issuer.name)))

        assert issuer.fetches
        assert 503 == answer.status
        assert 200 == (await gate.bearer("sk-ana")).status


async def test_keys_in_a_file_are_followed(tmp_path: Path) -> None:
    """Another file of keys is in force without a restart; one with a mistake changes nothing."""
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(public_jwk("RSA-2048", kid="k1")))
    name = "https://issuer.example"
    section = IN_FILE.format(name=name)
    async with identifying(section, tmp_path) as gate:
        old = signed(claims(name))
        new = signed(claims(name), "P-256", algorithm="ES256", kid="e1")
        assert (200, 401) == ((await gate.bearer(old)).status, (await gate.bearer(new)).status)

        put(file, key_set(public_jwk("P-256", kid="e1")))

        async def turned() -> bool:
            return ((await gate.bearer(old)).status, (await gate.bearer(new)).status) == (401, 200)

        await eventually(turned, what="the new file is in force")
        put(file, b"{}")
        await eventually(
            lambda: any("the configuration was refused" in str(line["event"]) for line in gate.lines()),
            what="the bad file is refused",
        )
        assert await turned()


def put(file: Path, content: bytes) -> None:
    """Put a new file in the place of an old one, in one step."""
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


async def test_tokens_of_service_accounts(tmp_path: Path) -> None:
    """With the profile of Kubernetes, a pod's token makes its namespace's team pay, and nobody else's does."""
    (tmp_path / "token").write_text("of-the-pod\n", encoding="utf-8")
    async with (
        IssuerServer() as issuer,
        identifying(SERVICE_ACCOUNTS.format(issuer=issuer, folder=tmp_path), tmp_path) as gate,
    ):
        statuses = {
            subject: (await gate.bearer(signed(claims(issuer.name, sub=subject)))).status
            for subject in (
                "system:serviceaccount:research:notebook",
                "system:serviceaccount:kitchen:default",
                "system:serviceaccount:research:",
                "system:serviceaccount:research",
                "system:node:research:notebook",
                "x-system:serviceaccount:research:notebook",
                "system:serviceaccount:research:a:b",
            )
        }

        assert [200, 403, 401, 401, 401, 401, 401] == [*statuses.values()]
        held = (await gate.metrics()).held
        assert held[("team:research", "lifetime")] > 0
        assert all(sent in (None, "Bearer of-the-pod") for sent in issuer.fetches)
        assert "Bearer of-the-pod" in issuer.fetches
