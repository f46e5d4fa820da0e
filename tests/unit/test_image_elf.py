"""Native libraries in the image: without what debuggers read, they work as they do with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hiredis.hiredis
import pytest

from deploy.image.elf import MAGIC, without_symbols

LIBRARY = Path(hiredis.hiredis.__file__)


def test_a_library_is_smaller_and_loads(tmp_path: Path) -> None:
    """What is loaded of a library is all that it needs."""
    whole = LIBRARY.read_bytes()
    lean = without_symbols(whole)
    assert len(lean) < len(whole)
    (tmp_path / LIBRARY.name).write_bytes(lean)
    program = "import hiredis; r = hiredis.Reader(); r.feed(b'$2\\r\\nok\\r\\n'); print(hiredis.__file__, r.gets())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert f"{tmp_path / LIBRARY.name} b'ok'" == done.stdout.strip()


def test_a_second_time_changes_nothing() -> None:
    """A library that ends there already stays as it is."""
    lean = without_symbols(LIBRARY.read_bytes())
    assert lean == without_symbols(lean)


@pytest.mark.parametrize("blob", [b"", b"import os\n", MAGIC, MAGIC + b"\x01\x01" + bytes(58)], ids=repr)
def test_anything_else_stays_as_it_is(blob: bytes) -> None:
    """Only what is certainly a library of the image's machines is cut."""
    assert blob == without_symbols(blob)
