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
from decimal import Decimal
from typing import Any

from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.reservation import Hold
from extauthz.domain.windows import Window
from extauthz.errors import HoldRejectedError

_VERSION = 2
_MAC_BYTES = 16

# Seven scopes with eight windows each, ids of 256 bytes that JSON writes as \u0000 each, in base64.
HOLD_BYTES_MAX = 256 * 1024


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

    def _mac(self, payload: str) -> bytes:
        key = self._key()
        if key is None:
            raise HoldRejectedError("the store was not reached yet, and with it the key of holds")
        return hmac.digest(key, payload.encode(), "sha256")[:_MAC_BYTES]


def _to_json(hold: Hold) -> list[Any]:
    expected = hold.estimate
    return [
        _VERSION,
        hold.id,
        hold.reserved_at_ms,
        hold.model,
        hold.streamed,
        hold.choices,
        hold.tokens_max,
        _prices_to_json(hold.prices),
        None if hold.whole_prices is None else _prices_to_json(hold.whole_prices),
        [
            expected.input_tokens,
            expected.output_tokens,
            expected.cost_nanousd,
            expected.cost_nanousd_max,
            expected.reasoning_output_tokens,
        ],
        [
            [counter.scope.kind, counter.scope.ids, counter.window.name, counter.window.start_ms, counter.window.end_ms]
            for counter in hold.counters
        ],
    ]


def _from_json(document: list[Any]) -> Hold:
    version, hold_id, at_ms, model, streamed, choices, tokens_max, *rest = document
    prices, whole_prices, expected, counters = rest
    if version != _VERSION:
        raise ValueError(f"a hold of version {version}")
    return Hold(
        id=hold_id,
        reserved_at_ms=at_ms,
        counters=tuple(
            Counter(Scope(ScopeKind(kind), tuple(ids)), Window(name, start_ms, end_ms))
            for kind, ids, name, start_ms, end_ms in counters
        ),
        model=model,
        prices=_prices_from_json(prices),
        whole_prices=None if whole_prices is None else _prices_from_json(whole_prices),
        estimate=Estimate(*expected),
        streamed=streamed,
        choices=choices,
        tokens_max=tokens_max,
    )


def _prices_to_json(prices: Prices) -> list[str | None]:
    kinds = (
        prices.input,
        prices.output,
        prices.cache_read_input,
        prices.cache_creation_input,
        prices.reasoning_output,
    )
    return [None if price is None else str(price) for price in kinds]


def _prices_from_json(kinds: list[str | None]) -> Prices:
    return Prices(*(None if price is None else Decimal(price) for price in kinds))  # type: ignore[arg-type]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
