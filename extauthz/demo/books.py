"""Both sides of the demo's books: what a server booked, and what its upstream really served."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from extauthz.config.load import load
from extauthz.demo.answers import words
from extauthz.demo.stage import POLICY_VARIABLE, House
from extauthz.demo.upstream import Outcome, Served
from extauthz.domain.ask import Unreadable
from extauthz.domain.body import read_ask
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.money import NANOUSD_PER_USD, usd_text
from extauthz.domain.prices import Prices, Usage
from extauthz.pricing.cost import cost, tokens_of

SETTLE_SECONDS_MAX = 5.0
POLL_SECONDS = 0.05
PAGE_SECONDS_MAX = 2.0

_SERVED = TypeAdapter(tuple[Served, ...])


@dataclass(frozen=True, slots=True)
class Balance:
    """What is spent and held (nano-USD), and how many reservations are open."""

    spent: int
    held: int = 0
    open: int = 0

    def __str__(self) -> str:
        text = f"spent ${usd_text(self.spent)}, held ${usd_text(self.held)}"
        return f"{text}, {self.open} open" if self.open else text


class Books:
    """Reads the books of one house."""

    def __init__(self, house: House, session: aiohttp.ClientSession) -> None:
        self._house = house
        self._session = session

    async def settled(self, *teams: str) -> Balance:
        """Give what the server booked for these teams, once no reservation is open.

        After SETTLE_SECONDS_MAX it is given as it stands.
        """
        async with asyncio.timeout(2 * SETTLE_SECONDS_MAX):
            give_up = asyncio.get_running_loop().time() + SETTLE_SECONDS_MAX
            while True:
                balance = _balance(await self._page(f"http://{self._house.http}/metrics"), teams)
                if not balance.open or asyncio.get_running_loop().time() > give_up:
                    return balance
                await asyncio.sleep(POLL_SECONDS)

    async def served(self, streamed_body: bytes) -> Balance:
        """Give what the upstream's own list of answers comes to.

        An aborted stream had this request body: its input is booked as it is estimated from there.
        """
        input_tokens = _input_tokens(streamed_body)
        served = _SERVED.validate_json(await self._page(f"http://{self._house.upstream}/served"))
        prices = _prices(self._house)
        return Balance(sum(_cost(one, prices[one.model], input_tokens) for one in served))

    async def _page(self, url: str) -> str:
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(PAGE_SECONDS_MAX)) as answer:
            return await answer.text()


def _balance(metrics: str, teams: tuple[str, ...]) -> Balance:
    scopes = {f"team:{team}" for team in teams}
    spent = held = opened = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            of_teams = sample.labels.get("scope") in scopes
            match sample.name:
                case "extauthz_budget_spent_usd" if of_teams:
                    spent += round(sample.value * NANOUSD_PER_USD)
                case "extauthz_budget_held_usd" if of_teams:
                    held += round(sample.value * NANOUSD_PER_USD)
                case "extauthz_reservations_open":
                    opened = int(sample.value)
    return Balance(spent, held, opened)


def _prices(house: House) -> Mapping[str, Prices]:
    catalog = load(house.config, {POLICY_VARIABLE: house.policy}).catalog
    return {name: catalog.reach((name,), ()).prices for name in catalog.listed()}


def _cost(served: Served, prices: Prices, input_tokens: int) -> int:
    """Price one answer: by its usage, or by what an aborted stream had delivered (`on_abort: delivered`).

    The model that is hung up on does not reason: all that it generates is delivered.
    """
    match served.outcome:
        case Outcome.FINISHED:
            return cost(prices, served.usage)
        case Outcome.FAILED:
            return 0
        case Outcome.ABORTED:
            text = "".join(words(served.usage.output_tokens - served.usage.reasoning_output_tokens))
            output_tokens = max(served.events, tokens_of(len(text.encode())))
            return cost(prices, Usage(input_tokens, output_tokens))


def _input_tokens(body: bytes) -> int:
    ask = read_ask(body, truncated=False, endpoint=Endpoint.CHAT_COMPLETIONS, content_type="application/json")
    if isinstance(ask, Unreadable):
        raise TypeError(ask.message)
    return tokens_of(ask.text_bytes)
