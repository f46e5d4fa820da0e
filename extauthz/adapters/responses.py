"""Verdicts as Envoy's CheckResponse: headers, dynamic metadata, and refusals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


class Responses:
    """Builds the answers to Checks."""

    def __init__(self, holds: HoldCodec, warnings: Warnings) -> None:
        self._holds = holds
        self._warnings = warnings

    def passed(self, verdict: Pass, request_headers: Iterable[str], auth: UpstreamAuthRule) -> CheckResponse:
        """Let a request through; nothing is held, but a hold may go with it."""
        plain = verdict.models is not None or verdict.hold is not None
        whole = verdict.models is not None or verdict.result is not None
        ok = _ok(request_headers, auth, plain=plain or whole, whole=whole, models=verdict.models)
        if verdict.models is None:
            signed = None if verdict.hold is None else self._holds.encode(verdict.hold)
            sealed = None if verdict.result is None else self._holds.seal(verdict.result)
            told = {HOLD_KEY: signed, RESULT_KEY: sealed}
            return _allow(ok, verdict.reason, {key: text for key, text in told.items() if text is not None})
        listing = verdict.listing or Listing()
        asked = [QueryParameter(key=key, value=value) for key, value in listing.whole.items()]
        ok.query_parameters_to_set.extend(asked)
        return _allow(ok, verdict.reason, {MODELS_KEY: verdict.models, LISTING_KEY: encode_listing(listing)})

    def admitted(
        self, verdict: Admit, request_headers: Iterable[str], auth: UpstreamAuthRule, *, hide: bool
    ) -> CheckResponse:
        """Let a request through with its hold; `hide` keeps amounts from the client."""
        ok = _ok(request_headers, auth, plain=True)
        ok.response_headers_to_add.append(_header(RESERVATION_HEADER, public_id(verdict.hold.id)))
        if verdict.available_nanousd is not None and not hide:
            ok.response_headers_to_add.append(_header(AVAILABLE_HEADER, usd_text(verdict.available_nanousd)))
        warning = self._warnings.of(verdict.limited, hide=hide)
        if warning is not None:
            ok.response_headers_to_add.append(_header(WARNING_HEADER, warning))
        signed = self._holds.encode(verdict.hold)
        metadata: dict[str, str | bool] = {} if signed is None else {HOLD_KEY: signed}
        if verdict.hold.whole_prices is not None:
            metadata[TRUNCATED_KEY] = True
        if verdict.stream_options is not None:
            metadata |= {INJECT_KEY: True, STREAM_OPTIONS_KEY: verdict.stream_options}
        return _allow(ok, verdict.reason, metadata)


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


def _ok(
    request_headers: Iterable[str],
    auth: UpstreamAuthRule,
    *,
    plain: bool,
    whole: bool = False,
    models: ModelsView | None = None,
) -> OkHttpResponse:
    """Start an allow: what is ours leaves the request here, whoever wrote it."""
    removed = {name for name in request_headers if name.startswith(OWN_HEADERS)}
    if plain:
        # The meter and the pruning filter read the answer; Envoy may compress it again for the client.
        removed.add("accept-encoding")
    if whole:
        # An answer of "not modified", or a piece of a list, would let the client keep one that is not pruned; and the
        # meter would take a piece of a result for all of it.
        removed.update(_CONDITIONS)
    if auth.action is not UpstreamAuthAction.PASS:
        removed.update(CREDENTIAL_HEADERS)
    headers = {}
    if auth.key is not None:
        headers["authorization"] = f"Bearer {auth.key.get_secret_value()}"
    if models is not None:
        headers[MODELS_HEADER] = str(models)
    return OkHttpResponse(
        headers=[_header(name, value) for name, value in headers.items()],
        # Envoy removes after it has set, so a header that is set must not stand here.
        headers_to_remove=sorted(removed - headers.keys()),
    )


def _allow(ok: OkHttpResponse, reason: Reason, metadata: Mapping[str, str | bool]) -> CheckResponse:
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK), ok_response=ok, dynamic_metadata=_struct(reason, metadata)
    )


def _refuse(status: int, headers: list[HeaderValueOption], body: str, reason: Reason) -> CheckResponse:
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=status),  # type: ignore[arg-type]  # the enum is open
            headers=headers,
            body=body,
        ),
        dynamic_metadata=_struct(reason, {}),
    )


def _struct(reason: Reason, metadata: Mapping[str, str | bool]) -> Struct:
    struct = Struct()
    struct.update({REASON_KEY: str(reason), **metadata})
    return struct


def _header(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, value=value), append_action=_OVERWRITE)
