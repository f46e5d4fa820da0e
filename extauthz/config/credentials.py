"""Credentials besides keys, as the configuration file says whom to believe: tokens, certificates, earlier filters."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from extauthz.config.payers import BudgetFields
from extauthz.config.values import Count, Seconds, Strict, Text
from extauthz.domain.claimed import PayerRule
from extauthz.domain.credentials import CREDENTIAL_HEADERS, TrustedHeaders
from extauthz.domain.identity import Identities
from extauthz.domain.peers import XFCC_HEADER, Peers
from extauthz.domain.templates import Template
from extauthz.domain.tokens import TOKEN_BYTES_MAX, ClaimNames, Issuer
from extauthz.tokens.keys import ALGORITHMS

ISSUERS_MAX = 16
RULES_MAX = 1000

# Where a pod finds the API server that signed its token, and what it needs to ask it for its keys.
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_KUBERNETES: dict[str, object] = {
    "issuer": "https://kubernetes.default.svc.cluster.local",
    "jwks_url": "https://kubernetes.default.svc/openid/v1/jwks",
    "jwks_ca": _SERVICE_ACCOUNT / "ca.crt",
    "jwks_token_file": _SERVICE_ACCOUNT / "token",
    "subjects": [{"subject": "system:serviceaccount:{namespace}:{name}", "team": "{namespace}"}],
}

_OF_THE_CLUSTER = frozenset({"jwks_url", "jwks_ca", "jwks_token_file"})

_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,256}", re.ASCII)

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Unknown(StrEnum):
    """What becomes of payers that a credential names and that are not listed."""

    DENY = "deny"
    DEFAULT = "default"


class Profile(StrEnum):
    """Whose tokens they are, where that says more than one would like to write."""

    KUBERNETES = "kubernetes"


def _template(text: str) -> str:
    Template.parse(text)
    return text


def _header(text: str) -> str:
    name = text.lower()
    if not _HEADER.fullmatch(name):
        raise ValueError(f"`{text}` is no name of a header: write one, such as x-auth-user")
    if name in {*CREDENTIAL_HEADERS, XFCC_HEADER}:
        raise ValueError(f"`{name}` carries credentials of its own: choose another header")
    return name


TemplateText = Annotated[Text, AfterValidator(_template)]
HeaderName = Annotated[Text, AfterValidator(_header)]

_UNKNOWN = (
    "Payers that are not listed in users, teams and organizations: deny (403), or default, which gives each one the "
    "budgets of the payer called `default` there."
)


class Rule(Strict):
    """Who pays for whoever has a name of a certain form."""

    user: TemplateText | None = Field(default=None, description="The user; holes as in the form, such as {name}.")
    team: TemplateText | None = Field(default=None, description="The team.")
    organization: TemplateText | None = Field(default=None, description="The organization.")

    def rule(self, form: str) -> PayerRule:
        """Give the rule."""
        user, team, organization = (
            None if text is None else Template.parse(text) for text in (self.user, self.team, self.organization)
        )
        return PayerRule(Template.parse(form), user, team, organization)

    def check(self, form: str) -> None:
        """Raise ValueError when nobody pays, or a hole stays empty."""
        written = [text for text in (self.user, self.team, self.organization) if text is not None]
        if not written:
            raise ValueError("nobody pays by this rule: write user, team or organization")
        holes = Template.parse(form).holes
        for text in written:
            for hole in Template.parse(text).holes:
                if hole not in holes:
                    raise ValueError(f"`{{{hole}}}` is no hole of `{form}`: name one of those")


class SubjectRule(Rule):
    """Who pays for a subject (`sub`) of this form. Each {hole} is a name without `/` and `:` in it."""

    subject: TemplateText = Field(description="The form, such as system:serviceaccount:{namespace}:{name}.")

    @model_validator(mode="after")
    def _somebody_pays(self) -> Self:
        self.check(self.subject)
        return self


class PrincipalRule(Rule):
    """Who pays for a certificate of this form. Each {hole} is a name without `/` and `:` in it."""

    principal: TemplateText = Field(
        description="The form of its URI (SPIFFE), else its DNS name, else its subject, such as "
        "spiffe://cluster.local/ns/{namespace}/sa/{name}."
    )

    @model_validator(mode="after")
    def _somebody_pays(self) -> Self:
        self.check(self.principal)
        return self


class ClaimFields(Strict):
    """Which claims name whom. A dot leads into an object (realm_access.roles), unless a claim is called so."""

    user: Text | None = Field(default=None, description="The claim with the user's id; `sub` where none is written.")
    team: Text | None = Field(default=None, description="The claim with the team's id.")
    teams: Text | None = Field(
        default=None,
        description="The claim with a list of teams (groups). The one that the header x-litellm-team-id names pays, "
        "else the first of them in the order of `teams`.",
    )
    organization: Text | None = Field(default=None, description="The claim with the organization's id.")
    end_user: Text | None = Field(
        default=None, description="The claim with the end user's id; it goes before headers and body."
    )
    roles: Text | None = Field(default=None, description="The claim with a list of roles.")


class JwtIssuer(Strict):
    """An issuer of tokens that is believed."""

    profile: Profile | None = Field(
        default=None,
        description="kubernetes: tokens of service accounts. Where nothing else is written, the issuer is the cluster "
        "that extauthz runs in, with its keys, and the namespace is the team.",
    )
    issuer: Text = Field(description="The claim `iss`, letter by letter.")
    audience: tuple[Text, ...] = Field(
        description="The claim `aud` must name one of these: tokens for others are not for us."
    )
    jwks_url: Text | None = Field(default=None, description="Where the issuer publishes its keys, over https.")
    jwks_file: Path | None = Field(
        default=None,
        description="The path of a file with its keys, instead. Read again when it changes. A relative path begins at "
        "this file.",
    )
    jwks_ca: Path | None = Field(default=None, description="The CA (PEM) of jwks_url, where it is not a public one.")
    jwks_token_file: Path | None = Field(
        default=None, description="A file with a bearer token to ask jwks_url with; read each time."
    )
    insecure_jwks: bool = Field(
        default=False,
        description="Fetch keys over http beyond loopback: who sits in between can then make tokens. Only where the "
        "mesh encrypts.",
    )
    jwks_refresh_seconds: Seconds = Field(
        default=Decimal(300), ge=10, le=86_400, description="How often keys are fetched, besides for unknown ones."
    )
    jwks_stale_seconds: Seconds = Field(
        default=Decimal(86_400),
        ge=60,
        le=30 * 86_400,
        description="How long keys hold that cannot be fetched again, because the issuer is away.",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256", "EdDSA"),
        description=f"What tokens may be signed by: some of {', '.join(ALGORITHMS)}. Secrets that both sides know "
        "(HS256) are not supported.",
    )
    clock_skew_seconds: Count = Field(
        default=30, ge=0, le=300, description="How far the clocks of issuer and gate may be apart."
    )
    token_bytes_max: Count = Field(
        default=8192, ge=256, le=TOKEN_BYTES_MAX, description="The size of the largest token that is read."
    )
    claims: ClaimFields = Field(default=ClaimFields(), description="Which claims name whom.")
    subjects: tuple[SubjectRule, ...] = Field(
        default=(),
        max_length=RULES_MAX,
        description="Who pays by the subject's form, instead of by claims; the first that fits.",
    )
    admin_roles: tuple[Text, ...] = Field(default=(), description="No budget binds who has one of these roles.")
    required_roles: tuple[Text, ...] = Field(
        default=(), description="Without one of these roles nobody gets in, if there are any."
    )
    unknown: Unknown = Field(default=Unknown.DENY, description=_UNKNOWN)

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, data: object) -> object:
        match data:
            case {"profile": "kubernetes", **rest}:
                own = {"profile": "kubernetes", **{name: value for name, value in rest.items() if value is not None}}
                elsewhere = not own.keys().isdisjoint({"jwks_url", "jwks_file"})
                without = _OF_THE_CLUSTER if elsewhere else frozenset()
                return {name: value for name, value in _KUBERNETES.items() if name not in without} | own
            case _:
                return data

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("issuer", "audience", "algorithms")
    @classmethod
    def _says_something(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (isinstance(value, tuple) and "" in value):
            raise ValueError("this is empty: write at least one")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError("this is no URL: write it from its https:// on")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("write either jwks_url or jwks_file: where its keys are")
        if self.jwks_url is not None and not (self.insecure_jwks or _is_private(self.jwks_url)):
            raise ValueError(
                "jwks_url must begin with https://, or whoever sits in between can make tokens; write insecure_jwks: "
                "true where the mesh encrypts"
            )
        claims = self.claims
        if self.subjects and any((claims.user, claims.team, claims.organization)):
            raise ValueError("who pays stands twice: in subjects, and in claims.user, team or organization; keep one")
        if (self.admin_roles or self.required_roles) and claims.roles is None:
            raise ValueError("roles are asked for, and no claim has them: write claims.roles")
        return self

    def trusted(self) -> Issuer:
        """Give what a token is judged by."""
        claims = self.claims
        return Issuer(
            name=self.issuer,
            audiences=frozenset(self.audience),
            algorithms=frozenset(self.algorithms),
            skew_s=self.clock_skew_seconds,
            token_bytes_max=self.token_bytes_max,
            claims=ClaimNames(
                user=claims.user or (None if self.subjects else "sub"),
                team=claims.team,
                teams=claims.teams,
                organization=claims.organization,
                end_user=claims.end_user,
                roles=claims.roles,
            ),
            subjects=tuple(rule.rule(rule.subject) for rule in self.subjects),
            admin_roles=frozenset(self.admin_roles),
            required_roles=frozenset(self.required_roles),
            unlisted=self.unknown is Unknown.DEFAULT,
        )


class Mtls(Strict):
    """Client certificates as credentials: Envoy tells whose it is, and no client can write that."""

    principals: tuple[PrincipalRule, ...] = Field(
        default=(), max_length=RULES_MAX, description="Who pays by the certificate's name; the first that fits."
    )
    xfcc_from: tuple[TemplateText, ...] = Field(
        default=(),
        max_length=RULES_MAX,
        description="Peers whose header x-forwarded-client-cert is believed: gateways before this Envoy, by the names "
        "in their certificates. They must set the header themselves (SANITIZE_SET or APPEND_FORWARD).",
    )
    unknown: Unknown = Field(default=Unknown.DENY, description=_UNKNOWN)

    def trusted(self) -> Peers:
        """Give what certificates are judged by."""
        return Peers(
            rules=tuple(rule.rule(rule.principal) for rule in self.principals),
            hops=tuple(map(Template.parse, self.xfcc_from)),
            unlisted=self.unknown is Unknown.DEFAULT,
        )


class TrustedHeaderFields(Strict):
    """Headers in which a filter before this one says who asks.

    They count on routes with the context extension extauthz.trusted_headers: on alone. Envoy has to take them off what
    clients send.
    """

    user: HeaderName | None = Field(default=None, description="The header with the user's id.")
    team: HeaderName | None = Field(default=None, description="The header with the team's id.")
    organization: HeaderName | None = Field(default=None, description="The header with the organization's id.")
    end_user: HeaderName | None = Field(default=None, description="The header with the end user's id.")
    unknown: Unknown = Field(default=Unknown.DENY, description=_UNKNOWN)

    @model_validator(mode="after")
    def _somebody_pays(self) -> Self:
        if not any((self.user, self.team, self.organization)):
            raise ValueError("nobody pays by these headers: write user, team or organization")
        return self

    def trusted(self) -> TrustedHeaders:
        """Give the headers."""
        return TrustedHeaders(
            self.user, self.team, self.organization, self.end_user, unlisted=self.unknown is Unknown.DEFAULT
        )


class AnonymousFields(BudgetFields):
    """Whoever sends no credential: all of them have one budget together."""

    models: tuple[Text, ...] = Field(default=(), description="The models, or patterns, that they may use.")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if not self.limits():
            raise ValueError("anybody could spend without end: write max_budget, 0 for free models only")
        return self


def identities(
    issuers: tuple[JwtIssuer, ...], mtls: Mtls | None, trusted_headers: TrustedHeaderFields | None
) -> Identities:
    """Give all that is believed of a request besides keys."""
    return Identities(
        issuers={issuer.issuer: issuer.trusted() for issuer in issuers},
        peers=None if mtls is None else mtls.trusted(),
        trusted=None if trusted_headers is None else trusted_headers.trusted(),
    )


def takes_unlisted(
    issuers: tuple[JwtIssuer, ...], mtls: Mtls | None, trusted_headers: TrustedHeaderFields | None
) -> bool:
    """Tell whether any credential lets in who is not listed."""
    return any(source is not None and source.unknown is Unknown.DEFAULT for source in (*issuers, mtls, trusted_headers))


def _is_private(url: str) -> bool:
    """Tell whether nobody can sit in between."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in {"127.0.0.1", "::1", "localhost"}
