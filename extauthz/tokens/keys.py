"""The public keys of an issuer, as it publishes them: a JSON Web Key Set.

Only keys that can verify signatures and nothing else are kept. A secret (`oct`) is none: whoever could check a token
with it could also write one. Which algorithms a key can be used with follows from the key, never from a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import jiter
import jwt

KEYS_MAX = 100
KEY_SET_BYTES_MAX = 256 * 1024

# A token that names no key is tried with so many.
TRIED_MAX = 4

# Smaller keys can be broken; larger ones, and larger exponents, take long to verify with.
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
RSA_EXPONENT_BITS_MAX = 32

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVE_ALGORITHMS: Mapping[str, str] = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
ALGORITHMS = (*RSA_ALGORITHMS, *CURVE_ALGORITHMS.values())

# The public members of each type of key: nothing else of it is read.
_PUBLIC: Mapping[str, tuple[str, ...]] = {
    "RSA": ("kty", "n", "e"),
    "EC": ("kty", "crv", "x", "y"),
    "OKP": ("kty", "crv", "x"),
}
# A key that was published with one of these is nobody's secret any more.
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_NO_SET = "this is no JSON Web Key Set: it must be an object with a list of at most {} `keys`"
_NO_KEYS = "there is no key in it that can verify signatures"


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key for one algorithm. Equal keys have the same `fingerprint`, whenever they were read."""

    key_id: str | None
    algorithm: str
    fingerprint: str
    _key: jwt.PyJWK = field(repr=False, compare=False)

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Tell whether a signature was made over these bytes with the private half of this key."""
        try:
            return bool(self._key.Algorithm.verify(signed, self._key.key, signature))
        except (jwt.PyJWTError, ValueError, TypeError):  # a signature of no possible length or form
            return False


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer."""

    keys: tuple[VerificationKey, ...]

    def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Give the keys that a token may be signed with: those that it names, or the few that there are."""
        fitting = [key for key in self.keys if key.algorithm == algorithm]
        if key_id is None:
            return tuple(fitting) if len(fitting) <= TRIED_MAX else ()
        return tuple(key for key in fitting if key.key_id == key_id)[:TRIED_MAX]

    def has(self, key: VerificationKey) -> bool:
        """Tell whether a key is still among them."""
        return key in self.keys


def read_key_set(raw: bytes) -> KeySet:
    """Read a key set, without the keys that are of no use. Raises ValueError, in a sentence, when none is left."""
    if len(raw) > KEY_SET_BYTES_MAX:
        raise ValueError(f"it is larger than {KEY_SET_BYTES_MAX} bytes")
    try:
        document = jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        raise ValueError(_NO_SET.format(KEYS_MAX)) from None
    match document:
        case {"keys": list(entries)} if len(entries) <= KEYS_MAX:
            keys = tuple(key for entry in entries if isinstance(entry, dict) for key in _keys(entry))
        case _:
            raise ValueError(_NO_SET.format(KEYS_MAX))
    if not keys:
        raise ValueError(_NO_KEYS)
    return KeySet(keys)


def _keys(entry: Mapping[str, object]) -> Iterator[VerificationKey]:
    """Give a key once for each algorithm that it can be used with, never when it has another use."""
    members = _public_members(entry)
    key_id = entry.get("kid")
    if members is None or not isinstance(key_id, str | None):
        return
    fingerprint = sha256(repr(sorted(members.items())).encode()).hexdigest()
    for algorithm in _algorithms(entry):
        try:
            key = jwt.PyJWK(members, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return
        if _is_strong(key.key):
            yield VerificationKey(key_id, algorithm, fingerprint, key)


def _public_members(entry: Mapping[str, object]) -> dict[str, str] | None:
    names = _PUBLIC.get(str(entry.get("kty")), ())
    members = {name: value for name in names if isinstance(value := entry.get(name), str)}
    operations = entry.get("key_ops")
    verifies = entry.get("use", "sig") == "sig" and (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    )
    return members if names and len(members) == len(names) and verifies and entry.keys().isdisjoint(_PRIVATE) else None


def _algorithms(entry: Mapping[str, object]) -> tuple[str, ...]:
    possible = RSA_ALGORITHMS if entry["kty"] == "RSA" else (CURVE_ALGORITHMS.get(str(entry["crv"]), ""),)
    written = entry.get("alg")
    return tuple(algorithm for algorithm in possible if algorithm and written in (None, algorithm))


def _is_strong(key: object) -> bool:
    """Tell whether an RSA key is neither too small nor too slow; curves have one size each."""
    numbers = getattr(key, "public_numbers", None)
    modulus, exponent = (getattr(numbers(), name, None) if numbers else None for name in ("n", "e"))
    if modulus is None or exponent is None:
        return True
    return RSA_BITS_MIN <= int(modulus).bit_length() <= RSA_BITS_MAX and int(exponent) < 1 << RSA_EXPONENT_BITS_MAX
