"""kube-score's opinion of every file of ci/, but for what is so on purpose."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.chart import CHART, CI, NAMESPACE, RELEASE, ROOT, helm, needs_helm

pytestmark = needs_helm

KUBE_SCORE = ROOT / ".cache/kube-score/kube-score"

# What is so on purpose, and why.
EXCEPTIONS = {
    "container-image-pull-policy": "images are pinned by version or digest, and nodes may have them",
    "container-security-context-user-group-id": "OpenShift chooses ids where they are left out",
    "deployment-has-host-podantiaffinity": "spread constraints do this, and softly",
    "deployment-replicas": "one replica is a trial",
    "deployment-strategy": "the Redis for trials has books that two cannot share",
    "pod-networkpolicy": "the pod of `helm test` lives for seconds, and policies can be left to others",
    "pod-probes-identical": "the Redis for trials is alive when it is ready",
    "service-type": "a NodePort is asked for",
}


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_nothing_else_is_to_be_said(path: Path) -> None:
    """No object is critical or worth a warning, but for the exceptions."""
    if not KUBE_SCORE.exists():
        pytest.skip("needs kube-score: `make .cache/kube-score/kube-score` builds it")
    rendered = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", path)
    ignored = [part for name in EXCEPTIONS for part in ("--ignore-test", name)]

    done = subprocess.run(
        # A CPU limit would delay every request behind a throttled gate.
        [KUBE_SCORE, "score", "--output-format", "ci", "--ignore-container-cpu-limit", *ignored, "-"],
        input=rendered,
        capture_output=True,
        text=True,
        check=False,
    )

    complaints = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    assert [] == complaints
    assert "[OK]" in done.stdout, done.stderr
