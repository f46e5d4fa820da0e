"""The image that holds each pod's namespaces open: `python -m tests.e2e.cluster.pause_image PROGRAM ARCHIVE`."""

from __future__ import annotations

import io
import platform
import sys
import tarfile
from pathlib import Path

from deploy.image.oci import Image, Layer, write_archive

REFERENCE = "localhost/pause:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main(program: Path, archive: Path) -> None:
    """Write the image with the program and nothing else."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        member = tarfile.TarInfo("pause")
        member.size, member.mode = program.stat().st_size, 0o755
        with program.open("rb") as content:
            files.addfile(member, content)
    image = Image(
        architecture=ARCHITECTURES[platform.machine()],
        layers=[Layer(layer.getvalue(), "pause")],
        config={"Entrypoint": ["/pause"], "User": "65535:65535"},
        labels={},
        seconds=0,
    )
    write_archive(image, archive, REFERENCE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
