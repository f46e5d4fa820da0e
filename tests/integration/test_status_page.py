"""The status page in a real Chromium: what it shows, live, to whom, on which screens, and with which keys."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc.aio
import pytest
import pytest_asyncio

from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.adapters.page import PAGES_MAX
from extauthz.config.load import load
from extauthz.server import running
from extauthz.telemetry.log import new_logger
from tests.support import raw
from tests.support.chromium import Chromium
from tests.support.gate import a_check
from tests.support.processes import LOOPBACK, eventually
from tests.support.stack import GateProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Where the screenshots of the last run are left, to be looked at.
PICTURES = Path(__file__).parents[2] / ".cache/pictures"

TOKEN = "operators only"
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
extauthz:
  SETTINGS
  global: {max_budget: 1000, budget_duration: 30d}
  organizations: {acme: {max_budget: 250, budget_duration: 1mo}}
  teams:
    research: {organization: acme, max_budget: 0.02, budget_duration: 1mo}
    support: {organization: acme, max_budget: 40, budget_duration: 7d}
    broke: {max_budget: 0}
  keys:
    - {key: sk-research, team: research, key_alias: notebook}
    - {key: sk-support, team: support, key_alias: helpdesk}
    - {key: sk-broke, team: broke, key_alias: "<img src=x onerror=alert(1)>"}
"""


@dataclass(frozen=True, slots=True)
class House:
    """A server, and somebody who asks it."""

    server: GateProcess
    checks: AuthorizationStub

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server.http_port}/status"

    async def ask(self, key: str, times: int = 1) -> None:
        """Make Checks, of which those that are allowed stay open."""
        for _ in range(times):
            await self.checks.Check(a_check(key=key), timeout=10)


@asynccontextmanager
async def house_with(settings: str) -> AsyncIterator[House]:
    """Run a server with more settings."""
    async with (
        GateProcess(CONFIG.replace("SETTINGS", settings)) as server,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{server.grpc_port}") as channel,
    ):
        yield House(server, AuthorizationStub(channel))


@pytest_asyncio.fixture(loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Run a server that asks for no token, on loopback."""
    async with house_with("admission: until_exhausted") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    """Run a browser."""
    async with Chromium() as running:
        yield running


async def shows(browser: Chromium, text: str) -> None:
    """Wait until the page shows a text."""

    async def look() -> bool:
        return text in str(await browser.evaluate("document.body.innerText"))

    await eventually(look, what=f"the page shows {text!r}")


async def picture(browser: Chromium, name: str) -> None:
    """Leave a screenshot behind."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(await browser.screenshot())


async def test_shows_money_and_refusals_as_they_happen(house: House, browser: Chromium) -> None:
    """Budgets with bars, open reservations and refusals are there, and what happens next comes by itself."""
    await house.ask("sk-research", 2)
    await house.ask("sk-support", 3)
    await browser.open(house.url)

    await shows(browser, "5 open in all")
    await shows(browser, "$0.0257")  # all that they hold
    await shows(browser, "team:research")
    await house.ask("sk-broke", 2)
    await shows(browser, "budget_exceeded (429)")

    names = [name for role, name in await browser.accessible() if role in ("image", "img")]
    assert any("exhausted" in name for name in names)
    assert browser.console == []
    await picture(browser, "status-wide")


async def test_text_of_requests_is_never_markup(house: House, browser: Chromium) -> None:
    """A name with a tag in it stands there as it is written."""
    await house.ask("sk-broke")
    await browser.open(house.url)

    await shows(browser, "<img src=x onerror=alert(1)>")
    assert 0 == await browser.evaluate("document.querySelectorAll('img').length")


async def test_fits_a_phone(house: House, browser: Chromium) -> None:
    """At the width of a phone nothing stands out to the side, in the dark either."""
    await house.ask("sk-research", 2)
    await house.ask("sk-broke")
    await browser.resize(390, 844, mobile=True, dark=True)
    await browser.open(house.url)

    await shows(browser, "budget_exceeded")
    width = await browser.evaluate("document.documentElement.scrollWidth")
    await picture(browser, "status-phone")
    await browser.resize(1280, 800)

    assert 390 == width


async def test_keys_and_screen_readers(house: House, browser: Chromium) -> None:
    """Everything that can be used can be reached by Tab, and has a name."""
    await browser.open(house.url)
    await shows(browser, "team:research")

    reached = []
    for _ in range(3):
        await browser.press("Tab")
        reached.append(await browser.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert ["Skip to budgets", "pause", "filter"] == reached

    for character in "supp":
        await browser.press(character)
    await eventually(lambda: _rows(browser, "budget-rows", 1), what="the filter leaves one budget")
    named = await browser.accessible()
    assert ("button", "Pause") in named
    assert ("searchbox", "Scope") in named
    assert {"Now", "Budgets nearest to their limit", "Oldest open reservations", "Last refusals of this replica"} <= {
        name for role, name in named if role == "heading"
    }


async def _rows(browser: Chromium, table: str, count: int) -> bool:
    return count == await browser.evaluate(f"document.getElementById('{table}').rows.length")


async def test_pause_stops_the_page_and_not_the_house(house: House, browser: Chromium) -> None:
    """While paused the page stays as it is; going on shows what has happened since."""
    await browser.open(house.url)
    await shows(browser, "Nothing was refused since the start.")

    await browser.evaluate("document.getElementById('pause').click()")
    await house.ask("sk-broke")
    before = await browser.evaluate("latest.status.denials.length")
    await eventually(lambda: _heard(browser), what="the page has heard of the refusal")
    still = "Nothing was refused" in str(await browser.evaluate("document.body.innerText"))
    await browser.evaluate("document.getElementById('pause').click()")

    assert (0, True) == (before, still)
    await shows(browser, "budget_exceeded (429)")


async def _heard(browser: Chromium) -> bool:
    return 1 == await browser.evaluate("latest.status.denials.length")


async def test_tells_when_the_server_is_gone(browser: Chromium) -> None:
    """A page whose server stops says so instead of showing old figures as if they were new."""
    async with house_with("drain_seconds: 0") as house:
        await browser.open(house.url)
        await shows(browser, "live")

    await shows(browser, "connection lost, trying again")


async def status_of(url: str, **headers: str) -> tuple[int, str]:
    """Ask for something: its status and text."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_needs_the_token_of_operators(browser: Chromium) -> None:
    """With `admin_token` set, nobody sees page or events without it; a browser's password is as good as a bearer."""
    async with house_with(f"admin_token: {TOKEN}") as house:
        password = "Basic " + b64encode(f"anybody:{TOKEN}".encode()).decode()
        for path in ("", "/events"):
            assert 401 == (await status_of(house.url + path))[0]
            assert 401 == (await status_of(house.url + path, authorization="Bearer operators"))[0]
            assert 401 == (await status_of(house.url + path, authorization=password[:-4]))[0]
            assert 401 == (await status_of(house.url + path, authorization="Basic ???"))[0]
        assert 200 == (await status_of(house.url, authorization=f"Bearer {TOKEN}"))[0]

        await browser.open(house.url, headers={"authorization": password})
        await shows(browser, "team:research")
        assert TOKEN not in str(await browser.evaluate("document.documentElement.outerHTML"))


async def test_bytes_that_are_no_text_are_no_token() -> None:
    """Whatever bytes a stranger sends are turned away as any wrong token is, and are no failure of the server's."""
    sent = (b"Bearer \xff\xfe", b"Basic \xc3\xa9", b"Basic /zr+", b"\xe9")
    head = b"GET /status HTTP/1.1\r\nhost: localhost\r\nauthorization: "
    async with house_with(f"admin_token: {TOKEN}") as house:
        replies = await raw.send(
            house.server.http_port, b"".join(head + each + b"\r\n\r\n" for each in sent), replies=4
        )

    assert [401] * len(sent) == [reply.status for reply in replies]


async def test_another_name_for_loopback_is_refused(house: House) -> None:
    """A page from elsewhere that points its own name here gets nothing: only names of the loopback do."""
    assert 403 == (await status_of(house.url, host="evil.example"))[0]
    assert 403 == (await status_of(house.url + "/events", host="evil.example:80"))[0]
    assert 200 == (await status_of(house.url, host=f"localhost:{house.server.http_port}"))[0]


async def test_is_closed_beyond_loopback_without_a_token(tmp_path: Path) -> None:
    """A server whose HTTP port is open to others for their scrapes does not show them the page."""
    file = tmp_path / "config.yaml"
    listen = f"listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '0.0.0.0:0'}}"
    file.write_text(CONFIG.replace("SETTINGS", listen), encoding="utf-8")
    async with running(load(file, {}), new_logger(io.StringIO())) as ports:
        status, text = await status_of(f"http://{LOOPBACK}:{ports.http}/status")
        metrics, _ = await status_of(f"http://{LOOPBACK}:{ports.http}/metrics")

    assert (403, 200) == (status, metrics)
    assert "admin_token" in text


async def test_pages_have_a_maximum(house: House) -> None:
    """One page too many is told so, and there is room again when another is closed."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        AsyncExitStack() as pages,
    ):
        opened = [await pages.enter_async_context(session.get(house.url + "/events")) for _ in range(PAGES_MAX)]
        refused, _ = await status_of(house.url + "/events")
        opened[0].close()

        async def admitted() -> bool:
            async with session.get(house.url + "/events") as answer:
                return answer.status == 200

        assert {200} == {answer.status for answer in opened}
        assert 503 == refused
        await eventually(admitted, what="there is room for another page")


async def test_all_pages_share_a_look_at_the_reservations() -> None:
    """However many pages are open, the store is asked for its reservations as often as for one."""
    async with (
        house_with("admission: until_exhausted") as house,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        AsyncExitStack() as pages,
    ):
        opened = [await pages.enter_async_context(session.get(house.url + "/events")) for _ in range(PAGES_MAX)]
        events = [await asyncio.wait_for(answer.content.readline(), 10) for answer in opened]
        looks = (await house.server.metrics()).value("extauthz_store_duration_seconds_count", "reservations")

    assert all(json.loads(event.removeprefix(b"data: "))["reservations"] is not None for event in events)
    assert 1 <= looks <= PAGES_MAX / 4


async def test_an_event_has_no_secret_in_it(house: House) -> None:
    """Keys that were used are not in what the page is sent, but for the hash that is the name of their scope."""
    await house.ask("sk-research")
    await house.ask("sk-broke")
    async with aiohttp.ClientSession() as session, session.get(house.url + "/events") as answer:
        line = await asyncio.wait_for(answer.content.readline(), 10)

    assert {"status", "reservations"} == json.loads(line.removeprefix(b"data: ")).keys()
    assert b"sk-" not in line
