"""`envoy.service.auth.v3.Authorization`: CheckRequest → facts → authorizer → CheckResponse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import grpc
import grpc.aio

from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.adapters.background import Background
from extauthz.adapters.responses import Responses, answered, denied
from extauthz.authorizer import Authorizer, Call
from extauthz.config.snapshot import Snapshot
from extauthz.config.upstream_auth import UpstreamAuthAction, UpstreamAuthRule
from extauthz.domain import denials
from extauthz.domain.request import RequestFacts
from extauthz.domain.routes import RouteClass
from extauthz.domain.trace import carried
from extauthz.domain.verdict import Admit, AnswerModels, Decision, Defer, Deny, Pass, Reason
from extauthz.envoy.names import ID_EXTENSION, ID_HEADER, TRACE_KEY
from extauthz.settlement import Settlement
from extauthz.telemetry.events import Telemetry

CHECK_METHOD = "/envoy.service.auth.v3.Authorization/Check"

# What Envoy is told when it shall decide by itself.
STORE_AWAY = "the store does not answer"

ID_LENGTH_MAX = 128

# What is left of Envoy's patience for the answer's way back; a client without a deadline gets PATIENCE_S_MAX.
ANSWER_RESERVE_S = 0.05
PATIENCE_S_MAX = 1.0

# More digits than any body has bytes.
LENGTH_DIGITS_MAX = 18

# What a client says to be on its way is held, and booked if it leaves: no more than upstreams take.
BODY_BYTES_MAX = 128 * 1024 * 1024

# A chunked body that fills the buffer is this long for the estimate; nobody can know.
UNSEEN_BYTES_ASSUMED = 4 * 1024 * 1024

# Refusals after which a reservation may stand all the same: the store carried it out, and its answer came too late.
_RESERVED_PERHAPS = (Reason.STORE_UNAVAILABLE, Reason.INTERNAL_ERROR)


_Later = Callable[[], Awaitable[CheckResponse | None]]


class CheckService(external_auth_pb2_grpc.AuthorizationServicer):
    """Answers Checks. Whatever goes wrong in here is a refusal, never an allow.

    With `tracing`, a request's place in a trace travels to its ending beside its hold.
    """

    def __init__(
        self,
        *,
        authorizer: Authorizer,
        settlement: Settlement,
        responses: Responses,
        snapshot: Callable[[], Snapshot],
        background: Background,
        telemetry: Telemetry,
        new_id: Callable[[], str],
        clock_s: Callable[[], float],
    ) -> None:
        self._authorizer = authorizer
        self._settlement = settlement
        self._responses = responses
        self._snapshot = snapshot
        self._background = background
        self._telemetry = telemetry
        self._new_id = new_id
        self._clock_s = clock_s

    async def Check(  # noqa: N802 - gRPC's name
        self, request: CheckRequest, context: grpc.aio.ServicerContext[CheckRequest, CheckResponse]
    ) -> CheckResponse:
        """Decide about one request of Envoy's."""
        answer = self._begin(request, context.time_remaining())
        response = answer if isinstance(answer, CheckResponse) else await answer()
        if response is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, STORE_AWAY)
        return response

    def answer(self, request: bytes, remaining_s: float | None) -> bytes | Callable[[], Awaitable[bytes | None]]:
        """Do the same with messages as they are on the wire: at once where nobody has to be asked, later otherwise.

        None when Envoy shall decide by itself.
        """
        answer = self._begin(CheckRequest.FromString(request), remaining_s)
        return answer.SerializeToString() if isinstance(answer, CheckResponse) else partial(_written, answer)

    def _begin(self, request: CheckRequest, remaining_s: float | None) -> CheckResponse | _Later:
        """Answer what can be answered at once; of the rest, give what answers it."""
        started_s = self._clock_s()
        facts: RequestFacts | None = None
        try:
            config = self._snapshot()
            facts = facts_of(request.attributes, config.settings.max_request_bytes)
            decision = self._authorizer.at_once(facts, config)
            response = None if decision is None else self._response(decision, facts, config)
            if decision is None or response is None:
                return partial(self._decided, facts, config, started_s, remaining_s)
        except Exception as error:  # noqa: BLE001 - an RPC error would let failure_mode_allow decide; this is a refusal
            decision, response = self._failed(error)
        self._tell(decision, facts, self._clock_s() - started_s)
        return response

    async def _decided(
        self, facts: RequestFacts, config: Snapshot, started_s: float, remaining_s: float | None
    ) -> CheckResponse | None:
        call = Call(_reservation_id(facts) or self._new_id(), self._new_id(), _patience_s(remaining_s))
        response: CheckResponse | None
        try:
            decision = await self._authorizer.decide(facts, call, config)
            response = self._response(decision, facts, config)
        except asyncio.CancelledError:
            # Envoy gave up, or its client did: what was reserved for nobody ends now.
            self._background.start(self._let_go(call))
            raise
        except Exception as error:  # noqa: BLE001 - as above
            decision, response = self._failed(error)
        if decision.verdict.reason in _RESERVED_PERHAPS:
            self._background.start(self._let_go(call))
        self._tell(decision, facts, self._clock_s() - started_s)
        return response

    def _failed(self, error: Exception) -> tuple[Decision, CheckResponse]:
        """Refuse a request because of a failure of ours."""
        self._telemetry.failed("check", error)
        refusal = denials.internal_error()
        return Decision(refusal, RouteClass.INFERENCE), denied(refusal)

    def _tell(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Tell of a decision; whatever goes wrong with that leaves the decision as it is."""
        try:
            self._telemetry.decided(decision, facts, seconds)
        except Exception as error:  # noqa: BLE001 - an RPC error would let failure_mode_allow decide after all
            self._telemetry.failed("telemetry", error)

    async def _let_go(self, call: Call) -> None:
        """End what a Check reserved that admits nobody."""
        await self._settlement.cancelled(call.reservation_id, call.attempt)

    def _response(self, decision: Decision, facts: RequestFacts, config: Snapshot) -> CheckResponse | None:
        """Write the verdict as Envoy's message; None when Envoy shall decide by itself."""
        match decision.verdict:
            case Pass() as verdict:
                return self._responses.passed(verdict, facts.headers, _upstream_auth(decision, config))
            case Admit() as verdict:
                auth = _upstream_auth(decision, config)
                response = self._responses.admitted(verdict, facts.headers, auth, hide=config.settings.hide_amounts)
                if config.settings.tracing and (place := carried(facts.headers)) is not None:
                    response.dynamic_metadata[TRACE_KEY] = place
                return response
            case AnswerModels() as verdict:
                return answered(verdict, config.catalog)
            case Deny() as verdict:
                return denied(verdict, decision.api)
            case Defer():
                return None


async def _written(later: _Later) -> bytes | None:
    response = await later()
    return None if response is None else response.SerializeToString()


def facts_of(attributes: AttributeContext, max_request_bytes: int) -> RequestFacts:
    """Take the facts out of Envoy's message, whichever way its filter packs headers and body."""
    http = attributes.request.http
    headers: dict[str, tuple[str, ...]] = {}
    # Most of what a Check without a store takes is here: each of some twenty headers is a Python object for a moment.
    for header in http.header_map.headers:
        name = header.key.lower()
        try:
            value = header.raw_value.decode() or header.value
        except UnicodeDecodeError:
            # UTF-8 as in bodies, so that an end user is the same in both; else any byte as it is.
            value = header.raw_value.decode("latin-1")
        headers[name] = (*headers[name], value) if name in headers else (value,)
    if http.headers:
        headers |= {name.lower(): (value,) for name, value in http.headers.items()}

    body = http.raw_body or http.body.encode()
    length = next(iter(headers.get("content-length", ())), "")
    if length.isascii() and length.isdigit() and len(length) <= LENGTH_DIGITS_MAX:
        # `x-envoy-auth-partial-body` is not believed: it was seen saying false on truncated bodies (Envoy 1.36, 1.40).
        unseen = max(0, min(int(length), BODY_BYTES_MAX) - len(body))
    else:
        unseen = UNSEEN_BYTES_ASSUMED if len(body) >= max_request_bytes else 0
    return RequestFacts(
        method=http.method,
        path=http.path,
        headers=headers,
        body=body,
        unseen_bytes=unseen,
        context=dict(attributes.context_extensions),
        peer=attributes.source.principal or None,
    )


def _upstream_auth(decision: Decision, config: Snapshot) -> UpstreamAuthRule:
    """Choose what the upstream gets for the client's credential.

    A key of ours goes upstream only for callers that are known, and only with what is held or discovered here: on other
    routes it would open the upstream's own management to anybody.
    """
    rules = config.settings.upstream_auth
    if decision.route_class in (RouteClass.DISCOVERY, RouteClass.INFERENCE) and decision.principal is not None:
        return (
            rules.default
            if decision.model is None
            else rules.rule(decision.model, config.catalog.entry(decision.model))
        )
    if rules.default.action is UpstreamAuthAction.PASS:
        return rules.default
    return UpstreamAuthRule(action=UpstreamAuthAction.REMOVE)


def _reservation_id(facts: RequestFacts) -> str | None:
    """Take Envoy's own id of the request, where the route says that nobody else can have written it."""
    if facts.context.get(ID_EXTENSION) != "header":
        return None
    header = facts.header(ID_HEADER)
    return header if header and len(header) <= ID_LENGTH_MAX else None


def _patience_s(remaining_s: float | None) -> float:
    if remaining_s is None:
        return PATIENCE_S_MAX
    return min(PATIENCE_S_MAX, max(0.0, remaining_s - ANSWER_RESERVE_S))
