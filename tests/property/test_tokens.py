"""Whatever somebody sends as a credential, reading it never fails, and nothing but a signed token names anybody."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.credentials import Credential, credential_of
from extauthz.domain.tokens import Issuer, TokenFault, UnverifiedToken, read_token
from extauthz.tokens.keys import KeySet, read_key_set
from extauthz.tokens.verifier import Rejected, TokenVerifier
from tests.support.issuers import encoded, key_set, public_jwk, signed

NOW_S = 1_800_000_000
ISSUER = Issuer("i", frozenset({"a"}), frozenset({"ES256", "RS256", "EdDSA"}))
KEYS = read_key_set(key_set(public_jwk("P-256", kid="e1"), public_jwk("Ed25519", kid="o1")))
GOOD = signed({"iss": "i", "aud": "a", "sub": "ana", "exp": NOW_S + 60}, "P-256", algorithm="ES256", kid="e1")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Most of a forged token is as in a good one, or nothing but the first check would ever be tried.
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from(["ES256", "EdDSA", "none", "HS256"]), "kid": st.sampled_from(["e1", "o1"])},
    optional=dict.fromkeys(("typ", "jku", "crit", "b64"), json_values),
)
claims = st.fixed_dictionaries(
    {"iss": st.just("i"), "aud": st.just("a"), "sub": st.text(min_size=1, max_size=9), "exp": st.just(NOW_S + 60)},
    optional=dict.fromkeys(("nbf", "iat", "more"), json_values),
)
parts = st.binary(max_size=80).map(encoded) | st.text(max_size=20)
forged = st.builds(lambda head, body, made: f"{encoded(head)}.{encoded(body)}.{made}", headers, claims, parts)
changed = st.builds(
    lambda place, character: GOOD[:place] + character + GOOD[place + 1 :],
    st.integers(0, len(GOOD) - 1),
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") | st.characters(),
).filter(lambda text: text != GOOD)
texts = st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | st.lists(parts).map(".".join) | forged


def keys_of(_: str) -> KeySet:
    """Give the keys."""
    return KEYS


@given(texts | changed)
def test_nothing_is_believed_that_is_not_signed(text: str) -> None:
    """Any text, a token of one's own making, and a good one with a character changed are all refused."""
    found = TokenVerifier(lambda: NOW_S).verify(
        Credential(sha256(text.encode(errors="surrogatepass")).hexdigest(), text), {"i": ISSUER}, 8192, keys_of
    )

    assert isinstance(found, Rejected)


@given(texts)
def test_every_text_is_read(text: str) -> None:
    """No text is beyond reading: it is a token or has a fault, and a header with it holds a credential or none."""
    assert isinstance(read_token(text, 8192), UnverifiedToken | TokenFault)
    credential_of({"authorization": (f"Bearer {text}",)})


@given(st.binary() | json_values.map(lambda keys: key_set({"kty": "RSA", "n": keys, "e": keys})))
def test_every_key_set_is_read(raw: bytes) -> None:
    """Whatever an issuer publishes is a key set or is refused as none."""
    with suppress(ValueError):
        read_key_set(raw)
