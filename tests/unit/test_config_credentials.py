"""Whom the configuration believes besides keys, and the sentences about what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from extauthz.config.effective import effective
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.claimed import Claimed, by_rules
from extauthz.domain.payers import Anonymous, Budgets
from extauthz.domain.tokens import ClaimNames, Issuer
from extauthz.errors import ConfigError
from tests.support.issuers import key_set, public_jwk

URL = "jwks_url: https://i/jwks"
ISSUER = f"{{issuer: i, audience: a, {URL}}}"


def loaded(folder: Path, section: str, more: str = "") -> Snapshot:
    """Load lines under `extauthz:`."""
    file = folder / "config.yaml"
    file.write_text(f"{more}extauthz:\n  {section}\n", encoding="utf-8")
    return load(file, {})


def mistakes(folder: Path, section: str) -> list[str]:
    """Load lines with mistakes, and give these."""
    with pytest.raises(ConfigError) as refused:
        loaded(folder, section)
    return [mistake.message for mistake in refused.value.mistakes]


def test_an_issuer_with_defaults(tmp_path: Path) -> None:
    """What must be written is little, and what holds then is strict."""
    snapshot = loaded(tmp_path, f"jwt: [{ISSUER}]")

    assert {"i": Issuer("i", frozenset({"a"}), frozenset({"RS256", "ES256", "EdDSA"}))} == snapshot.identities.issuers
    assert (8192, None, None) == (
        snapshot.identities.token_bytes_max,
        snapshot.identities.peers,
        snapshot.identities.trusted,
    )
    assert snapshot.directory.anonymous() is None


def test_nobody_is_believed_by_default(tmp_path: Path) -> None:
    """Without a word about it, there are keys alone."""
    snapshot = loaded(tmp_path, "keys: []")

    assert ({}, 0) == (snapshot.identities.issuers, snapshot.identities.token_bytes_max)
    assert (None, None) == (snapshot.settings.mtls, snapshot.settings.trusted_headers)


@pytest.mark.parametrize(
    ("more", "url", "subject"),
    [
        ("", "https://kubernetes.default.svc/openid/v1/jwks", Claimed(team="research")),
        (f", {URL}", "https://i/jwks", Claimed(team="research")),
        (", subjects: [{subject: 'system:serviceaccount:{n}:{s}', user: '{s}'}]", None, Claimed("notebook")),
    ],
)
def test_the_profile_of_kubernetes(tmp_path: Path, more: str, url: str | None, subject: Claimed) -> None:
    """It says what one would have to look up, and what is written goes before."""
    snapshot = loaded(tmp_path, f"jwt: [{{profile: kubernetes, audience: x{more}}}]")
    [issuer], [rules] = snapshot.settings.jwt, snapshot.identities.issuers.values()

    assert url in (None, issuer.jwks_url)
    assert (issuer.jwks_ca is None) == (url == "https://i/jwks")
    assert "https://kubernetes.default.svc.cluster.local" == rules.name
    assert ClaimNames(user=None) == rules.claims
    assert subject == by_rules("system:serviceaccount:research:notebook", rules.subjects)


EVERYTHING = """
jwt:
    - issuer: i
      audience: [a, b]
      jwks_file: keys.json
      algorithms: [PS512]
      clock_skew_seconds: 0
      token_bytes_max: 512
      claims: {team: t, teams: ts, organization: o, end_user: e, roles: r}
      admin_roles: [boss]
      required_roles: [boss, clerk]
      unknown: default
    - {profile: kubernetes, audience: c}
  mtls:
    principals: [{principal: "spiffe://m/{a}", user: "{a}"}]
    xfcc_from: ["spiffe://m/{a}"]
    unknown: default
  trusted_headers: {user: X-User, end_user: X-Customer, unknown: default}
  users: {default: {max_budget: 1}}
  teams: {default: {max_budget: 2, models: [m]}}
  organizations: {default: {max_budget: 3}}
  anonymous: {max_budget: 4, budget_limits: [{max_budget: 1, budget_duration: 1d}], models: [free]}
"""


async def test_what_is_in_force_reads_as_the_same(tmp_path: Path) -> None:
    """Written out, everything about credentials reads as the same configuration."""
    (tmp_path / "keys.json").write_bytes(key_set(public_jwk("RSA-2048")))
    headers = "general_settings: {user_header_mappings: {header_name: X-A, litellm_user_role: Customer}}\n"
    before = loaded(tmp_path, EVERYTHING.strip(), headers)
    written = await effective(before)
    (tmp_path / "again.yaml").write_text(written, encoding="utf-8")
    after = load(tmp_path / "again.yaml", {})

    assert before.settings == after.settings
    assert before.identities == after.identities
    assert before.directory.accounts == after.directory.accounts
    assert ("x-a",) == after.settings.user_headers
    assert before.key_sets.keys() == after.key_sets.keys() == {"i"}


def test_payers_called_default(tmp_path: Path) -> None:
    """They hold for others only where somebody may be unlisted; otherwise they are payers like any other."""
    payers = "users: {default: {max_budget: 1}}\n  teams: {default: {}}\n  keys: [{key: k, user: default}]"
    plain = loaded(tmp_path, payers).directory.accounts
    open_ = loaded(tmp_path, f"{payers}\n  mtls: {{unknown: default}}").directory.accounts

    assert (None, None, None) == (plain.default_user, plain.default_team, plain.default_organization)
    assert (plain.users["default"], plain.teams["default"], None) == (
        open_.default_user,
        open_.default_team,
        open_.default_organization,
    )


def test_anonymous(tmp_path: Path) -> None:
    """It has budgets and models."""
    anonymous = loaded(tmp_path, "anonymous: {max_budget: 0, models: [m]}").directory.accounts.anonymous

    assert isinstance(anonymous, Anonymous)
    budgets: Budgets = anonymous.budgets
    assert ([0], ("m",)) == ([budget.limit for budget in budgets], anonymous.models)


def test_internal_users_headers_are_told_of(tmp_path: Path) -> None:
    """Who has such a header in LiteLLM's file is told that it names nobody here."""
    headers = "general_settings: {user_header_mappings: [{header_name: X-I, litellm_user_role: internal_user}]}\n"

    assert any("X-I" in notice for notice in loaded(tmp_path, "keys: []", headers).notices)


def test_a_file_of_keys_is_a_file_of_the_configuration(tmp_path: Path) -> None:
    """It is watched, and a change of it is a change of the configuration, named in the log."""
    file = tmp_path / "keys.json"
    section = "jwt: [{issuer: i, audience: a, jwks_file: keys.json}]"
    file.write_bytes(key_set(public_jwk("RSA-2048")))
    before = loaded(tmp_path, section)
    file.write_bytes(key_set(public_jwk("P-256")))
    after = loaded(tmp_path, section)

    assert file in before.files
    assert before.digest != after.digest
    assert ("extauthz.jwks_file",) == after.changed_since(before)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (f"jwt: [{{issuer: i, {URL}}}]", "extauthz.jwt[0].audience: this is missing: add it"),
        (f"jwt: [{{issuer: i, audience: [], {URL}}}]", "extauthz.jwt[0].audience: this is empty"),
        (f"jwt: [{{issuer: '', audience: a, {URL}}}]", "extauthz.jwt[0].issuer: this is empty"),
        (f"jwt: [{{issuer: i, audience: '', {URL}}}]", "extauthz.jwt[0].audience: this is empty"),
        (f"jwt: [{{audience: a, {URL}}}]", "extauthz.jwt[0].issuer: this is missing: add it"),
        ("jwt: [{issuer: i, audience: a}]", "write either jwks_url or jwks_file"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, jwks_file: config.yaml}}]", "write either jwks_url or jwks_file"),
        ("jwt: [{issuer: i, audience: a, jwks_url: http://i/jwks}]", "must begin with https://"),
        ("jwt: [{issuer: i, audience: a, jwks_url: i/jwks}]", "this is no URL"),
        ("jwt: [{issuer: i, audience: a, jwks_url: file:///etc/x}]", "this is no URL"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, algorithms: [HS256]}}]", "write one of: RS256"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, algorithms: [none]}}]", "write one of: RS256"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, algorithms: []}}]", "algorithms: this is empty"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, clock_skew_seconds: 3600}}]", "the most is 300"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, token_bytes_max: 1000000}}]", "the most is 65536"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, admin_roles: [x]}}]", "write claims.roles"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, clams: {{}}}}]", "did you mean `claims`?"),
        (f"jwt: [{ISSUER}, {ISSUER}]", "the issuer i stands here twice"),
        (f"jwt: [{{issuer: i, audience: a, {URL}, subjects: [{{subject: x}}]}}]", "nobody pays by this rule"),
        (
            f"jwt: [{{issuer: i, audience: a, {URL}, subjects: [{{subject: '{{a}}', user: '{{b}}'}}]}}]",
            "`{b}` is no hole of `{a}`",
        ),
        (
            f"jwt: [{{issuer: i, audience: a, {URL}, claims: {{user: u}}, subjects: [{{subject: x, user: y}}]}}]",
            "who pays stands twice",
        ),
        (f"jwt: [{{issuer: i, audience: a, {URL}, unknown: default}}]", "needs somebody called `default`"),
        ("mtls: {principals: [{principal: '{a}{b}', user: x}]}", "two holes side by side"),
        ("mtls: {principals: [{principal: x}]}", "nobody pays by this rule"),
        ("trusted_headers: {end_user: x-e}", "nobody pays by these headers"),
        ("trusted_headers: {user: authorization}", "carries credentials of its own"),
        ("trusted_headers: {user: 'x auth'}", "is no name of a header"),
        ("anonymous: {}", "anybody could spend without end"),
    ],
)
def test_mistakes(tmp_path: Path, section: str, sentence: str) -> None:
    """What opens a door, or means nothing, is refused in a sentence that says what to write."""
    found = mistakes(tmp_path, section)

    assert [True] == [sentence in mistake for mistake in found if "Key Set" not in mistake], found


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "the file cannot be read"),
        (b"", "no JSON Web Key Set"),
        (key_set({"kty": "oct", "k": "AAAA"}), "no key in it that can verify"),
    ],
)
def test_a_bad_file_of_keys(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """What is wrong with a file of keys is told at that file."""
    if content is not None:
        (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, "jwt: [{issuer: i, audience: a, jwks_file: keys.json}]")
    [mistake] = refused.value.mistakes

    assert (tmp_path / "keys.json", True) == (mistake.file, sentence in mistake.message)
