"""What is in an image, as CycloneDX: the Python packages of the lock, and Debian's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

from deploy.image.debian import RELEASE, Package


def whole_sbom(exported: bytes, debian: Iterable[Package], *, version: str, architecture: str, seconds: int) -> bytes:
    """Add Debian's packages to what uv exported of the lock, and take out what differs from one run to the next."""
    bom = json.loads(exported)
    bom["components"] += [
        {
            "type": "library",
            "bom-ref": f"deb:{package.name}",
            "name": package.name,
            "version": package.version,
            "purl": _purl(package, architecture),
        }
        for package in debian
    ]
    metadata = bom["metadata"]
    metadata["timestamp"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["component"] |= {"type": "application", "version": version, "purl": f"pkg:pypi/extauthz@{version}"}
    del bom["serialNumber"]
    name = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(bom, sort_keys=True))
    return json.dumps({**bom, "serialNumber": f"urn:uuid:{name}"}, indent=1, sort_keys=True).encode() + b"\n"


def _purl(package: Package, architecture: str) -> str:
    return (
        f"pkg:deb/debian/{quote(package.name)}@{quote(package.version, safe='')}?arch={architecture}&distro={RELEASE}"
    )
