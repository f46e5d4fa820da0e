"""The machine that is measured on: its cores, and what a process takes of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NS = 1_000_000_000
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Cores:
    """The core for what is measured, and the one for everything around it."""

    measured: int
    around: int


def two_cores() -> Cores:
    """Choose the cores. Raises OSError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise OSError("the benchmarks need two cores: one for what is measured, one for what asks it")
    return Cores(cores[0], cores[1])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Stay on one core inside the block; so do, for good, the processes that are started there.

    Before they run: some decide at their start how many threads they have.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Sum up the time that the threads of a process have run: schedstat is exact, where stat counts in 10 ms."""
    return sum(int(task.read_text().split()[0]) for task in (_PROC / str(pid) / "task").glob("*/schedstat")) / _NS


def resident_bytes(pid: int) -> int:
    """Tell how much memory a process has."""
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * _KIB for line in lines if line.startswith("VmRSS:"))


def description() -> dict[str, str]:
    """Describe the machine for whoever reads the results."""
    cpuinfo = (_PROC / "cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    load = (_PROC / "loadavg").read_text().split()[0]
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "load": load,
    }
