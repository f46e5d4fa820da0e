"""Writes the chart's copy of the meter (`make chart`), or tells whether it is up to date (`make check`).

A chart cannot reach beyond its own folder, and Envoy must run the very program that the tests ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

from extauthz.envoy.bootstrap import meter_source

TARGET = Path(__file__).parent / "extauthz" / "files" / "meter.lua"


def main() -> None:
    """Write, or with --check compare."""
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != meter_source():
            sys.exit(f"{TARGET} is not what stands in extauthz/envoy/meter: run `make chart` and commit the result")
        print(f"{TARGET.name} is up to date")
        return
    TARGET.write_text(meter_source(), encoding="utf-8")


if __name__ == "__main__":
    main()
