"""From the section `extauthz:` to the accounts that the directory is made of.

References are checked on the tree and not on the validated section, so that one mistyped budget does not hide the
unknown team three lines below.
"""

from __future__ import annotations

from collections.abc import Mapping

from extauthz.config.source import Entries, Mistakes, Node, Scalar, child

DEFAULT_END_USER = "default"

# The field that names a payer, and the mapping that has it.
REFERENCES: Mapping[str, str] = {"organization": "organizations", "team": "teams", "user": "users"}


def check_references(section: Node, mistakes: Mistakes) -> None:
    """Note every team, user and organization that is named and not there. Values of variables are not shown."""
    known = {plural: _ids(section, plural) for plural in REFERENCES.values()}
    for payer, path in _payers(section):
        for field, plural in REFERENCES.items():
            named = child(payer, field)
            if isinstance(named, Scalar) and not named.missing and str(named.value) not in known[plural]:
                shown = f"`{named.value}`" if named.variable is None else f"the value of {named.variable}"
                _unknown(mistakes, named.line, (*path, field), plural, shown, str(named.value), known[plural])
    for team, node in _entries(section, "teams"):
        members = child(node, "members")
        if isinstance(members, Entries):
            for user, entry in members.entries.items():
                if user not in known["users"]:
                    path = ("teams", team, "members")
                    _unknown(mistakes, entry.line, path, "users", f"`{user}`", user, known["users"])
