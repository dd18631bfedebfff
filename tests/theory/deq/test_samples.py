import math

import pytest
import torch
from torch import Generator

from fpstab.theory import deq


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("family", ["iid", "orthogonal", "goe", "antisymmetric", "haar_disc", deq.Elliptic(0.3)])
def test_a_weight_is_of_its_family(family: deq.Family) -> None:
    w = deq.sample_weight(family, 0.49, 200, generator=seeded())
    assert float(w.square().sum()) / 200 == pytest.approx(0.49, rel=0.12)
    tau = {"orthogonal": 0.0, "haar_disc": 0.0}.get(str(family))
    expected = deq.linear_moments(family, 0.01).mean if tau is None else 1.0
    assert deq.sample_linear_moments(family, 0.01, width=200, generator=seeded()).mean == pytest.approx(
        expected, abs=0.003
    )


@pytest.mark.parametrize("activation", ["hardtanh", "tanh", "erf", "relu", "linear"])
def test_the_sample_is_an_equilibrium(activation: deq.Activation) -> None:
    sample = deq.sample_equilibrium("iid", 0.4, activation, 2.0, width=50, inputs=3, generator=seeded())
    phi = {
        "hardtanh": torch.nn.functional.hardtanh,
        "tanh": torch.tanh,
        "erf": torch.erf,
        "relu": torch.relu,
        "linear": lambda h: h,
    }[activation]
    torch.testing.assert_close(sample.x.square().mean(1), torch.full((3,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(phi(sample.z @ sample.weight.T) + sample.x, sample.z, rtol=0, atol=1e-8)
    assert sample.sigma_h2 == pytest.approx(float((sample.weight @ sample.z.T).square().mean()), rel=1e-8)
    assert sample.scalars()["residual"] <= 1e-10


@pytest.mark.parametrize("family", ["iid", "goe"])
def test_spectral_radius_is_of_the_jacobian(family: deq.FamilyName) -> None:
    sample = deq.sample_equilibrium(family, 0.2, "hardtanh", width=60, inputs=2, generator=seeded())
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, i=i: torch.nn.functional.hardtanh(sample.weight @ z) + sample.x[i], sample.z[i]
        )
        exact = float(torch.linalg.eigvals(jacobian).abs().max())
        assert float(sample.spectral_radius()[i]) == pytest.approx(exact, rel=1e-8)


def test_a_saturated_equilibrium_has_no_radius() -> None:
    sample = deq.sample_equilibrium("iid", 1e12, "hardtanh", width=5, max_iter=50, generator=seeded())
    assert sample.spectral_radius().tolist() == [0.0]


def test_what_diverges_says_so() -> None:
    for activation in ("linear", "tanh"):
        sample = deq.sample_equilibrium("iid", 16.0, activation, width=100, max_iter=300, generator=seeded())  # type: ignore[arg-type]
        assert sample.status.code == "not_converged"
        assert "Choose a smaller V" in sample.status.message
        assert torch.isfinite(sample.z).all()
        assert float(sample.residual[0]) > 0.1


def test_moments_of_a_weight() -> None:
    w = torch.diag(torch.tensor([0.5, -1.0]))
    moments = deq.weight_moments(w)
    assert (moments.mean, moments.m2, moments.m4) == pytest.approx((1.25, 2.125, (16 + 1 / 16) / 2))
    singular = deq.weight_moments(torch.eye(2))
    assert singular.status.code == "singular"
    assert singular.m2 is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        deq.sample_weight("iid", 1.0, 0)
    with pytest.raises(ValueError, match="V is nan"):
        deq.sample_weight("iid", math.nan, 3)
    with pytest.raises(ValueError, match="max_iter = 0"):
        deq.sample_equilibrium("iid", 1.0, "tanh", width=3, max_iter=0)
    with pytest.raises(ValueError, match="square"):
        deq.weight_moments(torch.zeros(2, 3))
