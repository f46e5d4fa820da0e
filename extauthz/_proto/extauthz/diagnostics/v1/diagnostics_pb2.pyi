import datetime

from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2 as _external_auth_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Budget(_message.Message):
    __slots__ = ("scope", "window", "limit_usd", "spent_usd", "held_usd", "available_usd", "resets_at", "configured_limit_usd", "soft_limit_usd", "exhausted", "measure", "limit", "spent", "held", "available", "configured_limit")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    HELD_USD_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_USD_FIELD_NUMBER: _ClassVar[int]
    RESETS_AT_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    SOFT_LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_LIMIT_FIELD_NUMBER: _ClassVar[int]
    scope: str
    window: str
    limit_usd: float
    spent_usd: float
    held_usd: float
    available_usd: float
    resets_at: _timestamp_pb2.Timestamp
    configured_limit_usd: float
    soft_limit_usd: float
    exhausted: bool
    measure: str
    limit: int
    spent: int
    held: int
    available: int
    configured_limit: int
    def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., limit_usd: _Optional[float] = ..., spent_usd: _Optional[float] = ..., held_usd: _Optional[float] = ..., available_usd: _Optional[float] = ..., resets_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., configured_limit_usd: _Optional[float] = ..., soft_limit_usd: _Optional[float] = ..., exhausted: _Optional[bool] = ..., measure: _Optional[str] = ..., limit: _Optional[int] = ..., spent: _Optional[int] = ..., held: _Optional[int] = ..., available: _Optional[int] = ..., configured_limit: _Optional[int] = ...) -> None: ...

class ListBudgetsRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token", "used_share_min")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    USED_SHARE_MIN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    used_share_min: float
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., used_share_min: _Optional[float] = ...) -> None: ...

class ListBudgetsResponse(_message.Message):
    __slots__ = ("budgets", "next_page_token")
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    next_page_token: str
    def __init__(self, budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetBudgetRequest(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    def __init__(self, scope: _Optional[str] = ...) -> None: ...

class GetBudgetResponse(_message.Message):
    __slots__ = ("budgets",)
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    def __init__(self, budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ...) -> None: ...

class SetLimitRequest(_message.Message):
    __slots__ = ("scope", "window", "limit_usd", "limit", "who", "change_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    window: str
    limit_usd: float
    limit: int
    who: str
    change_id: str
    def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., limit_usd: _Optional[float] = ..., limit: _Optional[int] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class ResetBudgetRequest(_message.Message):
    __slots__ = ("scope", "window", "who", "change_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    window: str
    who: str
    change_id: str
    def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class GrantBudgetRequest(_message.Message):
    __slots__ = ("scope", "window", "amount_usd", "amount", "who", "change_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_USD_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    window: str
    amount_usd: float
    amount: int
    who: str
    change_id: str
    def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., amount_usd: _Optional[float] = ..., amount: _Optional[int] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class ChangeBudgetResponse(_message.Message):
    __slots__ = ("budget", "changed")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    changed: bool
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class Reservation(_message.Message):
    __slots__ = ("id", "public_id", "model", "reserved_at", "age_seconds", "lease_ends_at", "held")
    class Held(_message.Message):
        __slots__ = ("scope", "window", "held_usd", "measure", "held")
        SCOPE_FIELD_NUMBER: _ClassVar[int]
        WINDOW_FIELD_NUMBER: _ClassVar[int]
        HELD_USD_FIELD_NUMBER: _ClassVar[int]
        MEASURE_FIELD_NUMBER: _ClassVar[int]
        HELD_FIELD_NUMBER: _ClassVar[int]
        scope: str
        window: str
        held_usd: float
        measure: str
        held: int
        def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., held_usd: _Optional[float] = ..., measure: _Optional[str] = ..., held: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESERVED_AT_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    id: str
    public_id: str
    model: str
    reserved_at: _timestamp_pb2.Timestamp
    age_seconds: float
    lease_ends_at: _timestamp_pb2.Timestamp
    held: _containers.RepeatedCompositeFieldContainer[Reservation.Held]
    def __init__(self, id: _Optional[str] = ..., public_id: _Optional[str] = ..., model: _Optional[str] = ..., reserved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age_seconds: _Optional[float] = ..., lease_ends_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., held: _Optional[_Iterable[_Union[Reservation.Held, _Mapping]]] = ...) -> None: ...

class ListReservationsRequest(_message.Message):
    __slots__ = ("scope", "model", "age_seconds_min", "limit")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_MIN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    scope: str
    model: str
    age_seconds_min: float
    limit: int
    def __init__(self, scope: _Optional[str] = ..., model: _Optional[str] = ..., age_seconds_min: _Optional[float] = ..., limit: _Optional[int] = ...) -> None: ...

class ListReservationsResponse(_message.Message):
    __slots__ = ("reservations", "open")
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    reservations: _containers.RepeatedCompositeFieldContainer[Reservation]
    open: int
    def __init__(self, reservations: _Optional[_Iterable[_Union[Reservation, _Mapping]]] = ..., open: _Optional[int] = ...) -> None: ...

class ReleaseReservationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ReleaseReservationResponse(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: bool
    def __init__(self, released: _Optional[bool] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("check", "request")
    class ShortRequest(_message.Message):
        __slots__ = ("method", "path", "key", "key_sha256", "key_alias", "body", "headers", "context_extensions")
        class HeadersEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        class ContextExtensionsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        METHOD_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        KEY_FIELD_NUMBER: _ClassVar[int]
        KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
        KEY_ALIAS_FIELD_NUMBER: _ClassVar[int]
        BODY_FIELD_NUMBER: _ClassVar[int]
        HEADERS_FIELD_NUMBER: _ClassVar[int]
        CONTEXT_EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
        method: str
        path: str
        key: str
        key_sha256: str
        key_alias: str
        body: str
        headers: _containers.ScalarMap[str, str]
        context_extensions: _containers.ScalarMap[str, str]
        def __init__(self, method: _Optional[str] = ..., path: _Optional[str] = ..., key: _Optional[str] = ..., key_sha256: _Optional[str] = ..., key_alias: _Optional[str] = ..., body: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., context_extensions: _Optional[_Mapping[str, str]] = ...) -> None: ...
    CHECK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    check: _external_auth_pb2.CheckRequest
    request: ExplainRequest.ShortRequest
    def __init__(self, check: _Optional[_Union[_external_auth_pb2.CheckRequest, _Mapping]] = ..., request: _Optional[_Union[ExplainRequest.ShortRequest, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("route_class", "endpoint", "principal", "model", "model_entry", "free", "price", "estimate", "scopes", "decision")
    class Price(_message.Message):
        __slots__ = ("input_usd", "output_usd", "cache_read_input_usd", "cache_creation_input_usd", "reasoning_output_usd", "source", "units_usd")
        class UnitsUsdEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: float
            def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
        INPUT_USD_FIELD_NUMBER: _ClassVar[int]
        OUTPUT_USD_FIELD_NUMBER: _ClassVar[int]
        CACHE_READ_INPUT_USD_FIELD_NUMBER: _ClassVar[int]
        CACHE_CREATION_INPUT_USD_FIELD_NUMBER: _ClassVar[int]
        REASONING_OUTPUT_USD_FIELD_NUMBER: _ClassVar[int]
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        UNITS_USD_FIELD_NUMBER: _ClassVar[int]
        input_usd: float
        output_usd: float
        cache_read_input_usd: float
        cache_creation_input_usd: float
        reasoning_output_usd: float
        source: str
        units_usd: _containers.ScalarMap[str, float]
        def __init__(self, input_usd: _Optional[float] = ..., output_usd: _Optional[float] = ..., cache_read_input_usd: _Optional[float] = ..., cache_creation_input_usd: _Optional[float] = ..., reasoning_output_usd: _Optional[float] = ..., source: _Optional[str] = ..., units_usd: _Optional[_Mapping[str, float]] = ...) -> None: ...
    class Estimate(_message.Message):
        __slots__ = ("input_tokens", "output_tokens", "reasoning_output_tokens", "cost_usd", "cost_usd_max", "truncated", "units")
        class UnitsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: float
            def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
        INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
        OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
        REASONING_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
        COST_USD_FIELD_NUMBER: _ClassVar[int]
        COST_USD_MAX_FIELD_NUMBER: _ClassVar[int]
        TRUNCATED_FIELD_NUMBER: _ClassVar[int]
        UNITS_FIELD_NUMBER: _ClassVar[int]
        input_tokens: int
        output_tokens: int
        reasoning_output_tokens: int
        cost_usd: float
        cost_usd_max: float
        truncated: bool
        units: _containers.ScalarMap[str, float]
        def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_output_tokens: _Optional[int] = ..., cost_usd: _Optional[float] = ..., cost_usd_max: _Optional[float] = ..., truncated: _Optional[bool] = ..., units: _Optional[_Mapping[str, float]] = ...) -> None: ...
    class ScopeStanding(_message.Message):
        __slots__ = ("scope", "window", "limited", "binds", "strict", "limit_usd", "spent_usd", "held_usd", "available_usd", "resets_at", "exhausted", "asked_usd", "refuses", "measure", "limit", "spent", "held", "available", "asked")
        SCOPE_FIELD_NUMBER: _ClassVar[int]
        WINDOW_FIELD_NUMBER: _ClassVar[int]
        LIMITED_FIELD_NUMBER: _ClassVar[int]
        BINDS_FIELD_NUMBER: _ClassVar[int]
        STRICT_FIELD_NUMBER: _ClassVar[int]
        LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
        SPENT_USD_FIELD_NUMBER: _ClassVar[int]
        HELD_USD_FIELD_NUMBER: _ClassVar[int]
        AVAILABLE_USD_FIELD_NUMBER: _ClassVar[int]
        RESETS_AT_FIELD_NUMBER: _ClassVar[int]
        EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
        ASKED_USD_FIELD_NUMBER: _ClassVar[int]
        REFUSES_FIELD_NUMBER: _ClassVar[int]
        MEASURE_FIELD_NUMBER: _ClassVar[int]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        SPENT_FIELD_NUMBER: _ClassVar[int]
        HELD_FIELD_NUMBER: _ClassVar[int]
        AVAILABLE_FIELD_NUMBER: _ClassVar[int]
        ASKED_FIELD_NUMBER: _ClassVar[int]
        scope: str
        window: str
        limited: bool
        binds: bool
        strict: bool
        limit_usd: float
        spent_usd: float
        held_usd: float
        available_usd: float
        resets_at: _timestamp_pb2.Timestamp
        exhausted: bool
        asked_usd: float
        refuses: bool
        measure: str
        limit: int
        spent: int
        held: int
        available: int
        asked: int
        def __init__(self, scope: _Optional[str] = ..., window: _Optional[str] = ..., limited: _Optional[bool] = ..., binds: _Optional[bool] = ..., strict: _Optional[bool] = ..., limit_usd: _Optional[float] = ..., spent_usd: _Optional[float] = ..., held_usd: _Optional[float] = ..., available_usd: _Optional[float] = ..., resets_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exhausted: _Optional[bool] = ..., asked_usd: _Optional[float] = ..., refuses: _Optional[bool] = ..., measure: _Optional[str] = ..., limit: _Optional[int] = ..., spent: _Optional[int] = ..., held: _Optional[int] = ..., available: _Optional[int] = ..., asked: _Optional[int] = ...) -> None: ...
    ROUTE_CLASS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_ENTRY_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    route_class: str
    endpoint: str
    principal: str
    model: str
    model_entry: str
    free: bool
    price: ExplainResponse.Price
    estimate: ExplainResponse.Estimate
    scopes: _containers.RepeatedCompositeFieldContainer[ExplainResponse.ScopeStanding]
    decision: Decision
    def __init__(self, route_class: _Optional[str] = ..., endpoint: _Optional[str] = ..., principal: _Optional[str] = ..., model: _Optional[str] = ..., model_entry: _Optional[str] = ..., free: _Optional[bool] = ..., price: _Optional[_Union[ExplainResponse.Price, _Mapping]] = ..., estimate: _Optional[_Union[ExplainResponse.Estimate, _Mapping]] = ..., scopes: _Optional[_Iterable[_Union[ExplainResponse.ScopeStanding, _Mapping]]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision", "reason", "status", "type", "message", "scope", "window", "retry_after_seconds", "models", "answered_models", "available_usd")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_MODELS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_USD_FIELD_NUMBER: _ClassVar[int]
    decision: str
    reason: str
    status: int
    type: str
    message: str
    scope: str
    window: str
    retry_after_seconds: int
    models: str
    answered_models: _containers.RepeatedScalarFieldContainer[str]
    available_usd: float
    def __init__(self, decision: _Optional[str] = ..., reason: _Optional[str] = ..., status: _Optional[int] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., scope: _Optional[str] = ..., window: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ..., models: _Optional[str] = ..., answered_models: _Optional[_Iterable[str]] = ..., available_usd: _Optional[float] = ...) -> None: ...

class WatchDecisionsRequest(_message.Message):
    __slots__ = ("decisions", "reasons", "scope", "model", "sample")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedScalarFieldContainer[str]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    scope: str
    model: str
    sample: float
    def __init__(self, decisions: _Optional[_Iterable[str]] = ..., reasons: _Optional[_Iterable[str]] = ..., scope: _Optional[str] = ..., model: _Optional[str] = ..., sample: _Optional[float] = ...) -> None: ...

class WatchDecisionsResponse(_message.Message):
    __slots__ = ("decided_at", "decision", "method", "path", "route_class", "principal", "model", "scopes", "public_id", "estimate", "seconds", "missed")
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROUTE_CLASS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_ID_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    decided_at: _timestamp_pb2.Timestamp
    decision: Decision
    method: str
    path: str
    route_class: str
    principal: str
    model: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    public_id: str
    estimate: ExplainResponse.Estimate
    seconds: float
    missed: int
    def __init__(self, decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., route_class: _Optional[str] = ..., principal: _Optional[str] = ..., model: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., public_id: _Optional[str] = ..., estimate: _Optional[_Union[ExplainResponse.Estimate, _Mapping]] = ..., seconds: _Optional[float] = ..., missed: _Optional[int] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("ok", "drift_usd", "scopes_checked", "counters_checked", "reservations_open", "entries_read", "drifts")
    class Drift(_message.Message):
        __slots__ = ("of", "counter", "expected_usd", "found_usd", "measure", "expected", "found")
        OF_FIELD_NUMBER: _ClassVar[int]
        COUNTER_FIELD_NUMBER: _ClassVar[int]
        EXPECTED_USD_FIELD_NUMBER: _ClassVar[int]
        FOUND_USD_FIELD_NUMBER: _ClassVar[int]
        MEASURE_FIELD_NUMBER: _ClassVar[int]
        EXPECTED_FIELD_NUMBER: _ClassVar[int]
        FOUND_FIELD_NUMBER: _ClassVar[int]
        of: str
        counter: str
        expected_usd: float
        found_usd: float
        measure: str
        expected: int
        found: int
        def __init__(self, of: _Optional[str] = ..., counter: _Optional[str] = ..., expected_usd: _Optional[float] = ..., found_usd: _Optional[float] = ..., measure: _Optional[str] = ..., expected: _Optional[int] = ..., found: _Optional[int] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    DRIFT_USD_FIELD_NUMBER: _ClassVar[int]
    SCOPES_CHECKED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_OPEN_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_READ_FIELD_NUMBER: _ClassVar[int]
    DRIFTS_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    drift_usd: float
    scopes_checked: int
    counters_checked: int
    reservations_open: int
    entries_read: int
    drifts: _containers.RepeatedCompositeFieldContainer[AuditResponse.Drift]
    def __init__(self, ok: _Optional[bool] = ..., drift_usd: _Optional[float] = ..., scopes_checked: _Optional[int] = ..., counters_checked: _Optional[int] = ..., reservations_open: _Optional[int] = ..., entries_read: _Optional[int] = ..., drifts: _Optional[_Iterable[_Union[AuditResponse.Drift, _Mapping]]] = ...) -> None: ...

class ReadJournalRequest(_message.Message):
    __slots__ = ("after", "follow", "shard")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    after: str
    follow: bool
    shard: int
    def __init__(self, after: _Optional[str] = ..., follow: _Optional[bool] = ..., shard: _Optional[int] = ...) -> None: ...

class ReadJournalResponse(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: str
    def __init__(self, line: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("budgets",)
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    budgets: int
    def __init__(self, budgets: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "started_at", "config_digest", "config_loaded_at", "config_refused", "draining", "store", "decisions", "reservations_open", "held_usd", "budgets", "check_seconds_p50", "check_seconds_p99", "endings_waiting", "shadow_mode", "denials")
    class Store(_message.Message):
        __slots__ = ("url", "up", "seconds_p50", "seconds_p99", "errors")
        URL_FIELD_NUMBER: _ClassVar[int]
        UP_FIELD_NUMBER: _ClassVar[int]
        SECONDS_P50_FIELD_NUMBER: _ClassVar[int]
        SECONDS_P99_FIELD_NUMBER: _ClassVar[int]
        ERRORS_FIELD_NUMBER: _ClassVar[int]
        url: str
        up: bool
        seconds_p50: float
        seconds_p99: float
        errors: int
        def __init__(self, url: _Optional[str] = ..., up: _Optional[bool] = ..., seconds_p50: _Optional[float] = ..., seconds_p99: _Optional[float] = ..., errors: _Optional[int] = ...) -> None: ...
    class DecisionCount(_message.Message):
        __slots__ = ("route_class", "decision", "reason", "count")
        ROUTE_CLASS_FIELD_NUMBER: _ClassVar[int]
        DECISION_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        route_class: str
        decision: str
        reason: str
        count: int
        def __init__(self, route_class: _Optional[str] = ..., decision: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_LOADED_AT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_REFUSED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_OPEN_FIELD_NUMBER: _ClassVar[int]
    HELD_USD_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    CHECK_SECONDS_P50_FIELD_NUMBER: _ClassVar[int]
    CHECK_SECONDS_P99_FIELD_NUMBER: _ClassVar[int]
    ENDINGS_WAITING_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MODE_FIELD_NUMBER: _ClassVar[int]
    DENIALS_FIELD_NUMBER: _ClassVar[int]
    version: str
    started_at: _timestamp_pb2.Timestamp
    config_digest: str
    config_loaded_at: _timestamp_pb2.Timestamp
    config_refused: str
    draining: bool
    store: GetStatusResponse.Store
    decisions: _containers.RepeatedCompositeFieldContainer[GetStatusResponse.DecisionCount]
    reservations_open: int
    held_usd: float
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    check_seconds_p50: float
    check_seconds_p99: float
    endings_waiting: int
    shadow_mode: bool
    denials: _containers.RepeatedCompositeFieldContainer[WatchDecisionsResponse]
    def __init__(self, version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., config_digest: _Optional[str] = ..., config_loaded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., config_refused: _Optional[str] = ..., draining: _Optional[bool] = ..., store: _Optional[_Union[GetStatusResponse.Store, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[GetStatusResponse.DecisionCount, _Mapping]]] = ..., reservations_open: _Optional[int] = ..., held_usd: _Optional[float] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., check_seconds_p50: _Optional[float] = ..., check_seconds_p99: _Optional[float] = ..., endings_waiting: _Optional[int] = ..., shadow_mode: _Optional[bool] = ..., denials: _Optional[_Iterable[_Union[WatchDecisionsResponse, _Mapping]]] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("yaml", "digest", "notices")
    YAML_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    digest: str
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, yaml: _Optional[str] = ..., digest: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: str
    def __init__(self, level: _Optional[str] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: str
    def __init__(self, level: _Optional[str] = ...) -> None: ...
