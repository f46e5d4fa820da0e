"""LiteLLM's sections in a file of their own: as if they stood in the configuration, with mistakes of their own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from extauthz.config.effective import effective
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.policy import ModelsPolicy
from extauthz.errors import ConfigError

OWN = "extauthz: {litellm_file: litellm/config.yaml, teams: {research: {max_budget: 10}}}\n"
THEIRS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.1, output_cost_per_token: 0.2}
general_settings: {budget_exceeded_models_policy: free_only, alerting: [slack]}
litellm_settings: {max_budget: 5}
"""


class Files:
    """A configuration, and LiteLLM's in a folder below it."""

    def __init__(self, folder: Path) -> None:
        self.own, self.theirs = folder / "config.yaml", folder / "litellm/config.yaml"
        self.theirs.parent.mkdir()

    def load(self, own: str = OWN, theirs: str = THEIRS) -> Snapshot:
        """Load the two."""
        self.own.write_text(own, encoding="utf-8")
        self.theirs.write_text(theirs, encoding="utf-8")
        return load(self.own, {})

    def mistakes(self, own: str = OWN, theirs: str = THEIRS) -> list[str]:
        """Load two that cannot be, and give the mistakes as `file:line: message`."""
        with pytest.raises(ConfigError) as refused:
            self.load(own, theirs)
        folder = self.own.parent
        return [f"{each.file.relative_to(folder)}:{each.line}: {each.message}" for each in refused.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Load configurations with LiteLLM's beside them."""
    return Files(tmp_path)


def test_its_sections_are_as_in_the_configuration(files: Files) -> None:
    """Models and policy come from LiteLLM's file, what means nothing here is named, and both files are watched."""
    snapshot = files.load()

    assert ("gpt-4o",) == snapshot.catalog.listed()
    assert ModelsPolicy.FREE_ONLY is snapshot.settings.models_policy
    assert ["settings that mean nothing here: general_settings.alerting"] == list(snapshot.notices)
    assert [files.own, files.theirs] == list(snapshot.stamps)
    assert {"model_list", "general_settings", "litellm_settings"} < snapshot.sections.keys()


def test_another_file_is_another_configuration(files: Files) -> None:
    """What changed in LiteLLM's file is told by its section, and the digest is another."""
    before = files.load()

    after = files.load(theirs=THEIRS.replace("max_budget: 5", "max_budget: 6"))

    assert {"litellm_settings"} == set(after.changed_since(before))
    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("own", "theirs", "mistakes"),
    [
        (
            OWN,
            THEIRS.replace("0.1", "dear"),
            ["litellm/config.yaml:4: model_list[0].litellm_params.input_cost_per_token: "],
        ),
        (OWN, THEIRS.replace("free_only", "none"), ["litellm/config.yaml:5: general_settings."]),
        (
            OWN,
            THEIRS.replace("budget_exceeded_models_policy", "budget_exceded_models_policy"),
            ["litellm/config.yaml:5: "],
        ),
        (OWN, "", ["litellm/config.yaml:1: the file is empty"]),
        (OWN, "model_list: [", ["litellm/config.yaml:2: this is not YAML"]),
        (
            OWN + "model_list: []\n",
            THEIRS,
            ["config.yaml:2: model_list: with litellm_file this stands in "],
        ),
        (
            OWN,
            THEIRS + "extauthz: {}\n",
            ["litellm/config.yaml:7: extauthz: with litellm_file this stands in "],
        ),
        (OWN.replace("litellm/", "gone/"), THEIRS, ["gone/config.yaml:1: the file cannot be read"]),
        (
            OWN.replace("teams:", "upstream_auth: {models: {gpt-4: remove}}, teams:"),
            THEIRS,
            ["config.yaml:1: extauthz.upstream_auth.models: `gpt-4` is not in model_list"],
        ),
        (OWN.replace("}}}", "}}, shard_by: organization, store: 'redis://h'}"), THEIRS, ["litellm/config.yaml:6: "]),
    ],
)
def test_mistakes_name_the_file_that_they_are_in(files: Files, own: str, theirs: str, mistakes: list[str]) -> None:
    """Each mistake is told once, by file and line; a section that stands in both files is one."""
    told = files.mistakes(own, theirs)

    assert len(mistakes) == len(told)
    assert all(line.startswith(beginning) for line, beginning in zip(told, mistakes, strict=True)), told


def test_prices_are_taken(files: Files) -> None:
    """A request of a model of LiteLLM's file costs what the file says."""
    reach = files.load().catalog.reach(["gpt-4o"])

    assert Decimal("0.1") == reach.prices.input


async def test_the_configuration_in_force_is_one_file(files: Files) -> None:
    """Written out, both files are one, which reads as the same configuration."""
    snapshot = files.load()

    written = files.own.with_name("written.yaml")
    written.write_text(await effective(snapshot), encoding="utf-8")

    assert snapshot.catalog.listed() == load(written, {}).catalog.listed()
