"""A namespace of a cluster with real pods: what is in it, and the commands that change that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.chart import Json
from tests.support.cluster import DEBIAN, SCRIPTS, Cluster, run

# The gate's pods and no others.
GATES = "app.kubernetes.io/component=gate"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its address, how often its containers were started again, and their ids by name."""

    name: str
    ip: str
    restarts: int
    containers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace of a cluster. A command that fails raises ClusterError."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run kubectl in this namespace."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin)

    def helm(self, *arguments: str | Path, values: Mapping[str, Json] | None = None) -> str:
        """Run Helm in this namespace, with values when there are."""
        return self.cluster.helm("--namespace", self.name, *arguments, values=values)

    def apply(self, *objects: Json) -> None:
        """Make objects, or change them."""
        self.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(objects))

    def pods(self, selector: str, *, leaving: bool = False) -> dict[str, Pod]:
        """Give the pods by name; those that are about to end only with `leaving`."""
        listed = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
        found = [_pod(entry) for entry in listed if leaving or "deletionTimestamp" not in entry["metadata"]]
        return {pod.name: pod for pod in found}

    def address(self, service: str) -> str:
        """Give the address of a Service."""
        return self.kubectl("get", "service", service, "--output", "jsonpath={.spec.clusterIP}")

    def kill(self, container: str) -> None:
        """Kill a container as the kernel would, behind Kubernetes' back."""
        words = (DEBIAN / "ctr", "tasks", "kill", "--signal", "SIGKILL", container)
        run(SCRIPTS / "inside.sh", *words, environment=self.cluster.environment)


def _pod(entry: Json) -> Pod:
    statuses = entry["status"].get("containerStatuses", [])
    return Pod(
        name=entry["metadata"]["name"],
        ip=entry["status"].get("podIP", ""),
        restarts=sum(status["restartCount"] for status in statuses),
        containers={status["name"]: status.get("containerID", "").rpartition("/")[2] for status in statuses},
    )
