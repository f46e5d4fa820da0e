"""The LiteLLM proxy, by the Python that everything else of Python runs by."""

from __future__ import annotations

from bench.interpreter import litellm_python
from tests.support.litellm import PROGRAM, LitellmProcess

# What its `litellm` does.
START = "from litellm import run_server; run_server()"


def litellm_is_there() -> bool:
    """Tell whether it was installed."""
    return litellm_python() is not None or PROGRAM.exists()


def litellm(config: str) -> LitellmProcess:
    """Make one with a configuration, to be started."""
    runner = litellm_python()
    if runner is None:
        return LitellmProcess(config)
    return LitellmProcess(config, (*runner.command, "-c", START), runner.environment)
