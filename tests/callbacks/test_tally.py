import pytest
import torch

from fpstab.callbacks.tally import Tally
from fpstab.equilibrium import FixedPointLayer, Picard

pytestmark = pytest.mark.filterwarnings("ignore:FixedPointLayer")


def test_means_of_what_was_done_since_the_last_time():
    layer = FixedPointLayer(lambda z, x: 0.5 * z + x, Picard(100))
    layer(torch.zeros(4, 2), torch.ones(4, 2))  # before the tally: not counted
    tally = Tally(layer)
    tally.add()
    assert tally.take() == {}
    iterations = []
    for solver in (Picard(100), Picard(3)):
        layer.solver = layer.backward = solver
        x = torch.ones(4, 2, requires_grad=True)
        layer(torch.zeros(4, 2), x).sum().backward()
        tally.add()
        tally.add()  # the same batch again
        iterations.append(float(layer.last.forward.iterations.double().mean()))
    means = tally.take()
    assert means["forward_iterations"] == pytest.approx(sum(iterations) / 2)
    assert iterations[1] == 3 < iterations[0]
    assert means["forward_unconverged"] == 0.5  # all of the second batch
    assert means["fallback"] == 0.5  # whose adjoint equation three iterations do not solve either
    assert means["dropped"] == 0
    assert tally.take() == {}


def test_a_batch_without_gradients_has_no_backward():
    layer = FixedPointLayer(lambda z, x: 0.5 * z + x)
    tally = Tally(layer)
    with torch.no_grad():
        layer(torch.zeros(4, 2), torch.ones(4, 2))
    tally.add()
    assert "backward_iterations" not in tally.take()
