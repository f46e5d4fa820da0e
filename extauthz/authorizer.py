"""The gate's one decision, top to bottom: identity → route → budgets → estimate → decide → reserve → verdict."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from extauthz.authenticator import Authenticator
from extauthz.config.estimates import UnknownPriceMode
from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.discovery import hidden_by, shown, watched
from extauthz.domain import denials
from extauthz.domain.ask import Ask, Unreadable
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Standing
from extauthz.domain.claimed import Claimed
from extauthz.domain.claims import ANYTHING, Need, Target, claims_of, limits_free
from extauthz.domain.credentials import Credential
from extauthz.domain.endpoints import Charge, Endpoint
from extauthz.domain.identity import Principal
from extauthz.domain.inference import ask_of, counted_model, never_exempt
from extauthz.domain.model_names import allowed
from extauthz.domain.paths import is_below
from extauthz.domain.policy import ModelsPolicy, OnExpiry, OtherRoutes, StoreFailure
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Claim, Hold, Lease, promise_name
from extauthz.domain.routes import Route, RouteClass, classify
from extauthz.domain.value import value
from extauthz.domain.verdict import (
    Admit,
    AnswerModels,
    Decision,
    Defer,
    Deny,
    ModelsView,
    Pass,
    Reason,
    Verdict,
)
from extauthz.envoy.names import SHADOW_EXTENSION
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import AlreadyEnded, Ledger, Refused, Reserve, Reserved, StaleWindow, TooLate
from extauthz.pricing.catalog import Reach
from extauthz.pricing.estimate import UsualAnswer, estimate

# How much of a Check's time may go into waiting for the keys of a token, and as much for a directory.
IDENTITY_SHARE = 0.5

# Times a reserve is computed anew because the store's clock stands in another window than ours.
STALE_WINDOWS_MAX = 2

_STORED = (Endpoint.FILES, Endpoint.UNBILLED)
_ONE_PASS = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS)


@value
class Call:
    """One Check: the reservation id that it asks for, its own name, and the store time after which nobody waits."""

    reservation_id: str
    attempt: str
    patience_s: float


@value
class _Inference:
    """An inference whose price is known, and who pays for it: all that is reserved by.

    `whole_prices` are those of a body that was cut, if what is unseen of it names no other model. `target` is what
    budgets of models and providers go by. A `free` one costs nothing, and no budget in USD limits it.
    """

    route: Route
    ask: Ask
    reach: Reach
    whole_prices: Prices | None
    principal: Principal
    target: Target
    estimate: Estimate
    call: Call
    priced_by: str
    free: bool = False

    def claims(self, target: Target, now_ms: int) -> tuple[Claim, ...]:
        """Ask the budgets for their parts."""
        need = Need(self.estimate.spent, self.estimate.most, free=self.free)
        return claims_of(self.principal, target, need, now_ms)


class Authorizer:
    """Decides about requests, and holds money for those that cost some."""

    def __init__(self, ledger: Ledger, usual: UsualAnswer, authenticator: Authenticator | None = None) -> None:
        self._ledger = ledger
        self._usual = usual
        self._authenticator = authenticator or Authenticator()

    def at_once(self, facts: RequestFacts, config: Snapshot) -> Decision | None:
        """Decide about a request whose route says all; None where somebody has to be known, or something held."""
        return _by_route(facts, _route(facts, config), config.settings)

    async def decide(
        self, facts: RequestFacts, call: Call, config: Snapshot, credential: Credential | Claimed | None = None
    ) -> Decision:
        """Decide about one request, by one configuration. `credential` stands in for one that the headers may have.

        Raises nothing but what is a failure of our own; a store that does not answer is part of the decision.
        """
        route = _route(facts, config)
        if (decision := _by_route(facts, route, config.settings)) is not None:
            return decision
        shadow = _in_shadow(facts, config.settings)
        principal = await self._authenticator.identify(
            facts,
            config,
            credential,
            now_ms=self._ledger.now_ms(),
            patience_s=call.patience_s * IDENTITY_SHARE,
            # Other routes ask for somebody known, and so does what is stored upstream, by whomever.
            nobody=route.route_class is not RouteClass.OTHER and route.endpoint not in _STORED,
        )
        if isinstance(principal, Deny):
            return _enforced(_of_nobody(principal, route), shadow=shadow)
        shadow = shadow or principal.shadow_mode
        match route.route_class:
            case RouteClass.DISCOVERY:
                verdict = await self._discover(facts, route, principal, config, call)
                return _enforced(_about(verdict, route, principal, route.model, config), shadow=shadow)
            case RouteClass.INFERENCE if route.charge is Charge.NOTHING:
                model = counted_model(facts, route, principal.models)
                result = None if route.result is None else promise_name(route.result)
                return _about(Pass(Reason.UNBILLED, result=result), route, principal, model, config)
            case RouteClass.INFERENCE:
                return await self._infer(facts, route, principal, config, call, shadow=shadow)
            case _:
                return _about(Pass(Reason.OTHER_ROUTE), route, principal, None, config)

    async def _discover(
        self, facts: RequestFacts, route: Route, principal: Principal, config: Snapshot, call: Call
    ) -> Verdict:
        """Answer model discovery: it stays open unless a budget is exhausted and the policy says otherwise.

        Budgets in USD for all requests decide. One of a single model hides that model, where the policy is free_only.
        Whatever the budgets say, a list shows only what the principal's own lists of models allow.
        """
        settings = config.settings
        free_only = settings.models_policy is ModelsPolicy.FREE_ONLY
        show = partial(shown, facts, route, principal, config)
        if principal.admin or settings.models_policy is ModelsPolicy.ALL:
            return show(reason=Reason.DISCOVERY, free_only=False)
        now_ms = self._ledger.now_ms()
        limits = watched(principal, now_ms, free_only=free_only)
        try:
            async with asyncio.timeout(call.patience_s):
                standings = await self._ledger.standings(limits, payers=principal.payers)
        except (StoreUnavailableError, TimeoutError):
            view = show(reason=Reason.STORE_FAILURE_ALLOWED, free_only=free_only)
            return view if free_only else _without_store(settings.store_failure, view)
        exhausted = [standing for standing in standings if standing.exhausted]
        plain = next((standing for standing in exhausted if standing.counter.only is None), None)
        if plain is None or free_only:
            hidden = hidden_by(exhausted, config.catalog)
            return show(reason=Reason.DISCOVERY, free_only=plain is not None, hidden=hidden)
        return denials.budget_exceeded(
            plain, now_ms=now_ms, status=settings.budget_exceeded_status, hide_amounts=settings.hide_amounts
        )

    async def _infer(
        self, facts: RequestFacts, route: Route, principal: Principal, config: Snapshot, call: Call, *, shadow: bool
    ) -> Decision:
        """Decide about an inference: free models pass, everything else reserves."""
        ask = ask_of(facts, route)
        if isinstance(ask, Unreadable):
            decision = _about(denials.bad_request(ask.message), route, principal, None, config)
            return _enforced(decision, shadow=shadow)
        completed = await self._authenticator.complete(
            principal,
            ask,
            facts,
            config,
            now_ms=self._ledger.now_ms(),
            patience_s=call.patience_s * IDENTITY_SHARE,
        )
        if isinstance(completed, Deny):
            return _enforced(_about(completed, route, principal, ask.model, config), shadow=shadow)
        principal = completed
        reach = reach_of(ask, config)
        refusal = _refused_model(ask, reach, principal, config.settings)
        if refusal is not None and not shadow:
            return _about(refusal, route, principal, ask.model, config)
        expected = self.expect(ask, reach, route, config.settings, facts.unseen_bytes)
        whole_prices = _seen_reach(ask, config).prices if ask.truncated else None
        free, target = reach.free and not never_exempt(ask, route), target_of(ask, route, config)
        inference = _Inference(
            route, ask, reach, whole_prices, principal, target, expected, call, config.short_digest, free
        )
        if free and not limits_free(principal, target):
            now_ms = self._ledger.now_ms()
            hold = replace(_hold(inference, inference.claims(target, now_ms), now_ms), free=True)
            passed = Pass(Reason.FREE_MODEL, hold=hold)
            return _about(passed, route, principal, ask.model, config, shadowed=refusal)

        rules = _rules(config.settings, shadow=shadow)
        verdict = await self._reserve(inference, rules)
        if shadow and isinstance(verdict, Deny):
            refusal = refusal or verdict
            verdict = await self._reserve(replace(inference, principal=principal.unlimited()), rules)
        decision = _about(verdict, route, principal, ask.model, config, estimate=expected, shadowed=refusal)
        return _enforced(decision, shadow=shadow)

    def expect(self, ask: Ask, reach: Reach, route: Route, settings: Settings, unseen_bytes: int) -> Estimate:
        """Estimate a request that is still to be served."""
        return estimate(
            ask,
            reach,
            endpoint=route.endpoint or Endpoint.OPAQUE,
            usual_output_tokens=self._usual.output.of(ask.model or ""),
            usual_reasoning_tokens=self._usual.reasoning.of(ask.model or ""),
            image_tokens=settings.estimate.image_tokens,
            unseen_bytes=unseen_bytes,
            flat_nanousd=settings.estimate.flat_nanousd,
        )

    async def _reserve(self, inference: _Inference, settings: Settings) -> Verdict:
        """Hold the estimate on every scope of the principal, all or nothing."""
        stream_options, call, target = inference.ask.stream_options, inference.call, inference.target
        started_ms = now_ms = self._ledger.now_ms()
        stale = 0
        while stale <= STALE_WINDOWS_MAX:
            claims = inference.claims(target, now_ms)
            hold = _hold(inference, claims, now_ms)
            request = Reserve(
                hold, call.attempt, claims, first_lease(hold, settings), started_ms + int(call.patience_s * 1000)
            )
            try:
                async with asyncio.timeout(call.patience_s):
                    result = await self._ledger.reserve(request)
            except (StoreUnavailableError, TimeoutError):
                break
            match result:
                case Reserved(available_nanousd):
                    limited = tuple(claim.counter for claim in claims if claim.limit is not None)
                    return Admit(_admitted_as(inference), hold, available_nanousd, stream_options, limited)
                case Refused(standing):
                    others = _others(inference, target, standing.counter)
                    if others is None:
                        return _refusal(standing, claims, now_ms, settings)
                    target = others
                case AlreadyEnded():
                    return denials.store_unavailable(Reason.ALREADY_ENDED)
                case TooLate():
                    break
                case StaleWindow(store_ms):
                    now_ms = store_ms
                    stale += 1
        admitted = Admit(Reason.STORE_FAILURE_ALLOWED, hold, stream_options=stream_options)
        return _without_store(settings.store_failure, admitted)


def _route(facts: RequestFacts, config: Snapshot) -> Route:
    return classify(facts.method, facts.path, facts.headers, config.settings.api_prefixes)


def _by_route(facts: RequestFacts, route: Route, settings: Settings) -> Decision | None:
    match route.route_class, settings.other:
        case RouteClass.INFO, _:
            return _of_nobody(Pass(Reason.INFO), route)
        case RouteClass.OTHER, OtherRoutes.PASS:
            return _of_nobody(Pass(Reason.OTHER_ROUTE), route)
        case RouteClass.OTHER, OtherRoutes.DENY:
            return _enforced(_of_nobody(denials.route_closed(), route), shadow=_in_shadow(facts, settings))
        case _:
            return None


def _admitted_as(inference: _Inference) -> Reason:
    if inference.principal.admin:
        return Reason.ADMIN
    return Reason.FREE_MODEL if inference.free else Reason.WITHIN_BUDGET


def _others(inference: _Inference, target: Target, refusing: Counter) -> Target | None:
    """Pass over the provider that has nothing left, where one of several may answer; each time they are fewer.

    A caller that names several models, or fallbacks, would choose the provider itself, and with it one that is used up.
    """
    ask = inference.ask
    return target.without(refusing) if len(ask.models) == 1 and not ask.fallbacks else None


def _in_shadow(facts: RequestFacts, settings: Settings) -> bool:
    """Tell whether everything, or this route, only tries its budgets out."""
    return (
        settings.shadow_mode
        or facts.context.get(SHADOW_EXTENSION) == "on"
        or is_below(facts.path, settings.shadow_paths)
    )


def _rules(settings: Settings, *, shadow: bool) -> Settings:
    """Give the settings that a reserve goes by: in shadow mode a store that is away refuses nobody."""
    return settings.model_copy(update={"store_failure": StoreFailure.ALLOW}) if shadow else settings


def _enforced(decision: Decision, *, shadow: bool) -> Decision:
    """Carry a decision out, or in shadow mode let the request go on and only tell what it would have got."""
    match decision.verdict:
        case Pass(models=ModelsView()) | AnswerModels() if (
            shadow and decision.verdict.reason is not Reason.DISCOVERY_PRUNED
        ):
            # A list without what the caller may not use anyway refuses nothing; here it may use everything.
            return replace(decision, verdict=Pass(decision.verdict.reason))
        case Deny() | Defer() | AnswerModels() | Pass(models=ModelsView()) if shadow:
            return replace(decision, verdict=Pass(Reason.SHADOW_MODE), shadowed=decision.shadowed or decision.verdict)
        case _:
            return decision


def _of_nobody(verdict: Verdict, route: Route) -> Decision:
    return Decision(verdict, route.route_class, api=route.api)


def _about(
    verdict: Verdict,
    route: Route,
    principal: Principal,
    model: str | None,
    config: Snapshot,
    *,
    estimate: Estimate | None = None,
    shadowed: Deny | None = None,
) -> Decision:
    entry = None if model is None else config.catalog.entry(model)
    return Decision(
        verdict,
        route.route_class,
        principal.name,
        model,
        entry,
        principal.payers,
        estimate=estimate,
        shadowed=shadowed,
        endpoint=route.endpoint,
        api=route.api,
    )


def reach_of(ask: Ask, config: Snapshot) -> Reach:
    """Tell what a request can end up at, and what that costs.

    The unseen end of a body may name another model. Not sure what it costs: it is not free, and held at the dearest.
    """
    reach = _seen_reach(ask, config)
    return replace(reach, free=False, prices=config.catalog.dearest()) if ask.truncated else reach


def target_of(ask: Ask, route: Route, config: Snapshot) -> Target:
    """Tell which budgets of models and providers a request is for: all, where it may run others than it names."""
    if ask.truncated or never_exempt(ask, route):
        return ANYTHING
    return config.catalog.targets.of((*ask.models, *ask.fallbacks))


def _seen_reach(ask: Ask, config: Snapshot) -> Reach:
    return config.catalog.reach(ask.models, ask.fallbacks)


def _refused_model(ask: Ask, reach: Reach, principal: Principal, settings: Settings) -> Deny | None:
    """Refuse models that are not there, not for this principal, or without a price where that is not wanted."""
    if reach.unknown:
        return denials.model_unknown(reach.unknown[0])
    refused = next((name for name in (*ask.models, *ask.fallbacks) if not allowed(name, principal.models)), None)
    if refused is not None:
        return denials.model_not_allowed(refused)
    deny = settings.unknown_price.mode is UnknownPriceMode.DENY
    return denials.model_unpriced(reach.unpriced[0]) if deny and reach.unpriced else None


def _hold(inference: _Inference, claims: tuple[Claim, ...], now_ms: int) -> Hold:
    ask = inference.ask
    return Hold(
        id=inference.call.reservation_id,
        reserved_at_ms=now_ms,
        counters=tuple(dict.fromkeys(claim.counter for claim in claims)),
        model=ask.model or "",
        prices=inference.reach.prices,
        estimate=inference.estimate,
        streamed=ask.stream,
        choices=ask.choices,
        whole_prices=inference.whole_prices,
        tokens_max=_tokens_max(ask, inference.reach, inference.route),
        priced_by=inference.priced_by,
    )


def _tokens_max(ask: Ask, reach: Reach, route: Route) -> int | None:
    """Give what all answers together can have of a kind, where every answer is one pass through the model's context.

    Nobody knows for models that the unseen end of a body may name, for embeddings, which read many texts at once, and
    for calls that go through the model again and again (tools that the upstream runs itself).
    """
    if reach.context_tokens is None or ask.truncated or route.endpoint not in _ONE_PASS:
        return None
    # What is configured of the context is the most that the input can have; an output may have more.
    tokens = max(reach.context_tokens, reach.output_tokens_max or 0)
    return tokens * max(1, len(ask.models)) * max(1, ask.choices)


def _refusal(standing: Standing, claims: tuple[Claim, ...], now_ms: int, settings: Settings) -> Deny:
    """Say why a reservation was refused: all is spent, it can never be enough, or others hold it."""
    status, hide_amounts = settings.budget_exceeded_status, settings.hide_amounts
    if standing.exhausted:
        return denials.budget_exceeded(standing, now_ms=now_ms, status=status, hide_amounts=hide_amounts)
    whole = max((claim.amount for claim in claims if claim.whole and claim.counter == standing.counter), default=0)
    if standing.spent + whole > standing.limit:
        return denials.request_too_dear(standing, whole, status=status, hide_amounts=hide_amounts)
    return denials.budget_held(standing, hide_amounts=hide_amounts)


def first_lease(hold: Hold, rules: Settings) -> Lease:
    """Give the lease of a new reservation: what is booked if nothing is ever heard of it."""
    charge = rules.on_expiry is OnExpiry.CHARGE
    return Lease(rules.lease_seconds * 1000, hold.estimate.spent if charge else NOTHING_SPENT)


def _without_store(rule: StoreFailure, allowed_verdict: Verdict) -> Verdict:
    match rule:
        case StoreFailure.DENY:
            return denials.store_unavailable()
        case StoreFailure.ALLOW:
            return allowed_verdict
        case StoreFailure.DEFER:
            return Defer(Reason.STORE_UNAVAILABLE)
