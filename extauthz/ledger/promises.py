"""The promises that the ledger in memory remembers: what is held for answers that are still to be made."""

from __future__ import annotations

from collections import OrderedDict

from extauthz.ledger.base import PROMISE_BYTES_MAX, PROMISED_SECONDS, PROMISES_MAX, Promise

PROMISED_MS = PROMISED_SECONDS * 1000

# How much cleaning up one promise does: they shrink faster than they grow.
PROMISES_DROPPED_MAX = 4


class Promises:
    """The promises of the last PROMISED_MS, at most PROMISES_MAX of them: beyond it none is taken."""

    def __init__(self) -> None:
        self._by_name: OrderedDict[str, tuple[int, str]] = OrderedDict()  # name → until when, hold

    def put(self, promise: Promise, now_ms: int) -> bool:
        """Remember a promise, and tell whether it is."""
        for _ in range(PROMISES_DROPPED_MAX):
            oldest = next(iter(self._by_name), None)
            if oldest is None or self._by_name[oldest][0] > now_ms:
                break
            del self._by_name[oldest]
        known = self.get(promise.name, now_ms)
        if known is not None:
            return known == promise.hold
        if len(promise.hold) > PROMISE_BYTES_MAX or len(self._by_name) >= PROMISES_MAX:
            return False
        self._by_name.pop(promise.name, None)
        self._by_name[promise.name] = (now_ms + PROMISED_MS, promise.hold)
        return True

    def get(self, name: str, now_ms: int) -> str | None:
        """Give the hold that was promised under a name."""
        until_ms, hold = self._by_name.get(name, (0, ""))
        return hold if until_ms > now_ms else None

    def drop(self, name: str) -> None:
        """Forget a promise."""
        self._by_name.pop(name, None)
