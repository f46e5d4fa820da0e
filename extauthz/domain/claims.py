"""What a request asks of the budgets of its principal, each in its own measure, and which of them are for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from extauthz.domain.budgets import Budget, Counter, Filter, FilterKind, Measure, ScopeBudgets, Spent
from extauthz.domain.identity import Principal
from extauthz.domain.reservation import Claim
from extauthz.domain.value import value


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for, as the budgets of single models and providers know it.

    `models` are all names that those budgets may have for what it asks for, `providers` those of its deployments; both
    are None where nobody can tell, and then every such budget is for it. They are case folded, since behind a pattern
    any case may lead to the same model. A provider in `passed_over` is exhausted while
    another may answer: what it may have answered is counted there, and not limited by it.
    """

    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    passed_over: frozenset[str] = field(default=frozenset())

    def is_for(self, only: Filter) -> bool:
        """Tell whether a budget of a single model or provider counts the request."""
        names = self.models if only.kind is FilterKind.MODEL else self.providers
        return names is None or only.name.casefold() in names

    def limits(self, budget: Budget) -> bool:
        """Tell whether a budget that counts the request can refuse it."""
        only = budget.only
        return only is None or only.kind is FilterKind.MODEL or only.name.casefold() not in self.passed_over

    def without(self, counter: Counter) -> Target | None:
        """Pass over the provider of an exhausted counter; None where no other may answer, or it is of none."""
        only = counter.only
        if only is None or only.kind is FilterKind.MODEL or self.providers is None:
            return None
        passed_over = self.passed_over | {only.name.casefold()}
        return None if self.providers <= passed_over else replace(self, passed_over=passed_over)


ANYTHING = Target()


@value
class Need:
    """What a request is expected to use, and the most that it can, which is what strict admission goes by.

    A `free` one costs nothing, and no budget in USD limits it.
    """

    expected: Spent
    most: Spent
    free: bool = False


def claims_of(principal: Principal, target: Target, need: Need, now_ms: int) -> tuple[Claim, ...]:
    """Ask every budget that is for a request for its part. Where none binds, what is used is counted all the same."""
    claims: list[Claim] = []
    for scope in principal.scopes:
        for counter, budget in counted(scope, target, now_ms):
            expected = need.expected.of(counter.measure)
            skipped = need.free and counter.measure is Measure.USD
            if budget is None or skipped or not scope.binds or not target.limits(budget):
                claims.append(Claim(counter, None, expected))
            else:
                amount = need.most.of(counter.measure) if budget.strict else expected
                claims.append(Claim(counter, budget.at(now_ms).limit, amount, whole=budget.strict))
    return tuple(claims)


def limits_free(principal: Principal, target: Target) -> bool:
    """Tell whether a budget limits a request that costs nothing."""
    return any(
        budget.measure is not Measure.USD and (budget.only is None or target.is_for(budget.only))
        for scope in principal.scopes
        if scope.binds
        for budget in scope.budgets
    )


def counted(scope: ScopeBudgets, target: Target, now_ms: int) -> list[tuple[Counter, Budget | None]]:
    """List the counters of a scope that are for a request, each with its budget."""
    return [
        (counter, budget)
        for counter, budget in scope.counters(now_ms)
        if counter.only is None or target.is_for(counter.only)
    ]
