"""Alerts on their way to a webhook: what is sent, how often it is tried, and that nothing of it gets out of hand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from extauthz.adapters.webhook import RETRY_AFTER_S_MAX, TRIES_MAX, Webhook, _retry_after_s, payload
from extauthz.config.snapshot import Configuration
from extauthz.domain.budgets import Counter, Scope, ScopeKind, Standing
from extauthz.domain.payers import Accounts
from extauthz.domain.thresholds import Alert, Threshold, ThresholdKind
from extauthz.domain.windows import Window
from extauthz.telemetry.events import Delivery
from extauthz.telemetry.listeners import Listeners
from extauthz.telemetry.log import Reporter
from extauthz.telemetry.metrics import Metrics
from tests.support.processes import LOOPBACK, WAIT_SECONDS, eventually, free_port
from tests.support.receiver import (
    OTHER_PATH,
    SECRET_PATH,
    Answer,
    Receiver,
    hang_up,
    keep_waiting,
    redirect,
    status,
    talk_forever,
)
from tests.support.surveyed import a_configuration, a_snapshot
from tests.support.tls import Certificates
from tests.support.witness import Witness

MONTH = Window("1mo", 1_793_491_200_000, 1_796_083_200_000)
STANDING = Standing(Counter(Scope(ScopeKind.TEAM, ("research",)), MONTH), 10_000_000_000, 9_250_000_000, 0)
ALERT = Alert(Threshold(ThresholdKind.PERCENTAGE, 80), STANDING, "team:research")
SENT = (Delivery.SENT, LOOPBACK, "")


def configured(url: str, timeout_s: float = 5.0) -> Configuration:
    """Put a configuration with a webhook in force."""
    return a_configuration(Accounts(), f"{{alerts: {{webhook: {{url: '{url}', timeout_seconds: {timeout_s}}}}}}}")


class House:
    """A webhook that hardly pauses between tries, with what is told of it in telemetry and log."""

    def __init__(self, url: str, *, timeout_s: float = 5.0, waiting_max: int = 100) -> None:
        self.configuration = configured(url, timeout_s)
        self.witness = Witness()
        self.log = LogCapture()
        logger = structlog.wrap_logger(None, processors=[self.log], wrapper_class=structlog.BoundLogger)
        telemetry = Listeners(self.witness, Reporter(Metrics(), logger))
        self.webhook = Webhook(self.configuration, telemetry, lambda: 0.5, waiting_max=waiting_max, pause_s=0.001)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Deliver inside the block, and until nothing waits."""
        task = asyncio.create_task(self.webhook.deliver())
        try:
            yield
            async with asyncio.timeout(WAIT_SECONDS):
                await self.webhook.drained()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def deliver(self, *alerts: Alert) -> list[tuple[Delivery, str, str]]:
        """Send alerts, and give what became of them."""
        async with self.delivering():
            for alert in alerts:
                self.webhook.send(alert)
        return self.witness.deliveries


async def test_a_host_that_cannot_be_looked_up() -> None:
    """A name that DNS has no way to write fails like any other, is told of, and the next alert is tried."""
    delivered = await House(f"http://{'a' * 64}.example/secret").deliver(ALERT, ALERT)

    assert [Delivery.FAILED] * 2 == [delivery for delivery, *_ in delivered]


async def test_what_is_sent() -> None:
    """A chat finds a sentence, a program finds every figure by its name."""
    async with Receiver() as receiver:
        delivered = await House(receiver.url).deliver(ALERT)

    assert [SENT] == delivered
    assert [SECRET_PATH] == receiver.paths
    assert [
        {
            "text": "The budget of team:research (1mo) has reached 80%. 92% of it is used. Spent: 9.25 of 10.0 USD. "
            "It resets at 2026-12-01T00:00:00+00:00.",
            "kind": "percentage",
            "scope": "team:research",
            "name": "team:research",
            "window": "1mo",
            "measure": "usd",
            "threshold_percent": 80,
            "used_percent": 92,
            "resets_at": "2026-12-01T00:00:00+00:00",
            "limit_usd": 10.0,
            "spent_usd": 9.25,
        }
    ] == receiver.bodies


@pytest.mark.parametrize(
    ("alert", "text"),
    [
        pytest.param(
            Alert(ALERT.threshold, STANDING, "team:research", hide_amounts=True),
            "The budget of team:research (1mo) has reached 80%. 92% of it is used. "
            "It resets at 2026-12-01T00:00:00+00:00.",
            id="without amounts",
        ),
        pytest.param(
            Alert(
                Threshold(ThresholdKind.SOFT, 1),
                Standing(Counter(Scope(ScopeKind.GLOBAL), Window("lifetime", 0, None)), 0, 2_000_000_000, 0),
                "global",
            ),
            "The budget of global (lifetime) has reached its soft limit. Spent: 2.0 of 0.0 USD.",
            id="soft",
        ),
        pytest.param(
            Alert(ALERT.threshold, STANDING, "<!channel> & co", hide_amounts=True),
            "The budget of &lt;!channel&gt; &amp; co (1mo) has reached 80%. 92% of it is used. "
            "It resets at 2026-12-01T00:00:00+00:00.",
            id="no commands to the chat",
        ),
    ],
)
def test_the_sentence(alert: Alert, text: str) -> None:
    """It says what was crossed, leaves amounts out where they are hidden, and is text to the chat and nothing else."""
    assert text == payload(alert)["text"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(status(500), id="500"),
        pytest.param(status(503), id="503"),
        pytest.param(status(429, **{"retry-after": "0"}), id="429"),
        pytest.param(hang_up, id="hung up"),
        pytest.param(keep_waiting, id="timeout"),
    ],
)
async def test_it_is_tried_again(answer: Answer) -> None:
    """A receiver that fails for a while gets the alert when it is well again."""
    async with Receiver(answer, answer) as receiver:
        delivered = await House(receiver.url, timeout_s=0.5 if answer is keep_waiting else 5.0).deliver(ALERT)

    assert [SENT] == delivered
    assert 3 <= len(receiver.bodies)


async def test_it_gives_up_on_who_always_fails() -> None:
    """After so many tries an alert is lost and told of; the next ones are delivered all the same."""
    async with Receiver(*[status(500)] * TRIES_MAX) as receiver:
        delivered = await House(receiver.url).deliver(ALERT, ALERT)

    assert [(Delivery.FAILED, LOOPBACK, "status 500"), SENT] == delivered
    assert TRIES_MAX + 1 == len(receiver.bodies)


async def test_it_gives_up_on_who_is_not_there() -> None:
    """Nobody listens: the alert is lost, and nothing of the URL but its host is told."""
    house = House(f"http://{LOOPBACK}:{free_port()}{SECRET_PATH}")
    delivered = await house.deliver(ALERT)

    assert [(Delivery.FAILED, LOOPBACK, "ClientConnectorError")] == delivered


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(redirect, "status 307", id="redirection"),
        pytest.param(status(404), "status 404", id="404"),
        pytest.param(status(400), "status 400", id="400"),
    ],
)
async def test_it_does_not_insist(answer: Answer, reason: str) -> None:
    """Who refuses is not asked again, and a redirection is not followed: nobody has said where to."""
    async with Receiver(answer) as receiver:
        delivered = await House(receiver.url).deliver(ALERT)

    assert [(Delivery.FAILED, LOOPBACK, reason)] == delivered
    assert [SECRET_PATH] == receiver.paths
    assert OTHER_PATH not in receiver.paths


async def test_an_endless_answer_is_not_read() -> None:
    """The status is all that counts: a body without an end holds nobody up."""
    async with Receiver(talk_forever) as receiver:
        delivered = await House(receiver.url).deliver(ALERT, ALERT)

    assert [SENT, SENT] == delivered


async def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    """The receiver must be who the URL says."""
    certificates = Certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.cert, certificates.key)
    async with Receiver(tls=tls) as receiver:
        delivered = await House(receiver.url).deliver(ALERT)

    assert [(Delivery.FAILED, LOOPBACK, "ClientConnectorCertificateError")] == delivered
    assert [] == receiver.bodies


async def test_so_many_wait_and_no_more() -> None:
    """While one is on its way others wait, up to a number; beyond it they are lost, and counted."""
    async with Receiver(keep_waiting) as receiver:
        house = House(receiver.url, timeout_s=0.3, waiting_max=2)
        async with house.delivering():
            house.webhook.send(ALERT)
            await eventually(lambda: receiver.bodies, what="the first is on its way")
            for _ in range(4):
                house.webhook.send(ALERT)
            dropped = list(house.witness.deliveries)

    assert [(Delivery.DROPPED, LOOPBACK, "too many alerts are waiting")] * 2 == dropped
    assert [SENT] * 3 == house.witness.deliveries[2:]


async def test_without_a_webhook_nothing_is_sent() -> None:
    """A configuration without one, at the start or after a reload, sends nothing and keeps nothing."""
    async with Receiver() as receiver:
        house = House(receiver.url)
        house.webhook.send(ALERT)
        house.configuration.replace(a_snapshot(Accounts()))
        delivered = await house.deliver(ALERT)

    assert [] == delivered
    assert [] == receiver.bodies


@pytest.mark.parametrize("answer", [status(500), redirect, hang_up], ids=["500", "redirection", "hung up"])
async def test_the_url_is_never_told(answer: Answer) -> None:
    """Whatever goes wrong, the log names the host, and no part of the path."""
    async with Receiver(*[answer] * TRIES_MAX) as receiver:
        house = House(receiver.url)
        await house.deliver(ALERT)

    (line,) = house.log.entries
    assert (Delivery.FAILED, LOOPBACK) == (line["result"], line["host"])
    assert not any(part in str(house.log.entries) for part in SECRET_PATH.split("/") if part)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0.0), ("7", 7.0), ("9999", RETRY_AFTER_S_MAX), ("99999999", 0.0), ("-1", 0.0), ("²", 0.0), ("Wed", 0.0)],
)
def test_a_longer_pause_may_be_asked_for(header: str, seconds: float) -> None:
    """`retry-after` in seconds counts, up to a minute; anything else is no wish."""
    assert seconds == _retry_after_s(header)


def test_pauses_grow() -> None:
    """Each pause is twice the one before, a little more or less by chance."""
    pauses = {}
    for chance in (0.0, 0.5, 1.0):
        webhook = Webhook(configured("https://chat.example"), Witness(), lambda chance=chance: chance)  # type: ignore[misc]
        pauses[chance] = [webhook._pause(tries) for tries in range(1, TRIES_MAX)]

    assert {0.0: [0.75, 1.5, 3.0, 6.0], 0.5: [1.0, 2.0, 4.0, 8.0], 1.0: [1.25, 2.5, 5.0, 10.0]} == pauses
