"""What a configuration says of directories, projects, tags and groups of models."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from extauthz.config.effective import effective
from extauthz.config.load import load
from extauthz.config.model import DirectoryKind
from extauthz.config.payers import hashed
from extauthz.config.snapshot import Snapshot
from extauthz.domain.policy import DirectoryFailure
from extauthz.errors import ConfigError

URL = "postgresql://llm:SECRET@db:5432/litellm"
OTHER = "postgresql://llm:SECRET@other/litellm"


class Files:
    """Loads configurations from text."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.yaml"

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> Snapshot:
        """Load a configuration."""
        self.path.write_text(dedent(text), encoding="utf-8")
        return load(self.path, environ or {})

    def mistakes(self, text: str) -> list[str]:
        """Load a bad configuration, and give its mistakes as `line: message`."""
        with pytest.raises(ConfigError) as refused:
            self.load(text)
        return [f"{mistake.line}: {mistake.message}" for mistake in refused.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Load configurations from text."""
    return Files(tmp_path)


def test_nothing_written(files: Files) -> None:
    """Only files say who is known, and what stands ready for others are the defaults."""
    settings = files.load("extauthz: {}").settings

    assert settings.directory is DirectoryKind.FILES
    assert (settings.directory_failure, settings.directory_stale_seconds) == (DirectoryFailure.DENY, 300)
    assert (settings.directory_refresh_seconds, settings.directory_entries_max) == (Decimal(2), 100_000)


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        pytest.param(f"extauthz: {{directory: litellm, directory_url: '{URL}'}}", {}, URL, id="ours"),
        pytest.param(
            f"general_settings: {{database_url: '{URL}'}}\nextauthz: {{directory: litellm}}", {}, URL, id="LiteLLM's"
        ),
        pytest.param(
            "general_settings: {database_url: os.environ/DB}\nextauthz: {directory: litellm}",
            {"DB": URL, "DATABASE_URL": OTHER},
            URL,
            id="LiteLLM's, from a variable",
        ),
        pytest.param(
            "general_settings: {database_url: os.environ/DB}\nextauthz: {directory: litellm}",
            {"DATABASE_URL": URL},
            URL,
            id="its variable is not set",
        ),
        pytest.param("extauthz: {directory: litellm}", {"DATABASE_URL": URL}, URL, id="the variable"),
        pytest.param(
            f"general_settings: {{database_url: '{OTHER}'}}\n"
            "extauthz: {directory: litellm, directory_url: os.environ/DB}",
            {"DB": URL},
            URL,
            id="ours before LiteLLM's",
        ),
        pytest.param(f"general_settings: {{database_url: '{URL}'}}", {"DATABASE_URL": URL}, None, id="files need none"),
    ],
)
def test_where_the_database_is(files: Files, text: str, environ: Mapping[str, str], expected: str | None) -> None:
    """LiteLLM's database is where our section says, else where LiteLLM itself has it."""
    url = files.load(text, environ).settings.directory_url

    assert expected == (None if url is None else url.get_secret_value())


def test_no_database(files: Files) -> None:
    """Without any place the mistake stands where the directory is chosen."""
    (mistake,) = files.mistakes("extauthz:\n  directory: litellm\n")

    assert mistake == (
        "2: extauthz.directory: nothing says where LiteLLM's database is: write directory_url, best as "
        "os.environ/NAME, or set DATABASE_URL"
    )


async def test_the_configuration_in_force(files: Files) -> None:
    """It shows no secret, and reads as the same one; what LiteLLM's sections say for the directory is not idle."""
    text = f"""
        general_settings: {{database_url: '{URL}'}}
        litellm_settings: {{max_end_user_budget_id: customers}}
        model_list: [{{model_name: m, litellm_params: {{model: x}}, model_info: {{access_groups: [g]}}}}]
        extauthz:
          directory: litellm
          unknown_price: deny
          organizations: {{o: {{blocked: true, models: [g]}}}}
          teams: {{t: {{blocked: true, tags: [night], members: {{u: {{models: [m]}}}}}}}}
          users: {{u: {{models: [m]}}}}
          projects: {{p: {{team: t, blocked: true, models: [m], max_budget: 1}}}}
          tags: {{night: {{max_budget: 1}}}}
          end_users: {{default: {{models: [m], blocked: true}}}}
          keys:
            - key_sha256: {"ab" * 32}
              project: p
              tags: [night]
              blocked: true
              expires: 2026-01-31T08:00:00+01:00
              metadata: {{owner: ana, floor: 3}}
    """
    snapshot = files.load(text)
    written = await effective(snapshot)
    again = files.load(written.replace("'***'", f"'{URL}'").replace('"***"', f"'{URL}'"))

    assert "SECRET" not in written
    assert again.settings == snapshot.settings
    assert again.directory.accounts == snapshot.directory.accounts
    assert not [notice for notice in snapshot.notices if "mean nothing" in notice]
    assert snapshot.settings.end_user_budget == "customers"


def test_references(files: Files) -> None:
    """Projects and tags that are named have to be there."""
    text = """
        extauthz:
          projects: {p: {team: nobody}}
          teams: {t: {tags: [late]}}
          tags: {night: {}}
          keys:
            - {key: sk-1, project: q, tags: [night, nigth]}
    """
    assert files.mistakes(text) == [
        "3: extauthz.projects.p.team: `nobody` is not in extauthz.teams; known here: t",
        "4: extauthz.teams.t.tags[0]: `late` is not in extauthz.tags; known here: night",
        "7: extauthz.keys[0].project: `q` is not in extauthz.projects; known here: p",
        "7: extauthz.keys[0].tags[1]: `nigth` is not in extauthz.tags; did you mean `night`?",
    ]


def test_access_groups(files: Files) -> None:
    """The name of a group in a list stands for its models, and the group's name for itself."""
    text = """
        model_list:
          - {model_name: a, litellm_params: {model: x}, model_info: {access_groups: [beta, all]}}
          - {model_name: a, litellm_params: {model: y}, model_info: {access_groups: [beta]}}
          - {model_name: b, litellm_params: {model: x}, model_info: {access_groups: [all]}}
          - {model_name: c, litellm_params: {model: x}}
        extauthz:
          keys: [{key: sk-1, models: [beta, c]}]
    """
    directory = files.load(text).directory
    found = directory.find(hashed("sk-1"))

    assert directory.accounts.access_groups == {"beta": ("a",), "all": ("a", "b")}
    assert found is not None
    assert found.models == (("beta", "c", "a"),)


def test_expires_in_the_zone(files: Files) -> None:
    """A moment without an offset is local time."""
    found = files.load("extauthz: {timezone: Europe/Berlin, keys: [{key: sk-1, expires: 2026-07-01}]}").directory.find(
        hashed("sk-1")
    )

    assert found is not None
    assert found.expires_ms == 1_782_856_800_000
