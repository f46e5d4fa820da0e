"""The chart as Helm renders it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

# A part of a document that was read from YAML.
Json: TypeAlias = Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "extauthz"
HELM = ROOT / ".cache" / "helm" / "helm"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "gate", "llm-budget"
RENDER_SECONDS_MAX = 60.0
# All that production needs.
REDIS = {"redis": {"url": "redis://redis:6379"}}

needs_helm = pytest.mark.skipif(not HELM.exists(), reason="no Helm: see tests/support/get-helm.sh")


class ChartError(Exception):
    """Helm refused the values, in these words."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of a release."""

    objects: tuple[Json, ...]

    def of(self, kind: str) -> list[Json]:
        """Give all of a kind."""
        return [entry for entry in self.objects if entry["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Json:
        """Give the only one of a kind whose name ends in `suffix` behind the release's."""
        name = f"{RELEASE}-extauthz{suffix}"
        (found,) = (entry for entry in self.of(kind) if entry["metadata"]["name"] == name)
        return found

    @property
    def deployment(self) -> Json:
        """The server's Deployment, whatever it is called."""
        (found,) = (
            each
            for each in self.of("Deployment")
            if each["metadata"]["labels"]["app.kubernetes.io/component"] == "gate"
        )
        return found

    @property
    def pod(self) -> Json:
        """What is said of the server's pods."""
        return self.deployment["spec"]["template"]

    @property
    def container(self) -> Json:
        """The server's container."""
        return self.pod["spec"]["containers"][0]

    @property
    def env(self) -> dict[str, Json]:
        """The server's environment, by name."""
        return {each["name"]: each for each in self.container.get("env", [])}

    @property
    def config(self) -> Json:
        """The configuration file."""
        name = self.deployment["metadata"]["name"]
        (found,) = (each for each in self.of("ConfigMap") if each["metadata"]["name"] == name)
        return yaml.safe_load(found["data"]["config.yaml"])


def render(
    values: Mapping[str, Json] | None = None,
    *,
    files: Sequence[Path] = (),
    arguments: Sequence[str] = (),
    chart: Path = CHART,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
) -> Rendered:
    """Render the chart with files of values and these besides; ChartError when Helm refuses them."""
    named = [f"--values={file}" for file in files]
    text = helm("template", release, chart, "--namespace", namespace, *named, *arguments, values=values)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Rendered(tuple(entry for entry in yaml.load_all(text, Loader=loader) if entry))


def refusal(values: Mapping[str, Json]) -> str:
    """Render values that cannot be, and give Helm's words."""
    with pytest.raises(ChartError) as refused:
        render(values)
    return str(refused.value)


def notes(values: Mapping[str, Json] | None = None, *, files: Sequence[Path] = ()) -> str:
    """Give what Helm would print after an installation. It does so to a cluster only, so a copy of the chart does."""
    with tempfile.TemporaryDirectory(prefix="chart-") as folder:
        chart = Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        (chart / "templates/NOTES.txt").rename(chart / "files/notes.txt")
        (chart / "templates/notes.yaml").write_text(
            '{{ dict "kind" "Notes" "text" (tpl (.Files.Get "files/notes.txt") .) | toYaml }}', encoding="utf-8"
        )
        text = render(values, files=files, chart=chart).of("Notes")[0]["text"]
    assert isinstance(text, str)
    return text


def helm(*arguments: str | Path, values: Mapping[str, Json] | None = None) -> str:
    """Run Helm to its end and give what it printed; ChartError when it refuses."""
    result = subprocess.run(
        [HELM, *arguments, *(() if values is None else ("--values", "-"))],
        input=None if values is None else yaml.safe_dump(dict(values)),
        capture_output=True,
        text=True,
        timeout=RENDER_SECONDS_MAX,
        check=False,
    )
    if result.returncode:
        raise ChartError(result.stdout + result.stderr)
    return result.stdout
