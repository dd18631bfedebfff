import math

import numpy as np
import pytest
from scipy.sparse.linalg import gmres
from torch import Generator

from fpstab.results import AnalysisError
from fpstab.theory import deq


@pytest.mark.parametrize(("family", "share"), [("iid", 0.7), ("orthogonal", 0.8), ("antisymmetric", 0.8), ("goe", 0.8)])
def test_plain_iteration(family: deq.FamilyName, share: float) -> None:
    V = (share * deq.critical_sqrt_v(family, "linear")) ** 2
    sample = deq.sample_equilibrium(
        family, V, "linear", width=500, inputs=4, tol=1e-12, generator=Generator().manual_seed(0)
    )
    # an interval's ends hold few eigenvalues, so that it starts a little faster
    assert sample.n_iter == pytest.approx(deq.predicted_iterations(family, V, "linear", tol=1e-12), rel=0.13)


@pytest.mark.parametrize(
    ("family", "sqrt_v"),
    [
        ("iid", 0.7),
        ("orthogonal", 0.8),
        ("goe", 0.4),
        ("antisymmetric", 0.48),
        (deq.Elliptic(0.5), 0.5),
        (deq.Elliptic(-0.5), 0.6),
    ],
    ids=str,
)
def test_gmres_needs_about_as_many(family: deq.Family, sqrt_v: float) -> None:
    n = 500
    generator = Generator().manual_seed(0)
    matrix = np.eye(n) - deq.sample_weight(family, sqrt_v**2, n, generator=generator).numpy()
    steps: list[float] = []
    x = deq.sample_inputs(n, generator=generator)[0].numpy()
    gmres(matrix, x, rtol=1e-12, restart=n, maxiter=1, callback=steps.append, callback_type="pr_norm")
    predicted = deq.predicted_iterations(family, sqrt_v**2, "linear", tol=1e-12, accelerated=True)
    assert len(steps) == pytest.approx(predicted, rel=0.13)


def test_a_disc_cannot_be_accelerated_and_an_interval_can() -> None:
    for family in ("iid", "orthogonal", "haar_disc"):
        plain, krylov = (
            deq.predicted_iterations(family, 0.4, "linear", accelerated=accelerated)  # type: ignore[arg-type]
            for accelerated in (False, True)
        )
        assert plain == pytest.approx(krylov, rel=1e-12)
    goe = deq.predicted_iterations("goe", 0.9**2 / 4, "linear", tol=1e-5, accelerated=True)
    assert goe == pytest.approx(math.log(1e-5) / math.log(0.9 / (1 + math.sqrt(1 - 0.81))), rel=1e-9)
    assert deq.predicted_iterations("goe", 0.0, "tanh") == 1.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="tol is 0"):
        deq.predicted_iterations("iid", 0.5, "tanh", tol=0)
    with pytest.raises(AnalysisError, match="iteration diverges: its rate is"):
        deq.predicted_iterations("antisymmetric", 0.36, "linear")
    with pytest.raises(AnalysisError, match="not an ellipse"):
        deq.predicted_iterations(deq.Elliptic(0.5), 0.3, "tanh", accelerated=True)
    assert deq.predicted_iterations(deq.Elliptic(0.5), 0.3, "hardtanh", accelerated=True) > 1
