"""docs/identity.md: what it shows loads, and what it says is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.adapters.jwks import AGAIN_S, FETCH_S_MAX
from extauthz.config.credentials import JwtIssuer
from extauthz.config.load import load
from extauthz.domain.budgets import ScopeKind
from extauthz.domain.end_users import BODY, HEADERS
from extauthz.domain.tokens import TokenFault
from extauthz.tokens.keys import KEY_SET_BYTES_MAX
from extauthz.tokens.verifier import TOKENS_MAX
from tests.support.issuers import key_set, public_jwk

TEXT = (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")
CONFIGURATIONS = [
    block for block in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) if "extauthz:\n" in block
]
MODELS = "model_list: [{model_name: local-llama, litellm_params: {model: openai/llama, input_cost_per_token: 0}}]\n"


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_every_configuration_loads(tmp_path: Path, text: str) -> None:
    """What is shown is a configuration, with nothing in it that means nothing."""
    file = tmp_path / "config.yaml"
    file.write_text(MODELS + text, encoding="utf-8")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "jwks.json").write_bytes(key_set(public_jwk("P-256", kid="e1")))

    assert not [notice for notice in load(file, {}).notices if "mean nothing" in notice]


def rows(heading: str) -> str:
    """Give the first table after a text."""
    return re.split(r"\n(?!\|)", TEXT[TEXT.index(heading) :].partition("\n|")[2])[0]


def test_every_fault_is_explained() -> None:
    """Whoever finds a fault in the log finds it in the table."""
    explained = re.findall(r"`(\w+)`", rows("the metric `extauthz_tokens_refused_total"))

    assert sorted(explained) == sorted(["fault", *map(str, TokenFault)])


def test_every_scope_is_in_the_table() -> None:
    """The table of what binds has every kind of scope."""
    kinds = re.findall(r"^\| `(\w+)", rows("## What binds"), re.MULTILINE)

    assert sorted(kinds) == sorted(str(kind) for kind in ScopeKind)


def test_the_order_of_end_users() -> None:
    """The table names all places, in the order in which they are looked at."""
    table = rows("## End users")
    places = [*HEADERS, "user_header_mappings", "user_header_name", *(f"`{'.'.join(path)}` in" for path in BODY)]
    found = [table.index(place) for place in places]

    assert found == sorted(found)


def test_figures() -> None:
    """Figures are those of the program."""
    fields = JwtIssuer.model_fields
    assert f"`clock_skew_seconds` ({fields['clock_skew_seconds'].default})" in TEXT
    assert f"`jwks_refresh_seconds` ({fields['jwks_refresh_seconds'].default})" in TEXT
    assert fields["jwks_stale_seconds"].default == 86_400
    assert f"at most {TOKENS_MAX:,} of them" in TEXT
    assert " ".join(TEXT.split()).count(f"at most once in {AGAIN_S:g} seconds") == 1
    assert f"for at most {FETCH_S_MAX:g} seconds and {KEY_SET_BYTES_MAX // 1024} KiB" in TEXT
