"""The weights of a state dict against those of the network that gave it."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from fpstab.esd.state_dicts import state_dict_weights
from fpstab.esd.stored import StoredTensor
from fpstab.esd.weights import Weight, network_weights


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def entry(tensor: Tensor) -> StoredTensor:
    is_float = tensor.is_floating_point() or tensor.is_complex()
    identity = (tensor.data_ptr(), tensor.shape, tensor.stride())
    return StoredTensor(tuple(tensor.shape), str(tensor.dtype), is_float, identity, lambda: tensor)


def weights(state: dict[str, Tensor]) -> tuple[list[Weight], list[str]]:
    return state_dict_weights({name: entry(tensor) for name, tensor in state.items()})


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Parameter(torch.randn(5, 5))
        self.pos_embed = nn.Parameter(torch.randn(1, 7, 4))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
        self.gain = nn.Parameter(torch.randn(4))
        self.register_buffer("index", torch.arange(9).reshape(3, 3))
        self.register_buffer("mask", torch.tril(torch.ones(6, 6)))


def tied() -> nn.Module:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    net[1].weight = net[0].weight
    return net


def old_weight_norm(module: nn.Module, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in many checkpoints
        return nn.utils.weight_norm(module, **options)  # type: ignore[arg-type]


def scaled(module: nn.Module, name: str) -> nn.Module:
    """Norms other than those that the directions have."""
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key.endswith(name):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return module


def pruned() -> nn.Module:
    return nn.Sequential(prune.random_unstructured(nn.Linear(8, 6), "weight", amount=0.5))


SAME: dict[str, Callable[[], nn.Module]] = {
    "a linear layer alone": lambda: nn.Linear(5, 4),
    "convolutions": lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv3d(5, 6, 2), nn.BatchNorm3d(6)),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, (3, 2)),
    "recurrent": lambda: nn.Sequential(nn.LSTM(4, 5, num_layers=2), nn.GRUCell(3, 4)),
    "a transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "different widths": lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=4),
    "bare": Bare,
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
    "tied": tied,
    "compiled": lambda: nn.Sequential(torch.compile(nn.Linear(4, 5)), torch.compile(nn.LSTM(3, 3))),  # type: ignore[list-item]
    "weight_norm": lambda: nn.Sequential(
        scaled(parametrizations.weight_norm(nn.Linear(5, 4)), "original0"),
        scaled(parametrizations.weight_norm(nn.Conv2d(3, 4, 3), dim=1), "original0"),
        scaled(parametrizations.weight_norm(nn.Linear(5, 4), dim=None), "original0"),  # type: ignore[arg-type]
        scaled(parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"), "original0"),
        parametrizations.weight_norm(nn.Linear(5, 1)),
    ),
    "weight_norm as a hook": lambda: nn.Sequential(
        scaled(old_weight_norm(nn.Linear(5, 4)), "_g"),
        scaled(old_weight_norm(nn.ConvTranspose1d(3, 4, 3), dim=1), "_g"),
        scaled(old_weight_norm(nn.Conv2d(3, 4, 3), dim=None), "_g"),
        old_weight_norm(nn.Linear(1, 4)),
    ),
    "pruned": pruned,
    "half precision": lambda: scaled(parametrizations.weight_norm(nn.Linear(50, 40)), "original0").bfloat16(),
}  # fmt: skip


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_the_same_as_of_the_network(make):
    module = make()
    listed, notes = weights(module.state_dict())
    expected = {weight.name: weight for weight in network_weights(module)}
    assert {weight.name for weight in listed} == set(expected)
    assert len(listed) == len(expected)
    assert not any("stored" in note for note in notes)
    for weight in listed:
        theirs = expected[weight.name].read().detach()
        assert weight.is_conv == (weight.name != "weight" and expected[weight.name].is_conv) or theirs.ndim > 2
        rtol = 1e-2 if theirs.dtype == torch.bfloat16 else 1e-6  # the network multiplies in its own precision
        torch.testing.assert_close(weight.read(), theirs.to(weight.read().dtype), rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.spectral_norm(nn.Linear(6, 5)),
        lambda: parametrizations.orthogonal(nn.Linear(6, 5)),
        lambda: nn.utils.spectral_norm(nn.Linear(6, 5)),
    ],
    ids=["spectral_norm", "orthogonal", "spectral_norm as a hook"],
)
def test_other_parametrised_weights_are_taken_as_stored_and_that_is_said(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(make(), nn.Linear(5, 3))
    listed, notes = weights(module.state_dict())
    assert sorted(weight.name for weight in listed) == ["0", "1"]
    assert notes == ["Taken as stored, without their parametrisation: 0."]
    stored = [tensor for name, tensor in module.state_dict().items() if name.startswith("0.") and "orig" in name]
    assert torch.equal(next(weight for weight in listed if weight.name == "0").read(), stored[0])


class LowRank(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        return u[:, :3] * s[:3], v[:3]


def test_two_originals_that_are_no_norm_and_direction():
    module = nn.Sequential(nn.Linear(8, 6, bias=False))
    parametrize.register_parametrization(module[0], "weight", LowRank())
    listed, notes = weights(module.state_dict())
    assert [weight.name for weight in listed] == ["0.weight.original0", "0.weight.original1"]
    assert "0.weight.original0, 0.weight.original1" in notes[0]


def test_names_that_only_look_like_weight_norm():
    listed, _ = weights({"a.proj_v": torch.randn(4, 5), "a.proj_g": torch.randn(4, 5), "b.w_v": torch.randn(4, 5)})
    assert [weight.name for weight in listed] == ["a.proj_v", "a.proj_g", "b.w_v"]


def test_ties_are_named():
    listed, notes = weights(tied().state_dict())
    assert [weight.name for weight in listed] == ["0"]
    assert notes == ["Tied, analysed once: 1 is 0."]


def test_what_is_left_out():
    state = {
        "h.0.attn.c_attn.weight": torch.randn(4, 12),
        "h.0.attn.bias": torch.ones(1, 1, 6, 6).tril(),  # GPT-2's mask
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "head.tril": torch.ones(6, 6).tril(),
        "quantised.qweight": torch.ones(6, 6, dtype=torch.int32),
        "quantised.scales": torch.ones(6),
        "optimizer.state.h.exp_avg": torch.randn(4, 12),
        "flag": torch.tensor(True),
    }
    listed, notes = weights(state)
    assert [weight.name for weight in listed] == ["h.0.attn.c_attn"]
    assert notes == [
        "Left out as biases and masks: h.0.attn.bias, head.tril.",
        "Left out as integers: quantised.qweight (torch.int32).",
    ]


def test_long_lists_are_cut():
    _, notes = weights({f"{i}.index": torch.ones(2, 2, dtype=torch.int64) for i in range(10)} | {"w": torch.ones(2, 2)})
    assert notes == [
        "Left out as integers: 0.index (torch.int64), 1.index (torch.int64), 2.index (torch.int64) and 7 more."
    ]


def test_kinds_are_known_by_shape():
    state = {"a.weight": torch.ones(3, 4), "b.weight": torch.ones(3, 4, 5), "c.weight": torch.ones(3, 4, 5, 5),
             "d.weight": torch.ones(3, 4, 5, 5, 5), "e": torch.ones(3, 4, 5)}  # fmt: skip
    listed, _ = weights(state)
    assert [(weight.kind, weight.is_conv) for weight in listed] == [
        ("Tensor", False), ("Conv1d", True), ("Conv2d", True), ("Conv3d", True), ("Tensor", False)]  # fmt: skip


def test_nothing_is_read_to_list():
    def read() -> Tensor:
        raise AssertionError("read")

    tensors = {name: StoredTensor((4, 4), "F32", True, name, read) for name in ("a.weight", "b.weight_g", "b.weight_v")}
    listed, _ = state_dict_weights(tensors)
    assert len(listed) == 3
