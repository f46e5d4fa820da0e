"""Every file of ci/ on a real API server: it installs, changes, goes back, and leaves nothing behind.

Its namespaces enforce restricted pod security. Nodes are made up, so that pods are ready without running.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CI, Json, render
from tests.support.cluster import Cluster
from tests.support.foreign import expected, namespaces
from tests.support.installed import Release, everything, lacking, misfits
from tests.support.processes import eventually

# Autoscalers look every 15 seconds.
FIT_SECONDS_MAX = 60.0
GONE_SECONDS_MAX = 60.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(params=CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def values(request: pytest.FixtureRequest) -> Json:
    """Read one file of ci/ after the other."""
    path: Path = request.param
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def release(fake_cluster: Cluster, values: Json, request: pytest.FixtureRequest) -> Release:
    """Make the namespaces of a release, and in them what its values expect to find."""
    name = request.node.callspec.id
    rendered = render(values, release=name, namespace=f"of-{name}").objects
    places = {each["metadata"].get("namespace", f"of-{name}") for each in rendered}
    (home,) = {each["metadata"]["namespace"] for each in rendered if each["kind"] == "Deployment"}
    objects = [*namespaces({f"of-{name}", *places}), *expected(values, home, rendered)]
    fake_cluster.apply(yaml.safe_dump_all(objects))
    return Release(fake_cluster, name, f"of-{name}")


async def test_it_comes_changes_and_goes(release: Release, values: Json) -> None:
    """A release is installed, upgraded, rolled back and uninstalled.

    Each time the API server has what Helm sent, and at the end what it had before.
    """
    cluster, before = release.cluster, everything(release.cluster)

    release.install(values)
    first = release.manifest()
    assert "" == release.diff()
    assert [] == lacking(release)
    await at_last_none(lambda: misfits(release), FIT_SECONDS_MAX)

    release.upgrade({**values, "podAnnotations": {"e2e": "second"}})
    assert "" == release.diff()
    assert first != release.manifest()

    release.roll_back()
    assert "" == release.diff()
    assert first == release.manifest()

    release.uninstall()
    await at_last_none(lambda: everything(cluster) - before, GONE_SECONDS_MAX)


async def at_last_none(find: Callable[[], Collection[str]], seconds: float) -> None:
    """Wait until there is nothing to be found, and fail with what there is."""
    with suppress(AssertionError):
        await eventually(lambda: not find(), seconds)
    assert [] == sorted(find())
