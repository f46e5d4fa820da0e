"""From the fields of a payer to its record: amounts exact, windows by the calendar of the settings.

Files and other directories say the same of a payer, so that all of them come through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from extauthz.config.limits import BudgetLimit, PartLimit
from extauthz.config.model import Settings
from extauthz.config.payers import (
    BudgetFields,
    EndUserFields,
    KeyFields,
    MemberFields,
    OrganizationFields,
    ProjectFields,
    TeamFields,
    UserFields,
)
from extauthz.domain.budgets import Budget, Filter, Increase
from extauthz.domain.money import limit_nanousd
from extauthz.domain.payers import Budgets, Key, Payer, Project, Record, Team, User
from extauthz.domain.policy import Admission
from extauthz.domain.windows import Duration, WindowRule

EPOCH = datetime.fromtimestamp(0, UTC)

# Budgets alike share a rule, and with it the window that it gave last; only anchors can make them many.
RULES_MAX = 4096


class RecordMaker:
    """Makes records of fields, each of its kind."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules: dict[tuple[Duration | None, datetime | None], WindowRule] = {}

    def __call__(self, fields: BudgetFields) -> Record:
        """Make the record of any payer."""
        match fields:
            case KeyFields():
                return self.key(fields)
            case TeamFields():
                return self.team(fields)
            case UserFields():
                return self.user(fields)
            case ProjectFields():
                return self.project(fields)
            case OrganizationFields() | EndUserFields():
                return Payer(self.budgets(fields), models=fields.models, blocked=fields.blocked)
            case MemberFields():
                return Payer(self.budgets(fields), models=fields.models)
            case _:
                return Payer(self.budgets(fields))

    def key(self, fields: KeyFields) -> Key:
        """Make the record of a key."""
        return Key(
            sha256=fields.sha256,
            alias=fields.key_alias,
            budgets=self.budgets(fields),
            organization=fields.organization,
            team=fields.team,
            user=fields.user,
            models=fields.models,
            project=fields.project,
            blocked=fields.blocked,
            expires_ms=None if fields.expires is None else self._ms(fields.expires),
            tags=fields.tags,
            metadata=fields.metadata,
            counts_as=fields.counts_as,
        )

    def team(self, fields: TeamFields) -> Team:
        """Make the record of a team."""
        return Team(
            budgets=self.budgets(fields),
            organization=fields.organization,
            members={user: self.payer(member) for user, member in fields.members.items()},
            models=fields.models,
            blocked=fields.blocked,
            shadow_mode=fields.shadow_mode,
            tags=fields.tags,
        )

    def user(self, fields: UserFields) -> User:
        """Make the record of a user."""
        return User(self.budgets(fields), fields.organization, models=fields.models)

    def project(self, fields: ProjectFields) -> Project:
        """Make the record of a project."""
        return Project(self.budgets(fields), fields.team, models=fields.models, blocked=fields.blocked)

    def payer(self, fields: BudgetFields) -> Payer:
        """Make the record of anybody but a key."""
        record = self(fields)
        return record if isinstance(record, Payer) else Payer(record.budgets)

    def budgets(self, fields: BudgetFields) -> Budgets:
        """Make the budgets of any payer."""
        limits = (self._budget(limit) for limit in fields.limits())
        parts = (budget for only, part in fields.parts() for budget in self._budgets_of_part(only, part))
        return (*limits, *parts)

    def _budget(self, limit: BudgetLimit) -> Budget:
        ((measure, amount),) = limit.amounts()
        return Budget(
            limit=amount,
            rule=self._rule(limit.budget_duration, limit.anchor),
            soft_limit=None if limit.soft_budget is None else limit_nanousd(limit.soft_budget),
            strict=self._is_strict(limit.admission),
            increase=self._increase(limit),
            measure=measure,
            rollover=self._settings.budget_rollover,
        )

    def _budgets_of_part(self, only: Filter, part: PartLimit) -> Iterator[Budget]:
        """Give the budgets of one model or provider, one for each measure."""
        rule, strict = self._rule(part.duration, part.anchor), self._is_strict(part.admission)
        rollover = self._settings.budget_rollover
        for measure, amount in part.amounts():
            yield Budget(limit=amount, rule=rule, strict=strict, measure=measure, only=only, rollover=rollover)

    def _is_strict(self, admission: Admission | None) -> bool:
        return (admission or self._settings.admission) is Admission.STRICT

    def _rule(self, duration: Duration | None, anchor: datetime | None) -> WindowRule:
        rule = self._rules.get((duration, anchor))
        if rule is None:
            if len(self._rules) >= RULES_MAX:
                self._rules.clear()
            settings = self._settings
            anchor_ms = None if anchor is None else self._ms(anchor)
            zone, reset_time = settings.timezone, settings.budget_reset_time
            rule = WindowRule(duration, zone, anchor_ms, reset_time, settings.reset_rules)
            self._rules[duration, anchor] = rule
        return rule

    def _increase(self, limit: BudgetLimit) -> Increase | None:
        if limit.temp_budget_increase is None or limit.temp_budget_expiry is None:
            return None
        return Increase(limit_nanousd(limit.temp_budget_increase), self._ms(limit.temp_budget_expiry))

    def _ms(self, moment: datetime) -> int:
        """Give a moment in Unix milliseconds; without an offset it is local time in the zone."""
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(self._settings.timezone))
        return (aware - EPOCH) // timedelta(milliseconds=1)
