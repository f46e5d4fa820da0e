"""LiteLLM's access groups of models: names that stand in lists of allowed models for all models of the group."""

from __future__ import annotations

from collections.abc import Mapping

from extauthz.config.litellm import MODEL_LIST
from extauthz.config.source import Entries, Items, Scalar, child

MODEL_NAME, MODEL_INFO, ACCESS_GROUPS = "model_name", "model_info", "access_groups"


def access_groups(root: Entries) -> Mapping[str, tuple[str, ...]]:
    """Give the models of each group that `model_list` names, in its order."""
    groups: dict[str, dict[str, None]] = {}
    models = child(root, MODEL_LIST)
    for item in models.items if isinstance(models, Items) else ():
        name, info = child(item, MODEL_NAME), child(item, MODEL_INFO)
        named = child(info, ACCESS_GROUPS) if isinstance(info, Entries) else None
        if isinstance(name, Scalar) and isinstance(named, Items):
            for group in named.items:
                if isinstance(group, Scalar) and not group.missing and not name.missing:
                    groups.setdefault(str(group.value), {})[str(name.value)] = None
    return {group: tuple(names) for group, names in groups.items()}
