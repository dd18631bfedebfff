"""The rule by which samples decide."""

import pytest

from fpstab.experiments.corrections.rules import Sampled, decide, rule, sampled


@pytest.mark.parametrize(
    ("mean", "ours", "printed", "verdict"),
    [
        (1.0, 1.0, 1.0, "reproduced"),  # one number, twice
        (1.0, 2.0, 1.0, "reproduced"),
        (2.0, 2.0, 1.0, "corrected"),
        (3.0, 2.0, 1.0, "not reproduced"),
        (1.0, 1.05, 1.0, "inconclusive"),  # near both, which are not the same
    ],
)
def test_decide(mean, ours, printed, verdict):
    assert decide(Sampled(mean, 0.01, 9), ours, printed, 0.02) == verdict


def test_a_large_error_decides_nothing():
    assert decide(Sampled(1.5, 1.0, 3), 2.0, 1.0, 0.0) == "inconclusive"


def test_sampled():
    found = sampled([1.0, 2.0, 3.0, 6.0])
    assert (found.mean, found.count) == (3.0, 4)
    assert found.error == pytest.approx((14 / 3 / 4) ** 0.5)
    assert "4 standard errors + 2 %" in rule("12 weights", 0.02).replace("2%", "2 %")
