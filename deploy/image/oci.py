"""An image as an OCI archive, as the Open Container Initiative's image-spec wants one for one platform."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COMPRESSION = 6
_TYPES = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a tar archive, and what it has."""

    archive: bytes
    about: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one platform: its layers, and how it runs."""

    architecture: str
    layers: Sequence[Layer]
    config: Mapping[str, object]
    labels: Mapping[str, str]
    seconds: int


def write_archive(image: Image, path: Path, reference: str) -> str:
    """Write an OCI archive that names the image by a reference, and give the image's digest."""
    created = datetime.fromtimestamp(image.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    runs: dict[str, object] = {**image.config, "Labels": dict(image.labels)}
    packed = [gzip.compress(layer.archive, COMPRESSION, mtime=0) for layer in image.layers]
    config = _json(
        {
            "created": created,
            "architecture": image.architecture,
            "os": "linux",
            "config": runs,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.archive) for layer in image.layers]},
            "history": [{"created": created, "created_by": layer.about} for layer in image.layers],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPES}.manifest.v1+json",
            "config": _descriptor(f"{_TYPES}.config.v1+json", config),
            "layers": [_descriptor(f"{_TYPES}.layer.v1.tar+gzip", blob) for blob in packed],
            "annotations": dict(image.labels),
        }
    )
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rpartition(":")[2]}
    described: dict[str, object] = {
        **_descriptor(f"{_TYPES}.manifest.v1+json", manifest),
        "annotations": names,
        "platform": {"architecture": image.architecture, "os": "linux"},
    }
    index = _json({"schemaVersion": 2, "mediaType": f"{_TYPES}.index.v1+json", "manifests": [described]})
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index}
    files |= {f"blobs/{_digest(blob).replace(':', '/')}": blob for blob in (manifest, config, *packed)}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, blob in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(blob), image.seconds
            archive.addfile(member, io.BytesIO(blob))
    return _digest(manifest)


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
