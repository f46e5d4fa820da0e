"""Settings that every test shares."""

import signal
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

# Machines that run tests are shared and slow at times; no test here is about speed.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_configure() -> None:
    """Let programs of the tests be interrupted: started in the background, a shell has them ignore it, children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Keep tests together that share servers, where pytest runs in several processes (`-n 2 --dist loadgroup`).

    Those with an Envoy stay in one process, one after the other: it has deadlines that a busy machine would miss.
    Behind a LiteLLM nothing hurries, so those have another.
    """
    for item in items:
        timed = any(item.get_closest_marker(name) for name in ("envoy", "chaos"))
        patient = item.get_closest_marker("litellm") is not None
        group = "envoy" if timed and not patient else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
