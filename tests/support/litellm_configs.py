"""LiteLLM's own example configurations: those that its package carries, and those in its documentation."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import yaml

from extauthz.config.load import read_config
from extauthz.config.snapshot import Snapshot
from tests.support.litellm import ENVIRONMENT, PROGRAM

SECTIONS = frozenset(
    {
        "model_list",
        "general_settings",
        "litellm_settings",
        "router_settings",
        "environment_variables",
        "include",
        "credential_list",
        "guardrails",
        "mcp_servers",
        "callback_settings",
        "search_tools",
        "prompts",
    }
)

_BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,})(?P<about>[^`\n]*)\n(?P<text>.*?)^[ \t]*(?P=fence)", re.MULTILINE | re.DOTALL
)
_SECTION = re.compile(rf"^({'|'.join(sorted(SECTIONS))})[ \t]*:", re.MULTILINE)
_LANGUAGES = frozenset({"", "yaml", "yml"})

# Whether LiteLLM takes what is in each text: a document, and models that a router can be made of.
_ASK = """
import json, sys, yaml
from litellm import Router
for text in json.load(sys.stdin):
    try:
        Router(model_list=yaml.safe_load(text).get("model_list"))
        print("yes")
    except Exception as error:
        print(type(error).__name__)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A configuration, and where it stands."""

    place: str
    text: str


class AnyVariable(Mapping[str, str]):
    """An environment in which every variable is set."""

    def __getitem__(self, name: str) -> str:
        return f"value of {name}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def carried() -> list[Example]:
    """Give the configurations in the installed package: files whose sections are those of a configuration."""
    package = next(PROGRAM.parents[1].glob("lib/python*/site-packages/litellm"))
    files = sorted(path for kind in ("yaml", "yml") for path in package.rglob(f"*.{kind}"))
    texts = ((path, path.read_text(encoding="utf-8")) for path in files)
    return [Example(str(path.relative_to(package)), text) for path, text in texts if _SECTION.search(text)]


def documented(folder: Path) -> list[Example]:
    """Give the configurations in the pages of a folder: blocks of YAML that have a section of a configuration."""
    return [
        Example(f"{page.relative_to(folder)}:{line}", text)
        for page in sorted((*folder.rglob("*.md"), *folder.rglob("*.mdx")))
        for line, text in _blocks(page.read_text(encoding="utf-8", errors="replace"))
    ]


def _blocks(page: str) -> Iterator[tuple[int, str]]:
    for block in _BLOCK.finditer(page):
        language = re.split(r"[\s{]", block["about"].strip(), maxsplit=1)[0].lower()
        text = dedent(block["text"])
        if language in _LANGUAGES and _SECTION.search(text):
            yield page.count("\n", 0, block.start()) + 1, text


def refused(example: Example, folder: Path) -> list[str]:
    """Read an example as a configuration of ours, and give its mistakes. What it includes is there, and empty."""
    path = folder / "config.yaml"
    path.write_text(example.text, encoding="utf-8")
    for name in _included(example.text):
        if not (folder / name).exists():
            (folder / name).write_text("{}", encoding="utf-8")
    outcome = read_config(path, AnyVariable()).outcome
    return [] if isinstance(outcome, Snapshot) else [f"{mistake.line}: {mistake.message}" for mistake in outcome]


def _included(text: str) -> list[str]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    named = document.get("include") if isinstance(document, dict) else None
    return [name for name in named if Path(name).name == name] if isinstance(named, list) else []


def taken_by_litellm(examples: list[Example], places: Container[str]) -> list[Example]:
    """Ask the installed LiteLLM which of the examples at these places it takes."""
    questioned = [example for example in examples if example.place in places]
    asked = subprocess.run(
        [PROGRAM.with_name("python"), "-c", _ASK],
        input=json.dumps([example.text for example in questioned]),
        env={**ENVIRONMENT, "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    answers = asked.stdout.split()
    return [example for example, answer in zip(questioned, answers, strict=True) if answer == "yes"]
