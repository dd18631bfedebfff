import pytest
import torch
from torch import nn

from fpstab.orbits import head_constants, head_of


@pytest.mark.parametrize("shape", [(10, 4096), (7, 5)])
def test_lipsdp_of_a_head_as_wide_as_a_state(shape):
    """The program behind an identity layer of 4,096 neurons, reduced to the classes: the same optimum, σ_max."""
    head = nn.Linear(*reversed(shape))
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    sigma = torch.linalg.matrix_norm(head.weight.detach().double(), 2).item()
    found = head_constants(head, "cvxpy")
    assert found["logits"].lipsdp == pytest.approx(sigma, rel=1e-6)
    assert found["logits"].value == pytest.approx(sigma, rel=1e-6)
    assert found["probabilities"].value == pytest.approx(sigma / 2, rel=1e-6)
    exact = head_constants(head, "exact")
    assert exact["logits"].value == pytest.approx(sigma, rel=1e-12)
    assert exact["probabilities"].value <= found["probabilities"].value
    assert exact["logits"].certified
    assert not found["logits"].certified  # the reduction rounds


def test_a_head_too_large_for_cvxpy_is_refused():
    with pytest.raises(ValueError, match="too large for SCS"):
        head_constants(nn.Linear(512, 300), "cvxpy")


def test_the_head_of_a_network():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1))
    assert head_of(net, None) is net[2]
    assert head_of(net, "0") is net[0]
    with pytest.raises(ValueError, match=r"Sequential has no 'head'\. It has: 0, 1, 2, 3"):
        head_of(net, "head")
    with pytest.raises(ValueError, match="has no part with parameters"):
        head_of(nn.Sequential(nn.ReLU()), None)
