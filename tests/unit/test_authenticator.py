"""Who pays for a request: by each kind of credential, by several together, and by none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.authenticator import Authenticator
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.identity import Principal
from extauthz.domain.request import RequestFacts
from extauthz.domain.tokens import TokenFault
from extauthz.domain.verdict import Deny, Reason
from extauthz.tokens.keys import KeySet, read_key_set
from extauthz.tokens.verifier import TokenVerifier
from tests.support.issuers import key_set, public_jwk, signed

NOW_S = 1_800_000_000
KEYS = read_key_set(key_set(public_jwk("P-256", kid="e1")))
NEWER = read_key_set(key_set(public_jwk("P-256", kid="e1"), public_jwk("P-256", 2, kid="e2")))

CONFIG = """
general_settings:
  user_header_mappings:
    - {header_name: X-Customer, litellm_user_role: customer}
    - {header_name: X-Person, litellm_user_role: internal_user}
  user_header_name: X-Old
extauthz:
  jwt:
    - issuer: people
      audience: [gate, other]
      jwks_url: https://issuer.example/jwks
      algorithms: [ES256]
      claims: {user: sub, teams: groups, end_user: customer, roles: roles}
      admin_roles: [boss]
    - issuer: open
      audience: gate
      jwks_url: https://issuer.example/jwks
      algorithms: [ES256]
      claims: {user: sub, team: team}
      unknown: default
  mtls:
    principals:
      - {principal: "spiffe://mesh/ns/{team}/sa/{user}", team: "{team}", user: "{user}"}
      - {principal: "spiffe://mesh/only/{team}", team: "{team}"}
    xfcc_from: [spiffe://mesh/ns/edge/sa/gateway]
  trusted_headers: {user: X-Auth-User, team: X-Auth-Team, end_user: X-Auth-Customer}
  teams:
    research: {max_budget: 4, models: [gpt-4o], members: {ana: {max_budget: 3}}}
    kitchen: {max_budget: 5}
  users: {ana: {max_budget: 1}, ben: {max_budget: 2}, default: {max_budget: 0.5}}
  keys:
    - {key: sk-ana, user: ana, team: research}
    - {key: sk-alone}
  end_users: {default: {max_budget: 9}}
"""
ANONYMOUS = CONFIG + "  anonymous: {max_budget: 7, models: [local-*]}\n"
GATEWAY = "spiffe://mesh/ns/edge/sa/gateway"
Headers = dict[str, tuple[str, ...]]


class Ring:
    """A key ring whose issuers have other keys when somebody waits for them."""

    def __init__(self, keys: KeySet | None = KEYS, later: KeySet | None = None) -> None:
        self.keys = keys
        self.later = later
        self.waited_s: list[float] = []

    def keys_of(self, issuer: str) -> KeySet | None:
        """Give the keys that are there."""
        assert issuer in {"people", "open"}
        return self.keys

    async def renewed(self, issuer: str, patience_s: float) -> None:
        """Get the later keys, if there are any."""
        self.waited_s.append(patience_s)
        self.keys = self.later or self.keys


@dataclass(frozen=True, slots=True)
class Desk:
    """Asks who pays, by one configuration."""

    config: Snapshot
    ring: Ring

    async def who(
        self, headers: Headers | None = None, *, peer: str | None = None, trusted: bool = False, path: str = "/v1/x"
    ) -> str:
        """Tell who pays, by scopes; or the reason of a refusal, and what is wrong with a token."""
        match await self.found(headers or {}, peer=peer, trusted=trusted, path=path):
            case Principal() as principal:
                return " ".join(scope.text for scope in principal.payers if not scope.text.startswith("key:"))
            case Deny(reason=reason, fault=fault):
                return f"{reason} {fault}" if fault else str(reason)

    async def found(
        self, headers: Headers, *, peer: str | None = None, trusted: bool = False, path: str = "/v1/x"
    ) -> Principal | Deny:
        """Give the principal or the refusal."""
        context = {"extauthz.trusted_headers": "on"} if trusted else {}
        facts = RequestFacts("POST", path, headers, context=context, peer=peer)
        authenticator = Authenticator(TokenVerifier(lambda: NOW_S), self.ring)
        return await authenticator.identify(facts, self.config, now_ms=NOW_S * 1000, patience_s=0.5)


def desk(folder: Path, text: str = CONFIG, ring: Ring | None = None) -> Desk:
    """Open one."""
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return Desk(load(file, {}), ring or Ring())


def bearer(key: str) -> Headers:
    """Send a key or token."""
    return {"authorization": (f"Bearer {key}",)}


def token(issuer: str = "people", *, kid: str = "e1", number: int = 0, **more: object) -> Headers:
    """Send a token."""
    payload = {"iss": issuer, "aud": "gate", "sub": "ana", "exp": NOW_S + 60} | more
    return bearer(signed(payload, "P-256", algorithm="ES256", kid=kid, number=number))


IN_RESEARCH = "global team:research member:research/ana user:ana"
RESEARCH = "spiffe://mesh/ns/research/sa/ana"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(bearer("sk-ana"), IN_RESEARCH, id="a key"),
        pytest.param(token(), "global user:ana", id="a token"),
        pytest.param(token(groups=["x", "research"]), IN_RESEARCH, id="a team of several"),
        pytest.param(token(groups=["kitchen", "research"]), IN_RESEARCH, id="the first in the file's order"),
        pytest.param(
            token(groups=["kitchen", "research"]) | {"x-litellm-team-id": ("kitchen",)},
            "global team:kitchen member:kitchen/ana user:ana",
            id="the chosen team",
        ),
        pytest.param(
            token(groups=["research"]) | {"x-litellm-team-id": ("kitchen",)}, "payer_unknown team", id="not theirs"
        ),
        pytest.param(
            token(groups=["research"]) | {"x-litellm-team-id": ("research", "kitchen")}, "bad_request", id="two teams"
        ),
        pytest.param(token() | {"x-litellm-team-id": ("kitchen",)}, "payer_unknown team", id="no team at all"),
        pytest.param(token(sub="zoe"), "payer_unknown", id="a user who is not listed"),
        pytest.param(token(sub="zoe", roles=["boss"]), "global user:zoe", id="an admin who is not listed"),
        pytest.param(token(customer="dora"), "global user:ana end_user:dora", id="an end user of the token's"),
        pytest.param(
            token(customer="dora") | {"x-litellm-customer-id": ("eve",)},
            "global user:ana end_user:dora",
            id="a claim goes before headers",
        ),
        pytest.param(
            token() | {"x-litellm-customer-id": ("eve",)}, "global user:ana end_user:eve", id="an end user's header"
        ),
        pytest.param(
            token() | {"x-old": ("old",), "x-customer": ("new",)}, "global user:ana end_user:new", id="mappings first"
        ),
        pytest.param(token() | {"x-person": ("ben",)}, "global user:ana", id="a header names no payer"),
        pytest.param(
            token("open", team="kitchen"), "global team:kitchen member:kitchen/ana user:ana", id="everybody listed"
        ),
        pytest.param(
            token("open", sub="zoe", team="kitchen"),
            "global team:kitchen member:kitchen/zoe user:zoe",
            id="a user by default",
        ),
        pytest.param(token("open", team="garden"), "payer_unknown", id="no default for teams"),
        pytest.param(token("open"), "unauthenticated claim", id="a claim is missing"),
        pytest.param(token(aud="elsewhere"), "unauthenticated audience", id="for others"),
        pytest.param(token("strangers"), "unauthenticated issuer", id="by others"),
        pytest.param(bearer("sk-nobody"), "unauthenticated", id="an unknown key"),
        pytest.param({}, "unauthenticated", id="nothing"),
        pytest.param(token() | {"x-api-key": ("sk-ana",)}, "bad_request", id="a token and a key"),
    ],
)
async def test_who_pays_by_headers(tmp_path: Path, headers: Headers, expected: str) -> None:
    """Each credential leads to the scopes of whom it names, or to a refusal with a reason for the log."""
    assert expected == await desk(tmp_path).who(headers)


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        pytest.param(RESEARCH, {}, IN_RESEARCH, id="a certificate"),
        pytest.param("spiffe://mesh/only/kitchen", {}, "global team:kitchen", id="of a team"),
        pytest.param("spiffe://mesh/ns/research/sa/zoe", {}, "unauthenticated", id="of somebody who is not listed"),
        pytest.param("spiffe://other/ns/research/sa/ana", {}, "unauthenticated", id="of another mesh"),
        pytest.param(None, {"x-forwarded-client-cert": (f"URI={RESEARCH}",)}, "unauthenticated", id="XFCC of anybody"),
        pytest.param(GATEWAY, {"x-forwarded-client-cert": (f"URI={RESEARCH}",)}, IN_RESEARCH, id="XFCC of a hop"),
        pytest.param(GATEWAY, {"x-forwarded-client-cert": ("URI",)}, "bad_request", id="XFCC that cannot be read"),
        pytest.param(RESEARCH, bearer("sk-ana"), IN_RESEARCH, id="and a key of the same"),
        pytest.param("spiffe://mesh/only/research", bearer("sk-ana"), IN_RESEARCH, id="and a key that says more"),
        pytest.param(RESEARCH, token(), IN_RESEARCH, id="and a token that says less"),
        pytest.param("spiffe://mesh/only/kitchen", bearer("sk-ana"), "bad_request", id="and a key of others"),
        pytest.param(RESEARCH, bearer("sk-nobody"), "unauthenticated", id="and an unknown key"),
        pytest.param(RESEARCH, token(aud="x"), "unauthenticated audience", id="and a bad token"),
        pytest.param("spiffe://mesh/other", bearer("sk-ana"), IN_RESEARCH, id="of nobody, and a key"),
    ],
)
async def test_who_pays_by_certificate(tmp_path: Path, peer: str | None, headers: Headers, expected: str) -> None:
    """A certificate that is mapped makes its owner pay, and must agree with what else is there."""
    assert expected == await desk(tmp_path).who(headers, peer=peer)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"x-auth-user": ("ana",)}, "global user:ana", id="a user"),
        pytest.param({"x-auth-user": ("ana",), "x-auth-team": ("research",)}, IN_RESEARCH, id="and a team"),
        pytest.param(
            {"x-auth-user": ("ana",), "x-auth-customer": ("dora",)}, "global user:ana end_user:dora", id="an end user"
        ),
        pytest.param({"x-auth-user": ("zoe",)}, "payer_unknown", id="somebody who is not listed"),
        pytest.param({"x-auth-user": ("ana", "ben")}, "bad_request", id="two"),
        pytest.param({}, "unauthenticated", id="nothing"),
        pytest.param({"x-auth-user": ("ben",)} | bearer("sk-ana"), "bad_request", id="and a key of others"),
        pytest.param(
            {"x-auth-user": ("ana",), "x-auth-customer": ("dora",)} | bearer("sk-ana"),
            f"{IN_RESEARCH} end_user:dora",
            id="and a key that says more",
        ),
        pytest.param({"x-auth-user": ("ana",)} | bearer("sk-nobody"), "unauthenticated", id="and an unknown key"),
    ],
)
async def test_who_pays_by_an_earlier_filter(tmp_path: Path, headers: Headers, expected: str) -> None:
    """Its headers count where the route says that it stands there."""
    assert expected == await desk(tmp_path).who(headers, trusted=True)


async def test_headers_of_anybody(tmp_path: Path) -> None:
    """On a route that does not say so, and without a word in the configuration, the same headers are nothing."""
    headers: Headers = {"x-auth-user": ("ana",)}

    assert await desk(tmp_path).who(headers) == "unauthenticated"
    without = CONFIG.replace("  trusted_headers:", "  # trusted_headers:")
    assert await desk(tmp_path, without).who(headers, trusted=True) == "unauthenticated"


@pytest.mark.parametrize(
    ("headers", "path", "expected"),
    [
        pytest.param({}, "/v1/x", "global anonymous", id="nothing"),
        pytest.param({"authorization": ("Bearer",)}, "/v1/x", "global anonymous", id="an empty key"),
        pytest.param({"x-litellm-customer-id": ("eve",)}, "/v1/x", "global anonymous end_user:eve", id="an end user"),
        pytest.param(bearer("sk-nobody"), "/v1/x", "unauthenticated", id="an unknown key"),
        pytest.param(token(aud="x"), "/v1/x", "unauthenticated audience", id="a bad token"),
        pytest.param({"authorization": ("Basic dTpw",)}, "/v1/x", "unauthenticated", id="another scheme"),
        pytest.param({}, "/v1/x?key=AIza", "unauthenticated", id="a key in the query"),
        pytest.param(token(sub="zoe"), "/v1/x", "payer_unknown", id="somebody who is not listed"),
        pytest.param({"x-auth-user": ("ana",)}, "/v1/x", "global anonymous", id="a header of anybody"),
        pytest.param(bearer("sk-ana"), "/v1/x", IN_RESEARCH, id="a key"),
    ],
)
async def test_nobody_pays_together(tmp_path: Path, headers: Headers, path: str, expected: str) -> None:
    """With `anonymous`, who sends nothing has a budget; who sends something that is not accepted has none."""
    assert expected == await desk(tmp_path, ANONYMOUS).who(headers, path=path)


async def test_what_binds(tmp_path: Path) -> None:
    """Budgets and models are those of whom the credential names; an admin has none that binds."""
    house = desk(tmp_path, ANONYMOUS)

    def binding(principal: Principal | Deny) -> dict[str, float]:
        assert isinstance(principal, Principal)
        return {
            scope.scope.text: budget.limit / 1e9
            for scope in principal.scopes
            for budget in scope.budgets
            if scope.binds
        }

    in_team = await house.found(token(groups=["research"]))
    assert {"team:research": 4, "member:research/ana": 3} == binding(in_team)
    assert isinstance(in_team, Principal)
    assert (("gpt-4o",),) == in_team.models
    assert {"user:ana": 1} == binding(await house.found(token()))
    assert {"team:kitchen": 5} == binding(await house.found(token("open", sub="zoe", team="kitchen")))
    assert {"anonymous": 7} == binding(await house.found({}))
    both = desk(
        tmp_path, CONFIG.replace("general_settings:", "general_settings:\n  apply_user_budget_to_team_keys: true")
    )
    found = await both.found(token("open", sub="zoe", team="kitchen"))
    assert {"team:kitchen": 5, "user:zoe": 0.5} == binding(found)
    admin = await house.found(token(roles=["boss"], groups=["research"]))
    assert {} == binding(admin)
    assert isinstance(admin, Principal)
    assert admin.admin


async def test_anonymous_is_nobody_on_other_routes(tmp_path: Path) -> None:
    """Where a known key is asked for (`other: authenticate`), nobody is not enough."""
    house = desk(tmp_path, ANONYMOUS)
    facts = RequestFacts("GET", "/spend/logs", {})
    found = await Authenticator().identify(facts, house.config, now_ms=NOW_S * 1000, patience_s=0.5, nobody=False)

    assert isinstance(found, Deny)
    assert Reason.UNAUTHENTICATED is found.reason


async def test_keys_that_came_since(tmp_path: Path) -> None:
    """A token of a new key waits once for the issuer's keys, and no longer than it may."""
    ring = Ring(KEYS, NEWER)
    house = desk(tmp_path, ring=ring)

    assert await house.who(token(kid="e2", number=2)) == "global user:ana"
    assert [0.5] == ring.waited_s
    assert await house.who(token(kid="e3", number=2)) == "unauthenticated key_unknown"


async def test_without_keys(tmp_path: Path) -> None:
    """While the issuer's keys are away its tokens are a passing failure, and keys of ours go on."""
    house = desk(tmp_path, ring=Ring(None))
    found = await house.found(token())

    assert isinstance(found, Deny)
    assert (503, True, TokenFault.KEYS_AWAY) == (found.status, found.should_retry, found.fault)
    assert await house.who(bearer("sk-ana")) == IN_RESEARCH


async def test_without_a_verifier(tmp_path: Path) -> None:
    """Where nobody can verify tokens, they are unknown keys."""
    house = desk(tmp_path)
    facts = RequestFacts("POST", "/v1/x", token())
    found = await Authenticator().identify(facts, house.config, now_ms=NOW_S * 1000, patience_s=0.5)

    assert isinstance(found, Deny)
    assert (Reason.UNAUTHENTICATED, None) == (found.reason, found.fault)
