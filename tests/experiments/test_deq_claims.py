"""What runs of paper 4's figures make of its claims, on figures made by hand."""

import math

import pytest

from fpstab.experiments import deq_claims
from fpstab.experiments.deq_theory import Point, TheoryFigure
from fpstab.experiments.deq_training import ErrorByScale, TrainedDEQ


def figure(name, points, thresholds=None):
    return TheoryFigure(name, "x", "y", tuple(points), thresholds or {})


def curve(family, factor, *, theory=2.0, printed=1.0, xs=(0.2, 0.4, 0.6), unconverged=0.0):
    return [
        Point(family, x, x, theory * x, printed * x, factor * x, 0.99 * factor * x, 1.01 * factor * x, unconverged)
        for x in xs
    ]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.02, "reproduced"), (1.95, "corrected"), (1.5, "not reproduced"), (math.inf, "inconclusive")],
)
def test_a_curve(factor, verdict):
    (found,) = (
        f for f in deq_claims.theory_findings(figure("field_variance", curve("goe", factor))) if "GOE" in f.claim.item
    )
    assert found.verdict == verdict


def test_points_that_did_not_converge_do_not_count():
    points = curve("iid", 1.0) + curve("iid", 50.0, xs=(0.8,), unconverged=0.5)
    found = deq_claims.theory_findings(figure("largest_eigenvalue", points))[0]
    assert (found.verdict, found.sample) == ("reproduced", 3)
    few = deq_claims.theory_findings(figure("largest_eigenvalue", curve("iid", 1.0, unconverged=1.0)))[0]
    assert few.verdict == "inconclusive"


def test_one_draw_is_no_sample():
    points = [Point("iid", x, x, x, x, x, x, x) for x in (0.2, 0.4, 0.6)]
    assert deq_claims.theory_findings(figure("field_variance", points))[0].verdict == "inconclusive"


@pytest.mark.parametrize(("printed", "verdict"), [(1.0, "reproduced"), (0.5, "corrected"), (None, "inconclusive")])
def test_a_threshold(printed, verdict):
    points = [Point("goe", x, x, None, None, r, r, r) for x, r in ((0.9, 1e-12), (1.05, 0.2), (1.2, 0.5))]
    found = deq_claims.theory_findings(figure("residual", points, {"goe": (1.02, printed)}))[2]
    assert found.verdict == verdict
    if printed is not None:
        assert "up to √V = 0.9, and does not from 1.05 on" in found.said


def test_a_threshold_far_from_both():
    points = [Point("goe", x, x, None, None, r, r, r) for x, r in ((0.2, 1e-12), (0.3, 0.2))]
    assert deq_claims.theory_findings(figure("residual", points, {"goe": (1.02, 0.6)}))[2].verdict == "not reproduced"


def test_another_figure_is_refused():
    with pytest.raises(ValueError, match="there are no claims of the figure 'other'"):
        deq_claims.theory_findings(figure("other", []))


def training(family, sqrt_v, seed, error):
    return TrainedDEQ(family, sqrt_v, seed, error, 0, 0, 0, 0, 9.0, 0.5, 1.0, 0.7, 0, True, 1.0)


def trainings(seeds, errors):
    return ErrorByScale(
        tuple(training(f, v, k, values[k % len(values)]) for (f, v), values in errors.items() for k in range(seeds))
    )


def test_figure_5():
    errors = {
        ("random", 0.5): [0.08],
        ("orthogonal", 0.5): [0.085],
        ("random", 4.0): [0.12, 0.12, 0.12, 0.9, 0.9],
        ("orthogonal", 4.0): [0.09],
    }
    found = deq_claims.training_findings(trainings(5, errors))
    assert [each.verdict for each in found] == ["reproduced"] * 3
    few = deq_claims.training_findings(trainings(2, errors))
    assert [each.verdict for each in few] == ["inconclusive"] * 3
    errors["random", 4.0] = [0.09]
    errors["random", 0.5] = [0.2]
    found = deq_claims.training_findings(trainings(5, errors))
    assert [each.verdict for each in found] == ["not reproduced"] * 3


def test_figure_5_with_one_family():
    found = deq_claims.training_findings(trainings(5, {("random", 0.5): [0.1]}))
    assert {each.verdict for each in found} == {"inconclusive"}
