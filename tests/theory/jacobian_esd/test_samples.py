import numpy as np
import pytest
import torch
from scipy.special import erfinv
from torch import Generator

from fpstab.theory import jacobian_esd


def test_it_is_the_jacobian_of_the_network() -> None:
    # drawn again with the same seed, and differentiated
    for activation, phi in (("tanh", torch.tanh), ("erf", lambda h: torch.erf(h * torch.pi**0.5 / 2))):
        generator = Generator().manual_seed(3)
        sample = jacobian_esd.sample_spectrum(activation, 3, width=30, q0=0.8, sigma_b=0.2, generator=generator)
        generator = Generator().manual_seed(3)
        x = torch.randn(30, dtype=torch.float64, generator=generator)
        x *= ((0.8 - 0.04) * 30 / x.square().sum()).sqrt()
        layers = []
        for _ in range(3):
            weight = torch.empty(30, 30, dtype=torch.float64).normal_(generator=generator) / 30**0.5
            layers.append((weight, torch.empty(30, dtype=torch.float64).normal_(generator=generator) * 0.2))

        def network(x: torch.Tensor, layers: list = layers, phi=phi) -> torch.Tensor:
            for weight, bias in layers:
                x = phi(weight @ x + bias)
            return x

        jacobian = torch.autograd.functional.jacobian(network, x)
        exact = torch.linalg.eigvalsh(jacobian @ jacobian.T)
        assert sample.eigenvalues.tolist() == pytest.approx(exact.tolist(), abs=1e-12)
        assert (sample.n_zero, sample.width) == (0, 30)


@pytest.mark.parametrize(("activation", "depth"), [("linear", 2), ("hardtanh", 2), ("erf", 2), ("tanh", 1)])
def test_samples_follow_the_law(activation: str, depth: int) -> None:
    samples = [
        jacobian_esd.sample_spectrum(activation, depth, width=300, generator=Generator().manual_seed(k))
        for k in range(8)
    ]
    law = jacobian_esd.density(jacobian_esd.edges(activation, depth).grid(150), activation, depth)
    values = torch.cat([sample.eigenvalues for sample in samples])
    assert jacobian_esd.ks_distance(values, law) < 0.02
    assert jacobian_esd.ks_distance(values * 1.5, law) > 0.02
    moments = np.array([[sample.scalars()[key] for key in ("m1", "m2")] for sample in samples])
    errors = moments.std(0, ddof=1) / 8**0.5
    assert (np.abs(moments.mean(0) - jacobian_esd.moments(activation, depth, 2).numpy()) < 4 * errors).all()
    assert np.mean([sample.n_zero for sample in samples]) / 300 == pytest.approx(law.atom, abs=0.05)


def test_exact_zeros_are_those_of_the_narrowest_layer() -> None:
    sample = jacobian_esd.sample_spectrum("relu", 4, width=60, generator=Generator().manual_seed(1))
    assert 20 < sample.n_zero < 45
    assert sample.eigenvalues[0] > 0
    heavy = jacobian_esd.sample_spectrum(
        "hardtanh", 3, width=60, distribution="cauchy", generator=Generator().manual_seed(1)
    )
    assert 0 < heavy.n_zero < 60
    assert heavy.scalars()["edge"] > 5


def test_relu_follows_the_law_of_its_own_shares_of_active_neurons() -> None:
    # K ∈ {0, 1} with any p is hard-tanh's at the q with erf(1/√(2q)) = p
    sample = jacobian_esd.sample_spectrum("relu", 2, width=600, generator=Generator().manual_seed(5))
    q = (1 / (2 * erfinv(sample.active.numpy()) ** 2)).tolist()
    own = jacobian_esd.density(jacobian_esd.edges("hardtanh", 2, q=q).grid(), "hardtanh", 2, q=q)
    limit = jacobian_esd.density(jacobian_esd.edges("relu", 2).grid(), "relu", 2)
    assert own.atom == pytest.approx(sample.n_zero / 600, abs=1e-12)
    assert jacobian_esd.ks_distance(sample.eigenvalues, own) < 0.01
    assert jacobian_esd.ks_distance(sample.eigenvalues, limit) > jacobian_esd.ks_distance(sample.eigenvalues, own)


def test_the_distance_of_a_perfect_sample() -> None:
    law = jacobian_esd.density(jacobian_esd.edges("linear", 1).grid(), "linear", 1)
    # quantiles (k − ½)/n are at the distance 1/(2n)
    cdf = law.cdf.numpy()
    quantiles = np.interp((np.arange(50) + 0.5) / 50, cdf, law.lam.numpy())
    assert jacobian_esd.ks_distance(torch.from_numpy(quantiles), law) == pytest.approx(0.01, abs=2e-3)
    with pytest.raises(ValueError, match="empty"):
        jacobian_esd.ks_distance(torch.zeros(0), law)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="depth = 0"):
        jacobian_esd.sample_spectrum("linear", 0)
    with pytest.raises(ValueError, match="distribution is 'uniform'"):
        jacobian_esd.sample_spectrum("linear", 1, distribution="uniform")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale = 0"):
        jacobian_esd.sample_spectrum("linear", 1, scale=0.0)


def test_one_seed_one_sample() -> None:
    def once(seed: int) -> list[float]:
        return jacobian_esd.sample_spectrum(
            "tanh", 2, width=10, generator=Generator().manual_seed(seed)
        ).eigenvalues.tolist()

    state = torch.get_rng_state()
    assert once(0) == once(0)
    assert once(0) != once(1)
    assert torch.equal(state, torch.get_rng_state())
