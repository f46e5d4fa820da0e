"""A release in real pods, in a namespace that enforces restricted pod security: it serves, and follows its values."""

from __future__ import annotations

import re

import pytest

from extauthz.demo import story
from extauthz.demo.story import ALL_MODELS, ANSWERED, ANSWERED_FREE, FREE, PAID, SLOW
from extauthz.domain.money import NANOUSD_PER_USD
from tests.support.cluster import ClusterError
from tests.support.processes import eventually
from tests.support.real_house import RELEASE, Installed, configured, metrics
from tests.support.real_pods import Pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# The kubelet looks at ConfigMaps once a minute.
FOLLOW_SECONDS_MAX = 150.0
HUNG_UP = 1
# Tells of a container what it may do, and tries what it must not.
PROBE = """
import os
print(open("/proc/1/status").read())
print("token", os.path.exists("/var/run/secrets/kubernetes.io"))
try:
    open("/opt/new", "w")
except OSError as error:
    print(error.strerror)
"""
PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    "spec": {"containers": [{"name": "it", "image": "localhost/extauthz:e2e"}]},
}


def test_helm_test_passes(release: Installed) -> None:
    """`helm test` lets the release's own image make real Checks: one is refused, one is let through."""
    told = release.namespace.helm("test", RELEASE, "--logs")

    assert 2 == told.count("Phase:          Succeeded")
    assert 2 == told.count("as expected\n")


def test_pods_are_confined(release: Installed) -> None:
    """Replicas run as nobody, have no capability and no token, and write nowhere; other pods are not let in."""
    for pod in release.gates:
        told = release.namespace.kubectl("exec", pod, "--container", "extauthz", "--", "python", "-c", PROBE)
        status = dict(re.findall(r"^(\w+):\s+(.*)$", told, re.MULTILINE))

        assert {"65532"} == set(status["Uid"].split())
        assert {"65532"} == set(status["Gid"].split())
        assert 0 == int(status["CapEff"], 16) == int(status["CapBnd"], 16)
        assert ("1", "2") == (status["NoNewPrivs"], status["Seccomp"])
        assert "token False" in told
        assert "Read-only file system" in told
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        release.namespace.apply(PRIVILEGED)


async def test_the_story_of_the_demo(release: Installed) -> None:
    """Through the Envoy pod: paid, then exhausted, while the list is open and pruned, and the free model is served."""
    async with release.scene() as scene:
        students = scene.students
        assert ALL_MODELS == await students.list_models()
        assert ANSWERED == await scene.chat_paid()
        assert "streamed 40 words, 0 usage events" == await scene.stream_paid()
        assert story.AFTER_TWO == await scene.students_books()
        assert ANSWERED == await scene.chat_paid()
        assert story.AFTER_THREE == await scene.students_books()

        assert story.REFUSAL == await students.chat_body(PAID)
        assert FREE == await students.list_models()
        assert FREE == await students.retrieve(FREE)
        assert ANSWERED_FREE == await students.chat(FREE)

        assert "hung up after 4 words" == await scene.lab.hang_up(SLOW, 4)
    await release.balanced(HUNG_UP)


async def test_a_budget_is_raised_without_a_restart(release: Installed) -> None:
    """A budget that `helm upgrade` raises counts in every replica, and the pods are those that were there before."""
    before = release.gates
    async with release.visitor("broke") as broke:
        assert (await broke.chat_body(PAID)).startswith("429 ")
        release.upgrade(configured(broke=1.0))

        async def raised() -> bool:
            return {NANOUSD_PER_USD} == {await limit_of("team:broke", pod) for pod in before.values()}

        await eventually(raised, FOLLOW_SECONDS_MAX, "every replica knows of the raise")
        assert ANSWERED == await broke.chat(PAID)

    assert before == release.gates
    assert NANOUSD_PER_USD == release.accounts()["broke"].limit
    await release.balanced(HUNG_UP)


async def limit_of(scope: str, pod: Pod) -> int:
    """Give the limit of a budget, in nano-USD, as one replica knows it."""
    limits = (await metrics(pod)).amounts("extauthz_budget_limit_usd")
    return next(limit for labels, limit in limits.items() if scope in labels)
