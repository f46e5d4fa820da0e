"""What values of the chart expect to be in the cluster already: namespaces, and Secrets and ConfigMaps of other people.

They are read from the values alone, so that a template that asks for another name, or another key, finds nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import yaml

from tests.support.chart import CHART, Json

# Enforced in each namespace; what breaks it is refused by the API server.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# What cert-manager calls the entries of its Secrets.
CERTIFICATE_KEYS = ("ca.crt", "tls.crt", "tls.key")


def namespaces(names: Iterable[str]) -> list[Json]:
    """Make namespaces that enforce restricted pod security."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        for name in sorted(names)
    ]


def expected(values: Mapping[str, Json], namespace: str, made: Iterable[Json]) -> list[Json]:
    """Make the Secrets and ConfigMaps that values name in a namespace, but for those that the release makes itself."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    own = {(each["kind"], each["metadata"]["name"]) for each in made}
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind, name, key in _named(_merged(defaults, values)):
        keys[kind, name].add(key)
    return [
        {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "stringData" if kind == "Secret" else "data": dict.fromkeys(sorted(entries), "not read here"),
        }
        for (kind, name), entries in keys.items()
        if (kind, name) not in own
    ]


def _merged(defaults: Mapping[str, Json], values: Mapping[str, Json]) -> Mapping[str, Json]:
    """Put values over the chart's own, as Helm does."""
    own = {
        name: _merged(defaults[name], value)
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else value
        for name, value in values.items()
    }
    return {**defaults, **own}


def _named(values: Mapping[str, Json]) -> Iterator[tuple[str, str, str]]:
    """Walk to each `existing…` and give it with the keys that stand beside it."""
    beside = [text for name, text in values.items() if text and (name == "key" or name.endswith("Key"))]
    for name, value in values.items():
        match name, value:
            case ("existingSecret" | "existingConfigMap", str()) if value:
                yield from ((name.removeprefix("existing"), value, key) for key in beside)
            case "clientSecret", str() if value:
                yield from (("Secret", value, key) for key in CERTIFICATE_KEYS)
            case _, dict():
                yield from _named(value)
