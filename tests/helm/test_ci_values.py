"""Every file of ci/: what the chart makes of it is valid Kubernetes, fits together, and its configuration is one.

Together the files use every value that there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import kubernetes_validate
import pytest
import yaml

from extauthz.config.load import load
from extauthz.server import SERVICES
from tests.support.chart import CHART, CI, Json, Rendered, helm, needs_helm, render

pytestmark = needs_helm

# The oldest Kubernetes that Chart.yaml allows, and the newest that is there to be judged by.
KUBERNETES = ("1.30", "1.37")
NAME_CHARACTERS_MAX = 63

# What stands in a Secret or ConfigMap that is not the chart's: enough of it for the program to read.
FOREIGN_FILES = {
    "litellm": "model_list: []\n",
    "keys": "[]\n",
}
SECRETS = {"EXTAUTHZ_STORE": "redis://redis:6379"}

# Whether this chart is wanted as a part of another one: Helm looks at it, no template does.
OF_PARENT_CHARTS = {"enabled"}


@pytest.fixture(scope="module", params=CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def chart(request: pytest.FixtureRequest) -> Rendered:
    """Render the chart with one file of ci/ after the other."""
    return render(files=[request.param])


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_helm_finds_nothing_to_say(path: Path) -> None:
    """`helm lint --strict` takes the values."""
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", path)


def test_kubernetes_knows_every_field(chart: Rendered) -> None:
    """Each object of Kubernetes' own is valid in its oldest and newest version, with no field that they do not know."""
    native = [each for each in chart.objects if not _of_an_operator(each)]

    assert native
    for each in native:
        for version in KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


def test_names_are_names(chart: Rendered) -> None:
    """No two objects are of one kind, name and namespace, and every name fits into a label."""
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in chart.objects]

    assert len(names) == len(set(names))
    assert not [name for _, _, name in names if len(name) > NAME_CHARACTERS_MAX]


def test_services_lead_to_ports_of_the_pods(chart: Rendered) -> None:
    """Each port of a Service is, by its name, a port of the pods that the Service selects, at its own number."""
    pods = [each["spec"]["template"] for each in chart.of("Deployment")]
    services = chart.of("Service")

    assert services
    for service in services:
        (pod,) = (each for each in pods if service["spec"]["selector"].items() <= each["metadata"]["labels"].items())
        ports = {
            port["name"]: port["containerPort"] for each in pod["spec"]["containers"] for port in each.get("ports", ())
        }
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_the_admin_port_is_in_no_service(chart: Rendered) -> None:
    """The operators' port is open on the pod's loopback alone."""
    assert "127.0.0.1:9192" == chart.config["extauthz"]["listen"]["admin"]
    assert 9192 not in [port["port"] for service in chart.of("Service") for port in service["spec"]["ports"]]


def test_selectors_find_the_pods(chart: Rendered) -> None:
    """What selects the gate's pods does so: Deployment, Services, disruption budget, policy, monitors, spread."""
    labels = chart.pod["metadata"]["labels"].items()
    spec = chart.pod["spec"]
    selectors = [
        chart.deployment["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"]["matchLabels"] for each in chart.of("PodDisruptionBudget")),
        *(each["spec"]["selector"]["matchLabels"] for each in chart.of("PodMonitor")),
        *(each["spec"]["podSelector"]["matchLabels"] for each in chart.of("NetworkPolicy") if not _of_redis(each)),
        *(each["labelSelector"]["matchLabels"] for each in spec.get("topologySpreadConstraints", ())),
    ]

    assert all(selector.items() <= labels for selector in selectors)


def test_the_test_is_none_of_the_gates(chart: Rendered) -> None:
    """No Service sends requests to the pod of `helm test`, and no disruption budget counts it."""
    selector = chart.deployment["spec"]["selector"]["matchLabels"].items()

    assert not [each for each in chart.of("Pod") if selector <= each["metadata"]["labels"].items()]


def test_pods_may_run_where_security_is_restricted(chart: Rendered) -> None:
    """Every container is what Kubernetes' Pod Security Standard `restricted` wants, and no pod has a token."""
    pods = [each["spec"]["template"]["spec"] for each in chart.of("Deployment")]
    for pod in [*pods, *(each["spec"] for each in chart.of("Pod"))]:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert {"drop": ["ALL"]} == context["capabilities"]


def test_probes_ask_for_what_is_served(chart: Rendered) -> None:
    """A gRPC probe names a service of the server, or none, at the server's port; an HTTP probe asks on the other."""
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        match chart.container[name]:
            case {"grpc": {"port": port, **service}}:
                assert 9191 == port
                assert service.get("service", "") in ("", *SERVICES)
            case {"httpGet": {"port": port, "path": path}}:
                assert "tls" in chart.config["extauthz"]
                assert "http" == port
                assert path == ("/readyz" if name == "readinessProbe" else "/healthz")
            case other:
                pytest.fail(str(other))


def test_the_pod_outlives_its_drain(chart: Rendered) -> None:
    """The pod is given the sleep before its end, the drain, and 15 seconds."""
    sleep = chart.container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    drain = chart.config["extauthz"].get("drain_seconds", 25)

    assert chart.pod["spec"]["terminationGracePeriodSeconds"] >= sleep + drain + 15


def test_the_program_takes_its_configuration(chart: Rendered, tmp_path: Path) -> None:
    """The program loads the file as the pod would see it: with the files that are mounted, and the environment."""
    mounts = {each["name"]: each["mountPath"] for each in chart.container["volumeMounts"]}
    for name, text in FOREIGN_FILES.items():
        (tmp_path / name).mkdir()
        for key in _keys(chart, mounts.get(name)):
            (tmp_path / name / key).write_text(text, encoding="utf-8")
    (tmp_path / "config").mkdir()
    path = tmp_path / "config/config.yaml"
    text = yaml.safe_dump(chart.config).replace("/etc/extauthz/", f"{tmp_path}/")
    path.write_text(text, encoding="utf-8")

    settings = load(path, _environment(chart)).settings

    assert "0.0.0.0:9191" == str(settings.listen.grpc)
    assert "0.0.0.0:9193" == str(settings.listen.http)
    assert (settings.store is None) == ("EXTAUTHZ_STORE" not in chart.env)


def test_everything_that_the_configuration_names_is_mounted(chart: Rendered) -> None:
    """Each path below /etc/extauthz is below a mount, as a directory, and each mount has its volume."""
    volumes = {each["name"] for each in chart.pod["spec"]["volumes"]}
    mounts = {each["mountPath"]: each for each in chart.container["volumeMounts"]}
    store = chart.env.get("EXTAUTHZ_STORE", {}).get("value", "")
    named = [word for word in [*_texts(chart.config), *store.replace("&", "=").split("=")] if word.startswith("/etc/")]

    assert all(str(PurePosixPath(path).parent) in mounts for path in named)
    assert {each["name"] for each in mounts.values()} <= volumes
    assert not [each for each in mounts.values() if "subPath" in each]
    assert "/etc/extauthz/config" in mounts


def test_every_value_is_used() -> None:
    """Each value of values.yaml is another than its default in some file of ci/."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    used = {path for file in CI for path in _changed(yaml.safe_load(file.read_text("utf-8")), defaults, schema)}

    assert {*_declared(schema)} - used - OF_PARENT_CHARTS == set()


def _of_redis(entry: Json) -> bool:
    return bool(entry["metadata"]["labels"]["app.kubernetes.io/component"] == "redis")


def _of_an_operator(entry: Json) -> bool:
    return any(part in entry["apiVersion"] for part in ("monitoring.coreos", "keda.sh", "istio.io", "gateway."))


def _keys(chart: Rendered, mount: str | None) -> list[str]:
    return [
        PurePosixPath(text).name for text in _texts(chart.config) if mount is not None and text.startswith(f"{mount}/")
    ]


def _environment(chart: Rendered) -> dict[str, str]:
    """Give the container's variables: those of Secrets have a value that is right where it matters."""
    plain = {name: each.get("value", f"https://{name}.example.com") for name, each in chart.env.items()}
    asked = {
        text.removeprefix("os.environ/"): f"https://{text.removeprefix('os.environ/').lower()}.example.com"
        for text in _texts(chart.config)
        if text.startswith("os.environ/") and "envFrom" in chart.container
    }
    store = plain.get("EXTAUTHZ_STORE", "")
    return asked | plain | (SECRETS if store and "://" in store and not store.startswith("redis") else {})


def _texts(node: Json) -> Iterator[str]:
    match node:
        case dict():
            for each in node.values():
                yield from _texts(each)
        case list():
            for each in node:
                yield from _texts(each)
        case str():
            yield node


def _declared(schema: Json, prefix: str = "") -> Iterator[str]:
    """Walk to every value that has a description of its own: what is below it belongs to Kubernetes, or the program."""
    for name, each in schema["properties"].items():
        if "properties" in each:
            yield from _declared(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _changed(values: Json, defaults: Json, schema: Json, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        each = schema["properties"][name]
        if "properties" in each:
            yield from _changed(value, defaults[name], each, f"{prefix}{name}.")
        elif value != defaults[name]:
            yield f"{prefix}{name}"
