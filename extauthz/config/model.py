"""What may stand in the configuration file, and what it means.

The descriptions are the manual: documentation and JSON schema are made from them. What stands under `extauthz:` is
ours, and an unknown key there is a mistake. LiteLLM's own sections stand in litellm_settings.py.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from extauthz.config.credentials import ISSUERS_MAX, AnonymousFields, JwtIssuer, Mtls, TrustedHeaderFields
from extauthz.config.estimates import EstimateSettings, UnknownPrice
from extauthz.config.notifications import AlertSettings, LogSettings
from extauthz.config.payers import (
    BudgetFields,
    EndUserFields,
    KeyFields,
    OrganizationFields,
    ProjectFields,
    TagFields,
    TeamFields,
    UserFields,
)
from extauthz.config.upstream_auth import UpstreamAuth
from extauthz.config.values import (
    AddressText,
    Count,
    Identifier,
    ResetTime,
    Seconds,
    Secret,
    StoreText,
    Strict,
    Text,
    TimeZone,
)
from extauthz.domain.address import Address
from extauthz.domain.policy import (
    Admission,
    DirectoryFailure,
    ModelsPolicy,
    OnAbort,
    OnExpiry,
    OnMissingUsage,
    OtherRoutes,
    StoreFailure,
)
from extauthz.domain.windows import MIDNIGHT, ResetRules
from extauthz.ledger.base import TOMBSTONE_SECONDS

# gRPC receives messages of at most 4 MiB, and a Check carries the headers and metadata beside the body.
REQUEST_BYTES_MAX = 3 * 1024 * 1024

LEASE_SECONDS_MIN = 1
LEASE_SECONDS_MAX = 86_400
DRAIN_SECONDS_MAX = 3_600


class ServerKind(StrEnum):
    """The implementation that serves gRPC: `auto` takes `native` unless TLS is configured."""

    AUTO = "auto"
    NATIVE = "native"
    GRPCIO = "grpcio"


class ShardBy(StrEnum):
    """What the books are divided by."""

    NONE = "none"
    ORGANIZATION = "organization"


class DirectoryKind(StrEnum):
    """Where keys and other payers are kept besides the files."""

    FILES = "files"
    STORE = "store"
    LITELLM = "litellm"


class Listen(Strict):
    """Where the server listens."""

    grpc: AddressText = Field(
        default=Address("127.0.0.1", 9191),
        description="Envoy's port: Authorization, ExternalProcessor, AccessLogService.",
    )
    admin: AddressText = Field(
        default=Address("127.0.0.1", 9192), description="The operators' port: budgets, reservations, explanations."
    )
    http: AddressText = Field(
        default=Address("127.0.0.1", 9193),
        description="The port of /metrics, /healthz, /readyz and the status page; it shows no secrets.",
    )


class Tls(Strict):
    """TLS on the gRPC ports. The files are read again when they change."""

    cert: Path = Field(description="Path of the certificate chain (PEM).")
    key: Path = Field(description="Path of the private key (PEM).")
    client_ca: Path | None = Field(
        default=None, description="Path of the CA (PEM) that signs client certificates; only clients with one get in."
    )


class Service(Strict):
    """How the server behaves."""

    tls: Tls | None = Field(default=None, description="TLS on the gRPC ports.")
    token: Secret | None = Field(
        default=None, description="The shared secret that Envoy sends as gRPC metadata `x-extauthz-token`."
    )
    insecure_grpc: bool = Field(
        default=False,
        description="Listen beyond loopback although anybody who reaches the port can settle and allow. Only where "
        "the mesh proves who calls (mTLS, network policy).",
    )
    admin_token: Secret | None = Field(
        default=None,
        description="The operators' own secret, for the admin port (`authorization: Bearer …`) and the status page. "
        "Where the admin port listens beyond loopback, it or tls.client_ca is needed.",
    )
    # These two stand after what their checks look at.
    server: ServerKind = Field(
        default=ServerKind.AUTO,
        description="Which gRPC server runs: native (fast, no TLS), grpcio, or auto: grpcio where `tls` is set.",
    )
    listen: Listen = Field(default=Listen(), description="Addresses, host:port.")
    store: StoreText = Field(
        default=None,
        description="Where the books are kept: memory (of one process, lost with it), or the URL of a Redis (6.2 or "
        "newer) or Valkey: redis://, rediss://, redis+sentinel:// or redis+cluster://.",
    )
    store_timeout_seconds: Seconds = Field(
        default=Decimal("0.25"),
        ge=Decimal("0.01"),
        le=10,
        description="How long one call to the store may take.",
    )
    shard_by: ShardBy = Field(
        default=ShardBy.NONE,
        description="none: all books in one set of keys. organization: each organization's in one of `shards` sets, "
        "which a Redis Cluster spreads over its nodes; budgets of users and end users are then per organization, and "
        "there can be no global budget.",
    )
    shards: Count = Field(
        default=16,
        ge=2,
        le=256,
        description="How many sets of keys there are with shard_by. Books that were begun cannot be divided otherwise: "
        "another number is refused, and to begin or to end dividing them begins other books.",
    )
    allow_eviction: bool = Field(
        default=False,
        description="Start although the store throws keys away when its memory is full (maxmemory-policy other than "
        "noeviction): budgets may then forget what was spent.",
    )
    tombstone_seconds: Count = Field(
        default=TOMBSTONE_SECONDS,
        ge=60,
        le=7 * 86_400,
        description="How long the ending of a reservation is remembered, so that no signal is booked twice. Shorter "
        "saves memory of the store; it must be longer than any answer takes.",
    )
    journal_entries_max: Count = Field(
        default=100_000,
        ge=1000,
        le=100_000_000,
        description="How many entries the journal in the store keeps; older ones are folded into a checkpoint. "
        "`extauthz journal` exports them before.",
    )
    lease_seconds: Count = Field(
        default=120,
        ge=LEASE_SECONDS_MIN,
        le=LEASE_SECONDS_MAX,
        description="How long a reservation lives without a sign of life; use 900 where Envoy sends no heartbeats.",
    )
    background_lease_seconds: Count = Field(
        default=TOMBSTONE_SECONDS,
        ge=LEASE_SECONDS_MIN,
        le=7 * 86_400,
        description="How long the estimate stays held for an answer that is still to be made (a background response, a "
        "batch, a video); then it is booked. It is no longer than tombstone_seconds.",
    )
    drain_seconds: Count = Field(
        default=25, ge=0, le=DRAIN_SECONDS_MAX, description="How long requests may finish after SIGTERM."
    )
    store_failure: StoreFailure = Field(
        default=StoreFailure.DENY,
        description="What a paid request gets while the store is away: deny (503), allow (booked when the store is "
        "back), or defer to Envoy's failure_mode_allow.",
    )
    admission: Admission = Field(
        default=Admission.UNTIL_EXHAUSTED,
        description="until_exhausted: a request passes while anything is available. strict: only when its whole "
        "maximum fits.",
    )
    on_abort: OnAbort = Field(
        default=OnAbort.DELIVERED,
        description="What a stream that broke off costs: delivered (what came through), reserved (the estimate), input "
        "or zero.",
    )
    on_abort_unary: OnAbort = Field(
        default=OnAbort.RESERVED,
        description="The same for an answer in one piece that the client did not wait for; providers bill it.",
    )
    on_missing_usage: OnMissingUsage = Field(
        default=OnMissingUsage.ESTIMATE,
        description="What a finished answer without usage costs: estimate (or what was delivered, if more), delivered, "
        "or zero.",
    )
    on_expiry: OnExpiry = Field(
        default=OnExpiry.RELEASE,
        description="What a request costs of which nothing was heard until its lease ran out: release (0) or charge "
        "(the estimate).",
    )
    budget_exceeded_status: Literal[429, 402, 403, 422] = Field(
        default=429, description="The HTTP status of a refusal for an exhausted budget. Newer LiteLLM answers 422."
    )
    hide_amounts: bool = Field(default=False, description="Leave amounts of money out of messages and headers.")
    shadow_mode: bool = Field(
        default=False,
        description="Decide, count and log what would have been refused, but refuse nothing and hide no model. The "
        "books are kept all the same. Teams have a shadow_mode of their own, and Envoy's routes the context extension "
        "extauthz.shadow_mode: on.",
    )
    shadow_paths: tuple[Text, ...] = Field(
        default=(), description="Paths below which shadow mode is on, such as /v1/embeddings."
    )
    other: OtherRoutes = Field(
        default=OtherRoutes.PASS,
        description="Requests that are neither models nor inference: pass, authenticate (a known key), or deny.",
    )
    api_prefixes: tuple[Text, ...] = Field(
        default=(), description="Paths under which the API is served besides /v1 and /openai, such as /llm/v1."
    )
    max_request_bytes: Count = Field(
        default=1024 * 1024,
        ge=1024,
        le=REQUEST_BYTES_MAX,
        description="How much of a body is looked at. A longer one is held by what is seen, and never counts as free.",
    )
    timezone: TimeZone = Field(default="UTC", description="The IANA zone that days and months of budgets follow.")
    budget_reset_time: ResetTime = Field(
        default=MIDNIGHT,
        description="The time of day, HH:MM in `timezone`, at which windows of days and months begin. On a day when "
        "the clock jumps over it they begin at the jump, and where it comes twice, the first time.",
    )
    reset_rules: ResetRules = Field(
        default=ResetRules.LITELLM,
        description="How a budget_duration without an anchor is read. litellm: 30d is a calendar month, and "
        "hours that divide a day (24h, 6h) begin anew each midnight. exact: both count what they say. Another value "
        "begins other windows, and their spend at 0.",
    )
    budget_rollover: bool = Field(
        default=False,
        description="Whether what was spent beyond the limit of one window is spent in the next one, for all budgets.",
    )
    upstream_auth: UpstreamAuth = Field(
        default=UpstreamAuth(), description="What upstreams get for the client's credential."
    )
    jwt: tuple[JwtIssuer, ...] = Field(
        default=(), max_length=ISSUERS_MAX, description="Issuers whose tokens (JWT) are credentials beside keys."
    )
    mtls: Mtls | None = Field(default=None, description="Client certificates that are credentials beside keys.")
    trusted_headers: TrustedHeaderFields | None = Field(
        default=None, description="Headers of an earlier filter that are credentials beside keys; none unless written."
    )
    keys_file: Path | None = Field(
        default=None,
        description="The path of a file with more `keys`, as a list: a mounted Secret. Read again when it changes. A "
        "relative path begins at this file.",
    )
    litellm_file: Path | None = Field(
        default=None,
        description="The path of LiteLLM's config.yaml, such as a mounted ConfigMap of its chart. Its sections take "
        "the place of those beside `extauthz:`. Read again when it changes. A relative path begins at this file.",
    )
    directory: DirectoryKind = Field(
        default=DirectoryKind.FILES,
        description="Where keys and other payers are known from besides these files: files (nowhere), store (`extauthz "
        "keys` writes them there), or litellm: LiteLLM's own PostgreSQL, which is only read; needs the extra "
        "extauthz[litellm]. What stands in files goes before.",
    )
    directory_url: Secret | None = Field(
        default=None,
        description="The URL of LiteLLM's database, postgresql://…, best as os.environ/NAME. Without it, "
        "general_settings.database_url or the variable DATABASE_URL, as LiteLLM has it.",
    )
    directory_failure: DirectoryFailure = Field(
        default=DirectoryFailure.DENY,
        description="While the directory does not answer, what it said before holds for directory_stale_seconds; then "
        "such payers are refused (deny: a 503), or go on by it (stale). Who was never seen gets a 503 either way.",
    )
    directory_stale_seconds: Count = Field(
        default=300, ge=0, le=7 * 86_400, description="How long what a directory said holds while it does not answer."
    )
    directory_refresh_seconds: Seconds = Field(
        default=Decimal(2),
        ge=Decimal("0.1"),
        le=3600,
        description="How often payers in use are looked up again. A change is in force after twice as long at most.",
    )
    directory_entries_max: Count = Field(
        default=100_000,
        ge=1000,
        le=10_000_000,
        description="How many payers are remembered, those used last; each takes some 3 kB of memory.",
    )
    log: LogSettings = Field(default=LogSettings(), description="What is logged.")
    tracing: bool = Field(
        default=False,
        description="Send OpenTelemetry traces, by OTLP over gRPC; needs the extra extauthz[tracing]. Where to, how "
        "many and as whom say the standard environment variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, "
        "OTEL_SERVICE_NAME.",
    )
    alerts: AlertSettings = Field(default=AlertSettings(), description="Who is told that a budget comes to its end.")
    estimate: EstimateSettings = Field(default=EstimateSettings(), description="How requests are estimated.")
    unknown_price: UnknownPrice = Field(
        default=UnknownPrice(), description="What is paid where nobody has said a price."
    )
    trust_upstream_cost: bool = Field(
        default=False,
        description="Book what the upstream says that an answer cost (x-litellm-response-cost, or usage.cost), where "
        "it says more than 0, instead of tokens times prices.",
    )

    @property
    def shard_count(self) -> int:
        """How many sets of keys the books are in."""
        return 1 if self.shard_by is ShardBy.NONE else self.shards

    @field_validator("shard_by")
    @classmethod
    def _shards_are_in_redis(cls, value: ShardBy, info: ValidationInfo) -> ShardBy:
        if value is not ShardBy.NONE and "store" in info.data and info.data["store"] is None:
            raise ValueError("the memory store has no shards: write none, or the URL of a Redis as store")
        return value

    @field_validator("server")
    @classmethod
    def _native_has_no_tls(cls, value: ServerKind, info: ValidationInfo) -> ServerKind:
        if value is ServerKind.NATIVE and info.data.get("tls") is not None:
            raise ValueError("native has no TLS: write grpcio or auto, or leave tls out")
        return value

    @field_validator("listen")
    @classmethod
    def _not_open(cls, value: Listen, info: ValidationInfo) -> Listen:
        # A field with a mistake of its own is not there, and whether the door is open then cannot be told.
        if {"tls", "token", "admin_token", "insecure_grpc"} <= info.data.keys():
            _refuse_open(
                value,
                info.data["tls"],
                info.data["token"],
                info.data["admin_token"],
                insecure=info.data["insecure_grpc"],
            )
        return value

    @field_validator("jwt")
    @classmethod
    def _issuers_stand_once(cls, value: tuple[JwtIssuer, ...]) -> tuple[JwtIssuer, ...]:
        names = [issuer.issuer for issuer in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the issuer {name} stands here twice: keep one, with all audiences")
        return value

    @field_validator("api_prefixes", "shadow_paths")
    @classmethod
    def _prefixes_are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            if not prefix.startswith("/") or prefix.rstrip("/") == "":
                raise ValueError(f"`{prefix}` is not a path: write it from its first slash, such as /llm/v1")
        return tuple(prefix.rstrip("/") for prefix in value)


def _refuse_open(
    listen: Listen, tls: Tls | None, token: SecretStr | None, admin_token: SecretStr | None, *, insecure: bool
) -> None:
    if tls is not None and tls.client_ca is not None:
        return
    if not listen.grpc.loopback and token is None and not insecure:
        raise ValueError(
            f"grpc at {listen.grpc} would let anybody in who reaches it: set token or tls.client_ca, listen on "
            "127.0.0.1, or write insecure_grpc: true where the mesh proves who calls"
        )
    if not listen.admin.loopback and admin_token is None:
        raise ValueError(
            f"admin at {listen.admin} would let anybody in who reaches it: set admin_token or tls.client_ca, or listen "
            "on 127.0.0.1"
        )


class ExtauthzSection(Service):
    """Everything under `extauthz:`."""

    global_: BudgetFields = Field(default=BudgetFields(), alias="global", description="The budget of all together.")
    organizations: dict[Identifier, OrganizationFields] = Field(
        default_factory=dict, description="Organizations, by id."
    )
    teams: dict[Identifier, TeamFields] = Field(default_factory=dict, description="Teams, by id.")
    users: dict[Identifier, UserFields] = Field(default_factory=dict, description="Users, by id.")
    projects: dict[Identifier, ProjectFields] = Field(default_factory=dict, description="Projects, by id.")
    keys: tuple[KeyFields, ...] = Field(default=(), description="API keys.")
    tags: dict[Identifier, TagFields] = Field(
        default_factory=dict, description="Tags that count, by name: those of keys, of teams and of requests."
    )
    end_users: dict[Identifier, EndUserFields] = Field(
        default_factory=dict,
        description="Customers of the application, by the id that it sends; `default` is for those not listed.",
    )
    anonymous: AnonymousFields | None = Field(
        default=None, description="Whoever sends no credential at all; refused (401) unless this is written."
    )

    @field_validator("global_")
    @classmethod
    def _no_global_budget_in_shards(cls, value: BudgetFields, info: ValidationInfo) -> BudgetFields:
        sharded = info.data.get("shard_by", ShardBy.NONE) is not ShardBy.NONE
        if sharded and value.limited:
            raise ValueError("there is no budget of all together with shard_by: organization; leave it out")
        return value


class Settings(Service):
    """What the program works with: the service's settings, and those that LiteLLM's sections hold."""

    models_policy: ModelsPolicy = Field(default=ModelsPolicy.BLOCKED, description="See budget_exceeded_models_policy.")
    user_headers: tuple[str, ...] = Field(
        default=(), description="The headers that name the end user, lower-case, the one that counts first."
    )
    end_user_budget: str | None = Field(
        default=None, description="The budget, by its id in LiteLLM's database, of end users without one of their own."
    )

    def listening(
        self, *, grpc: Address | None = None, admin: Address | None = None, http: Address | None = None
    ) -> Settings:
        """Listen elsewhere than the file says. Raises ValueError for an address that is open to anybody."""
        asked = {"grpc": grpc, "admin": admin, "http": http}
        listen = self.listen.model_copy(
            update={name: address for name, address in asked.items() if address is not None}
        )
        _refuse_open(listen, self.tls, self.token, self.admin_token, insecure=self.insecure_grpc)
        return self.model_copy(update={"listen": listen})
