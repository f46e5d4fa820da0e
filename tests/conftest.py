"""Settings that every test shares."""

from hypothesis import HealthCheck, settings

# Machines that run tests are shared and slow at times; no test here is about speed.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
