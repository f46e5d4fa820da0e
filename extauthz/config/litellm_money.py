"""LiteLLM's settings of who pays and how much that have no meaning here: each is told by itself, never in a list.

They are found wherever they stand, so that a budget of a deployment or of a team is not missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from extauthz.config.litellm import KNOWN_KEYS, MODEL_LIST, OWN_SECTION
from extauthz.config.litellm_margins import MARGINS
from extauthz.config.source import Entries, Items, Node

# More of them are counted and not told.
TOLD_MAX = 20

_KEYS = "it counts where LiteLLM makes keys; here write extauthz.keys, or extauthz.directory: litellm"
_USERS = "it counts where LiteLLM makes users; here write extauthz.users, or extauthz.directory: litellm"
_TEAMS = "it counts where LiteLLM makes teams; here write extauthz.teams, or extauthz.directory: litellm"
_MEMBERS = "it limits nobody here; write members of a team in extauthz.teams"
_END_USERS = "it limits nobody here; write extauthz.end_users, where `default` is for those not listed"
_END_USER_BUDGET = "it counts only with extauthz.directory: litellm; else write extauthz.end_users.default"
_PAYERS = "it limits nobody here; write the budget of who pays in extauthz"
_REFUSES = "an exhausted budget refuses here, and does nothing else"
_NO_PRICE = "by this price nothing is booked here"

# Names by which LiteLLM limits, prices, or tells who pays, with what is to be done about them.
MONEY: Mapping[str, str] = {
    "budget_duration": _PAYERS,
    "budget_exceeded_status_code": "it is not read; write extauthz.budget_exceeded_status",
    "budget_exceeded_throttle_percentage": _REFUSES,
    "budget_fallbacks": _REFUSES,
    "budget_id": _PAYERS,
    "budget_limits": _PAYERS,
    "cost_discount_config": "nothing is taken off here; write the lower prices in model_list",
    "cost_per_request": "such a request is booked by its usage here, or by its estimate",
    "custom_auth": "LiteLLM's own function is not asked here; write extauthz.keys, jwt, mtls or trusted_headers",
    "default_key_generate_params": _KEYS,
    "default_max_internal_user_budget": _USERS,
    "default_soft_budget": "nobody is told at this amount; write soft_budget beside max_budget, and extauthz.alerts",
    "default_team_params": _TEAMS,
    "disable_reset_budget": "budgets reset here all the same; write them without budget_duration",
    "enable_jwt_auth": "LiteLLM's rules for tokens are not read; write extauthz.jwt",
    "enable_oauth2_auth": "nobody is asked about tokens here; write extauthz.jwt",
    "fail_closed_budget_enforcement": "it is not read; extauthz.store_failure says it, and denies by itself",
    "fixed_amount": "it is not booked; write input_cost_per_request in model_list",
    "internal_user_budget_duration": _USERS,
    "litellm_key_header_name": "no key is looked for in this header; send it in authorization or x-api-key",
    "max_budget": _PAYERS,
    "max_budget_in_team": _MEMBERS,
    "max_budget_per_session": "sessions have no budget here; write the budget of who pays in extauthz",
    "max_end_user_budget": _END_USERS,
    "max_end_user_budget_id": _END_USER_BUDGET,
    "max_internal_user_budget": _USERS,
    "max_user_budget": _USERS,
    "mcp_server_cost_info": _NO_PRICE,
    "model_max_budget": _PAYERS,
    "provider_budget_config": "it limits no provider here; write it in router_settings",
    "soft_budget": _PAYERS,
    "tag_budget_config": "it limits no tag here; write extauthz.tags",
    "team_member_budget": _MEMBERS,
    "throttle_on_budget_exceeded": _REFUSES,
    "upperbound_key_generate_params": _KEYS,
}

# Any other price that does not stand with a model.
PRICE_MARK = "cost_per_"

# The end of a configuration in force, where prices are written for people.
PRICES = "prices"

# Where some of what stands below a name that is read is not.
PARTLY_READ = frozenset({MARGINS, "pass_through_endpoints"})


def told(root: Entries) -> tuple[str, ...]:
    """Tell, in a sentence each, of the settings of a file that say elsewhere alone who pays, or how much."""
    sentences = [f"{path}: {sentence}" for path, sentence in dict(_found(root)).items()]
    more = len(sentences) - TOLD_MAX
    if more > 0:
        return (*sentences[:TOLD_MAX], f"{more} more settings of budgets and prices mean nothing here")
    return tuple(sentences)


def is_told(path: str) -> bool:
    """Tell whether a setting, by its path, is one that is told by itself."""
    return path.rpartition(".")[2] in MONEY


def _found(root: Entries) -> Iterator[tuple[str, str]]:
    """Give the path of every such setting, with its sentence. Places of a list share one path."""
    for section, entry in root.entries.items():
        if section in MONEY:
            yield section, MONEY[section]
        elif section not in {OWN_SECTION, PRICES}:
            yield from _below(entry.node, section, KNOWN_KEYS.get(section, frozenset()) - PARTLY_READ)


def _below(node: Node, path: str, read: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    match node:
        case Items(items=items):
            for item in items:
                yield from _below(item, f"{path}[]")
        case Entries(entries=entries):
            for name, entry in entries.items():
                if name in MONEY and name not in read:
                    yield f"{path}.{name}", MONEY[name]
                elif PRICE_MARK in name and not path.startswith(f"{MODEL_LIST}["):
                    yield f"{path}.{name}", _NO_PRICE
                elif name not in read:
                    yield from _below(entry.node, f"{path}.{name}")
