import pytest
import torch

from fpstab.equilibrium import FixedPointLayer, corrected_loss, jacobian_penalty
from tests.equilibrium.problems import Cell, batch


def generator():
    return torch.Generator().manual_seed(0)


class TestJacobianPenalty:
    def test_mean_is_the_frobenius_norm(self):
        W = batch(6, 6)
        estimate = jacobian_penalty(lambda z: z @ W.T, torch.zeros(500, 6).double(), generator=generator(), probes=20)
        assert estimate.item() == pytest.approx(W.square().sum().item() / 6, rel=0.02)

    def test_gradient(self):
        """Of tanh(Wz + x), against autograd on the whole Jacobian, with all sign vectors in place of random ones."""
        f, x = Cell(2), batch(1, 2)
        z = batch(1, 2, seed=4)
        whole = torch.autograd.functional.jacobian(lambda z: f(z, x)[0], z, create_graph=True)[:, 0]
        (exact,) = torch.autograd.grad(whole.square().sum() / 2, f.W)
        penalty = jacobian_penalty(f, z.expand(4000, 2), (x.expand(4000, 2),), generator=generator())
        (found,) = torch.autograd.grad(penalty, f.W)
        assert torch.allclose(found, exact, rtol=0.05, atol=0.02)

    def test_through_the_equilibrium(self):
        f, x = Cell(3), batch(2, 3)
        layer = FixedPointLayer(f, tol=1e-13)

        def penalty(W):
            z = layer(torch.zeros(2, 3).double(), x)
            return jacobian_penalty(f, z, (x,), generator=generator())

        assert torch.autograd.gradcheck(penalty, (f.W,))

    def test_tuples(self):
        z = (torch.zeros(3, 2), torch.zeros(3, 1))
        penalty = jacobian_penalty(lambda z: (2 * z[0], 3 * z[1]), z, generator=generator())
        assert penalty.item() == pytest.approx((4 + 4 + 9) / 3)

    def test_the_global_random_state_stays(self):
        before = torch.get_rng_state()
        jacobian_penalty(torch.sin, torch.zeros(3, 2), generator=generator())
        assert torch.equal(torch.get_rng_state(), before)

    def test_refused(self):
        with pytest.raises(ValueError, match="probes=0"):
            jacobian_penalty(torch.sin, torch.zeros(3, 2), generator=generator(), probes=0)


class TestCorrectedLoss:
    def test_weights(self):
        losses = [torch.tensor(value) for value in (100.0, 10.0, 1.0)]
        assert corrected_loss(losses, decay=0.1).item() == pytest.approx(1 + 1 + 1)
        assert corrected_loss(losses, decay=0.0).item() == pytest.approx(1)

    def test_refused(self):
        with pytest.raises(ValueError, match="empty"):
            corrected_loss([])
        with pytest.raises(ValueError, match=r"decay=1\.5"):
            corrected_loss([torch.tensor(1.0)], decay=1.5)
