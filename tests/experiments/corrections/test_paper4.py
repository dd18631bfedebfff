"""Paper 4's formulas: the verdicts, and series and integrals that none of them was taken from."""

import math
from dataclasses import replace

import pytest
from scipy.integrate import quad

from fpstab.experiments.corrections import paper4, paper4_nonlinear
from fpstab.theory import deq
from tests.experiments.corrections.verdicts import verdicts

VERDICTS = {
    "eq. (7)": "corrected",
    "§2.1.2, after (9)": "corrected",
    "eq. (8), (60)": "reproduced",
    "eq. (60)": "reproduced",
    "eq. (11)": "corrected",
    "eq. (65), (66)": "corrected",
    "eq. (66), V → 0": "corrected",
    "eq. (12), (13), Lemma 2.2": "corrected",
    "eq. (14), (76)": "corrected",
    "eq. (14), (76), GOE": "corrected",
    "eq. (15), (77)": "reproduced",
    "§2.2.1, §2.2.3": "corrected",
    "eq. (18)": "corrected",
    "eq. (19)": "reproduced",
    "eq. (20)": "corrected",
    "eq. (148)": "reproduced",
    "eq. (86)": "corrected",
    "Lemma A.1": "reproduced",
    "Theorem A.2": "reproduced",
    "§2.1.2, App. B.1": "reproduced",
    "Theorem 3.1, eq. (25), iid": "reproduced",
    "Theorem 3.1, eq. (25), orthogonal": "reproduced",
    "Theorem 3.1, eq. (25), GOE": "corrected",
    "Theorem 3.2, eq. (30), iid": "reproduced",
    "Theorem 3.2, eq. (30), orthogonal": "reproduced",
    "App. C.1, radius 2√(Vp)": "corrected",
    "§3.3, critical √V of the GOE": "corrected",
    "eq. (93)": "corrected",
    "eq. (108)": "corrected",
    "eq. (124)": "corrected",
    "eq. (122), (123)": "corrected",
}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_verdicts(seed):
    assert verdicts(4, seed) == VERDICTS


def semicircle(function, V):
    """The mean of a function of the eigenvalues of a large GOE matrix."""
    return quad(lambda t: 2 / math.pi * math.sin(t) ** 2 * function(2 * math.sqrt(V) * math.cos(t)), 0, math.pi)[0]


def test_the_moments_of_the_goe_are_integrals_over_the_semicircle():
    catalan = [math.comb(2 * k, k) / (k + 1) for k in range(200)]
    assert semicircle(lambda x: (1 - x) ** -2, 0.15) == pytest.approx(
        sum((2 * k + 1) * 0.15**k * c for k, c in enumerate(catalan))
    )  # (63), before it was summed wrongly
    assert paper4.goe_second_moment().value == pytest.approx(semicircle(lambda x: (1 - x) ** -2, 0.15), rel=0.03)
    assert paper4.mean().value == pytest.approx(semicircle(lambda x: 1 / (1 - x), 0.2), rel=0.02)
    assert paper4.goe_fourth().value == pytest.approx(semicircle(lambda x: (1 - x) ** -4, 0.1), rel=0.08)
    V = (0.5 - 1e-3) ** 2
    assert semicircle(lambda x: (1 - x) ** -4, V) * 1e-3**2.5 == pytest.approx(1 / 32, rel=0.01)
    assert paper4.goe_divergence().value == pytest.approx(1 / 32, rel=0.001)


def test_the_untied_moments_step_by_step():
    """M ← I + WM, W free of M: the words of tr (MᵀM)² of one step that do not vanish."""
    V, m2, m4, goe = 0.6, 1.0, 1.0, 1.0
    for _ in range(300):
        m4, goe, m2 = (
            1 + 4 * V * m2 + V**2 * (m4 + m2**2),
            1 + 4 * V * m2 + V**2 * (goe + m2**2) + 2 * V,  # tr WMWM = V(tr M)² for symmetric W
            1 + V * m2,
        )
    assert deq.untied_moments("iid", V).m4 == pytest.approx(m4)
    assert deq.untied_moments("goe", V).m4 == pytest.approx(goe)
    assert paper4.untied_iid().value == pytest.approx(m4, rel=0.05)


def test_printed_numbers_are_those_of_the_formulas():
    s = math.sqrt(0.4)
    printed = {
        paper4.GOE_SECOND_MOMENT: 1 / s - (1 - s) / 0.3,
        paper4.GOE_VARIANCE: 1 / math.sqrt(0.6) - (1 - math.sqrt(0.6)) / 0.2 - 1,
        paper4.UNTIED_IID: 2 / 0.16 + 1 / 0.64**2 - 2 / 0.64,
        paper4.UNTIED_ORTHOGONAL: 2 / 0.16 - 1 / 0.64,
        paper4.ORTHOGONAL_LENGTH: 2 / 0.343 - 1 / 0.49,
    }
    for claim, value in printed.items():
        assert float(claim.printed.replace("−", "-")) == pytest.approx(value, rel=1e-3)


def test_verdicts_follow_the_numbers(monkeypatch):
    """With the printed formula in the place of ours nothing agrees with the sample."""
    as_printed = deq.linear_moments("goe", 0.15, as_printed=True)
    monkeypatch.setattr(paper4.deq, "linear_moments", lambda *_, **__: as_printed)
    assert paper4.goe_second_moment().verdict == "not reproduced"
    truth = paper4.sampled([1.936, 1.937])
    monkeypatch.setattr(paper4.deq, "linear_moments", lambda *_, **__: replace(as_printed, m2=truth.mean))
    assert paper4.goe_second_moment().verdict == "reproduced"


def test_the_gradient_by_automatic_differentiation():
    import torch

    generator = torch.Generator().manual_seed(3)
    w = (deq.sample_weight("iid", 0.25, 6, generator=generator)).requires_grad_()
    x = torch.randn(6, generator=generator, dtype=torch.float64)
    z = x
    for _ in range(300):
        z = torch.tanh(w @ z) + x
    (truth,) = torch.autograd.grad(z.sum(), w)
    d = 1 - torch.tanh(w @ z).detach() ** 2
    right = torch.outer(
        d * torch.linalg.solve((torch.eye(6) - d[:, None] * w.detach()).T, torch.ones(6).double()), z.detach()
    )
    assert torch.allclose(truth, right, atol=1e-10)
    assert "by 1e-10" in paper4_nonlinear.gradient(1).said
