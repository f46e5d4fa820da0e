"""The lines about decisions: what somebody on call needs, nothing secret, and never a flood."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from extauthz.domain import denials
from extauthz.domain.budgets import Counter, Scope, ScopeKind, Standing
from extauthz.domain.prices import ZERO, Estimate, Prices
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Hold, public_id
from extauthz.domain.routes import RouteClass
from extauthz.domain.verdict import Admit, Decision, Defer, Deny, Pass, Reason, Verdict
from extauthz.domain.windows import LIFETIME, Window
from extauthz.telemetry.decision_log import LINES_MAX, PATH_CHARS_MAX, DecisionLog
from extauthz.telemetry.log import new_logger

KEY, PROMPT, FREE_TEXT = "sk-secret", "nobody may read this", "a model as a client wrote it"
HOLD = Hold("r1", 0, (), FREE_TEXT, Prices(ZERO, ZERO), Estimate(1, 2, 3, 4), streamed=False)
STANDING = Standing(Counter(Scope(ScopeKind.TEAM, ("research",)), Window(LIFETIME, 0, None)), 10, 10, 0)
EXCEEDED = denials.budget_exceeded(STANDING, now_ms=0, status=429, hide_amounts=False)


class House:
    """A log, with its lines, its clock and its dice in the test's hand."""

    def __init__(self) -> None:
        self.capture = LogCapture()
        self.now_s = 0.0
        self.share = 0.0
        self.dice = iter([0.5] * 1000)
        logger = structlog.wrap_logger(None, processors=[self.capture], wrapper_class=structlog.BoundLogger)
        self.log = DecisionLog(logger, lambda: self.share, lambda: next(self.dice), lambda: self.now_s)

    @property
    def lines(self) -> list[Any]:
        """What was logged."""
        return self.capture.entries

    def decide(self, verdict: Verdict, facts: RequestFacts | None = None, shadowed: Verdict | None = None) -> None:
        """Tell of a decision about an inference."""
        decision = Decision(
            verdict, RouteClass.INFERENCE, "laptop", FREE_TEXT, "gpt-4o", estimate=HOLD.estimate, shadowed=shadowed
        )
        self.log.decided(decision, facts, 0.00123456)


def asked(path: str = "/v1/chat/completions?key=in-the-query", request_id: str | None = "req-1") -> RequestFacts:
    """Write a request with everything in it that no line may have."""
    headers = {"authorization": (f"Bearer {KEY}",)} | ({} if request_id is None else {"x-request-id": (request_id,)})
    return RequestFacts("POST", path, headers, PROMPT.encode())


def test_a_refusal() -> None:
    """It says why, who, what, where and how long it took."""
    house = House()
    house.decide(EXCEEDED, asked())

    assert [
        {
            "event": "denied",
            "log_level": "info",
            "reason": "budget_exceeded",
            "status": 429,
            "scope": "team:research",
            "principal": "laptop",
            "model": "gpt-4o",
            "route_class": "inference",
            "method": "POST",
            "path": "/v1/chat/completions",
            "request_id": "req-1",
            "seconds": 0.001235,
        }
    ] == house.lines


def test_a_refusal_that_shadow_mode_kept_from_happening() -> None:
    """It says what the request would have got, and the reservation that it has."""
    house = House()
    house.decide(Admit(Reason.WITHIN_BUDGET, HOLD), asked(), shadowed=EXCEEDED)

    (line,) = house.lines
    assert ("would have been denied", "budget_exceeded", 429, public_id("r1")) == (
        line["event"],
        line["reason"],
        line["status"],
        line["reservation"],
    )


def test_an_unreadable_request() -> None:
    """A failure of our own has no request to tell of."""
    house = House()
    house.decide(denials.internal_error())

    assert {"method", "path", "request_id"}.isdisjoint(house.lines[0])


def test_a_share_of_what_is_let_through() -> None:
    """The configuration says how much, the dice which; it may change at any time."""
    house = House()
    admitted = Admit(Reason.WITHIN_BUDGET, HOLD)
    for share in (0.0, 0.5, 0.51, 1.0):
        house.share = share
        house.decide(admitted, asked())

    assert [("allowed", public_id("r1"))] * 2 == [(line["event"], line["reservation"]) for line in house.lines]


def test_left_to_envoy() -> None:
    """It is a warning: nobody decided."""
    house = House()
    house.decide(Defer(Reason.STORE_UNAVAILABLE), asked())

    assert [("deferred to Envoy", "warning")] == [(line["event"], line["log_level"]) for line in house.lines]


def test_a_flood() -> None:
    """Of each kind LINES_MAX lines are written in a second; the rest is one line with its number, when it is over."""
    house = House()
    for _ in range(1000):
        house.decide(EXCEEDED, asked())
    house.decide(denials.unauthenticated("no"), asked())
    assert LINES_MAX + 1 == len(house.lines)

    house.now_s = 1.0
    house.decide(Pass(Reason.INFO), asked())

    assert {
        "event": "more decisions like these",
        "log_level": "info",
        "like": "denied",
        "reason": "budget_exceeded",
        "count": 1000 - LINES_MAX,
    } == house.lines[-1]
    assert LINES_MAX + 2 == len(house.lines)
    house.decide(EXCEEDED, asked())
    assert "denied" == house.lines[-1]["event"]


def test_the_end_of_a_flood() -> None:
    """A server that stops tells what it left out."""
    house = House()
    for _ in range(LINES_MAX + 7):
        house.decide(EXCEEDED, asked())

    house.log.tell_left_out()
    house.log.tell_left_out()

    assert [7] == [line["count"] for line in house.lines if "count" in line]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        pytest.param("/v1/models/a%2Fb", "/v1/models/a%2Fb", id="as it came"),
        pytest.param("/\x1b[2J\r\nfake: line", "/%1B[2J%0D%0Afake:%20line", id="steering a terminal"),
        pytest.param("/ü\u2028", "/%C3%BC%E2%80%A8", id="not ASCII"),
        pytest.param("/\udcff", "/?", id="no text at all"),
        pytest.param("/" + "x" * 9_000, "/" + "x" * (PATH_CHARS_MAX - 1), id="long"),
        pytest.param("/" + "ü" * 9_000, ("/" + "%C3%BC" * 99)[:PATH_CHARS_MAX], id="long when it is written"),
    ],
)
def test_a_path(path: str, written: str) -> None:
    """What a client writes into a path steers no terminal and has a bound."""
    house = House()
    house.decide(EXCEEDED, asked(path))

    assert written == house.lines[0]["path"]


@pytest.mark.parametrize("request_id", [None, "x" * 129, "a\x1b[2J", "ü", "a\nb"])
def test_an_id_that_is_none(request_id: str | None) -> None:
    """An id that is long or cannot be printed is left out."""
    house = House()
    house.decide(EXCEEDED, asked(request_id=request_id))

    assert "request_id" not in house.lines[0]


def test_nothing_secret_is_written() -> None:
    """Neither the key, nor the prompt, nor the query, nor the model as the client wrote it gets into the real log."""
    stream = io.StringIO()
    logger = new_logger(stream)
    log = DecisionLog(logger, lambda: 1.0, lambda: 0.0, lambda: 0.0)
    for verdict in (EXCEEDED, Admit(Reason.WITHIN_BUDGET, HOLD), denials.model_unknown(FREE_TEXT)):
        assert not isinstance(verdict, Deny) or verdict.message
        log.decided(Decision(verdict, RouteClass.INFERENCE, "laptop", FREE_TEXT, "gpt-4o"), asked(), 0.1)
    while stream.getvalue().count("\n") < 3:
        threading.Event().wait(0.001)

    written = stream.getvalue()
    assert 3 == len([json.loads(line) for line in written.splitlines()])
    for secret in (KEY, PROMPT, FREE_TEXT, "in-the-query"):
        assert secret not in written
