"""`extauthz import`: what another gateway has in its database, as our configuration file."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from extauthz.config.snapshot import Snapshot
from extauthz.config.source import FILE_BYTES_MAX
from extauthz.directories.litellm.database import Database
from extauthz.directories.litellm.files import absent
from extauthz.directories.litellm.inventory import KINDS, Inventory, take_inventory
from extauthz.directories.litellm.seeding import seeds
from extauthz.directories.litellm.url import parse_database_url
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.money import usd_text

# Further ones are counted.
LEFT_OUT_SHOWN_MAX = 50

_PLURALS = {
    ScopeKind.ORGANIZATION: "organizations",
    ScopeKind.TEAM: "teams",
    ScopeKind.MEMBER: "members",
    ScopeKind.USER: "users",
    ScopeKind.PROJECT: "projects",
    ScopeKind.TAG: "tags",
    ScopeKind.END_USER: "end users",
    ScopeKind.KEY: "keys",
}
NO_COUNTERPART = (
    "not taken over, as nothing here is like it: limits of tokens or requests a minute and of parallel requests, "
    "guardrails, routes, MCP and agents, aliases of single keys; and what was spent on single models, which is not in "
    "LiteLLM's database"
)


async def read_everything(url: str, end_user_budget: str | None) -> Inventory:
    """Read LiteLLM's database. Raises ValueError for a URL that is none, and ExtauthzError."""
    database = Database(parse_database_url(url))
    try:
        return await take_inventory(database, end_user_budget, datetime.now(UTC))
    finally:
        await database.close()


def seeds_of(inventory: Inventory, config: Snapshot) -> Mapping[Counter, int]:
    """Give what each counter of now has to have at least, by the calendar of a configuration."""
    common = config.directory.budgets_on(Scope(ScopeKind.GLOBAL))
    return seeds(inventory, common, config.settings, time.time_ns() // 1_000_000)


def summary(inventory: Inventory, text: str) -> Iterator[str]:
    """Say in lines what was found and written, and what was left out and why."""
    yield ", ".join(f"{inventory.count(kind):,} {_PLURALS[kind]}" for kind in KINDS)
    for mapping, names in absent(inventory).items():
        if names:
            yield f"{len(names):,} of the {mapping} are named by others and not in the database: written without limits"
    for each in inventory.left_out[:LEFT_OUT_SHOWN_MAX]:
        yield f"{'refused there' if each.refused else 'left out'}: {each.who}: {each.why}"
    if len(inventory.left_out) > LEFT_OUT_SHOWN_MAX:
        rest = Tally(each.why for each in inventory.left_out[LEFT_OUT_SHOWN_MAX:])
        for why, count in rest.most_common(LEFT_OUT_SHOWN_MAX):
            yield f"left out or refused there: {count:,} more: {why}"
    size = len(text.encode())
    if size > FILE_BYTES_MAX:
        yield (
            f"the file has {size:,} bytes, and a configuration at most {FILE_BYTES_MAX:,}: bring it into the store by "
            "`extauthz payers import`, or let servers ask the database itself, by `directory: litellm`"
        )
    yield NO_COUNTERPART


def seeded(counters: int, added: int, nanousd: int) -> str:
    """Say what was put on counters."""
    return (
        f"LiteLLM has booked something on {counters:,} budgets; {usd_text(nanousd)} USD were put on {added:,} of them, "
        "the others had as much"
    )
