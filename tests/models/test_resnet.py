import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from fpstab.models import EqualWidthResNet
from fpstab.models.resnet import Bottleneck, Patch


def multiply_adds(net: nn.Module, x: torch.Tensor) -> int:
    """Of all convolutions and linear maps, for one image, counted from what they are given and what they give."""
    total = 0

    def count(module: nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += out[0].numel() * args[0].shape[1] // module.groups * module.kernel_size[0] * module.kernel_size[1]
        else:
            total += out[0].numel() * args[0][0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        net.eval()(x)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("options", "parameters", "operations"),
    [
        ({}, 595_786, 4_677_632),
        ({"groups": "first"}, 6_253_386, 20_275_200),
        ({"depth": 50}, 1_122_890, 6_905_856),
        ({"depth": 50, "groups": "first"}, 15_815_242, 52_584_448),
        ({"tied": True}, 68_682, 4_677_632),
    ],
)
def test_size_and_cost(options: dict[str, object], parameters: int, operations: int) -> None:
    net = EqualWidthResNet(**options)  # type: ignore[arg-type]
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert multiply_adds(net, torch.zeros(1, 3, 32, 32)) == operations


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(256, 4, 4)] * 3 + [(512, 2, 4)] * 2 + [(1024, 2, 2)] * 2 + [(2048, 1, 2)] * 2),
        ({"tied": True}, [(256, 4, 4)] * 9),
        ({"stem": "patch"}, [(192, 4, 4)] * 3 + [(384, 2, 4)] * 2 + [(768, 2, 2)] * 2 + [(1536, 1, 2)] * 2),
        (
            {"size": 64, "channels": 1, "depth": 50},
            [(256, 8, 8)] * 4 + [(512, 4, 8)] * 4 + [(1024, 4, 4)] * 6 + [(2048, 2, 4)] * 3,
        ),
    ],
)
def test_every_state_has_the_same_size(options: dict[str, object], shapes: list[tuple[int, ...]]) -> None:
    net = EqualWidthResNet(**options).eval()  # type: ignore[arg-type]
    states = list(net.states(torch.rand(2, *net.input_shape)))
    assert [tuple(state.shape[1:]) for state in states] == shapes
    assert {state[0].numel() for state in states} == {net.n_state}
    assert len(states) == net.n_blocks + 1


def test_patches_put_tiles_side_by_side() -> None:
    x = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    tiles = Patch(2, 3)(x)[0]
    expected = [x[0, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for i in range(2) for j in range(3) for c in range(2)]
    assert torch.equal(tiles, torch.stack(expected))


def test_grouped_blocks_keep_tiles_apart() -> None:
    block = Bottleneck(32, 4, True, "batch", True).eval()
    x = torch.randn(1, 32, 4, 4)
    y = x.clone()
    y[:, 8:16] += 1.0
    changed = (block(x) != block(y)).flatten(2).any(2)[0]
    assert changed[8:16].any()
    assert not changed[:8].any()
    assert not changed[16:].any()


def test_transport_brings_every_coordinate_to_its_place() -> None:
    """Numbers in place of states: blocks that do nothing, so all states are one state."""
    net = EqualWidthResNet(18)
    for i in range(len(net.blocks)):
        net.blocks[i] = nn.Identity()
    x = torch.rand(2, 3, 32, 32)
    states = list(net.eval().states(x))
    flat = [net.transport(state, t) for t, state in enumerate(states)]
    for t, state in enumerate(states):
        assert torch.equal(flat[t], flat[-1])
        assert torch.equal(net.head(flat[t]), net(x))
        assert state[0].numel() == 4096
    assert not torch.equal(states[0].flatten(1), flat[0])


@torch.no_grad()
def test_without_post_relu_a_block_is_its_input_and_a_residual() -> None:
    net = EqualWidthResNet(18, post_relu=False).eval()
    states = list(net.states(torch.rand(2, 3, 32, 32)))
    torch.testing.assert_close(states[2] - states[1], net.blocks[1].residual(states[1]))
    assert (states[-1] < 0).any()
    assert min(float(state.min()) for state in EqualWidthResNet(18).eval().states(torch.rand(2, 3, 32, 32))) >= 0


def test_tied_blocks_are_one_that_is_iterated() -> None:
    net = EqualWidthResNet(50, tied=True).eval()
    states = list(net.states(torch.rand(2, 3, 32, 32)))
    assert len(states) == 17
    for one, following in pairwise(states):
        assert torch.equal(net.blocks[0](one), following)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_evaluation_differs_from_training_only_by_batch_statistics() -> None:
    net = EqualWidthResNet(18, norm="group")
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(net(x), copy.deepcopy(net).eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 34}, "depth must be 18 or 50, got 34"),
        ({"classes": 0}, "classes must be a positive integer"),
        ({"size": 28}, "size must be a multiple of 32"),
        ({"channels": 0}, "channels must be"),
        ({"groups": True}, "groups must be 'all', 'first' or 'none', got True"),
        ({"stem": "pool"}, "stem must be"),
        ({"tied": 1}, "tied must be"),
        ({"post_relu": None}, "post_relu must be"),
        ({"norm": "layer"}, "norm must be"),
        ({"tied": True, "norm": "batch"}, "Use norm='group'"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EqualWidthResNet(**options)  # type: ignore[arg-type]


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 32, 32\], got \[2, 1, 28, 28\]"):
        EqualWidthResNet()(torch.zeros(2, 1, 28, 28))
