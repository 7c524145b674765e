"""The benchmarks themselves, in their quick mode and with the smallest case, in real guests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.lxc
def test_a_quick_benchmark_measures_what_it_says(tmp_path: Path, images: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--backend", "lxc", "--case", "tiny", "--images", str(images),
         "--classic", str(tmp_path), "--json", str(tmp_path / "out.json"), "--chart", str(tmp_path / "out.svg")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    ways = results["builds"]["lxc"]["tiny"]["ways"]
    assert set(ways) == {"cold", "warm", "no layers"}, results["notes"]
    assert "packages installed" in ways["cold"]["stages"]
    assert "layer kept" in ways["cold"]["stages"]
    assert not {"packages installed", "layer kept"} & set(ways["warm"]["stages"])
    assert "packages installed" in ways["no layers"]["stages"]
    for way in ways.values():
        assert way["stages"]["script"] >= 0.2
        assert way["seconds"] <= way["middle"] <= way["most"]
        assert sum(way["stages"].values()) == pytest.approx(way["seconds"], abs=0.01)
    assert [target["what"] for target in results["targets"]] == ["LXC, tiny, warm: besides the script"]
    # What was given as the classic's checkout is none, and that is said rather than left out.
    assert results["classic"]["ran"] is False
    assert "no checkout" in done.stdout
    assert ElementTree.parse(tmp_path / "out.svg").getroot().tag.endswith("svg")
