"""The hold as it travels: one opaque, signed string in Envoy's dynamic metadata (`extauthz.r`).

    base64url(JSON) "." base64url(HMAC-SHA256 of the first part, cut to 16 bytes)

Whoever holds the store's key can end the reservation, under any configuration; a forged hold does nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable
from typing import Any

from extauthz.adapters.held_prices import flat_prices, prices_from_json, prices_to_json
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import NO_UNITS, Estimate, Prices, Units
from extauthz.domain.reservation import Hold
from extauthz.domain.windows import Window
from extauthz.errors import HoldRejectedError

_VERSION = 3
# Of requests that were under way while servers were replaced by newer ones.
_VERSION_BEFORE = 2
_MAC_BYTES = 16
# A SHA-256 in hexadecimal digits, a point, and what signs it in base64.
SEALED_CHARS_MAX = 64 + 1 + 22
# No hold is written so: what signs a name signs no hold.
_NAME_MARK = "result:"

# Seven scopes with eight windows each, ids of 256 bytes that JSON writes as \u0000 each, and two sets of prices with
# all lengths and tiers, in base64.
HOLD_BYTES_MAX = 512 * 1024


class HoldCodec:
    """Signs holds and takes them back. `key` gives the store's key, None while the store was never reached."""

    def __init__(self, key: Callable[[], bytes | None]) -> None:
        self._key = key

    @property
    def can_tell(self) -> bool:
        """Whether a hold can be told from a forged one: not before the store was reached once."""
        return self._key() is not None

    def encode(self, hold: Hold) -> str | None:
        """Write a hold as one string; None while there is no key to sign it with."""
        if self._key() is None:
            return None
        payload = _b64(json.dumps(_to_json(hold), separators=(",", ":"), ensure_ascii=False).encode())
        return f"{payload}.{_b64(self._mac(payload))}"

    def decode(self, text: str) -> Hold:
        """Read a hold back. Raises HoldRejectedError when it is not one of ours."""
        if len(text) > HOLD_BYTES_MAX:
            raise HoldRejectedError
        payload, _, mac = text.partition(".")
        try:
            if not hmac.compare_digest(_unb64(mac), self._mac(payload)):
                raise HoldRejectedError
            return _from_json(json.loads(_unb64(payload)))
        except (binascii.Error, ValueError, ArithmeticError, TypeError) as error:
            raise HoldRejectedError from error

    def seal(self, name: str) -> str | None:
        """Sign the name of an answer that is asked for; None while there is no key."""
        return None if self._key() is None else f"{name}.{_b64(self._mac(_NAME_MARK + name))}"

    def unseal(self, text: str) -> str:
        """Read back the name that was sealed. Raises HoldRejectedError when it is not one of ours."""
        name, _, mac = text.partition(".")
        try:
            if hmac.compare_digest(_unb64(mac), self._mac(_NAME_MARK + name)):
                return name
        except (binascii.Error, ValueError) as error:
            raise HoldRejectedError from error
        raise HoldRejectedError

    def _mac(self, payload: str) -> bytes:
        key = self._key()
        if key is None:
            raise HoldRejectedError("the store was not reached yet, and with it the key of holds")
        return hmac.digest(key, payload.encode(), "sha256")[:_MAC_BYTES]


def _to_json(hold: Hold) -> list[Any]:
    return [
        _VERSION,
        hold.id,
        hold.reserved_at_ms,
        hold.model,
        hold.streamed,
        hold.choices,
        hold.tokens_max,
        prices_to_json(hold.prices),
        None if hold.whole_prices is None else prices_to_json(hold.whole_prices),
        _estimate_to_json(hold.estimate),
        [
            [counter.scope.kind, counter.scope.ids, counter.window.name, counter.window.start_ms, counter.window.end_ms]
            for counter in hold.counters
        ],
        hold.priced_by,
        hold.free,
    ]


def _from_json(document: list[Any]) -> Hold:
    version, hold_id, at_ms, model, streamed, choices, tokens_max, *rest = document
    if version == _VERSION_BEFORE:
        prices, whole_prices, expected, counters = rest
        priced_by, free = "", False
    elif version == _VERSION:
        prices, whole_prices, expected, counters, priced_by, free = rest
    else:
        raise ValueError(f"a hold of version {version}")
    read_prices: Callable[[Any], Prices] = flat_prices if version == _VERSION_BEFORE else prices_from_json
    return Hold(
        id=hold_id,
        reserved_at_ms=at_ms,
        counters=tuple(
            Counter(Scope(ScopeKind(kind), tuple(ids)), Window(name, start_ms, end_ms))
            for kind, ids, name, start_ms, end_ms in counters
        ),
        model=model,
        prices=read_prices(prices),
        whole_prices=None if whole_prices is None else read_prices(whole_prices),
        estimate=_estimate_from_json(expected),
        streamed=streamed,
        choices=choices,
        tokens_max=tokens_max,
        priced_by=priced_by,
        free=free,
    )


def _estimate_to_json(expected: Estimate) -> list[Any]:
    units = expected.units
    document: list[Any] = [
        expected.input_tokens,
        expected.output_tokens,
        expected.cost_nanousd,
        expected.cost_nanousd_max,
        expected.reasoning_output_tokens,
    ]
    if units != NO_UNITS or expected.flat_nanousd:
        counts = [units.images, units.milliseconds, units.characters, units.queries, units.searches]
        document += [counts, expected.flat_nanousd]
    return document


def _estimate_from_json(document: list[Any]) -> Estimate:
    input_tokens, output_tokens, cost_nanousd, cost_nanousd_max, reasoning_output_tokens, *rest = document
    units, flat_nanousd = rest or ((), 0)
    return Estimate(
        input_tokens,
        output_tokens,
        cost_nanousd,
        cost_nanousd_max,
        reasoning_output_tokens,
        Units(*units),
        flat_nanousd,
    )


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
