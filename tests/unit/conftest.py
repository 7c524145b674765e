"""Property tests on a busy machine: no deadline, the same examples every time, no database of past failures."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("gitian", deadline=None, derandomize=True, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gitian")
