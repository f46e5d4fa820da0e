"""A Kubernetes of the tests' own, which the scripts in tests/e2e/cluster start and stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from tests.support.chart import ROOT, Json

SCRIPTS = ROOT / "tests" / "e2e" / "cluster"
HOME = Path(os.environ.get("EXTAUTHZ_CLUSTER", ROOT / ".cache" / "cluster")).absolute()
PROGRAMS, IMAGES, DEBIAN = HOME / "bin", HOME / "img", HOME / "debian"

START_SECONDS_MAX = 240.0
STOP_SECONDS_MAX = 120.0
COMMAND_SECONDS_MAX = 180.0
# The end of a message says what is wrong; its beginning may be a whole manifest.
WORDS_MAX = 4000


class ClusterError(Exception):
    """A command failed, or took too long: which one, and what it said."""


class Kind(StrEnum):
    """What the pods of a cluster are: made up by kwok and ready at once, or containers on this machine."""

    FAKE = "fake"
    REAL = "real"


class Cluster:
    """A cluster that is there while the `with` block runs; nothing of it is left afterwards."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        try:
            run(SCRIPTS / f"{self._kind}.sh", seconds=START_SECONDS_MAX)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads programs to this cluster, those of PROGRAMS first."""
        folder = HOME / self._kind
        return {
            "KUBECONFIG": f"{folder}/kubeconfig",
            "KUBECACHEDIR": f"{folder}/cache",
            "HELM_CACHE_HOME": f"{folder}/cache/helm",
            "HELM_CONFIG_HOME": f"{folder}/helm",
            "HELM_DATA_HOME": f"{folder}/helm",
            "CONTAINERD_ADDRESS": f"{folder}/containerd.sock",
            "CONTAINERD_NAMESPACE": "k8s.io",
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }

    @property
    def network(self) -> Path:
        """The kernel's network namespace of a cluster of real pods."""
        return HOME / self._kind / "network"

    def kubectl(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run kubectl to its end, and give what it printed. Raises ClusterError."""
        return self._run("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str | Path, values: Mapping[str, Json] | None = None) -> str:
        """Run Helm to its end, with values when there are, and give what it printed. Raises ClusterError."""
        named = () if values is None else ("--values", "-")
        return self._run("helm", *arguments, *named, stdin="" if values is None else yaml.safe_dump(dict(values)))

    def apply(self, text: str) -> None:
        """Make what is written in YAML, or change it. Raises ClusterError."""
        self.kubectl("apply", "--filename", "-", stdin=text)

    def _run(self, program: str, *arguments: str | Path, stdin: str) -> str:
        entered = (SCRIPTS / "inside.sh",) if self._kind is Kind.REAL else ()
        return run(*entered, PROGRAMS / program, *arguments, environment=self.environment, stdin=stdin)

    def _stop(self) -> None:
        run(SCRIPTS / "stop.sh", self._kind, seconds=STOP_SECONDS_MAX)


def run(
    *command: str | Path,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    seconds: float = COMMAND_SECONDS_MAX,
) -> str:
    """Run a program to its end, and give what it printed. Raises ClusterError."""
    named = " ".join(Path(part).name if isinstance(part, Path) else part for part in command)
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        raise ClusterError(f"{named} took longer than {seconds:g} s") from late
    if done.returncode:
        raise ClusterError(f"{named} ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-WORDS_MAX:]}")
    return done.stdout


def missing(kind: Kind) -> str:
    """Name what a cluster would need and is not there, in one line; nothing when it can be started."""
    if not sys.platform.startswith("linux"):
        return "Linux"
    wanted = [PROGRAMS / name for name in ("etcd", "helm", "kubectl", "kubernetes")]
    machine = ["openssl", "setsid"]
    match kind:
        case Kind.FAKE:
            wanted += [PROGRAMS / "kwok"]
        case Kind.REAL:
            wanted += [PROGRAMS / "coredns", IMAGES / "pause.oci.tar", DEBIAN / "containerd"]
            machine += ["nsenter", "unshare"]
    lacks = ["root"] if kind is Kind.REAL and os.geteuid() != 0 else []
    lacks += [name for name in machine if shutil.which(name) is None]
    if unbuilt := [path.name for path in wanted if not path.exists()]:
        lacks.append(f"what `tests/e2e/cluster/build.sh {kind}` builds, with Go ({', '.join(unbuilt)})")
    return ", ".join(lacks)
