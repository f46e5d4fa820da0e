"""What `/metrics` says of very many budgets: the ones that matter, the rest as a sum, and never more than so much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from extauthz import survey as survey_module
from extauthz.adapters import http
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Budget, Counter, Scope, ScopeKind
from extauthz.domain.payers import Accounts, Payer, Team
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.survey import Surveyor
from extauthz.telemetry.metrics import BUDGETS_MAX, Metrics
from tests.support.ledger import START_MS, ManualClock
from tests.support.processes import LOOPBACK, WAIT_SECONDS, eventually
from tests.support.stack import Metrics as Page
from tests.support.surveyed import FOREVER, GLOBAL, FlakyLedger, a_configuration, hold, spend

BUDGETS = 10_000
BYTES_MAX = 2_000_000
USD = 1_000_000_000
LIMIT = 10 * USD
USED = 150
MONTHLY = WindowRule(Duration(1, Unit.MONTH))


def long_id(number: int) -> str:
    """Give an id as long as one may be, of characters that take three times as many in a label."""
    digits = f"{number:06}"
    return digits + "ü" * ((SCOPE_ID_BYTES_MAX - len(digits)) // 2)


def member(number: int) -> Scope:
    """Give the scope with the longest text that there is."""
    return Scope(ScopeKind.MEMBER, (long_id(0), long_id(number)))


def of(scope: Scope) -> tuple[str, str]:
    """Give the labels of a scope's budget."""
    return scope.text, "1mo"


class House:
    """A store in which 10,000 members have budgets, with a surveyor and metrics."""

    def __init__(self) -> None:
        members = {long_id(number): Payer((Budget(LIMIT, MONTHLY),)) for number in range(BUDGETS)}
        self.ledger = FlakyLedger(ManualClock())
        self.surveyor = Surveyor(
            self.ledger, a_configuration(Accounts(teams={long_id(0): Team(members=members)})), lambda: 0.0
        )
        self._app = http.application(self.ledger, self.surveyor, Metrics(), ready=lambda: True)

    async def spend(self, number: int, nanousd: int) -> None:
        """Spend something on a member's budget."""
        await spend(self.ledger, Counter(member(number), MONTHLY.at(START_MS)), nanousd)

    @asynccontextmanager
    async def page(self) -> AsyncIterator[str]:
        """Serve the pages, and give the URL of the metrics."""
        runner = web.AppRunner(self._app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0).start()
            yield f"http://{LOOPBACK}:{runner.addresses[0][1]}/metrics"
        finally:
            await runner.cleanup()

    async def scrape(self) -> str:
        """Read the metrics."""
        async with self.page() as url, aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()


async def test_very_many_budgets_fit_on_the_page() -> None:
    """Of 10,000 budgets with the longest names those nearest to their limit are shown, the rest is added up."""
    house = House()
    for number in range(USED):
        await house.spend(number, (number + 1) * USD // 100)
    await hold(house.ledger, 9 * USD, Counter(member(BUDGETS - 1), MONTHLY.at(START_MS)), Counter(GLOBAL, FOREVER))
    await house.surveyor.survey()

    text = await house.scrape()
    page = Page(text)

    assert BYTES_MAX > len(text.encode())
    assert BUDGETS_MAX == len(page.spent) == len(page.held) == len(page.amounts("extauthz_budget_limit_usd"))
    assert {of(member(number)) for number in (*range(USED), BUDGETS - 1)} <= page.spent.keys()
    assert USED * USD // 100 == page.spent[of(member(USED - 1))]
    assert (BUDGETS - BUDGETS_MAX, 1) == (page.value("extauthz_budgets_hidden"), page.open)
    assert {
        ("limit",): (BUDGETS - BUDGETS_MAX) * LIMIT,
        ("spent",): 0,
        ("held",): 0,
    } == page.amounts("extauthz_budgets_rest_usd")
    assert {(): 9 * USD} == page.amounts("extauthz_held_usd")
    assert START_MS / 1000 == page.value("extauthz_budgets_surveyed_timestamp_seconds")


async def test_the_rest_is_all_that_is_not_shown() -> None:
    """What is shown and the rest together are everything, whatever is spent on how many budgets."""
    house = House()
    for number in range(2 * BUDGETS_MAX):
        await house.spend(number, USD)
    await house.surveyor.survey()

    page = Page(await house.scrape())

    rest = page.amounts("extauthz_budgets_rest_usd")
    assert BUDGETS_MAX * USD == rest[("spent",)] == sum(page.spent.values())
    assert BUDGETS * LIMIT == rest[("limit",)] + sum(page.amounts("extauthz_budget_limit_usd").values())


async def test_a_scrape_of_many_does_not_wait_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many budgets the page shows the last survey: neither the store is asked nor a survey waited for."""
    house = House()
    await house.spend(1, USD)
    await house.surveyor.survey()
    await house.spend(1, USD)
    monkeypatch.setattr(house.ledger, "standings", lambda *_: asyncio.Event().wait())
    monkeypatch.setattr(survey_module, "FRESH_WAIT_S", 100 * WAIT_SECONDS)
    under_way = asyncio.create_task(house.surveyor.survey())
    await eventually(lambda: house.ledger.asked == 2, what="another survey is under way")

    async with asyncio.timeout(WAIT_SECONDS):
        page = Page(await house.scrape())

    assert USD == page.spent[of(member(1))]
    assert 2 == house.ledger.asked
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)
