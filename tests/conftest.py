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
    """Keep tests together that share servers, where pytest runs in several processes (`-n 3 --dist loadgroup`).

    Those of one file do. So do those that look at the books after storms: they are the longest, and have deadlines that
    a machine would miss that had several of them at once.
    """
    for item in items:
        stormy = item.get_closest_marker("chaos") is not None
        group = "chaos" if stormy else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
