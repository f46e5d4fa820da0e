"""What a directory that is LiteLLM's database takes over from LiteLLM's own sections: where it is, and one budget.

Both stand there for LiteLLM alone, with variables that nobody else need set, unless the directory is that database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from extauthz.config.litellm import GENERAL, LITELLM, OWN_SECTION
from extauthz.config.model import DirectoryKind, ExtauthzSection, Settings
from extauthz.config.source import Entries, Mistakes, Node, Scalar, child, resolved
from extauthz.config.variables import Variables

DATABASE_URL = "database_url"
DATABASE_VARIABLE = "DATABASE_URL"
END_USER_BUDGET = "max_end_user_budget_id"


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    """Where a directory is, and the id of LiteLLM's budget for end users that have none of their own."""

    url: SecretStr | None = field(default=None, repr=False)
    end_user_budget: str | None = None


def directory_place(
    section: ExtauthzSection, own: Node, theirs: Entries, environ: Mapping[str, str], mistakes: Mistakes
) -> DirectoryPlace:
    """Find the place of the directory: by our section, else by LiteLLM's own."""
    if section.directory is not DirectoryKind.LITELLM:
        return DirectoryPlace(section.directory_url)
    variables = Variables(theirs, environ)
    budget = _text(theirs, (LITELLM, END_USER_BUDGET), variables, mistakes.file)
    if section.directory_url is not None:
        return DirectoryPlace(section.directory_url, budget)
    url = _text(theirs, (GENERAL, DATABASE_URL), variables, mistakes.file) or variables.get(DATABASE_VARIABLE)
    if not url:
        line = next((node.line for node in (child(own, "directory"), own) if node is not None), 1)
        mistakes.add(
            line,
            f"{OWN_SECTION}.directory: nothing says where LiteLLM's database is: write directory_url, best as "
            f"os.environ/NAME, or set {DATABASE_VARIABLE}",
        )
        return DirectoryPlace()
    return DirectoryPlace(SecretStr(url), budget)


def read_for_directory(settings: Settings) -> frozenset[str]:
    """Name the settings of LiteLLM's that mean something for the directory, and nothing otherwise."""
    litellm = settings.directory is DirectoryKind.LITELLM
    return frozenset({f"{GENERAL}.{DATABASE_URL}", f"{LITELLM}.{END_USER_BUDGET}"} if litellm else ())


def _text(root: Entries, path: tuple[str, str], variables: Variables, file: Path) -> str | None:
    """Read a setting of LiteLLM's; None where it is not written, or stands for a variable that is not set."""
    section, name = path
    parent = child(root, section)
    node = None if parent is None else child(parent, name)
    found = None if node is None else resolved(node, variables, Mistakes(file))
    return str(found.value) if isinstance(found, Scalar) and not found.missing else None
