"""The webhook: alerts on their way to a chat or a pager, in the JSON of Slack's incoming webhooks.

Its URL is a secret: whoever has it can write there. Logs name the host alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from extauthz.config.notifications import WebhookSettings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.measures import amount_text, measured
from extauthz.domain.thresholds import Alert, ThresholdKind, resets_at, spent_percent
from extauthz.telemetry.events import Delivery, Telemetry

# Alerts that wait while others are delivered, one at a time.
WAITING_MAX = 1000

# Each is tried so often. The pause before another try is doubled each time, and up to a quarter shorter or longer by
# chance; a receiver that asks for a longer one (retry-after) gets it, up to RETRY_AFTER_S_MAX.
TRIES_MAX = 5
PAUSE_S = 1.0
PAUSE_SPREAD = 0.25
RETRY_AFTER_S_MAX = 60.0
RETRY_AFTER_DIGITS_MAX = 4

_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True)
class _Tried:
    """How a try went: why it failed, "" if it did not; whether another may go better, and after how many seconds."""

    reason: str = ""
    again: bool = False
    pause_s: float = 0.0


class Webhook:
    """Delivers alerts to where the configuration in force says; without a webhook in it, to nobody."""

    def __init__(
        self,
        configuration: Callable[[], Snapshot],
        telemetry: Telemetry,
        chance: Callable[[], float],
        *,
        waiting_max: int = WAITING_MAX,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._configuration = configuration
        self._telemetry = telemetry
        self._chance = chance
        self._pause_s = pause_s
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue(waiting_max)

    def send(self, alert: Alert) -> None:
        """Leave an alert to be delivered; one that finds no room to wait is told of, and lost."""
        settings = self._configuration().settings.alerts.webhook
        if settings is None:
            return
        try:
            self._waiting.put_nowait(alert)
        except asyncio.QueueFull:
            self._telemetry.alert_delivered(Delivery.DROPPED, _host(settings), "too many alerts are waiting")

    async def deliver(self) -> None:
        """Deliver whatever there is; runs until it is cancelled."""
        # An answer's body is not read, so its connection is of no more use.
        connector = aiohttp.TCPConnector(force_close=True, limit=1)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                alert = await self._waiting.get()
                try:
                    await self._deliver(session, alert)
                finally:
                    self._waiting.task_done()

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._waiting.join()

    async def _deliver(self, session: aiohttp.ClientSession, alert: Alert) -> None:
        tried = _Tried()
        host = ""
        for tries in range(TRIES_MAX):
            if tries:
                await asyncio.sleep(max(self._pause(tries), tried.pause_s))
            settings = self._configuration().settings.alerts.webhook
            if settings is None:
                return
            host = _host(settings)
            tried = await _try(session, settings, alert)
            if not tried.again:
                break
        delivery = Delivery.FAILED if tried.reason else Delivery.SENT
        self._telemetry.alert_delivered(delivery, host, tried.reason)

    def _pause(self, tries: int) -> float:
        spread = 1 + PAUSE_SPREAD * (2 * self._chance() - 1)
        return float(self._pause_s * 2 ** (tries - 1) * spread)


async def _try(session: aiohttp.ClientSession, settings: WebhookSettings, alert: Alert) -> _Tried:
    """Send an alert once. A redirection is not followed: nobody has said where to."""
    timeout = aiohttp.ClientTimeout(total=float(settings.timeout_seconds))
    try:
        async with session.post(
            settings.url.get_secret_value(),
            data=json.dumps(payload(alert)),
            headers={"content-type": "application/json", "user-agent": "extauthz"},
            timeout=timeout,
            allow_redirects=False,
        ) as answer:
            if HTTPStatus(HTTPStatus.OK) <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                return _Tried()
            again = answer.status in _AGAIN or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            return _Tried(f"status {answer.status}", again, _retry_after_s(answer.headers.get("retry-after", "")))
    except (aiohttp.InvalidURL, UnicodeError) as error:  # the second by hosts that DNS has no way to write
        return _Tried(type(error).__name__)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # Their texts may hold the URL.
        return _Tried(type(error).__name__, again=True)


def payload(alert: Alert) -> dict[str, str | int | float | None]:
    """Write an alert: `text` is what a chat shows, everything else is for programs."""
    return {"text": _escaped(_sentence(alert)), **alert.fields()}


def _sentence(alert: Alert) -> str:
    standing, threshold = alert.standing, alert.threshold
    budget = f"The budget of {alert.shown} ({standing.counter.label})"
    percent = spent_percent(standing)
    used = "" if percent is None else f" {percent}% of it is used."
    measure = standing.counter.measure
    spent, limit = amount_text(standing.spent, measure), measured(standing.limit, measure)
    amounts = "" if alert.hide_amounts else f" Spent: {spent} of {limit}."
    match threshold.kind:
        case ThresholdKind.PERCENTAGE:
            what = f" has reached {threshold.value}%."
        case ThresholdKind.SOFT:
            what = " has reached its soft limit."
    reset = resets_at(standing)
    return f"{budget}{what}{used}{amounts}{'' if reset is None else f' It resets at {reset}.'}"


def _escaped(text: str) -> str:
    """Write the three characters that have a meaning in Slack's texts as themselves."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _host(settings: WebhookSettings) -> str:
    return urlsplit(settings.url.get_secret_value()).hostname or ""


def _retry_after_s(text: str) -> float:
    digits = text.isascii() and text.isdigit() and len(text) <= RETRY_AFTER_DIGITS_MAX
    return min(float(text), RETRY_AFTER_S_MAX) if digits else 0.0
