"""Who is told of which threshold, and how often; and what callers are told of budgets near their limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from extauthz import alerts as alerts_module
from extauthz.alerts import Alerts, Warnings
from extauthz.domain.budgets import Budget, Counter
from extauthz.domain.payers import Accounts, Key, Team
from extauthz.domain.thresholds import Alert
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.ledger.pieces import PIECE
from extauthz.survey import Surveyor
from tests.support.ledger import ManualClock
from tests.support.surveyed import FlakyLedger, a_configuration, a_scope, a_snapshot, spend
from tests.support.witness import Witness

HOUR_MS = 3_600_000
HOURLY = WindowRule(Duration(1, Unit.HOUR))
TEAM = a_scope("team:research")
ACCOUNTS = Accounts(teams={"research": Team((Budget(100, HOURLY, soft_limit=50),))})


class Replica:
    """One of several processes on a store: it surveys and tells, and what it sent is kept."""

    def __init__(self, ledger: FlakyLedger, accounts: Accounts, own: str = "{}") -> None:
        self.ledger = ledger
        self.configuration = a_configuration(accounts, own)
        self.telemetry = Witness()
        self.sent: list[Alert] = []
        self.surveyor = Surveyor(ledger, self.configuration, lambda: 0.0)
        self.alerts = Alerts(ledger, self.configuration, self.telemetry, self.sent.append)

    async def look(self) -> list[str]:
        """Survey, and give what was told for that."""
        before = len(self.sent)
        await self.alerts.consider(await self.surveyor.survey())
        return [f"{alert.standing.counter.scope} {alert.threshold}" for alert in self.sent[before:]]


class House:
    """A store, its clock and some replicas."""

    def __init__(self, accounts: Accounts = ACCOUNTS, replicas: int = 1, own: str = "{}") -> None:
        self.clock = ManualClock()
        self.ledger = FlakyLedger(self.clock)
        self.replicas = tuple(Replica(self.ledger, accounts, own) for _ in range(replicas))

    @property
    def counter(self) -> Counter:
        """The team's counter in the window of now."""
        return Counter(TEAM, HOURLY.at(self.ledger.now_ms()))

    async def spend(self, nanousd: int) -> None:
        """Spend on the team's budget of now."""
        await spend(self.ledger, self.counter, nanousd)

    async def amend(self, kind: AmendmentKind, nanousd: int | None = None) -> None:
        """Change the team's budget by hand."""
        await self.ledger.amend(Amendment(f"{kind} {nanousd}", kind, self.counter, nanousd, "test"))

    async def look(self) -> list[list[str]]:
        """Let each replica survey, and give what each told."""
        return [await replica.look() for replica in self.replicas]


async def test_each_threshold_is_told_once_in_a_window() -> None:
    """One replica of two tells, once, in each window anew; what it tells is what the telemetry hears."""
    house = House(replicas=2)
    (first, second) = house.replicas

    told = [await house.look()]
    for amount in (49, 1, 30, 20):
        await house.spend(amount)
        told += [await house.look(), await house.look()]
    await house.clock.advance(HOUR_MS)
    await house.spend(85)
    told.append(await house.look())

    nothing: list[list[str]] = [[], []]
    assert [
        nothing,
        *(nothing, nothing),
        *([["team:research soft 50"], []], nothing),
        *([["team:research 80%"], []], nothing),
        *([["team:research 100%"], []], nothing),
        [["team:research soft 50", "team:research 80%"], []],
    ] == told
    assert first.sent == first.telemetry.alerts
    assert [] == second.telemetry.alerts


async def test_of_several_percentages_the_highest_is_told() -> None:
    """Who is told of 100 % is not told of 80 % too, now or by a replica that comes later to find less spent."""
    house = House()
    late = Replica(house.ledger, ACCOUNTS)
    await house.spend(120)

    told = await house.look()
    await house.amend(AmendmentKind.IMPORT, -30)

    assert [["team:research soft 50", "team:research 100%"]] == told
    assert [] == await late.look()


async def test_what_was_crossed_before_the_start_is_told_once() -> None:
    """A server that starts tells of what nobody was told of, and keeps quiet about what another one told."""
    house = House()
    await house.spend(80)

    assert [["team:research soft 50", "team:research 80%"]] == await house.look()
    assert [] == await Replica(house.ledger, ACCOUNTS).look()


@pytest.mark.parametrize(("kind", "amount"), [(AmendmentKind.GRANT, 100), (AmendmentKind.LIMIT, 200)])
async def test_of_another_limit_it_is_told_again(kind: AmendmentKind, amount: int) -> None:
    """With a higher limit a percentage is told again when that is reached; a soft limit is an amount and stays told."""
    house = House(replicas=2)
    await house.spend(80)
    await house.look()
    await house.amend(kind, amount)
    await house.spend(80)

    assert [["team:research 80%"], []] == await house.look()
    assert [[], []] == await house.look()


async def test_after_a_reset_it_is_told_again() -> None:
    """When all was reset, thresholds are told again when they are reached again, once each time."""
    house = House(replicas=2)
    await house.spend(80)
    await house.look()
    for number in range(2):
        await house.amend(AmendmentKind.RESET, number)
        assert [[], []] == await house.look()
        await house.spend(80)
        assert [["team:research soft 50", "team:research 80%"], []] == await house.look()
        assert [[], []] == await house.look()


async def test_a_store_that_is_away_delays_alerts() -> None:
    """What could not be announced is told when the store is back."""
    house = House()
    (replica,) = house.replicas
    await house.spend(80)
    survey = await replica.surveyor.survey()
    house.ledger.away = True
    with pytest.raises(StoreUnavailableError):
        await replica.alerts.consider(survey)
    house.ledger.away = False

    assert [["team:research soft 50", "team:research 80%"]] == await house.look()


async def test_many_alerts_are_told_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one survey so many thresholds are announced, of the most used budgets first; the next ones follow."""
    monkeypatch.setattr(alerts_module, "ANNOUNCED_AT_ONCE", 2)
    teams = {f"t{number}": Team((Budget(100, WindowRule()),)) for number in range(5)}
    house = House(Accounts(teams=teams))
    for number in range(5):
        await spend(house.ledger, Counter(a_scope(f"team:t{number}"), WindowRule().at(0)), 85 + number)

    told = [*await house.look(), *await house.look(), *await house.look(), *await house.look()]

    assert [["team:t4 80%", "team:t3 80%"], ["team:t2 80%", "team:t1 80%"], ["team:t0 80%"], []] == told


async def test_percentages_are_the_operators() -> None:
    """`alerts.percentages` says which ones are told; a reload counts from the next survey on."""
    house = House(own="{alerts: {percentages: [10]}}")
    await house.spend(30)
    before = await house.look()
    (replica,) = house.replicas
    replica.configuration.replace(a_snapshot(ACCOUNTS, "{alerts: {percentages: [25, 99]}, hide_amounts: true}"))

    assert [["team:research 10%"]] == before
    assert [["team:research 25%"]] == await house.look()
    assert [False, True] == [alert.hide_amounts for alert in replica.sent]


CALLERS = Accounts(
    teams={"a b": Team((Budget(100, HOURLY), Budget(1000, WindowRule())))},
    keys=(Key("ab" * 32, "ana's laptop", (Budget(100, WindowRule()),)), Key("cd" * 32, None, (Budget(10, HOURLY),))),
)


@pytest.mark.parametrize(
    ("spent", "hide", "warning"),
    [
        pytest.param({}, False, None, id="nothing is spent"),
        pytest.param({"team:a%20b": 79}, False, None, id="not near yet"),
        pytest.param({"team:a%20b": 80}, False, "team:a%20b 1h 80% used", id="near"),
        pytest.param({"team:a%20b": 80}, True, "team:a%20b 1h near its limit", id="without figures"),
        pytest.param({"team:a%20b": 85, "key:" + "cd" * 32: 9}, False, "key:cdcdcdcd 1h 90% used", id="the nearest"),
        pytest.param({"key:" + "ab" * 32: 250}, False, "key:ana%27s%20laptop lifetime 250% used", id="an alias"),
    ],
)
async def test_callers_are_warned(spent: dict[str, int], hide: bool, warning: str | None) -> None:  # noqa: FBT001
    """The header names the budget nearest to its limit, in ASCII; no key's whole hash is in it."""
    house = House(CALLERS)
    (replica,) = house.replicas
    counters = [
        surveyed.standing.counter
        for surveyed in (await replica.surveyor.survey()).budgets
        if surveyed.budget.limit < 1000
    ]
    for counter in counters:
        await spend(house.ledger, counter, spent.get(counter.scope.text, 0))
    warnings = Warnings()
    await warnings.learn(await replica.surveyor.survey(), replica.configuration())

    assert warning == warnings.of(counters, hide=hide)
    assert warnings.of([], hide=hide) is None


async def test_a_new_window_is_not_warned_of() -> None:
    """A request in a new window is not told of the one before, whenever the survey was."""
    house = House()
    (replica,) = house.replicas
    await house.spend(90)
    warnings = Warnings()
    await warnings.learn(await replica.surveyor.survey(), replica.configuration())
    before = [house.counter]
    await house.clock.advance(HOUR_MS)

    assert "team:research 1h 90% used" == warnings.of(before, hide=False)
    assert warnings.of([house.counter], hide=False) is None


async def test_where_a_warning_begins_is_the_operators() -> None:
    """`alerts.warning_percentage` says from where on, exactly."""

    async def warned(spent: Sequence[int], percentage: int) -> list[bool]:
        answers = []
        for amount in spent:
            house = House(own=f"{{alerts: {{warning_percentage: {percentage}}}}}")
            (replica,) = house.replicas
            await house.spend(amount)
            warnings = Warnings()
            await warnings.learn(await replica.surveyor.survey(), replica.configuration())
            answers.append(warnings.of([house.counter], hide=False) is not None)
        return answers

    assert [False, True] == await warned((56, 57), 57)
    assert [False, True] == await warned((109, 110), 110)


async def test_what_is_known_is_looked_through_in_slices() -> None:
    """Where very many budgets are exhausted, others get their turns also while it is found that nothing is new."""
    rule = Budget(100, HOURLY)
    house = House(Accounts(teams={f"t{number}": Team((rule,)) for number in range(4 * PIECE)}))
    (replica,) = house.replicas
    for number in range(4 * PIECE):
        await spend(house.ledger, Counter(a_scope(f"team:t{number}"), HOURLY.at(house.ledger.now_ms())), 100)
    while await replica.look():
        pass
    survey, turns = await replica.surveyor.survey(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await replica.alerts.consider(survey)
    task.cancel()

    # Of each budget two percentages are known: four slices of budgets, and eight of what is known.
    assert turns >= 4 + 8 - 2
