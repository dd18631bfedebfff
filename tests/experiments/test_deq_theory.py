"""Figures 1–4 of paper 4, on a small size."""

import math

import pytest

from fpstab.experiments import deq_theory
from fpstab.theory import deq


def test_length_variance():
    figure = deq_theory.length_variance(width=150, draws=3, deltas=(0.6, 0.8, 1.0))
    rows = figure.table()
    assert [(row["family"], row["x"]) for row in rows[:4]] == [
        ("iid", 0.6),
        ("iid", 0.8),
        ("iid", 1.0),
        ("orthogonal", 0.6),
    ]
    deviation = figure.scalars()
    assert deviation["iid/theory"] < 0.1
    assert deviation["orthogonal/theory"] < 0.02
    assert deviation["goe/theory"] < 0.1
    assert deviation["goe/printed"] > 1  # negative
    assert rows[2]["measured"] == rows[2]["theory"] == 1.0  # V = 0


def test_field_variance():
    figure = deq_theory.field_variance(width=200, draws=3, inputs=4, sqrt_vs=(0.3, 0.5, 1.2))
    deviation = figure.scalars()
    for family in ("iid", "orthogonal", "goe"):
        assert deviation[f"{family}/theory"] < 0.12
    assert deviation["goe/printed"] > 0.2
    beyond = figure.points[-1]
    assert (beyond.family, beyond.theory) == ("goe", None)
    assert beyond.unconverged > 0
    assert beyond.printed is not None
    assert beyond.measured > 1.3 * beyond.printed


def test_largest_eigenvalue():
    figure = deq_theory.largest_eigenvalue(("orthogonal", deq.Elliptic(0.5)), width=200, draws=3, sqrt_vs=(0.3, 0.6))
    deviation = figure.scalars()
    assert deviation["orthogonal/theory"] < 0.07
    assert deviation["elliptic(tau=0.5)/theory"] < 0.07
    assert "elliptic(tau=0.5)/printed" not in deviation
    assert all(point.low <= point.measured <= point.high for point in figure.points)


def test_residual_vanishes_below_the_threshold_only():
    figure = deq_theory.residual(width=200, draws=2, inputs=2, sqrt_vs=(0.4, 3.0), iterations=400)
    for point in figure.points:
        threshold = figure.thresholds[point.family][0]
        assert (point.measured < 1e-10) == (point.sqrt_v < threshold)
    assert figure.thresholds["goe"] == pytest.approx((1.01863, 0.526), abs=5e-4)


def test_plots_show_both_theories():
    figure = deq_theory.field_variance(("goe",), width=30, draws=2, inputs=1, sqrt_vs=(0.2, 0.5, 1.2), iterations=50)
    ax = figure.plot()
    theory, printed = (
        line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 3 and line.get_linestyle() in "--"
    )
    assert list(theory[:2]) == [point.theory for point in figure.points[:2]]
    assert math.isnan(theory[2])
    assert list(printed) == [point.printed for point in figure.points]
    log = deq_theory.residual(("iid",), width=30, draws=1, sqrt_vs=(0.2, 0.5), iterations=20).plot()
    assert (log.get_xscale(), log.get_yscale()) == ("linear", "log")


def test_one_seed_one_figure():
    def once(seed):
        return deq_theory.residual(("iid",), width=20, draws=2, sqrt_vs=(0.5,), iterations=5, seed=seed).table()

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_bad_input():
    with pytest.raises(ValueError, match="never diverge"):
        deq_theory.length_variance(("antisymmetric",))
    with pytest.raises(ValueError, match="deltas"):
        deq_theory.length_variance(deltas=(0.0,))
    with pytest.raises(ValueError, match="draws = 0"):
        deq_theory.field_variance(draws=0)
    assert deq_theory.FULL.keys() == {"length_variance", "field_variance", "largest_eigenvalue", "residual"}
    for name in deq_theory.FULL:
        assert callable(getattr(deq_theory, name))
