"""What a survey sees, in which order, how many reservations it counts once, and who gets a new one."""

from __future__ import annotations

import asyncio

import pytest

from extauthz import survey as survey_module
from extauthz.domain.budgets import Budget, Counter, Filter, FilterKind, Increase, Measure, Scope
from extauthz.domain.payers import Accounts, Anonymous, Key, Payer, Team, User
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.survey import INTERVAL_S, Survey, Surveyor, Totals
from tests.support.ledger import START_MS, ManualClock
from tests.support.surveyed import (
    FOREVER,
    GLOBAL,
    FlakyLedger,
    a_configuration,
    a_scope,
    a_snapshot,
    hold,
    spend,
    used,
)

DAILY, MINUTELY = WindowRule(Duration(1, Unit.DAY)), WindowRule(Duration(1, Unit.MINUTE))
ALWAYS = WindowRule()
MINUTE_MS = 60_000
EVERYBODY = Counter(GLOBAL, FOREVER)


def budget(limit: int, rule: WindowRule = ALWAYS) -> tuple[Budget, ...]:
    """Give the budgets of a payer: one."""
    return (Budget(limit, rule),)


def on(scope: str, rule: WindowRule = ALWAYS, now_ms: int = START_MS) -> Counter:
    """Give the counter of a scope for the window of that moment."""
    return Counter(a_scope(scope), rule.at(now_ms))


class House:
    """A surveyor with a store, whose clock is in the test's hand."""

    def __init__(self, accounts: Accounts, *, budgets_max: int = 1000, fresh_max: int = 1000) -> None:
        self.clock = ManualClock()
        self.clock_s = 0.0
        self.ledger = FlakyLedger(self.clock)
        self.configuration = a_configuration(accounts)
        self.surveyor = Surveyor(
            self.ledger, self.configuration, self._tick, budgets_max=budgets_max, fresh_max=fresh_max
        )

    def _tick(self) -> float:
        self.clock_s += 1
        return self.clock_s


async def test_the_most_used_share_comes_first() -> None:
    """Spent and held count alike, unused budgets follow by their limit, and a limit of 0 is last until it is used."""
    house = House(
        Accounts(
            teams={
                "half": Team(budget(10)),
                "held": Team(budget(100)),
                "large": Team(budget(7)),
                "closed": Team(budget(0)),
                "over": Team(budget(5)),
                "none": Team(),
            }
        )
    )
    await spend(house.ledger, on("team:half"), 5)
    await spend(house.ledger, on("team:over"), 9)
    await hold(house.ledger, 80, on("team:held"), EVERYBODY)

    survey = await house.surveyor.survey()

    assert {
        "team:over|lifetime": (5, 9, 0),
        "team:held|lifetime": (100, 0, 80),
        "team:half|lifetime": (10, 5, 0),
        "team:large|lifetime": (7, 0, 0),
        "team:closed|lifetime": (0, 0, 0),
    } == used(survey)
    assert ["over", "held", "half", "large", "closed"] == [
        surveyed.standing.counter.scope.ids[0] for surveyed in survey.budgets
    ]
    assert (START_MS, 1, 80, Totals(122, 14, 80)) == (
        survey.taken_ms,
        survey.reservations_open,
        survey.held,
        survey.totals,
    )
    assert survey is house.surveyor.latest


async def test_tokens_and_requests_are_no_money() -> None:
    """They stand in the list by the share that is used of them, and are in no sum of USD."""
    tokens = Budget(100, WindowRule(), measure=Measure.TOKENS)
    requests = Budget(5, WindowRule(), measure=Measure.REQUESTS, only=Filter(FilterKind.MODEL, "gpt-4o"))
    house = House(Accounts(global_budgets=(tokens,), teams={"t": Team((*budget(10), tokens, requests))}))
    scope = Scope.parse("team:t")
    await spend(house.ledger, tokens.counter(scope, FOREVER), 90)
    await spend(house.ledger, requests.counter(scope, FOREVER), 2)
    await spend(house.ledger, on("team:t"), 1)
    await hold(house.ledger, 3, on("team:t"), EVERYBODY)

    survey = await house.surveyor.survey()

    assert ["lifetime/tokens", "lifetime", "lifetime/requests/model=gpt-4o", "lifetime/tokens"] == [
        surveyed.standing.counter.label for surveyed in survey.budgets
    ]
    assert (Totals(10, 1, 3), 3) == (survey.totals, survey.held)


async def test_every_window_of_a_payer_is_there_with_the_limit_in_force() -> None:
    """Each budget has its own window, a new one when time has come, and a limit that was granted counts."""
    house = House(Accounts(teams={"research": Team((*budget(10, DAILY), *budget(20)))}))
    daily = on("team:research", DAILY)
    await spend(house.ledger, daily, 4)
    await house.ledger.amend(Amendment("g", AmendmentKind.GRANT, daily, 30, "test"))

    first = await house.surveyor.survey()
    await house.clock.advance(86_400_000)
    second = await house.surveyor.survey()

    assert {daily.key: (40, 4, 0), "team:research|lifetime": (20, 0, 0)} == used(first)
    next_day = on("team:research", DAILY, START_MS + 86_400_000)
    assert {"team:research|lifetime": (20, 0, 0), next_day.key: (10, 0, 0)} == used(second)
    assert (10, 20) == tuple(sorted(surveyed.budget.limit for surveyed in first.budgets))


async def test_an_increase_is_part_of_the_limit_until_it_ends() -> None:
    """A survey has the limit of its moment, in force and configured."""
    increased = Budget(10, ALWAYS, increase=Increase(5, START_MS + 1))
    house = House(Accounts(teams={"research": Team((increased,))}))

    surveys = [await house.surveyor.survey()]
    await house.clock.advance(1)
    surveys.append(await house.surveyor.survey())

    assert [15, 10] == [survey.budgets[0].standing.limit for survey in surveys]
    assert [15, 10] == [survey.budgets[0].budget.limit for survey in surveys]


async def test_end_users_are_there_once_they_have_spent() -> None:
    """An end user under the default budget appears with its spending; a named one always, and once."""
    house = House(
        Accounts(
            end_users={"vip": Payer(budget(100)), "unlimited": Payer()},
            default_end_user=Payer(budget(10)),
            keys=(Key("ab" * 32),),
        )
    )
    for scope in ("end_user:ana", "end_user:vip", "end_user:unlimited", "key:" + "ab" * 32):
        await spend(house.ledger, on(scope), 5)

    survey = await house.surveyor.survey()

    assert {"end_user:ana|lifetime": (10, 5, 0), "end_user:vip|lifetime": (100, 5, 0)} == used(survey)
    assert 2 == len(survey.budgets)


async def test_unlisted_payers_are_there_once_they_have_spent() -> None:
    """Whom a token named appears with what holds for everybody unlisted, where that may be; others do not."""
    accounts = Accounts(
        users={"ana": User(budget(1))},
        default_user=User(budget(2)),
        default_team=Team(budget(3)),
        default_organization=Payer(budget(4)),
        anonymous=Anonymous(budget(5)),
    )
    taking, refusing = House(accounts), House(Accounts(users={"ana": User(budget(1))}))
    scopes = ("user:ana", "user:zoe", "team:garden", "org:other", "member:garden/zoe", "anonymous")
    for house in (taking, refusing):
        for scope in scopes:
            await spend(house.ledger, on(scope), 1)

    assert {
        "user:ana|lifetime": (1, 1, 0),
        "user:zoe|lifetime": (2, 1, 0),
        "team:garden|lifetime": (3, 1, 0),
        "org:other|lifetime": (4, 1, 0),
        "anonymous|lifetime": (5, 1, 0),
    } == used(await taking.surveyor.survey())
    assert {"user:ana|lifetime": (1, 1, 0)} == used(await refusing.surveyor.survey())


async def test_what_there_is_no_room_for_is_counted() -> None:
    """The number of budgets is bounded, of the configuration and of end users together; the rest is a number."""
    teams = {f"t{number}": Team((*budget(1), *budget(2, DAILY))) for number in range(3)}
    full = House(Accounts(teams=teams, default_end_user=Payer(budget(1))), budgets_max=4)
    roomy = House(Accounts(teams=teams, default_end_user=Payer(budget(1))), budgets_max=7)
    for house in (full, roomy):
        for number in range(3):
            await spend(house.ledger, on(f"end_user:{number}"), 1)

    in_full, in_roomy = await full.surveyor.survey(), await roomy.surveyor.survey()

    assert (4, 2 + 3) == (len(in_full.budgets), in_full.left_out)
    assert (7, 2) == (len(in_roomy.budgets), in_roomy.left_out)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((), id="unlimited"),
        pytest.param((WindowRule(),), id="lifetime"),
        pytest.param((MINUTELY, WindowRule()), id="lifetime among others"),
        pytest.param((MINUTELY,), id="one window"),
        pytest.param((MINUTELY, DAILY), id="several windows"),
    ],
)
async def test_each_reservation_is_held_once(rules: tuple[WindowRule, ...]) -> None:
    """What all reservations hold together has each once, on however many global budgets, also over a window's end."""
    house = House(Accounts(global_budgets=tuple(Budget(1000, rule) for rule in rules)))

    async def reserve(amount: int) -> None:
        now_ms = house.ledger.now_ms()
        windows = [rule.at(now_ms) for rule in rules] or [FOREVER]
        counters = (Counter(GLOBAL, window) for window in windows)
        await hold(house.ledger, amount, *counters, on("team:research"))

    await reserve(1)
    await house.clock.advance(MINUTE_MS)
    await reserve(10)

    assert 11 == (await house.surveyor.survey()).held


async def test_the_last_survey_stays_while_the_store_is_away() -> None:
    """A store that does not answer takes nothing away from what was seen, for those who wait and those who do not."""
    house = House(Accounts(teams={"research": Team(budget(10))}))
    before = await house.surveyor.survey()
    house.ledger.away = True

    with pytest.raises(StoreUnavailableError):
        await house.surveyor.survey()

    assert before is house.surveyor.latest
    assert before is await house.surveyor.fresh()


async def test_another_configuration_is_surveyed_from_the_next_time_on() -> None:
    """A reload changes which budgets there are."""
    house = House(Accounts(teams={"research": Team(budget(10))}))
    await house.surveyor.survey()

    house.configuration.replace(a_snapshot(Accounts(teams={"sales": Team(budget(20))})))

    assert ["team:sales|lifetime"] == list(used(await house.surveyor.survey()))


async def test_few_budgets_are_looked_at_anew_for_who_asks() -> None:
    """A survey that is asked for began after that; those who ask while one is under way share the next one."""
    house = House(Accounts(teams={"research": Team(budget(10))}))
    await house.surveyor.survey()
    await spend(house.ledger, on("team:research"), 7)

    surveys = await asyncio.gather(*(house.surveyor.fresh() for _ in range(5)))

    assert {7} == {survey.totals.spent for survey in surveys}
    assert 3 == house.ledger.asked


async def test_many_budgets_are_not() -> None:
    """Beyond a number of budgets, or of counters of end users, who asks gets the last survey."""
    teams = {f"t{number}": Team(budget(10)) for number in range(3)}
    of_teams = House(Accounts(teams=teams), fresh_max=2)
    of_end_users = House(Accounts(default_end_user=Payer(budget(10))), fresh_max=2)
    for number in range(2):
        await spend(of_end_users.ledger, on(f"end_user:{number}"), 1)

    for house in (of_teams, of_end_users):
        first = await house.surveyor.fresh()
        assert first is await house.surveyor.fresh() is house.surveyor.latest
        assert (1, START_MS) == (house.ledger.asked, first.taken_ms)


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes its time leaves who asks with the last survey."""
    house = House(Accounts(teams={"research": Team(budget(10))}))
    monkeypatch.setattr(survey_module, "FRESH_WAIT_S", 0.01)
    never = asyncio.Event()
    monkeypatch.setattr(house.ledger, "standings", lambda *_: never.wait())

    assert Survey() == await house.surveyor.fresh()


async def test_surveys_take_little_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first comes at once; the longer one takes, the longer the pause after it, and never a short one."""
    house = House(Accounts(teams={"research": Team(budget(10))}))
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await house.surveyor.next()  # one second by this clock
    await house.surveyor.next()
    house.ledger.away = True
    with pytest.raises(StoreUnavailableError):
        await house.surveyor.next()
    with pytest.raises(StoreUnavailableError):
        await house.surveyor.next()

    assert [20.0, 20.0, INTERVAL_S] == pauses
