"""Debian below the service: that the Dockerfile has the same, and what a machine is told that cannot fetch it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.image.debian import MIRROR, PYTHON, RELEASE, DebianError, download

DOCKERFILE = Path(__file__).parents[2] / "deploy/image/Dockerfile"


def test_the_dockerfile_has_the_same_python_and_release() -> None:
    """Its base is an image of this Python on this release, and its environment is made for this Python."""
    text = DOCKERFILE.read_text(encoding="utf-8")

    assert [f"{PYTHON.replace('python', 'python:')}-slim-{RELEASE}"] == re.findall(
        r"^ARG BASE=(\S+)$", text, re.MULTILINE
    )
    assert [PYTHON] == re.findall(r"UV_PYTHON=/usr/local/bin/(\S+)", text)


def test_a_machine_without_apt_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages to install are named, all at once, and nothing is fetched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("deploy.image.debian.KEYRING", tmp_path / "none.gpg")

    with pytest.raises(DebianError, match="lacks apt, dpkg, debian-archive-keyring"):
        download(tmp_path / "cache", MIRROR)

    assert not (tmp_path / "cache").exists()
