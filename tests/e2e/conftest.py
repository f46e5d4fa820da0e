"""The clusters that the tests of this folder share. Each is started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.image.contents import BuildError
from deploy.image.debian import DebianError
from tests.e2e.images.build import build
from tests.support.cluster import IMAGES, Cluster, Kind, missing
from tests.support.custom_resources import definitions
from tests.support.real_house import Installed, installed
from tests.support.real_network import inside
from tests.support.real_pods import Namespace


@pytest.fixture(scope="session")
def fake_cluster() -> Iterator[Cluster]:
    """Start a cluster whose pods are ready without running, and which knows the kinds that operators bring."""
    if lacks := missing(Kind.FAKE):
        pytest.skip(f"no cluster with made-up nodes: needs {lacks}")
    with Cluster(Kind.FAKE) as cluster:
        cluster.apply(definitions())
        cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinition", "--all", "--timeout=60s")
        yield cluster


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[Cluster]:
    """Start a cluster whose pods are containers, with the images of this source."""
    if lacks := missing(Kind.REAL):
        pytest.skip(f"no cluster with real pods: needs {lacks}")
    try:
        build(IMAGES)
    except (BuildError, DebianError) as error:
        pytest.skip(f"no images for real pods: {error}")
    with Cluster(Kind.REAL) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def release(real_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """Install the chart and what belongs to it for the tests of a module, which are in the pods' network meanwhile."""
    name = request.path.stem.replace("_", "-")
    with inside(real_cluster.network), installed(Namespace(real_cluster, name)) as release:
        yield release
