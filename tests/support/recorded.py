"""Checks as Envoy sends them, one of each kind that is decided in its own way, with what they get.

Each belongs to one of the configurations here, whose budgets stand as `SPENT` and `HELD` say before it comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from extauthz.domain.verdict import Reason, Word

CHAT = "/v1/chat/completions"
PREFLIGHT = {"origin": "https://chat.example", "access-control-request-method": "POST"}
PNG = "data:image/png;base64," + "iVBORw0KGgo" * 2_000
ALLOW, DENY, SHADOW_DENY = Word.ALLOW, Word.DENY, Word.SHADOW_DENY

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: thinker
    litellm_params:
      model: openai/thinker
      input_cost_per_token: 0.000001
      output_cost_per_token: 0.000004
      output_cost_per_reasoning_token: 0.000006
      cache_read_input_token_cost: 0.0000001
    model_info: {{max_input_tokens: 8000, max_output_tokens: 4000}}
  - model_name: house/*
    litellm_params: {{model: openai/*, input_cost_per_token: 0.00002, output_cost_per_token: 0.00008}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: local-mistral
    litellm_params: {{model: openai/mistral, input_cost_per_token: 0, output_cost_per_token: 0}}
router_settings:
  model_group_alias: {{gpt4: gpt-4o}}
litellm_settings:
  fallbacks: [{{local-mistral: [gpt-4o]}}]
general_settings:
  master_key: sk-admin
  budget_exceeded_models_policy: {policy}
  user_header_name: X-User
extauthz:
  listen: {{grpc: "127.0.0.1:0", admin: "127.0.0.1:0", http: "127.0.0.1:0"}}
  store: {store}
  store_timeout_seconds: 2
  drain_seconds: 0
  max_request_bytes: 65536
  {settings}
  global: {{max_budget: 1000, budget_duration: 30d}}
  organizations: {{acme: {{max_budget: 500}}}}
  teams:
    research:
      organization: acme
      budget_limits: [{{max_budget: 10, budget_duration: 30d}}, {{max_budget: 100}}]
      members: {{ana: {{max_budget: 2}}}}
    spent: {{max_budget: 5, budget_duration: 30d}}
    monthly: {{budget_limits: [{{max_budget: 10}}, {{max_budget: 1, budget_duration: 30d}}]}}
    nearly: {{max_budget: 5}}
    broke: {{max_budget: 0}}
    busy: {{max_budget: 1}}
    strict: {{max_budget: 0.02, admission: strict}}
    generous: {{max_budget: 50, admission: strict}}
    frugal: {{models: [local-*]}}
    trial: {{max_budget: 0, shadow_mode: true, models: [gpt-4o]}}
  users: {{ana: {{max_budget: 0}}, zoe: {{max_budget: 3}}}}
  keys:
    - {{key: sk-ana, key_alias: ana-laptop, team: research, user: ana}}
    - {{key: sk-ana-alone, user: ana}}
    - {{key: sk-zoe, user: zoe, budget_limits: [{{budget_duration: 30d, max_budget: 1}}]}}
    - {{key: sk-rich}}
    - {{key: sk-spent, team: spent}}
    - {{key: sk-monthly, team: monthly}}
    - {{key: sk-nearly, team: nearly}}
    - {{key: sk-broke, team: broke}}
    - {{key: sk-busy, team: busy}}
    - {{key: sk-strict, team: strict}}
    - {{key: sk-generous, team: generous}}
    - {{key: sk-frugal, team: frugal}}
    - {{key: sk-trial, team: trial}}
    - {{key: sk-locked, blocked: true}}
    - {{key: sk-over, expires: 2001-01-01}}
  end_users: {{default: {{max_budget: 0.5}}, vip: {{max_budget: 100}}, banned: {{max_budget: 0}}}}
"""

# What the configurations differ in: the policy for model lists, and lines under `extauthz`.
CONFIGS: Mapping[str, tuple[str, str]] = {
    "blocked": ("blocked", "budget_exceeded_status: 402"),
    "free_only": ("free_only", "hide_amounts: true"),
    "all": ("all", "other: authenticate"),
    "shadow": ("free_only", "shadow_mode: true"),
    "closed": ("blocked", "other: deny\n  shadow_paths: [/v1/embeddings]"),
}

# USD that were spent before, and that an open reservation holds, by scope and window.
SPENT = {
    ("team:spent", "30d"): Decimal(5),
    ("team:monthly", "30d"): Decimal(2),
    ("team:nearly", "lifetime"): Decimal("4.9999"),
    ("user:zoe", "lifetime"): Decimal(1),
}
HELD = {("team:busy", "lifetime"): Decimal(1)}


def configured(name: str, store: str) -> str:
    """Write a configuration, with its books in a store."""
    policy, settings = CONFIGS[name]
    return CONFIG.format(policy=policy, settings=settings, store=store)


def asked(  # one parameter for each thing that Envoy tells
    method: str,
    path: str,
    key: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    repeated: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    unseen_bytes: int = 0,
    context: Mapping[str, str] | None = None,
) -> CheckRequest:
    """Ask as Envoy does. `repeated` headers come as `encode_raw_headers` sends them: all there are, one by one."""
    given = dict(headers or {})
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    if body:
        given = {"content-type": "application/json", "content-length": str(len(body) + unseen_bytes)} | given
    http = AttributeContext.HttpRequest(method=method, path=path, raw_body=body)
    if repeated:
        pairs = [*given.items(), *repeated]
        http.header_map.headers.extend(HeaderValue(key=name, raw_value=value.encode()) for name, value in pairs)
    else:
        http.headers.update(given)
    return CheckRequest(
        attributes=AttributeContext(request=AttributeContext.Request(http=http), context_extensions=context or {})
    )


def chat(
    key: str | None,
    model: object = "gpt-4o",
    fields: Mapping[str, object] | None = None,
    *,
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
    context: Mapping[str, str] | None = None,
    unseen_bytes: int = 0,
) -> CheckRequest:
    """Ask for a chat, or with another body of such a kind."""
    document = {"model": model, "messages": [{"role": "user", "content": "What is a budget?"}], **(fields or {})}
    named = {name: value for name, value in document.items() if value is not None}
    body = json.dumps(named).encode()
    return asked("POST", path, key, headers=headers, body=body, unseen_bytes=unseen_bytes, context=context)


def models(key: str | None, path: str = "/v1/models", *, pruned: bool = False, method: str = "GET") -> CheckRequest:
    """Ask for the model list or an entry of it, on a route with the response filter or without."""
    return asked(method, path, key, context={"extauthz.prune": "on"} if pruned else None)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request, the configuration that it came to, and what it gets."""

    config: str
    what: str
    request: CheckRequest
    word: Word
    reason: Reason


PICTURE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}]}
TWICE = b'{"model":"local-llama","model":"gpt-4o","messages":[]}'
CREATED = {"extauthz.id": "header"}

RECORDED = (
    # ------------------------------------------------------------ let through, and held
    Recorded("blocked", "a member of a team", chat("sk-ana"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "a key of nobody", chat("sk-rich"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "its own maximum", chat("sk-ana", fields={"max_tokens": 20}), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "a huge maximum", chat("sk-ana", fields={"max_tokens": 64_000}), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "three choices", chat("sk-ana", fields={"n": 3}), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "a stream", chat("sk-ana", fields={"stream": True}), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "a picture", chat("sk-ana", fields=PICTURE), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "tools", chat("sk-ana", fields=TOOLS), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "prices of many kinds", chat("sk-ana", "thinker"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "a pattern", chat("sk-ana", "house/large"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "an alias", chat("sk-ana", "gpt4"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "several models", chat("sk-ana", ["local-llama", "thinker"]), ALLOW, Reason.WITHIN_BUDGET),
    Recorded(
        "blocked", "a free model that leads to a paid one", chat("sk-ana", "local-mistral"), ALLOW, Reason.WITHIN_BUDGET
    ),
    Recorded(
        "blocked",
        "its own fallbacks",
        chat("sk-ana", "local-llama", {"fallbacks": ["gpt-4o"]}),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded("blocked", "an unseen end", chat("sk-ana", unseen_bytes=90_000), ALLOW, Reason.WITHIN_BUDGET),
    Recorded(
        "blocked",
        "a free model with an unseen end",
        chat("sk-ana", "local-llama", unseen_bytes=9),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded(
        "blocked",
        "a model in the path",
        chat("sk-ana", None, path="/openai/deployments/gpt-4o/chat/completions"),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded(
        "blocked",
        "a model in the query",
        chat("sk-ana", None, path=f"{CHAT}?model=gpt-4o"),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded(
        "blocked",
        "a model in a header",
        chat("sk-ana", None, headers={"x-litellm-model": "gpt-4o"}),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded("blocked", "another API", chat("sk-ana", path="/anthropic/v1/messages"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded(
        "blocked",
        "embeddings",
        chat("sk-ana", fields={"messages": None, "input": ["a", "b"]}, path="/v1/embeddings"),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded(
        "blocked",
        "a path that was repaired",
        chat("sk-ana", path="//v1//./chat/completions"),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded(
        "blocked",
        "Envoy's own id",
        chat("sk-ana", headers={"x-extauthz-id": "8f6c"}, context=CREATED),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded("blocked", "less left than asked for", chat("sk-nearly"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded(
        "blocked",
        "a whole maximum that fits",
        chat("sk-generous", fields={"max_tokens": 100}),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded("blocked", "a default end user", chat("sk-ana", fields={"user": "mia"}), ALLOW, Reason.WITHIN_BUDGET),
    Recorded(
        "blocked", "an end user in a header", chat("sk-rich", headers={"x-user": "vip"}), ALLOW, Reason.WITHIN_BUDGET
    ),
    Recorded(
        "blocked",
        "a header before the body",
        chat("sk-rich", fields={"user": "banned"}, headers={"x-user": "vip"}),
        ALLOW,
        Reason.WITHIN_BUDGET,
    ),
    Recorded("blocked", "the admin", chat("sk-admin"), ALLOW, Reason.ADMIN),
    Recorded("blocked", "the admin with an end user", chat("sk-admin", fields={"user": "banned"}), ALLOW, Reason.ADMIN),
    # ------------------------------------------------------------ let through, and nothing held
    Recorded("blocked", "a free model", chat("sk-broke", "local-llama"), ALLOW, Reason.FREE_MODEL),
    Recorded(
        "blocked",
        "a free model for an end user",
        chat("sk-ana", "local-llama", {"user": "banned"}),
        ALLOW,
        Reason.FREE_MODEL,
    ),
    Recorded("blocked", "a preflight", asked("OPTIONS", CHAT, headers=PREFLIGHT), ALLOW, Reason.INFO),
    Recorded("blocked", "health", asked("GET", "/health/readiness"), ALLOW, Reason.INFO),
    Recorded("blocked", "another route", asked("POST", "/team/new", "sk-ana"), ALLOW, Reason.OTHER_ROUTE),
    Recorded("all", "another route of somebody", asked("GET", "/team/list", "sk-ana"), ALLOW, Reason.OTHER_ROUTE),
    Recorded("blocked", "files without money", asked("GET", "/v1/files", "sk-broke"), ALLOW, Reason.UNBILLED),
    # ------------------------------------------------------------ no money
    Recorded("blocked", "a budget of 0", chat("sk-broke"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "a spent budget that resets", chat("sk-spent"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "one of a team's budgets", chat("sk-monthly"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "a user's own budget, alone", chat("sk-ana-alone"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "a banned end user", chat("sk-ana", fields={"user": "banned"}), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "a key's own budget among others", chat("sk-zoe"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("blocked", "others hold what is left", chat("sk-busy"), DENY, Reason.BUDGET_HELD),
    Recorded("blocked", "a whole maximum that does not fit", chat("sk-strict"), DENY, Reason.REQUEST_TOO_DEAR),
    Recorded("free_only", "a spent budget, amounts hidden", chat("sk-spent"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("free_only", "held out, amounts hidden", chat("sk-busy"), DENY, Reason.BUDGET_HELD),
    Recorded("free_only", "too dear, amounts hidden", chat("sk-strict"), DENY, Reason.REQUEST_TOO_DEAR),
    Recorded("free_only", "let through, amounts hidden", chat("sk-ana"), ALLOW, Reason.WITHIN_BUDGET),
    # ------------------------------------------------------------ refused for another reason
    Recorded("blocked", "no key", chat(None), DENY, Reason.UNAUTHENTICATED),
    Recorded("blocked", "an unknown key", chat("sk-nobody"), DENY, Reason.UNAUTHENTICATED),
    Recorded("blocked", "a blocked key", chat("sk-locked"), DENY, Reason.KEY_BLOCKED),
    Recorded("blocked", "models of a key that has expired", models("sk-over"), DENY, Reason.KEY_EXPIRED),
    Recorded("blocked", "two keys", chat("sk-ana", headers={"x-api-key": "sk-rich"}), DENY, Reason.BAD_REQUEST),
    Recorded(
        "blocked",
        "a key twice",
        asked("GET", "/v1/models", "sk-ana", repeated=[("Authorization", "Bearer sk-ana")]),
        DENY,
        Reason.BAD_REQUEST,
    ),
    Recorded("blocked", "two end users", chat("sk-ana", headers={"x-user": "mia,vip"}), DENY, Reason.BAD_REQUEST),
    Recorded("blocked", "no JSON", asked("POST", CHAT, "sk-ana", body=b"model=gpt-4o"), DENY, Reason.BAD_REQUEST),
    Recorded(
        "blocked", "a form", chat("sk-ana", headers={"content-type": "multipart/form-data"}), DENY, Reason.BAD_REQUEST
    ),
    Recorded("blocked", "a model twice", asked("POST", CHAT, "sk-ana", body=TWICE), DENY, Reason.BAD_REQUEST),
    Recorded("blocked", "no model", chat("sk-ana", None), DENY, Reason.BAD_REQUEST),
    Recorded(
        "blocked",
        "models that disagree",
        chat("sk-ana", headers={"x-litellm-model": "local-llama"}),
        DENY,
        Reason.BAD_REQUEST,
    ),
    Recorded("blocked", "an unknown model", chat("sk-ana", "gpt-9"), DENY, Reason.MODEL_UNKNOWN),
    Recorded("blocked", "a model that is not allowed", chat("sk-frugal"), DENY, Reason.MODEL_NOT_ALLOWED),
    Recorded("closed", "a closed route", asked("GET", "/team/list", "sk-ana"), DENY, Reason.ROUTE_CLOSED),
    Recorded("all", "another route of nobody", asked("GET", "/team/list"), DENY, Reason.UNAUTHENTICATED),
    # ------------------------------------------------------------ model lists
    Recorded("blocked", "models", models("sk-ana"), ALLOW, Reason.DISCOVERY),
    Recorded("blocked", "models, nothing but their head", models("sk-ana", method="HEAD"), ALLOW, Reason.DISCOVERY),
    Recorded("blocked", "models without money", models("sk-spent"), DENY, Reason.BUDGET_EXCEEDED),
    Recorded("blocked", "models of the admin", models("sk-admin"), ALLOW, Reason.DISCOVERY),
    Recorded("blocked", "models of nobody", models(None), DENY, Reason.UNAUTHENTICATED),
    Recorded("all", "models without money, all the same", models("sk-broke"), ALLOW, Reason.DISCOVERY),
    Recorded("free_only", "models with money", models("sk-ana", pruned=True), ALLOW, Reason.DISCOVERY),
    Recorded("free_only", "models that Envoy prunes", models("sk-spent", pruned=True), ALLOW, Reason.DISCOVERY_PRUNED),
    Recorded("free_only", "models that are pruned here", models("sk-spent"), ALLOW, Reason.DISCOVERY_PRUNED),
    Recorded("free_only", "a free entry", models("sk-broke", "/v1/models/local-llama"), ALLOW, Reason.DISCOVERY_PRUNED),
    Recorded("free_only", "a paid entry", models("sk-broke", "/openai/v1/models/gpt-4o"), DENY, Reason.MODEL_HIDDEN),
    Recorded("free_only", "models while others hold", models("sk-busy"), ALLOW, Reason.DISCOVERY),
    # ------------------------------------------------------------ budgets that are only tried out
    Recorded("shadow", "tried out: within", chat("sk-ana"), ALLOW, Reason.WITHIN_BUDGET),
    Recorded("shadow", "tried out: spent", chat("sk-spent"), SHADOW_DENY, Reason.BUDGET_EXCEEDED),
    Recorded("shadow", "tried out: held", chat("sk-busy"), SHADOW_DENY, Reason.BUDGET_HELD),
    Recorded("shadow", "tried out: too dear", chat("sk-strict"), SHADOW_DENY, Reason.REQUEST_TOO_DEAR),
    Recorded("shadow", "tried out: unknown model", chat("sk-ana", "gpt-9"), SHADOW_DENY, Reason.MODEL_UNKNOWN),
    Recorded("shadow", "tried out: nobody", chat("sk-nobody"), SHADOW_DENY, Reason.UNAUTHENTICATED),
    Recorded("shadow", "tried out: no JSON", asked("POST", CHAT, "sk-ana", body=b"{"), SHADOW_DENY, Reason.BAD_REQUEST),
    Recorded("shadow", "tried out: pruned", models("sk-spent", pruned=True), SHADOW_DENY, Reason.DISCOVERY_PRUNED),
    Recorded("shadow", "tried out: answered here", models("sk-spent"), SHADOW_DENY, Reason.DISCOVERY_PRUNED),
    Recorded(
        "shadow", "tried out: a paid entry", models("sk-spent", "/v1/models/gpt-4o"), SHADOW_DENY, Reason.MODEL_HIDDEN
    ),
    Recorded("blocked", "a team that tries out", chat("sk-trial"), SHADOW_DENY, Reason.BUDGET_EXCEEDED),
    Recorded(
        "blocked",
        "a team that tries out its models",
        chat("sk-trial", "local-llama"),
        SHADOW_DENY,
        Reason.MODEL_NOT_ALLOWED,
    ),
    Recorded(
        "blocked",
        "a route that tries out",
        chat("sk-broke", context={"extauthz.shadow_mode": "on"}),
        SHADOW_DENY,
        Reason.BUDGET_EXCEEDED,
    ),
    Recorded(
        "closed",
        "a path that tries out",
        chat("sk-broke", fields={"messages": None, "input": "a"}, path="/v1/embeddings"),
        SHADOW_DENY,
        Reason.BUDGET_EXCEEDED,
    ),
)
