"""The hold as it travels: one opaque, signed string in Envoy's dynamic metadata (`extauthz.r`).

    base64url(JSON) "." base64url(JSON of its prices) "." base64url(HMAC-SHA256 of all before it, cut to 16 bytes)

Whoever holds the store's key can end the reservation, under any configuration; a forged hold does nothing. Prices stand
apart because they are the same for all requests of a model: they are written once, and read once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jiter import from_json
from pydantic_core import to_json

from extauthz.adapters.held_prices import prices_from_json, prices_to_json
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import NO_UNITS, Estimate, Prices, Units
from extauthz.domain.reservation import Hold
from extauthz.domain.windows import Window
from extauthz.errors import HoldRejectedError

_VERSION = 4
# Of requests that were under way while servers were replaced by newer ones.
_VERSION_BEFORE = 3
_MAC_BYTES = 16
# A SHA-256 in hexadecimal digits, a point, and what signs it in base64.
SEALED_CHARS_MAX = 64 + 1 + 22
# No hold is written so: what signs a name signs no hold.
_NAME_MARK = "result:"

# Twenty-four scopes, sixteen of them tags, with all budgets that a payer can have and names of usual length, in base64.
# What would be longer is no hold: nobody would read it back, and what was used would be booked nowhere.
HOLD_BYTES_MAX = 512 * 1024

# Of how many models prices are remembered as they are written, and as they were read. With what longer inputs and tiers
# cost, prices have some 2 KiB; longer ones, which nobody sells, are read anew each time.
PRICES_MAX = 1024
PRICES_CHARS_MAX = 16 * 1024
# Counters that were read lately: those of a request's organization and team are those of many others.
COUNTERS_MAX = 4096


class HoldCodec:
    """Signs holds and takes them back. `key` gives the store's key, None while the store was never reached."""

    def __init__(self, key: Callable[[], bytes | None]) -> None:
        self._key = key
        self._prices = _WrittenPrices()
        self._read_prices = lru_cache(PRICES_MAX)(_prices_from)
        self._counter = lru_cache(COUNTERS_MAX)(Counter.parse)

    @property
    def can_tell(self) -> bool:
        """Whether a hold can be told from a forged one: not before the store was reached once."""
        return self._key() is not None

    def encode(self, hold: Hold) -> str | None:
        """Write a hold as one string; None while there is no key to sign it with.

        Raises ValueError for one that is too long to be read back.
        """
        if self._key() is None:
            return None
        signed = f"{_b64(to_json(_parts(hold)))}.{self._prices.of(hold)}"
        text = f"{signed}.{_b64(self._mac(signed))}"
        if len(text) > HOLD_BYTES_MAX:
            raise ValueError(f"a hold on {len(hold.counters)} counters is longer than {HOLD_BYTES_MAX} bytes")
        return text

    def decode(self, text: str) -> Hold:
        """Read a hold back. Raises HoldRejectedError when it is not one of ours."""
        if len(text) > HOLD_BYTES_MAX:
            raise HoldRejectedError
        signed, _, mac = text.rpartition(".")
        try:
            if not hmac.compare_digest(mac, _b64(self._mac(signed))):
                raise HoldRejectedError
            payload, _, prices = signed.partition(".")
            document = from_json(_unb64(payload))
            return self._from_json(document, prices) if document[0] == _VERSION else _from_json_before(document)
        except (binascii.Error, ValueError, ArithmeticError, TypeError, LookupError) as error:
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

    def _from_json(self, document: list[Any], written_prices: str) -> Hold:
        _, hold_id, at_ms, model, streamed, choices, tokens_max, expected, keys, priced_by, free = document
        read = self._read_prices if len(written_prices) <= PRICES_CHARS_MAX else _prices_from
        prices, whole_prices = read(written_prices)
        return Hold(
            id=hold_id,
            reserved_at_ms=at_ms,
            counters=tuple(map(self._counter, keys.split())),
            model=model,
            prices=prices,
            estimate=_estimate_from_json(expected),
            streamed=streamed,
            choices=choices,
            whole_prices=whole_prices,
            tokens_max=tokens_max,
            priced_by=priced_by,
            free=free,
        )


class _WrittenPrices:
    """Remembers how the prices of holds are written, those of the request and those of its whole body.

    They are known by their identity: hashing prices means hashing all of their rates. So they are kept along, for their
    identity not to become another's.
    """

    def __init__(self) -> None:
        self._written: dict[tuple[int, int], tuple[Prices, Prices | None, str]] = {}

    def of(self, hold: Hold) -> str:
        """Write the prices of a hold."""
        known = (id(hold.prices), id(hold.whole_prices))
        found = self._written.get(known)
        if found is not None:
            return found[2]
        both = [None if prices is None else prices_to_json(prices) for prices in (hold.prices, hold.whole_prices)]
        text = _b64(to_json(both))
        if len(self._written) >= PRICES_MAX:
            self._written.clear()  # another configuration's, mostly
        self._written[known] = (hold.prices, hold.whole_prices, text)
        return text


def _prices_from(written: str) -> tuple[Prices, Prices | None]:
    prices, whole_prices = from_json(_unb64(written))
    return prices_from_json(prices), None if whole_prices is None else prices_from_json(whole_prices)


def _parts(hold: Hold) -> list[Any]:
    return [
        _VERSION,
        hold.id,
        hold.reserved_at_ms,
        hold.model,
        hold.streamed,
        hold.choices,
        hold.tokens_max,
        _estimate_to_json(hold.estimate),
        " ".join([counter.key for counter in hold.counters]),  # no key has a blank in it
        hold.priced_by,
        hold.free,
    ]


def _from_json_before(document: list[Any]) -> Hold:
    """Read a hold in which prices stood with the rest, and counters by their parts."""
    version, hold_id, at_ms, model, streamed, choices, tokens_max, *rest = document
    prices, whole_prices, expected, counters, priced_by, free = rest
    if version != _VERSION_BEFORE:
        raise ValueError(f"a hold of version {version}")
    return Hold(
        id=hold_id,
        reserved_at_ms=at_ms,
        counters=tuple(
            Counter(Scope(ScopeKind(kind), tuple(ids)), Window(name, start_ms, end_ms))
            for kind, ids, name, start_ms, end_ms in counters
        ),
        model=model,
        prices=prices_from_json(prices),
        whole_prices=None if whole_prices is None else prices_from_json(whole_prices),
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
