"""Objects of Istio, Envoy Gateway and the Gateway API, decoded strictly by the program in tests/support/meshcheck."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest
import yaml

from tests.support.chart import ROOT, Json

MESHCHECK = ROOT / ".cache" / "meshcheck" / "meshcheck"
CHECK_SECONDS_MAX = 60.0

needs_meshcheck = pytest.mark.skipif(not MESHCHECK.exists(), reason="no meshcheck: see tests/support/get-meshcheck.sh")


def mistakes(objects: Iterable[Json]) -> str:
    """Say what is wrong with the objects, nothing when nothing is."""
    result = subprocess.run(
        [MESHCHECK],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS_MAX,
        check=False,
    )
    return result.stdout + result.stderr if result.returncode else ""
