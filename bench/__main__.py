"""`make bench`: measures part by part, prints as it goes, and writes bench/results.

The studies beside it look at one thing of ours each, against no peer. They print, and write nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import redirect_stdout

from rich.console import Console

from bench import report
from bench.figures import Results
from bench.machine import two_cores
from bench.parts import check, growth, keys, litellm, start, through_envoy
from bench.rig import RIG, LoadError, Plan

Part = Callable[[Plan], Coroutine[object, object, Results]]

PARTS: Mapping[str, Part] = {
    "check": check.measure,
    "envoy": through_envoy.measure,
    "litellm": litellm.measure,
    "growth": growth.measure,
    "start": start.measure,
    "keys": keys.measure,
}

STUDIES = ("meter", "redis_memory", "metrics", "diagnostics", "processes")

# Of a table in a file or a pipe.
PLAIN_WIDTH = 160


def main() -> int:
    """Measure what is asked for; what goes wrong in one part does not keep the others."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*PARTS, *STUDIES], help="parts and studies")
    parser.add_argument("--pairs", type=int, default=5, help="how many pairs of runs each ratio is made of")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long a run is")
    arguments = parser.parse_args()
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    failed = [name for name in arguments.names if name in STUDIES and not _studied(name, console)]
    parts = [name for name in arguments.names if name in PARTS]
    if not parts:
        return 1 if failed else 0
    if not RIG.exists():
        console.print("no bench: its load generator is built by Go, which is not here")
        return 1
    cores = two_cores()
    os.sched_setaffinity(0, {cores.around})
    plan = Plan(cores, arguments.pairs, arguments.seconds, console.print)
    failed += [name for name in parts if not _measured(name, plan, console)]
    console.print(f"written: {report.draw()}")
    return 1 if failed else 0


def _studied(name: str, console: Console) -> bool:
    """Run a study, on all cores."""
    console.rule(name)
    return subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode == 0


def _measured(name: str, plan: Plan, console: Console) -> bool:
    """Measure one part, print its table and write it down."""
    console.rule(name)
    started_s = time.monotonic()
    talk = io.StringIO()  # the processes write there what they wrote, at their ends
    try:
        with redirect_stdout(talk):
            results = asyncio.run(PARTS[name](plan))
    except (LoadError, OSError, AssertionError) as error:
        console.print(talk.getvalue()[-4000:], markup=False)
        console.print(f"{name} failed: {error}", style="red", markup=False)
        return False
    report.write(name, results, plan)
    report.show(name, results, console)
    console.print(f"{name} took {time.monotonic() - started_s:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
