"""A line in the log for each refusal, and for a sample of what is let through: what somebody on call looks for first.

A line has no key, no prompt and no header but the id of the request. What clients write into it is bounded and escaped.
A flood of decisions is no flood of lines: of each kind only so many are written in a second, and the rest is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import quote

from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import public_id
from extauthz.domain.verdict import Admit, Decision, Defer, Deny
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.log import Logger

# Lines of one kind, which is an event with a reason, in LINES_S.
LINES_MAX = 10
LINES_S = 1.0

# What is kept of texts that clients write, in characters.
METHOD_CHARS_MAX = 16
PATH_CHARS_MAX = 256
REQUEST_ID_CHARS_MAX = 128

REQUEST_ID_HEADER = "x-request-id"

# Printable ASCII, without the blank.
_PATH_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~%"

DENIED, WOULD_BE_DENIED, ALLOWED, DEFERRED = "denied", "would have been denied", "allowed", "deferred to Envoy"


class DecisionLog(Telemetry):
    """Writes decisions into the log.

    `allowed_share` tells which share of what is let through gets a line, and `chance` draws it, from 0 to below 1.
    """

    def __init__(
        self,
        log: Logger,
        allowed_share: Callable[[], Decimal | float],
        chance: Callable[[], float],
        clock_s: Callable[[], float],
    ) -> None:
        self._log = log
        self._allowed_share = allowed_share
        self._chance = chance
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._counts = Counter[tuple[str, str]]()

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Write a line about a refusal, and by chance about an allow."""
        if self._counts and self._clock_s() - self._began_s >= LINES_S:
            self.tell_left_out()
        event = self._event(decision)
        if event is None:
            return
        if not self._counts:
            self._began_s = self._clock_s()
        kind = (event, str(decision.judged.reason))
        self._counts[kind] += 1
        if self._counts[kind] <= LINES_MAX:
            write = self._log.warning if event is DEFERRED else self._log.info
            write(event, **_fields(decision, facts), seconds=round(seconds, 6))

    def tell_left_out(self) -> None:
        """Write how many lines were left out since this was told last."""
        for (event, reason), count in self._counts.items():
            if count > LINES_MAX:
                self._log.info("more decisions like these", like=event, reason=reason, count=count - LINES_MAX)
        self._counts.clear()

    def _event(self, decision: Decision) -> str | None:
        match decision.judged:
            case Deny():
                return DENIED if decision.shadowed is None else WOULD_BE_DENIED
            case Defer():
                return DEFERRED
            case _:
                share = self._allowed_share()
                return ALLOWED if share and share > self._chance() else None


def _fields(decision: Decision, facts: RequestFacts | None) -> dict[str, object]:
    """Give what a line says of a decision, without what is not there."""
    judged, verdict = decision.judged, decision.verdict
    fields = {
        "reason": str(judged.reason),
        "status": judged.status if isinstance(judged, Deny) else None,
        "scope": judged.scope if isinstance(judged, Deny) else None,
        "fault": str(judged.fault) if isinstance(judged, Deny) and judged.fault is not None else None,
        "principal": decision.principal,
        "model": decision.entry,
        "route_class": str(decision.route_class),
        "method": None if facts is None else _escaped(facts.method, METHOD_CHARS_MAX),
        "path": None if facts is None else _escaped(facts.path.partition("?")[0], PATH_CHARS_MAX),
        "reservation": public_id(verdict.hold.id) if isinstance(verdict, Admit) else None,
        "request_id": None if facts is None else _request_id(facts),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _escaped(text: str, chars_max: int) -> str:
    """Percent-encode what is not printable ASCII: a terminal would obey it."""
    return quote(text[:chars_max], safe=_PATH_SAFE, errors="replace")[:chars_max]


def _request_id(facts: RequestFacts) -> str | None:
    """Give the id of the request if it has one that looks like an id."""
    header = facts.header(REQUEST_ID_HEADER)
    if header is None or len(header) > REQUEST_ID_CHARS_MAX or not (header.isascii() and header.isprintable()):
        return None
    return header
