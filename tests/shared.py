"""Where the real data lie: descriptors, signature trees and recorded outcomes, beside the checkout, never in it."""

from __future__ import annotations

from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared"

SHARED: Path | None = _BESIDE if (_BESIDE / "fixtures").is_dir() else None
FIXTURES: Path = _BESIDE / "fixtures"

needs_shared = pytest.mark.skipif(SHARED is None, reason="the real data ('../shared') are not beside this checkout")
