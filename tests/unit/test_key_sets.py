"""The keys of issuers, and tokens that are verified by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

import pytest

from extauthz.domain.claimed import Claimed
from extauthz.domain.credentials import Credential
from extauthz.domain.tokens import ClaimNames, Issuer, TokenFault
from extauthz.tokens.keys import KEY_SET_BYTES_MAX, KEYS_MAX, TRIED_MAX, KeySet, read_key_set
from extauthz.tokens.verifier import Rejected, TokenVerifier
from tests.support.issuers import key_set, private_key, public_jwk, signed

NOW_S = 1_800_000_000
NAME = "https://issuer.example"
ISSUER = Issuer(NAME, frozenset({"extauthz"}), frozenset({"RS256", "ES256", "EdDSA"}))
ONE = read_key_set(key_set(public_jwk("P-256", kid="e1")))


def algorithms(*keys: Mapping[str, object]) -> set[str]:
    """Tell what keys can be used with, none where there is no key of use."""
    try:
        return {key.algorithm for key in read_key_set(key_set(*keys)).keys}
    except ValueError:
        return set()


RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param(public_jwk("RSA-2048"), RSA, id="RSA"),
        pytest.param(public_jwk("RSA-2048", alg="PS256", use="sig"), {"PS256"}, id="RSA for one algorithm"),
        pytest.param(public_jwk("P-256"), {"ES256"}, id="P-256"),
        pytest.param(public_jwk("P-384"), {"ES384"}, id="P-384"),
        pytest.param(public_jwk("P-521"), {"ES512"}, id="P-521"),
        pytest.param(public_jwk("Ed25519"), {"EdDSA"}, id="Ed25519"),
        pytest.param(public_jwk("P-256", key_ops=["verify"]), {"ES256"}, id="for verifying"),
        pytest.param(public_jwk("P-256", alg="ES384"), set(), id="an algorithm of another curve"),
        pytest.param(public_jwk("RSA-2048", alg="HS256"), set(), id="a public key as a secret"),
        pytest.param(public_jwk("RSA-2048", use="enc"), set(), id="for encrypting"),
        pytest.param(public_jwk("P-256", key_ops=["sign"]), set(), id="for signing alone"),
        pytest.param(public_jwk("P-256", d="AAAA"), set(), id="a private key that got out"),
        pytest.param(public_jwk("RSA-1024"), set(), id="too small"),
        pytest.param(public_jwk("RSA-2048", e="A" * 400), set(), id="no exponent"),
        pytest.param(public_jwk("P-256", x="AAAA"), set(), id="no point"),
        pytest.param(public_jwk("P-256", crv="secp256k1"), set(), id="a curve of coins"),
        pytest.param(public_jwk("P-256", kid=7), set(), id="a number as id"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, set(), id="a secret"),
        pytest.param({"kty": "RSA"}, set(), id="nothing in it"),
        pytest.param({}, set(), id="nothing"),
    ],
)
def test_what_a_key_can_be_used_with(key: dict[str, object], expected: set[str]) -> None:
    """That follows from the key itself; one that is of no use, or dangerous, is as if it were not there."""
    assert expected == algorithms(key)
    assert expected | {"EdDSA"} == algorithms(key, public_jwk("Ed25519"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [1, null, "a"]}',
        pytest.param(json.dumps({"keys": [public_jwk("P-256")] * (KEYS_MAX + 1)}).encode(), id="too many"),
        pytest.param(b" " * KEY_SET_BYTES_MAX + key_set(public_jwk("P-256")), id="too long"),
    ],
)
def test_what_is_no_key_set(raw: bytes) -> None:
    """It is refused in a sentence."""
    with pytest.raises(ValueError, match=" "):
        read_key_set(raw)


def test_a_token_that_names_no_key() -> None:
    """It is tried with all keys while they are few."""
    few = read_key_set(key_set(*(public_jwk("P-256", number, kid=f"e{number}") for number in range(TRIED_MAX))))
    many = read_key_set(key_set(*(public_jwk("P-256", number, kid=f"e{number}") for number in range(TRIED_MAX + 1))))

    assert (TRIED_MAX, 0) == (len(few.candidates(None, "ES256")), len(many.candidates(None, "ES256")))
    assert 1 == len(many.candidates("e2", "ES256"))


class House:
    """A verifier with a clock, an issuer and its keys."""

    def __init__(self, tokens_max: int = 10) -> None:
        self.now_s = float(NOW_S)
        self.issuer = ISSUER
        self.keys: KeySet | None = ONE
        self.looked_up = 0
        self.verifier = TokenVerifier(lambda: self.now_s, tokens_max=tokens_max)

    def verify(self, token: str) -> Claimed | Rejected:
        """Verify a token."""
        credential = Credential(sha256(token.encode()).hexdigest(), token)
        return self.verifier.verify(credential, {self.issuer.name: self.issuer}, 8192, self._keys_of)

    def _keys_of(self, name: str) -> KeySet | None:
        assert name == NAME
        self.looked_up += 1
        return self.keys


def token(**more: object) -> str:
    """Make a token of Ana's that ends in ten minutes."""
    payload = {"iss": NAME, "aud": "extauthz", "sub": "ana", "exp": NOW_S + 600} | more
    return signed(payload, "P-256", algorithm="ES256", kid="e1")


def test_a_verified_token_ends_when_it_ends() -> None:
    """A token that is remembered is refused all the same once it has expired, to the second."""
    house, ana = House(), token()
    assert Claimed("ana") == house.verify(ana)
    house.now_s = NOW_S + 600 + ISSUER.skew_s - 0.001
    assert Claimed("ana") == house.verify(ana)
    house.now_s = NOW_S + 600 + ISSUER.skew_s

    assert Rejected(TokenFault.EXPIRED, NAME) == house.verify(ana)


def test_a_verified_token_dies_with_its_key() -> None:
    """Once its key is withdrawn, or the keys are gone, a token is refused."""
    house, ana = House(), token()
    house.verify(ana)
    house.keys = read_key_set(key_set(public_jwk("P-256", 5, kid="e1")))
    assert Rejected(TokenFault.SIGNATURE, NAME) == house.verify(ana)
    house.keys = ONE
    house.verify(ana)
    house.keys = None

    assert Rejected(TokenFault.KEYS_AWAY, NAME) == house.verify(ana)


def test_a_verified_token_dies_with_its_rules() -> None:
    """After a reload, remembered tokens follow the new rules of their issuer."""
    house, ana = House(), token(team="research")
    assert Claimed("ana") == house.verify(ana)
    house.issuer = Issuer(NAME, ISSUER.audiences, ISSUER.algorithms, claims=ClaimNames(team="team"))
    assert Claimed("ana", "research") == house.verify(ana)
    house.issuer = Issuer(NAME, frozenset({"another"}), ISSUER.algorithms)

    assert Rejected(TokenFault.AUDIENCE, NAME) == house.verify(ana)


def test_a_verified_token_costs_no_signature() -> None:
    """The keys that were read again are the same keys, and nothing is verified twice."""
    house, ana = House(), token()
    house.verify(ana)
    house.keys = read_key_set(key_set(public_jwk("P-256", kid="e1")))

    def never(*_: object) -> bool:
        raise AssertionError("verified twice")

    for key in house.keys.keys:
        object.__setattr__(key._key, "Algorithm", type("Never", (), {"verify": never}))
    assert Claimed("ana") == house.verify(ana)


def test_only_so_many_are_remembered() -> None:
    """The one that was not used for longest goes first."""
    house = House(tokens_max=2)
    first, second, third = (token(sub=user) for user in ("a", "b", "c"))
    for each in (first, second, first, third):
        house.verify(each)

    assert {sha256(each.encode()).hexdigest() for each in (first, third)} == house.verifier._remembered.keys()


CLAIMS = ClaimNames("sub", "team", "groups", "org.id", "customer", "realm.roles")
ROLES = Issuer(NAME, ISSUER.audiences, ISSUER.algorithms, claims=CLAIMS, admin_roles=frozenset({"boss"}))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Claimed("ana", "t", "acme")),
        ({"customer": "dora"}, Claimed("ana", "t", "acme", "dora")),
        ({"groups": ["a", "b", "a", 1, "x" * 300]}, Claimed("ana", "t", "acme", teams=("a", "b"))),
        ({"groups": "a"}, Claimed("ana", "t", "acme", teams=("a",))),
        ({"realm": {"roles": ["boss"]}}, Claimed("ana", "t", "acme", admin=True)),
        ({"realm.roles": ["boss"]}, Claimed("ana", "t", "acme", admin=True)),
        ({"realm": {"roles": "boss"}}, Claimed("ana", "t", "acme", admin=True)),
        ({"realm": ["boss"]}, Claimed("ana", "t", "acme")),
        ({"org": {}, "org.id": "other"}, Claimed("ana", "t", "other")),
        ({"org": None}, TokenFault.CLAIM),
        ({"team": 7}, TokenFault.CLAIM),
        ({"groups": {"a": 1}}, TokenFault.CLAIM),
        ({"groups": ["a"] * 1001}, TokenFault.CLAIM),
        ({"customer": ["dora"]}, TokenFault.CLAIM),
    ],
)
def test_whom_claims_name(more: dict[str, object], expected: Claimed | TokenFault) -> None:
    """Claims are found by their names, also inside others; one that is asked for and is no id refuses the token."""
    house = House()
    house.issuer = ROLES

    found = house.verify(token(**({"team": "t", "org": {"id": "acme"}} | more)))

    assert expected == (found.fault if isinstance(found, Rejected) else found)


def test_a_role_that_is_required() -> None:
    """Without one of the required roles nobody gets in."""
    house = House()
    house.issuer = Issuer(
        NAME, ISSUER.audiences, ISSUER.algorithms, claims=ClaimNames(roles="roles"), required_roles=frozenset({"llm"})
    )

    assert Claimed("ana") == house.verify(token(roles=["x", "llm"]))
    assert Rejected(TokenFault.ROLE, NAME) == house.verify(token(roles=["x"]))
    assert Rejected(TokenFault.ROLE, NAME) == house.verify(token())


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_types_of_tokens(typ: str | None) -> None:
    """Identity and access tokens are taken, however they are spelled."""
    payload = {"iss": NAME, "aud": ["x", "extauthz"], "sub": "ana", "exp": NOW_S + 600}

    assert Claimed("ana") == House().verify(signed(payload, "P-256", algorithm="ES256", kid="e1", header={"typ": typ}))


def test_clocks_may_differ() -> None:
    """A token that is not yet valid by less than the skew is taken."""
    skew_s = ISSUER.skew_s

    assert Claimed("ana") == House().verify(token(nbf=NOW_S + skew_s, iat=NOW_S + skew_s))
    assert Rejected(TokenFault.NOT_YET_VALID, NAME) == House().verify(token(nbf=NOW_S + skew_s + 1))


def test_keys_are_not_printed() -> None:
    """What a key set prints has no key in it."""
    assert "public" not in repr(ONE).lower()
    assert str(private_key("P-256").public_key().public_numbers().x) not in repr(ONE)  # type: ignore[union-attr]
