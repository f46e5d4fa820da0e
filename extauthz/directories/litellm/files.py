"""An inventory as our configuration file: one payer a line, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import yaml

from extauthz.config.litellm import OWN_SECTION
from extauthz.config.source import number
from extauthz.directories.litellm.inventory import Inventory
from extauthz.directories.litellm.values import Written
from extauthz.domain.budgets import Scope, ScopeKind

# The mappings of the file, each by the kind of payer that it has.
MAPPINGS: Mapping[str, ScopeKind] = {
    "organizations": ScopeKind.ORGANIZATION,
    "teams": ScopeKind.TEAM,
    "users": ScopeKind.USER,
    "projects": ScopeKind.PROJECT,
    "tags": ScopeKind.TAG,
    "end_users": ScopeKind.END_USER,
}
# The fields by which one payer names another, and the mapping that has that one.
_NAMING = {"organization": "organizations", "team": "teams", "user": "users", "project": "projects"}

# Behind more of them YAML looks for no colon: such a name has escapes for letters.
NAME_CHARS_MAX = 1000

_HEAD = """\
# Written by `extauthz import litellm` from LiteLLM's database. Keys are here as their SHA-256 alone.
# With `litellm_file: config.yaml` in the section, LiteLLM's own file says which models there are.
"""


class _Dumper(yaml.SafeDumper):
    """Writes amounts as plain digits, and repeats what is there twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML passes it
        """Say that nothing is to be an anchor."""
        return True

    def amount(self, value: Decimal) -> yaml.ScalarNode:
        """Write an amount."""
        digits = f"{value:f}".rstrip("0").rstrip(".") if value % 1 else f"{int(value)}"
        return self.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in digits else 'int'}", digits)

    def text(self, value: str) -> yaml.ScalarNode:
        """Write a text in one line, whatever is in it, and none so that it is read as a number: we read 1e3 as one."""
        plain = value.isprintable() and number(value) is None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    def moment(self, value: datetime) -> yaml.ScalarNode:
        """Write a moment as a text."""
        return self.text(value.isoformat())


_Dumper.add_representer(Decimal, _Dumper.amount)
_Dumper.add_representer(datetime, _Dumper.moment)
_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(tuple, _Dumper.represent_list)


def to_yaml(inventory: Inventory) -> str:
    """Write an inventory. Who is named and not in the database is written without limits: LiteLLM sets none either."""
    return _HEAD + "\n".join([f"{OWN_SECTION}:", *_lines(inventory), ""])


def absent(inventory: Inventory) -> Mapping[str, frozenset[str]]:
    """Find who is named by others and is not there, by the mappings that they belong to."""
    named: dict[str, set[str]] = {mapping: set() for mapping in MAPPINGS}
    for records in inventory.payers.values():
        for scope, record in records.items():
            for field, mapping in _NAMING.items():
                if field in record:
                    named[mapping].add(str(record[field]))
            named["tags"].update(map(str, _listed(record.get("tags"))))
            if scope.kind is ScopeKind.MEMBER:
                named["users"].add(scope.ids[1])
    return {
        mapping: frozenset(names - {scope.ids[0] for scope in inventory.payers.get(MAPPINGS[mapping], {})})
        for mapping, names in named.items()
    }


def _lines(inventory: Inventory) -> Iterator[str]:
    missing = absent(inventory)
    members = _members(inventory)
    for mapping, kind in MAPPINGS.items():
        payers = {scope.ids[0]: record for scope, record in inventory.payers.get(kind, {}).items()}
        payers |= {name: {} for name in missing[mapping]}
        if payers:
            yield f"  {mapping}:"
        for name, record in sorted(payers.items()):
            inside: Written = {"members": members[name]} if kind is ScopeKind.TEAM and name in members else {}
            # PyYAML would write a long name in a way of its own, that needs more lines.
            written = _inline([name])[1:-1]
            head = written if len(written) <= NAME_CHARS_MAX else f"? {written}\n    "
            yield f"    {head}: {_inline({**record, **inside})}"
    keys = inventory.payers.get(ScopeKind.KEY, {})
    if keys:
        yield "  keys:"
    for _, record in sorted(keys.items(), key=lambda item: item[0].text):
        yield f"    - {_inline(record)}"


def _members(inventory: Inventory) -> Mapping[str, Written]:
    """Give the members of teams that something is said of."""
    found: dict[str, Written] = {}
    members: Mapping[Scope, Written] = inventory.payers.get(ScopeKind.MEMBER, {})
    for scope, record in sorted(members.items(), key=lambda item: item[0].ids):
        if record:
            team, user = scope.ids
            found.setdefault(team, {})[user] = record
    return found


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _inline(value: object) -> str:
    """Write a value in one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.rstrip("\n")
