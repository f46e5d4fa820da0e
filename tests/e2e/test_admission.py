"""What the API server itself says to what the chart renders, without making any of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.chart import CI, REDIS, Json, render
from tests.support.cluster import Cluster, ClusterError
from tests.support.foreign import namespaces

HOME = "admitted"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def admit(cluster: Cluster, objects: list[Json]) -> str:
    """Let the API server judge objects, down to the names of their fields. Raises ClusterError when it refuses one.

    Namespaces are made, and for the while the accounts that pods must have before they come.
    """
    places = {each["metadata"].setdefault("namespace", HOME) for each in objects}
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    cluster.apply(yaml.safe_dump_all([*namespaces(places), *accounts]))
    try:
        return cluster.kubectl(
            *("apply", "--dry-run=server", "--validate=strict", "--filename", "-"), stdin=yaml.safe_dump_all(objects)
        )
    finally:
        # A release that has one of the same name would not install.
        gone = yaml.safe_dump_all(accounts)
        cluster.kubectl("delete", "--ignore-not-found", "--filename", "-", stdin=gone)


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_the_api_server_takes_it(fake_cluster: Cluster, path: Path) -> None:
    """Each object is admitted, those of `helm test` included, and nothing is worth a warning."""
    objects = list(render(files=[path], namespace=HOME).objects)

    told = admit(fake_cluster, objects)

    assert len(objects) == len([line for line in told.splitlines() if line.endswith("(server dry run)")])


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        ("Deployment", {"minReadySecond": 1}, 'unknown field "spec.minReadySecond"'),
        ("Service", {"ports": [{"port": 70000}]}, "must be between 1 and 65535"),
        ("PodDisruptionBudget", {"minAvailable": 1}, "minAvailable and maxUnavailable cannot be both set"),
        ("NetworkPolicy", {"policyType": ["Ingress"]}, 'unknown field "spec.policyType"'),
    ],
)
def test_it_refuses_mistakes(fake_cluster: Cluster, kind: str, wrong: Json, words: str) -> None:
    """A misspelt field, and a value that cannot be, are refused by name: so what is admitted has none."""
    (entry, *_) = render(REDIS, namespace=HOME).of(kind)
    entry["spec"] |= wrong

    with pytest.raises(ClusterError, match=words):
        admit(fake_cluster, [entry])


def test_it_refuses_pods_that_are_not_restricted(fake_cluster: Cluster) -> None:
    """The namespaces of these tests enforce restricted pod security: the chart's own pods are let in, lax ones not."""
    rendered = render(REDIS, namespace=HOME)
    objects = [*rendered.of("ServiceAccount"), *rendered.of("Pod")]
    assert "pod/" in admit(fake_cluster, objects)

    objects[-1]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        admit(fake_cluster, objects)
