"""Picard iteration: outcomes, rates, error bounds, rows that leave, rows that do no harm."""

import pytest
import torch

from fpstab.fixed_points.search import BOUNDED, CYCLE, DIVERGED, FIXED, NONFINITE, SLOW, picard
from tests import cases

OPTIONS = {"tol": 1e-8, "max_iter": 1000, "batch_size": 4096}


def run(function, starts, **options):
    return picard(function, starts, **(OPTIONS | options))


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 0.99, -0.9, -0.99])
def test_the_error_bound_holds(rate):
    case = cases.slow_contraction(rate)
    found = run(case.map, cases.uniform(20, 3), max_iter=5000)
    error = (found.x - case.points).norm(dim=1)
    assert (found.outcome == FIXED).all()
    assert (error <= found.error_bound).all()
    assert (found.error_bound <= 1e-8 * (1 + found.x.norm(dim=1))).all()
    assert rate == 0 or found.rate == pytest.approx(abs(rate), rel=1e-3)


def test_a_residual_is_not_an_error():
    case = cases.slow_contraction(0.997)
    found = run(case.map, cases.uniform(20, 3), max_iter=10_000)
    error = (found.x - case.points).norm(dim=1)
    assert (found.outcome == FIXED).all()
    assert (error <= found.error_bound).all()
    assert (error > 100 * found.residual).all()  # what a rule on the residual would not have seen


def test_the_rate_of_a_complex_pair():
    found = run(cases.spiral(0.9).map, cases.uniform(10, 2))
    assert found.rate == pytest.approx(0.9, rel=1e-6)


def test_outcomes():
    def function(x):
        kind = x[:, 1:]
        y = torch.where(kind == 0, x / 2, torch.where(kind == 1, -x, torch.where(kind == 2, 3 * x, x)))
        y = torch.where(kind == 3, 1 - 1.9 * x**2, y)  # chaos
        y = torch.where(kind == 4, x + torch.nan, y)
        y = torch.where(kind == 5, x**2 + 2, y)
        y = torch.where(kind == 6, 0.9999 * x, y)
        y = torch.where(kind == 7, x + 1, y)
        return torch.cat((y[:, :1], kind), 1)

    starts = torch.tensor([[0.3, k] for k in range(8)] + [[torch.nan, 0], [torch.inf, 0]], dtype=torch.float64)
    found = run(function, starts)
    assert found.outcome.tolist() == [
        FIXED, CYCLE, DIVERGED, BOUNDED, NONFINITE, DIVERGED, SLOW, DIVERGED, NONFINITE, NONFINITE,
    ]  # fmt: skip
    assert found.period[1] == 2
    assert (found.n_iterations[:3] < 100).all()


def test_bad_rows_leave_the_others_as_they_are():
    case = cases.doubled_tanh(3)

    def function(x):
        return torch.where(x.sum(1, keepdim=True) > 50, torch.exp(x), case.map(x))

    good = cases.uniform(50, 3)
    bad = torch.tensor([[1e300, 0, 0], [100, 0, 0], [torch.nan, 0, 0], [0, torch.inf, 0]], dtype=torch.float64)
    alone, together = run(function, good), run(function, torch.cat((bad, good)))
    assert torch.equal(alone.x, together.x[4:])
    assert torch.equal(alone.outcome, together.outcome[4:])
    assert not (together.outcome[:4] == FIXED).any()


@pytest.mark.parametrize("period", [2, 3, 5, 12])
def test_periods_of_permutations(period):
    order = torch.roll(torch.arange(period), 1)
    found = run(lambda x: x[:, order], cases.uniform(6, period))
    assert (found.outcome == CYCLE).all()
    assert (found.period == period).all()


def test_slow_alternation_is_no_cycle():
    found = run(lambda x: -0.9995 * x, cases.uniform(8, 1))
    assert not (found.outcome == CYCLE).any()


@pytest.mark.parametrize("rule", [None, "paper"])
def test_finished_rows_leave(rule):
    rates = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)[:, None]
    rows = []

    def function(x):
        rows.append(len(x))
        return torch.cat((x[:, :1] * x[:, 1:], x[:, 1:]), 1)

    starts = torch.cat((torch.ones_like(rates), rates), 1)
    found = run(function, starts, rule=rule)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < len(starts) / 4
    assert found.n_evals <= sum(rows)
    if rule is None:
        kept = run(function, starts, compact=False)
        assert torch.equal(found.x, kept.x)
        assert torch.equal(found.outcome, kept.outcome)
        assert torch.equal(found.n_iterations, kept.n_iterations)


def test_the_papers_rule_against_a_loop():
    case = cases.doubled_tanh(2)
    A = torch.tensor([[0.7, 0.5], [-0.4, 0.8]], dtype=torch.float64)

    def function(x):
        return case.map(x @ A)

    starts = cases.uniform(40, 2)
    found = run(function, starts, rule="paper")
    for i, start in enumerate(starts):
        x, settled = start[None], False
        steps = 0
        while steps < 50 and not settled:
            y = function(x)
            settled = bool((y - x).norm() < 1e-5)
            x, steps = y, steps + 1
        assert (found.outcome[i] == FIXED) == settled
        assert found.n_iterations[i] == steps
        assert torch.allclose(found.x[i], x[0], rtol=0, atol=1e-14)


def test_history_is_the_residuals():
    case = cases.slow_contraction(0.5)
    starts = cases.uniform(3, 3)
    found = run(case.map, starts)
    first = (case.map(starts) - starts).norm(dim=1)
    assert found.history[:, 0].tolist() == pytest.approx(first.tolist())
    lasting = torch.isfinite(found.history).sum(1)
    assert torch.equal(lasting, found.n_iterations)


def test_where_orbits_pass_a_saddle():
    case = cases.doubled_tanh(2)
    starts = torch.tensor([[0.9, 1e-9], [0.8, -1e-7]], dtype=torch.float64)
    found = run(case.map, starts, minima=True)
    saddle = torch.tensor([cases.TANH_2, 0.0], dtype=torch.float64)
    assert ((found.passed - saddle).norm(dim=1) < 1e-2).all()
    assert torch.isnan(run(case.map, starts).passed).all()
