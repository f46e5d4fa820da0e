"""Verdicts as Envoy's CheckResponse: headers, dynamic metadata, and refusals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, status_pb2

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption, QueryParameter
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from extauthz._proto.envoy.type.v3.http_status_pb2 import HttpStatus
from extauthz.adapters.holds import HoldCodec
from extauthz.adapters.listings import encode_listing
from extauthz.adapters.refusals import refusal_body
from extauthz.alerts import Warnings
from extauthz.config.upstream_auth import UpstreamAuthAction, UpstreamAuthRule
from extauthz.domain.credentials import CREDENTIAL_HEADERS
from extauthz.domain.endpoints import Api
from extauthz.domain.listings import Listing
from extauthz.domain.model_lists import model_list
from extauthz.domain.money import usd_text
from extauthz.domain.reservation import public_id
from extauthz.domain.verdict import Admit, AnswerModels, Deny, ModelsView, Pass, Reason
from extauthz.envoy.names import (
    AVAILABLE_HEADER,
    HOLD_KEY,
    INJECT_KEY,
    LISTING_KEY,
    MODELS_HEADER,
    MODELS_KEY,
    OWN_HEADERS,
    REASON_HEADER,
    REASON_KEY,
    RESERVATION_HEADER,
    RESULT_KEY,
    STREAM_OPTIONS_KEY,
    TRUNCATED_KEY,
    WARNING_HEADER,
)
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offered import offered

_CONDITIONS = ("if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range")

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

# Allows that are kept as they begin: there are some for each reason, and each rule for the upstream's credential.
BEGUN_MAX = 256


class Responses:
    """Builds the answers to Checks.

    What all allows of a kind begin with is written once, and read anew for each: that takes 1 µs, where to make one
    from Python takes 10.
    """

    def __init__(self, holds: HoldCodec, warnings: Warnings) -> None:
        self._holds = holds
        self._warnings = warnings
        self._begun = lru_cache(BEGUN_MAX)(_begun)

    def passed(self, verdict: Pass, request_headers: Iterable[str], auth: UpstreamAuthRule) -> CheckResponse:
        """Let a request through; nothing is held, but a hold may go with it."""
        plain = verdict.models is not None or verdict.hold is not None
        whole = verdict.models is not None or verdict.result is not None
        response = self._begin(
            verdict.reason, request_headers, auth, plain=plain or whole, whole=whole, models=verdict.models
        )
        if verdict.models is None:
            signed = None if verdict.hold is None else self._holds.encode(verdict.hold)
            sealed = None if verdict.result is None else self._holds.seal(verdict.result)
            _tell(response, {HOLD_KEY: signed, RESULT_KEY: sealed})
            return response
        listing = verdict.listing or Listing()
        asked = [QueryParameter(key=key, value=value) for key, value in listing.whole.items()]
        response.ok_response.query_parameters_to_set.extend(asked)
        _tell(response, {MODELS_KEY: verdict.models, LISTING_KEY: encode_listing(listing)})
        return response

    def admitted(
        self, verdict: Admit, request_headers: Iterable[str], auth: UpstreamAuthRule, *, hide: bool
    ) -> CheckResponse:
        """Let a request through with its hold; `hide` keeps amounts from the client."""
        shown = {RESERVATION_HEADER: public_id(verdict.hold.id)}
        if verdict.available_nanousd is not None and not hide:
            shown[AVAILABLE_HEADER] = usd_text(verdict.available_nanousd)
        warning = self._warnings.of(verdict.limited, hide=hide)
        if warning is not None:
            shown[WARNING_HEADER] = warning
        response = self._begin(verdict.reason, request_headers, auth, plain=True, shown=tuple(shown))
        for option, value in zip(response.ok_response.response_headers_to_add, shown.values(), strict=True):
            option.header.value = value
        _tell(response, {HOLD_KEY: self._holds.encode(verdict.hold), STREAM_OPTIONS_KEY: verdict.stream_options})
        if verdict.hold.whole_prices is not None:
            response.dynamic_metadata.fields[TRUNCATED_KEY].bool_value = True
        if verdict.stream_options is not None:
            response.dynamic_metadata.fields[INJECT_KEY].bool_value = True
        return response

    def _begin(
        self,
        reason: Reason,
        request_headers: Iterable[str],
        auth: UpstreamAuthRule,
        *,
        plain: bool,
        whole: bool = False,
        models: ModelsView | None = None,
        shown: tuple[str, ...] = (),
    ) -> CheckResponse:
        """Begin an allow: with what leaves the request and what goes upstream, and room for the headers `shown`."""
        # What is ours leaves the request here, whoever wrote it.
        own = tuple([name for name in request_headers if name.startswith(OWN_HEADERS)])
        key = None if auth.key is None else auth.key.get_secret_value()
        credentials = auth.action is not UpstreamAuthAction.PASS
        return CheckResponse.FromString(
            self._begun(reason, own, key, models, shown, plain=plain, whole=whole, credentials=credentials)
        )


def _begun(
    reason: Reason,
    own: tuple[str, ...],
    key: str | None,
    models: ModelsView | None,
    shown: tuple[str, ...],
    *,
    plain: bool,
    whole: bool,
    credentials: bool,
) -> bytes:
    """Write what an allow begins with; `credentials` says that the client's leave the request."""
    removed = set(own)
    if plain:
        # The meter and the pruning filter read the answer; Envoy may compress it again for the client.
        removed.add("accept-encoding")
    if whole:
        # An answer of "not modified", or a piece of a list, would let the client keep one that is not pruned; and the
        # meter would take a piece of a result for all of it.
        removed.update(_CONDITIONS)
    if credentials:
        removed.update(CREDENTIAL_HEADERS)
    headers = {}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    if models is not None:
        headers[MODELS_HEADER] = str(models)
    ok = OkHttpResponse(
        headers=[_header(name, value) for name, value in headers.items()],
        # Envoy removes after it has set, so a header that is set must not stand here.
        headers_to_remove=sorted(removed - headers.keys()),
        response_headers_to_add=[_header(name, "") for name in shown],
    )
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK), ok_response=ok, dynamic_metadata=_struct(reason)
    ).SerializeToString()


def _tell(response: CheckResponse, texts: Mapping[str, str | None]) -> None:
    """Add to an answer's metadata the texts that are there."""
    fields = response.dynamic_metadata.fields
    for name, text in texts.items():
        if text is not None:
            fields[name].string_value = text


def answered(verdict: AnswerModels, catalog: Catalog) -> CheckResponse:
    """Answer a model list from here: a denial by status, which Envoy sends as it is."""
    body = model_list(verdict.listing, offered(catalog, verdict.names)).decode()
    return _refuse(200, [_header("content-type", "application/json")], body, verdict.reason)


def denied(verdict: Deny, api: Api = Api.OPENAI) -> CheckResponse:
    """Refuse a request in the shape of the API that it called."""
    headers = [
        _header("content-type", "application/json"),
        _header("x-should-retry", "true" if verdict.should_retry else "false"),
        _header(REASON_HEADER, verdict.reason),
    ]
    if verdict.retry_after_s is not None:
        headers.append(_header("retry-after", str(verdict.retry_after_s)))
    return _refuse(verdict.status, headers, refusal_body(verdict, api), verdict.reason)


def _refuse(status: int, headers: list[HeaderValueOption], body: str, reason: Reason) -> CheckResponse:
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=status),  # type: ignore[arg-type]  # the enum is open
            headers=headers,
            body=body,
        ),
        dynamic_metadata=_struct(reason),
    )


def _struct(reason: Reason) -> Struct:
    struct = Struct()
    struct.update({REASON_KEY: str(reason)})
    return struct


def _header(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, value=value), append_action=_OVERWRITE)
