"""Why a request gets the answer that it gets: the decision, and all that it rests on.

The decision is the Authorizer's own, over books that are only looked at, so that an explanation cannot say anything
else than a Check would. What it rests on is read by the same functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from extauthz.authenticator import Authenticator
from extauthz.authorizer import Authorizer, Call, reach_of, target_of
from extauthz.config.snapshot import Snapshot
from extauthz.domain.ask import Unreadable
from extauthz.domain.budgets import Budget, Counter, ScopeBudgets, Standing
from extauthz.domain.claims import ANYTHING, Target, counted
from extauthz.domain.credentials import Credential
from extauthz.domain.identity import Principal
from extauthz.domain.inference import ask_of
from extauthz.domain.prices import Prices
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Claim
from extauthz.domain.routes import Route, RouteClass, classify
from extauthz.domain.verdict import Decision, Deny
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ledger
from extauthz.ledger.preview import PreviewLedger
from extauthz.pricing.catalog import PriceSource
from extauthz.pricing.estimate import UsualAnswer

# How long the store may take for each answer; as long as a Check waits that has no deadline.
PATIENCE_S = 1.0

# Nothing is reserved, so nothing has to be told apart.
_CALL = Call("explanation", "explanation", PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter of the request, as it stands.

    `budget` is what the configuration says, None where spend is counted without limiting; `standing` is against the
    limit in force, 0 without one. `binds` is False where the budget only counts. `asked` is what the request asks to
    hold, in the measure of the counter, 0 when it asks for nothing. `refuses` marks the one that the refusal is about.
    """

    standing: Standing
    budget: Budget | None
    binds: bool
    asked: int = 0
    refuses: bool = False

    @property
    def strict(self) -> bool:
        """Whether all that is asked must fit."""
        return self.budget is not None and self.budget.strict and self.binds


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with what it rests on.

    `free` and `prices` are about everything that the request can reach, and `source` is who says what it costs; both
    are None where no model is asked, or none can be made out. `truncated` when only the beginning of the body is known.
    `counted` are the counters of every scope of the principal that are for the request, from the widest scope to the
    narrowest, none when nobody pays or the store does not answer.
    """

    decision: Decision
    route: Route
    free: bool
    prices: Prices | None
    source: PriceSource | None
    truncated: bool
    counted: tuple[Counted, ...]


class Explainer:
    """Explains what requests would get now. It reserves nothing."""

    def __init__(self, ledger: Ledger, usual: UsualAnswer, authenticator: Authenticator | None = None) -> None:
        self._ledger = ledger
        self._usual = usual
        self._authenticator = authenticator or Authenticator()

    async def explain(self, facts: RequestFacts, config: Snapshot, credential: Credential | None = None) -> Explanation:
        """Explain one request, by one configuration. `credential` stands in for one that the headers may have.

        A store that does not answer is part of the decision; nothing is counted then.
        """
        preview = PreviewLedger(self._ledger)
        authorizer = Authorizer(preview, self._usual, self._authenticator)
        decision = await authorizer.decide(facts, _CALL, config, credential)
        route = classify(facts.method, facts.path, facts.headers, config.settings.api_prefixes)
        free, prices, source = _priced(facts, route, config)
        return Explanation(
            decision=decision,
            route=route,
            free=free,
            prices=prices,
            source=source,
            truncated=facts.truncated,
            counted=await self._counted(
                preview,
                decision,
                await self._payer(facts, decision, config, credential),
                _target(facts, route, config),
            ),
        )

    async def _payer(
        self, facts: RequestFacts, decision: Decision, config: Snapshot, credential: Credential | None
    ) -> Principal | None:
        """Find the principal that a decision is about, None where it names none."""
        if decision.principal is None:
            return None
        principal = await self._authenticator.identify(
            facts, config, credential, now_ms=self._ledger.now_ms(), patience_s=PATIENCE_S
        )
        if isinstance(principal, Deny):
            return None
        # The body may have named others besides.
        return reduce(config.directory.with_payer, decision.payers[len(principal.scopes) :], principal)

    async def _counted(
        self, preview: PreviewLedger, decision: Decision, principal: Principal | None, target: Target
    ) -> tuple[Counted, ...]:
        """Look at every counter of a principal; nothing is there when the store is away."""
        if principal is None:
            return ()
        asked = preview.asked
        now_ms = self._ledger.now_ms() if asked is None else asked.hold.reserved_at_ms
        rows = [*_rows(principal.scopes, target, now_ms)]
        limits = [(counter, 0 if budget is None else budget.at(now_ms).limit) for counter, budget, _ in rows]
        try:
            async with asyncio.timeout(PATIENCE_S):
                standings = await self._ledger.standings(limits, payers=principal.payers)
        except (StoreUnavailableError, TimeoutError):
            return ()
        # What the decision was made by goes before what stands there by now.
        seen = {standing.counter: standing for standing in preview.seen if isinstance(standing, Standing)}
        return tuple(
            Counted(
                seen.get(standing.counter, standing),
                budget,
                binds and budget is not None,
                _asked(() if asked is None else asked.claims, standing.counter),
                _refuses(decision, standing.counter),
            )
            for (_, budget, binds), standing in zip(rows, standings, strict=True)
        )


def _priced(facts: RequestFacts, route: Route, config: Snapshot) -> tuple[bool, Prices | None, PriceSource | None]:
    """Tell whether all that a request can reach is free, the dearest prices of it, and who says so.

    There are no prices where it reaches no model.
    """
    match route.route_class:
        case RouteClass.INFERENCE:
            ask = ask_of(facts, route)
            if isinstance(ask, Unreadable):
                return False, None, None
            reach = reach_of(ask, config)
            return (reach.free, None, None) if reach.unknown else (reach.free, reach.prices, reach.source)
        case RouteClass.DISCOVERY if route.model is not None:
            return config.catalog.is_free(route.model), None, None
        case _:
            return False, None, None


def _target(facts: RequestFacts, route: Route, config: Snapshot) -> Target:
    """Tell which budgets of models and providers are for a request; those of a list of models are all of them."""
    if route.route_class is not RouteClass.INFERENCE:
        return ANYTHING
    ask = ask_of(facts, route)
    return ANYTHING if isinstance(ask, Unreadable) else target_of(ask, route, config)


def _rows(scopes: Sequence[ScopeBudgets], target: Target, now_ms: int) -> Iterator[tuple[Counter, Budget | None, bool]]:
    """List the counters of scopes that are for a request, each with its budget and whether that binds."""
    for scope in scopes:
        for counter, budget in counted(scope, target, now_ms):
            yield counter, budget, scope.binds and budget is not None


def _asked(claims: Sequence[Claim], counter: Counter) -> int:
    return max((claim.amount for claim in claims if claim.counter == counter), default=0)


def _refuses(decision: Decision, counter: Counter) -> bool:
    judged = decision.judged
    return isinstance(judged, Deny) and (judged.scope, judged.window) == (counter.scope.text, counter.label)
