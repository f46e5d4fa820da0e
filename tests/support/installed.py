"""What of a release an API server has, and whether it fits together there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from tests.support.chart import CHART, Json
from tests.support.cluster import Cluster

WAIT = ("--wait", "--timeout=90s")
# What comes and goes by itself.
RESTLESS = ("events", "leases", "componentstatuses")
# A file that is mounted: its volume, and its key there.
_FILE = re.compile(r"/etc/extauthz/([a-z-]+)/([A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class Release:
    """A release in a namespace of its own."""

    cluster: Cluster
    name: str
    namespace: str

    @property
    def _where(self) -> tuple[str, ...]:
        return self.name, "--namespace", self.namespace

    def helm(self, command: str, *arguments: str, values: Json = None) -> str:
        """Let Helm do something with the release."""
        return self.cluster.helm(command, *self._where, *arguments, values=values)

    def install(self, values: Json) -> None:
        """Install the chart, and wait until all of it is ready."""
        self.helm("install", str(CHART), *WAIT, values=values)

    def upgrade(self, values: Json) -> None:
        """Upgrade to other values, and wait until all is ready."""
        self.helm("upgrade", str(CHART), *WAIT, values=values)

    def roll_back(self) -> None:
        """Go back to how it was installed, and wait until all is ready."""
        self.helm("rollback", "1", *WAIT)

    def uninstall(self) -> None:
        """Take it away."""
        self.helm("uninstall", *WAIT)

    def manifest(self) -> list[Json]:
        """Give what Helm says that it sent, each with its namespace."""
        return self._told("manifest")

    def hooks(self) -> list[Json]:
        """Give what Helm would send for its tests."""
        return self._told("hooks")

    def live(self) -> list[Json]:
        """Give what the API server has of it."""
        return _objects(self.cluster, "get", "--filename", "-", stdin=yaml.safe_dump_all(self.manifest()))

    def diff(self) -> str:
        """Give how what the API server has differs from what Helm sent. Raises ClusterError when it does."""
        return self.cluster.kubectl("diff", "--filename", "-", stdin=yaml.safe_dump_all(self.manifest()))

    def _told(self, what: str) -> list[Json]:
        objects = [each for each in yaml.safe_load_all(self.cluster.helm("get", what, *self._where)) if each]
        for each in objects:
            each["metadata"].setdefault("namespace", self.namespace)
        return objects


def everything(cluster: Cluster) -> frozenset[str]:
    """Name every object that there is, of any kind."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    wanted = [kind for kind in kinds if kind.partition(".")[0] not in RESTLESS]
    columns = "--output=custom-columns=:.apiVersion,:.kind,:.metadata.namespace,:.metadata.name"
    listed = cluster.kubectl("get", ",".join(wanted), "--all-namespaces", columns, "--no-headers")
    return frozenset(" ".join(line.split()) for line in listed.splitlines())


def misfits(release: Release) -> list[str]:
    """Name what does not find what it is for: Services and disruption budgets their pods, autoscalers their target."""
    return [_named(each) for each in release.live() if not _fits(release.cluster, each)]


def lacking(release: Release) -> list[str]:
    """Name what pods take from Secrets and ConfigMaps and what is not there: they would never start."""
    listed = _objects(release.cluster, "get", "secrets,configmaps", "--all-namespaces")
    stored = {(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]): each for each in listed}
    found = []
    for owner in [*release.manifest(), *release.hooks()]:
        namespace = owner["metadata"]["namespace"]
        for kind, name, key in _taken(_pod(owner), stored, namespace):
            entry = stored.get((kind, namespace, name))
            if entry is None or (key and key not in entry.get("data", {})):
                found.append(f"{kind} {name} {key}".strip())
    return found


def _fits(cluster: Cluster, entry: Json) -> bool:
    match entry:
        case {"kind": "Service", "spec": {"ports": ports}}:
            slices = _slices(cluster, entry)
            return bool(slices) and all(_leads(each, ports) for each in slices)
        case {"kind": "PodDisruptionBudget", "status": {"currentHealthy": healthy, "expectedPods": pods}}:
            return bool(0 < pods == healthy)
        case {"kind": "HorizontalPodAutoscaler", "status": {"currentReplicas": replicas}, "spec": spec}:
            return bool(replicas >= spec["minReplicas"])
        case {"kind": "PodDisruptionBudget" | "HorizontalPodAutoscaler"}:
            return False
        case _:
            return True


def _leads(found: Json, ports: list[Json]) -> bool:
    """Tell whether endpoints are ready pods at the ports of their Service."""
    wanted = {(port["name"], port["port"]) for port in ports}
    ready = [each for each in found["endpoints"] or () if each["conditions"]["ready"]]
    return bool(ready) and wanted == {(port["name"], port["port"]) for port in found["ports"] or ()}


def _named(entry: Json) -> str:
    return f"{entry['kind']} {entry['metadata']['name']}"


def _pod(owner: Json) -> Json:
    match owner["kind"]:
        case "Deployment":
            return owner["spec"]["template"]["spec"]
        case "Pod":
            return owner["spec"]
        case _:
            return {}


def _taken(pod: Json, stored: Mapping[tuple[str, str, str], Json], namespace: str) -> Iterator[tuple[str, str, str]]:
    """Walk to each entry that a pod takes, as (kind, name, key); the key is empty where all are taken.

    They are variables, and files that its arguments, its variables and its configuration name.
    """
    text = yaml.safe_dump(pod, width=sys.maxsize)
    sources = {volume["name"]: source for volume in pod.get("volumes", ()) if (source := _source(volume))}
    for kind, name in sources.values():
        if kind == "ConfigMap":
            text += "\n".join(stored.get((kind, namespace, name), {}).get("data", {}).values())
    for volume, key in _FILE.findall(text):
        yield (*sources[volume], key)
    for container in pod.get("containers", ()):
        for each in container.get("env", ()):
            match each.get("valueFrom"):
                case {"secretKeyRef": {"name": name, "key": key}}:
                    yield "Secret", name, key
        for each in container.get("envFrom", ()):
            yield "Secret", each["secretRef"]["name"], ""


def _source(volume: Json) -> tuple[str, str] | None:
    match volume:
        case {"secret": {"secretName": name}}:
            return "Secret", name
        case {"configMap": {"name": name}}:
            return "ConfigMap", name
        case _:
            return None


def _slices(cluster: Cluster, service: Json) -> list[Json]:
    metadata = service["metadata"]
    selector = f"kubernetes.io/service-name={metadata['name']}"
    return _objects(cluster, "get", "endpointslices", "--namespace", metadata["namespace"], "--selector", selector)


def _objects(cluster: Cluster, *arguments: str, stdin: str = "") -> list[Json]:
    found = json.loads(cluster.kubectl(*arguments, "--output=json", stdin=stdin))
    return found["items"] if found["kind"] == "List" else [found]
