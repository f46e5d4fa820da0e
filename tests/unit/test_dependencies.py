"""What must not be installed beside extauthz."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / "uv.lock"


@pytest.mark.parametrize("package", ["xds-protos", "grpcio-admin", "grpcio-csds"])
def test_no_other_copy_of_envoys_messages_is_installed(package: str) -> None:
    """xds-protos overwrites files of googleapis-common-protos and opentelemetry-proto; the others bring it along."""
    locked = {entry["name"] for entry in tomllib.loads(LOCK.read_text(encoding="utf-8"))["package"]}

    assert "grpcio" in locked
    assert package not in locked
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.distribution(package)
