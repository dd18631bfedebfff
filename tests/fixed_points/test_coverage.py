"""Coverage and Chao's estimate against the known number of classes."""

import math

import numpy as np
import pytest

from fpstab.fixed_points.coverage import coverage_by_source, coverage_of


def test_by_hand():
    found = coverage_of([5, 5, 5, 7, 7, 8, 9, -1])
    assert (found.n_starts, found.n_settled, found.n_found, found.singletons, found.doubletons) == (8, 7, 4, 2, 1)
    assert found.coverage == pytest.approx(1 - 2 / 7)
    assert found.chao1 == pytest.approx(4 + 6 / 7 * 2 * 1 / (2 * 2))


def test_of_nothing():
    for labels in ([], [-1, -1]):
        found = coverage_of(labels)
        assert found.n_starts == len(labels)
        assert found.coverage is None
        assert found.chao1 is None


def test_complete():
    found = coverage_of([0, 0, 1, 1])
    assert (found.coverage, found.chao1, found.chao1_interval) == (1.0, 2.0, (2.0, 2.0))


def test_estimates_of_many_classes():
    rng = np.random.default_rng(0)
    inside, estimates, errors = 0, [], []
    for _ in range(100):
        labels = rng.integers(1024, size=2000)
        found = coverage_of(labels.tolist())
        unseen = 1 - len(set(labels.tolist())) / 1024
        errors.append(1 - found.coverage - unseen)
        estimates.append(found.chao1)
        inside += found.chao1_interval[0] <= 1024 <= found.chao1_interval[1]
    assert np.mean(estimates) == pytest.approx(1024, rel=0.02)
    assert abs(np.mean(errors)) < 0.005
    assert inside >= 88


def test_sources_are_told_apart():
    # images that each are an attractor of their own would make singletons among the noise
    labels, sources = [0, 1, 2, 3, 3, 3, 3], ["images"] * 3 + ["noise"] * 4
    by_source = coverage_by_source(labels, sources)
    assert list(by_source) == ["images", "noise"]
    assert by_source["images"].coverage == 0.0
    assert by_source["noise"].coverage == 1.0
    assert math.isclose(coverage_by_source(labels, None)["starts"].coverage, 1 - 3 / 7)
