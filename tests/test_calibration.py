"""Calibration: the quick form of the benchmark, and what it says of a test without the adjustment."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from conftest import REPO

from thoughtscope.evidence import alike


@pytest.fixture(scope="module")
def calibration():
    sys.path.insert(0, str(REPO / "benchmarks"))
    import calibration

    yield calibration
    sys.path.remove(str(REPO / "benchmarks"))


def test_the_quick_form_keeps_all_bounds(tmp_path):
    page = tmp_path / "calibration.md"
    command = [sys.executable, "benchmarks/calibration.py", "quick", "--write", str(page)]
    ran = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr
    text = page.read_text(encoding="utf-8")
    for part in ("| null: start of segment | 0.0", "| true: episode |", "Monte Carlo"):
        assert part in text


def test_a_broken_bound_is_said(calibration):
    seen = calibration.Seen()
    for _ in range(4):
        seen.add(calibration.CALLED, "null: at random", 32, [True] * 3 + [False] * 7)
        seen.add(calibration.CALLED, "true: episode", 32, [True] * 9 + [False])
    rows = seen.rows(calibration.CALLED, calibration.bounds(calibration.CALLED))
    assert rows == [
        ["", "n = 32"],
        ["null: at random", "**30.0 ± 7.3** (≤ 2.5)"],
        ["true: episode", "90.0 ± 5.1 (≥ 50)"],
    ]
    (line,) = seen.broken
    assert line.startswith("called a thinking pattern, null: at random, n = 32: 30.0")


def test_without_the_adjustment_words_and_places_are_patterns(calibration, monkeypatch):
    world = calibration.worlds.world(3, 100, copies=4, background=10)
    kinds = ["null: verbs after let me", "null: common words", "null: sentence start", "null: digit density"]
    latents = [latent for kind in kinds for latent in world.kinds[kind]]

    def linked():
        table = calibration.patterns_only(world, 0.0).filter(pl.col("latent").is_in(latents))
        return (table["p_link"] < 0.05).sum()

    assert linked() <= 2
    monkeypatch.setattr(alike, "_blocks", lambda layout, _: [(np.zeros(len(layout.trace), dtype=int), True)] * 2)
    assert linked() >= 8
