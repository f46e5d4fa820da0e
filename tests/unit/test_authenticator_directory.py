"""Who pays where another directory knows it: by each kind of credential, and while that directory is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from extauthz.authenticator import Authenticator
from extauthz.config.load import load
from extauthz.config.payers import (
    BudgetFields,
    EndUserFields,
    KeyFields,
    MemberFields,
    OrganizationFields,
    ProjectFields,
    TagFields,
    TeamFields,
    UserFields,
    hashed,
)
from extauthz.config.records import RecordMaker
from extauthz.directories.lookup import KnownElsewhere, Lookup, Rules
from extauthz.directories.source import Changes
from extauthz.domain.ask import Ask
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.claimed import Claimed
from extauthz.domain.identity import Principal
from extauthz.domain.request import RequestFacts
from extauthz.domain.tags import TAGS_MAX
from extauthz.domain.verdict import Deny, Reason
from extauthz.errors import DirectoryUnavailableError
from extauthz.telemetry.events import Telemetry
from extauthz.tokens.keys import KeySet, read_key_set
from extauthz.tokens.verifier import TokenVerifier
from tests.support.issuers import key_set, public_jwk, signed

NOW_S = 1_800_000_000
PATIENCE_S = 0.5
KEYS = read_key_set(key_set(public_jwk("P-256", kid="e1")))

CONFIG = """
extauthz:
  jwt:
    - issuer: people
      audience: gate
      jwks_url: https://issuer.example/jwks
      algorithms: [ES256]
      claims: {user: sub, teams: groups}
  mtls:
    principals:
      - {principal: "spiffe://mesh/{team}", team: "{team}"}
  trusted_headers: {user: X-Auth-User, team: X-Auth-Team}
  teams: {kitchen: {max_budget: 5}}
  keys: [{key: sk-file, team: kitchen}]
  end_users: {default: {max_budget: 9}}
"""


def scope(text: str) -> Scope:
    """Read a scope; a key is written as itself."""
    kind, _, name = text.partition(":")
    return Scope(ScopeKind.KEY, (hashed(name),)) if kind == "key" else Scope.parse(text)


def key(text: str, **fields: object) -> tuple[Scope, KeyFields]:
    """Write a key as a directory knows it."""
    return scope(f"key:{text}"), KeyFields.model_validate({"key_sha256": hashed(text), **fields})


EVERYBODY: Mapping[Scope, BudgetFields] = dict(
    [
        key("sk-ana", team="research", user="ana", tags=["night"]),
        key("sk-project", project="rocket"),
        key("sk-blocked", blocked=True),
        key("sk-old", expires="2027-01-15T07:59:59+00:00"),
        key("sk-last", expires="2027-01-15T08:00:01+00:00"),
        key("sk-of-blocked", team="closed"),
        (scope("team:research"), TeamFields(max_budget=4, organization="acme")),
        (scope("team:closed"), TeamFields(blocked=True)),
        (scope("member:research/ana"), MemberFields(max_budget=3)),
        (scope("user:ana"), UserFields(max_budget=1)),
        (scope("org:acme"), OrganizationFields(max_budget=100)),
        (scope("project:rocket"), ProjectFields(team="research", max_budget=2)),
        (scope("tag:night"), TagFields(max_budget=6)),
        (scope("tag:day"), TagFields(max_budget=7)),
        (scope("end_user:vip"), EndUserFields(max_budget=8)),
        (scope("end_user:out"), EndUserFields(blocked=True)),
    ]
)


@dataclass
class Directory:
    """A directory that knows everybody, unless it is away."""

    known: dict[Scope, BudgetFields] = field(default_factory=lambda: dict(EVERYBODY))
    away: bool = False
    asked: list[Scope] = field(default_factory=list)

    async def fetch(self, scopes: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
        """Give who is known."""
        self.asked += scopes
        await asyncio.sleep(0)
        if self.away:
            raise DirectoryUnavailableError
        return {scope: self.known[scope] for scope in scopes if scope in self.known}

    async def changes(self) -> Changes | None:
        """Tell nothing."""
        return None

    async def close(self) -> None:
        """Do nothing."""


class Ring:
    """The keys of the issuer."""

    def keys_of(self, _: str) -> KeySet | None:
        """Give them."""
        return KEYS

    async def renewed(self, issuer: str, patience_s: float) -> None:
        """Have no others."""


class House:
    """An authenticator with a directory beside the files."""

    def __init__(self, folder: Path) -> None:
        file = folder / "config.yaml"
        file.write_text(CONFIG, encoding="utf-8")
        snapshot = load(file, {})
        self.directory = Directory()
        self.now_s = 0.0
        self.lookup = Lookup(self.directory, Rules(), Telemetry(), lambda: self.now_s, entries_max=1000)
        others = KnownElsewhere(self.lookup, RecordMaker(snapshot.settings))
        self.config = replace(snapshot, directory=snapshot.directory.beside(others))
        self.authenticator = Authenticator(TokenVerifier(lambda: NOW_S), Ring(), self.lookup)

    async def ask(
        self, peer: str | None = None, *, trusted: bool = False, claimed: Claimed | None = None, **headers: str
    ) -> Principal | Deny:
        """Ask with some headers; `_` stands for `-`."""
        facts = RequestFacts(
            "POST",
            "/v1/chat/completions",
            {name.replace("_", "-"): (value,) for name, value in headers.items()},
            context={"extauthz.trusted_headers": "on"} if trusted else {},
            peer=peer,
        )
        return await self.authenticator.identify(
            facts, self.config, claimed, now_ms=NOW_S * 1000, patience_s=PATIENCE_S
        )

    async def complete(self, principal: Principal, end_user: str | None, *tags: str) -> Principal | Deny:
        """Add whom a body names."""
        ask, facts = Ask(("gpt",), end_user=end_user, tags=tags), RequestFacts("POST", "/", {})
        return await self.authenticator.complete(
            principal, ask, facts, self.config, now_ms=NOW_S * 1000, patience_s=PATIENCE_S
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Build a house."""
    return House(tmp_path)


def scopes_of(found: Principal | Deny) -> set[str]:
    """Give the scopes of a principal, a key as `key`."""
    assert isinstance(found, Principal)
    return {"key" if payer.kind is ScopeKind.KEY else str(payer) for payer in found.payers}


def token(*groups: str) -> str:
    """Make a token of Ana's."""
    claims = {"iss": "people", "aud": "gate", "sub": "ana", "groups": [*groups], "exp": NOW_S + 60}
    return signed(claims, "P-256", algorithm="ES256", kid="e1")


RESEARCH = {"global", "org:acme", "team:research"}
ANA = RESEARCH | {"member:research/ana", "user:ana"}


async def test_a_key(house: House) -> None:
    """A key leads to all who pay for it, each asked for once, and what is kept of them has limits."""
    found = await house.ask(authorization="Bearer sk-ana")

    assert scopes_of(found) == ANA | {"key", "tag:night"}
    assert isinstance(found, Principal)
    assert [budget.limit for payer in found.scopes for budget in payer.budgets if payer.binds] == [
        100 * 10**9,
        4 * 10**9,
        3 * 10**9,
        6 * 10**9,
    ]
    assert len(house.directory.asked) == len(set(house.directory.asked)) == 6
    assert await house.ask(authorization="Bearer sk-ana") is found
    assert len(house.directory.asked) == 6


async def test_a_project(house: House) -> None:
    """The team of a key's project pays, and its organization: three steps from the key."""
    assert scopes_of(await house.ask(x_api_key="sk-project")) == RESEARCH | {"project:rocket", "key"}


async def test_tokens(house: House) -> None:
    """A token is charged to the first of its teams that anybody knows, and is never asked for as a key."""
    found = await house.ask(authorization=f"Bearer {token('nobody', 'research', 'kitchen')}")
    assert scopes_of(found) == {"global", "team:kitchen", "member:kitchen/ana", "user:ana"}
    found = await house.ask(authorization=f"Bearer {token('nobody', 'research')}")
    assert scopes_of(found) == ANA
    chosen = await house.ask(authorization=f"Bearer {token('kitchen', 'research')}", x_litellm_team_id="research")

    assert scopes_of(chosen) == ANA
    assert not [scope for scope in house.directory.asked if scope.kind is ScopeKind.KEY]


async def test_a_key_that_looks_like_a_token(house: House) -> None:
    """A key that looks like a token, and is remembered from before tokens were taken, opens nothing: nobody asks."""
    text = "e30.e30.e30"
    house.directory.known |= dict([key(text, team="research")])
    await house.lookup.load([scope(f"key:{text}")], PATIENCE_S)

    found = await house.ask(authorization=f"Bearer {text}")

    assert isinstance(found, Deny)


async def test_certificates_and_headers(house: House) -> None:
    """Certificates and headers of an earlier filter name those whom the directory knows."""
    assert scopes_of(await house.ask(peer="spiffe://mesh/research")) == RESEARCH
    found = await house.ask(trusted=True, x_auth_user="ana", x_auth_team="research")
    assert scopes_of(found) == ANA
    unknown = await house.ask(trusted=True, x_auth_user="zoe")

    assert isinstance(unknown, Deny)
    assert unknown.reason is Reason.PAYER_UNKNOWN


async def test_recorded(house: House) -> None:
    """Whom an explanation or a replay names is looked for as well."""
    assert scopes_of(await house.ask(claimed=Claimed(user="ana", team="research"))) == ANA


@pytest.mark.parametrize(
    ("sent", "reason", "words"),
    [
        ("sk-nobody", Reason.UNAUTHENTICATED, "not known"),
        ("sk-blocked", Reason.KEY_BLOCKED, "Authentication Error, Key is blocked (Key="),
        ("sk-of-blocked", Reason.KEY_BLOCKED, "Authentication Error, Team=closed is blocked."),
        ("sk-old", Reason.KEY_EXPIRED, "Authentication Error - Expired Key. Key Expiry time 2027-01-15T07:59:59Z"),
    ],
)
async def test_refused(house: House, sent: str, reason: Reason, words: str) -> None:
    """Who is unknown, blocked or expired gets a 401, in LiteLLM's words."""
    refused = await house.ask(authorization=f"Bearer {sent}")

    assert isinstance(refused, Deny)
    assert (refused.status, refused.reason) == (401, reason)
    assert words in refused.message


async def test_not_expired(house: House) -> None:
    """A key holds until its very last moment."""
    assert scopes_of(await house.ask(authorization="Bearer sk-last")) == {"global", "key"}


async def test_end_users_and_tags(house: House) -> None:
    """An end user and tags, of headers or of the body, are those of the directory; tags that nobody lists are none."""
    found = await house.ask(
        authorization="Bearer sk-ana", x_litellm_end_user_id="vip", x_litellm_tags="day, night,nothing"
    )
    assert scopes_of(found) == ANA | {"key", "tag:night", "end_user:vip", "tag:day"}

    plain = await house.ask(authorization="Bearer sk-last")
    assert isinstance(plain, Principal)
    assert scopes_of(await house.complete(plain, "vip", "day", "nothing")) == {
        "global",
        "key",
        "end_user:vip",
        "tag:day",
    }
    assert await house.complete(plain, None) is plain


async def test_a_blocked_end_user(house: House) -> None:
    """A blocked end user is refused, whether a header or the body names it."""
    in_header = await house.ask(authorization="Bearer sk-last", x_litellm_end_user_id="out")
    plain = await house.ask(authorization="Bearer sk-last")
    assert isinstance(plain, Principal)
    in_body = await house.complete(plain, "out")

    assert in_header == in_body
    assert isinstance(in_body, Deny)
    assert (in_body.status, in_body.reason) == (401, Reason.KEY_BLOCKED)


async def test_too_many_tags(house: House) -> None:
    """More tags than a request may have are a 400."""
    tags = [f"t{number}" for number in range(TAGS_MAX + 1)]
    in_header = await house.ask(authorization="Bearer sk-last", x_litellm_tags=",".join(tags))
    plain = await house.ask(authorization="Bearer sk-last", x_litellm_tags=",".join(tags[1:]))
    assert isinstance(plain, Principal)
    in_body = await house.complete(plain, None, *tags)

    assert in_header == in_body
    assert isinstance(in_body, Deny)
    assert in_body.status == 400


async def test_away(house: House) -> None:
    """While the directory is away nobody new is known: a 503 that clients repeat, and files go on."""
    house.directory.away = True
    refused = await house.ask(authorization="Bearer sk-ana")

    assert isinstance(refused, Deny)
    assert (refused.status, refused.reason) == (503, Reason.DIRECTORY_UNAVAILABLE)
    assert (refused.retry_after_s, refused.should_retry) == (1, True)
    assert scopes_of(await house.ask(authorization="Bearer sk-file")) == {"global", "team:kitchen", "key"}


async def test_away_for_a_body(house: House) -> None:
    """An end user of whom nothing is known may be blocked."""
    plain = await house.ask(authorization="Bearer sk-last")
    assert isinstance(plain, Principal)
    house.directory.away = True
    refused = await house.complete(plain, "vip")

    assert isinstance(refused, Deny)
    assert refused.reason is Reason.DIRECTORY_UNAVAILABLE


async def test_revoked(house: House) -> None:
    """A key that was deleted is unknown, and one that was blocked is refused, within the time that records hold."""
    assert isinstance(await house.ask(authorization="Bearer sk-ana"), Principal)
    house.now_s += 4.1
    del house.directory.known[scope("key:sk-ana")]
    refused = await house.ask(authorization="Bearer sk-ana")

    assert isinstance(refused, Deny)
    assert refused.reason is Reason.UNAUTHENTICATED
