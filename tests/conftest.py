"""Settings of hypothesis for all tests: a slow or busy machine must not fail a test that holds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("instbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("instbench")
