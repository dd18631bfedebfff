import copy
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from fpstab.esd import ESDReport, esd_report
from fpstab.esd.weights import network_weights, select

Blocks = list[Tensor]  # the matrices whose spectra a weight pools


def squares(blocks: Blocks) -> np.ndarray:
    """Squared singular values by SVD in double precision, pooled, ascending."""
    wide = [b.detach().to(torch.complex128 if b.is_complex() else torch.float64).numpy() for b in blocks]
    return np.sort(np.concatenate([np.linalg.svd(matrix, compute_uv=False) ** 2 for matrix in wide]))


def assert_layers(report: ESDReport, expected: Mapping[str, Tensor | Blocks], rtol: float = 1e-12) -> None:
    """Exactly these names in this order, each with the spectrum of its matrix or matrices."""
    assert [layer.name for layer in report.layers] == list(expected)
    for layer, matrix in zip(report.layers, expected.values(), strict=True):
        blocks = matrix if isinstance(matrix, list) else [matrix.flatten(1)]
        eigenvalues = squares(blocks)
        assert layer.spectrum is not None, layer.status
        assert layer.spectrum.n_matrices == len(blocks)
        assert layer.n + layer.spectrum.n_zero == eigenvalues.size
        atol = eigenvalues[-1] * rtol
        np.testing.assert_allclose(layer.spectrum.eigenvalues, eigenvalues[layer.spectrum.n_zero :], rtol=0, atol=atol)
        if not isinstance(matrix, list):
            assert layer.shape == tuple(matrix.shape)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(7, 5),
    "Conv1d": lambda: nn.Conv1d(4, 6, 3),
    "Conv2d": lambda: nn.Conv2d(4, 6, (3, 2)),
    "Conv3d": lambda: nn.Conv3d(4, 6, (1, 3, 2)),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, (3, 2)),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 6, (1, 3, 2)),
    "Embedding": lambda: nn.Embedding(9, 4, padding_idx=0),
    "EmbeddingBag": lambda: nn.EmbeddingBag(9, 4),
    "Bilinear": lambda: nn.Bilinear(3, 4, 5),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_modules_with_a_weight(kind: str) -> None:
    layer = PLAIN[kind]()
    report = esd_report(nn.Sequential(nn.ReLU(), layer, nn.PReLU(5), nn.BatchNorm1d(5), nn.GroupNorm(5, 5)))
    assert_layers(report, {"1": layer.weight})
    assert report.layers[0].kind == type(layer).__name__
    assert_layers(esd_report(layer), {"weight": layer.weight})


def groups_of(weight: Tensor, groups: int) -> Blocks:
    return [part.flatten(1) for part in weight.split(weight.shape[0] // groups)]


@pytest.mark.parametrize("layer_type", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d])
@pytest.mark.parametrize(("channels", "groups"), [((6, 12), 3), ((12, 6), 3), ((6, 6), 6), ((6, 18), 6)])
def test_grouped_and_depthwise_convolutions_are_block_diagonal(
    layer_type: type[nn.Conv2d], channels: tuple[int, int], groups: int
) -> None:
    layer = layer_type(*channels, 3, groups=groups)
    report = esd_report(layer)
    assert_layers(report, {"weight": groups_of(layer.weight, groups)})
    block_diagonal = torch.block_diag(*groups_of(layer.weight.detach(), groups)).double().numpy()
    expected = np.sort(np.linalg.svd(block_diagonal, compute_uv=False)) ** 2
    assert report.layers[0].spectrum is not None
    np.testing.assert_allclose(report.layers[0].spectrum.eigenvalues, expected, rtol=1e-10)
    assert report.layers[0].shape == tuple(layer.weight.shape)


@pytest.mark.parametrize("groups", [1, 2])
def test_slices(groups: int) -> None:
    conv, linear = nn.Conv2d(4, 6, (3, 2), groups=groups), nn.Linear(7, 5)
    slices = [part[:, :, i, j] for part in conv.weight.split(6 // groups) for i in range(3) for j in range(2)]
    report = esd_report(nn.Sequential(conv, linear, nn.Bilinear(3, 4, 5)), conv="slices")
    bilinear = report["2"].spectrum
    assert bilinear is not None
    assert bilinear.matrix_shape == (5, 12)  # no convolution
    assert_layers(ESDReport(report.layers[:2], report.status), {"0": slices, "1": linear.weight})


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("conv", ["flatten", "slices"])
def test_a_transposed_convolution_has_the_spectrum_of_its_adjoint(groups: int, conv: str) -> None:
    forward = nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=False)
    adjoint = nn.ConvTranspose2d(6, 4, 3, padding=1, groups=groups, bias=False)
    with torch.no_grad():
        adjoint.weight.copy_(forward.weight)
        x, y = drawn(1, 4, 5, 5), drawn(1, 6, 5, 5)
        assert float((forward(x) * y).sum()) == pytest.approx(float((x * adjoint(y)).sum()), rel=1e-4)
    one, other = (esd_report(layer, conv=conv).layers[0].spectrum for layer in (forward, adjoint))  # type: ignore[arg-type]
    assert one is not None
    assert other is not None
    assert torch.equal(one.eigenvalues, other.eigenvalues)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(kind: str, bidirectional: bool) -> None:
    layer = getattr(nn, kind)(5, 4, num_layers=2, bidirectional=bidirectional)
    names = [
        f"weight_{which}_l{number}{end}"
        for number in range(2)
        for end in (["", "_reverse"] if bidirectional else [""])
        for which in ("ih", "hh")
    ]
    report = esd_report(nn.ModuleDict({"rnn": layer}))
    assert_layers(report, {f"rnn.{name}": getattr(layer, name) for name in names})
    assert {entry.kind for entry in report.layers} == {kind}


def test_recurrent_projections_and_cells() -> None:
    lstm, cell = nn.LSTM(5, 4, proj_size=3), nn.GRUCell(5, 4)
    names = ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0")
    assert_layers(esd_report(lstm), {name: getattr(lstm, name) for name in names})
    assert_layers(esd_report(cell), {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh})


def test_attention() -> None:
    same = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    assert_layers(esd_report(same), {"in_proj_weight": same.in_proj_weight, "out_proj": same.out_proj.weight})
    other = nn.MultiheadAttention(8, 2, kdim=5, vdim=6)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    expected = {name: getattr(other, name) for name in names} | {"out_proj": other.out_proj.weight}
    assert_layers(esd_report(other), expected)


def test_a_transformer_layer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12)
    expected = {
        "self_attn.in_proj_weight": layer.self_attn.in_proj_weight,
        "self_attn.out_proj": layer.self_attn.out_proj.weight,
        "linear1": layer.linear1.weight,
        "linear2": layer.linear2.weight,
    }
    assert_layers(esd_report(layer), expected)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(drawn(6, 5))
        self.vector = nn.Parameter(drawn(6))
        self.scalar = nn.Parameter(torch.tensor(1.0))
        self.experts = nn.Parameter(drawn(4, 6, 5, seed=1))
        self.position = nn.Parameter(drawn(1, 7, 6, seed=2))
        self.class_token = nn.Parameter(drawn(1, 1, 6))
        self.layer_scale = nn.Parameter(drawn(6, 1, 1))
        self.frozen = nn.Parameter(drawn(3, 4, seed=3), requires_grad=False)
        self.register_buffer("mask", drawn(5, 5))
        self.register_parameter("absent", None)


def test_bare_parameters() -> None:
    net = Bare()
    expected = {
        "inner.matrix": net.matrix,
        "inner.experts": net.experts,
        "inner.position": net.position[0],
        "inner.frozen": net.frozen,
    }
    assert_layers(esd_report(nn.ModuleDict({"inner": net})), expected)


def test_parameter_containers() -> None:
    items = nn.ParameterList([nn.Parameter(drawn(4, 3)), nn.Parameter(drawn(3))])
    table = nn.ParameterDict({"a": nn.Parameter(drawn(3, 5)), "b": nn.Parameter(drawn(2, 5, seed=1))})
    report = esd_report(nn.ModuleDict({"list": items, "dict": table}))
    assert_layers(report, {"list.0": items[0], "dict.a": table["a"], "dict.b": table["b"]})


def identity(layer: nn.Module, name: str = "weight") -> nn.Module:
    parametrize.register_parametrization(layer, name, nn.Identity())
    return layer


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.LayerNorm((5, 6)),
        lambda: nn.RMSNorm((5, 6)),
        lambda: identity(nn.LayerNorm((5, 6))),
        lambda: prune.random_unstructured(nn.LayerNorm((5, 6)), "weight", 0.5),
        lambda: nn.BatchNorm2d(5),
        lambda: nn.LazyBatchNorm1d(),
        lambda: nn.LazyInstanceNorm2d(affine=True),
        lambda: identity(nn.BatchNorm1d(5)),
    ],
)
def test_norms_hold_no_matrix(norm: Callable[[], nn.Module]) -> None:
    report = esd_report(nn.Sequential(norm(), nn.ReLU()))
    assert (report.layers, report.status.code) == ((), "no_weights")


def test_tied_parameters_and_shared_modules_count_once() -> None:
    encoder, decoder, shared = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.Linear(4, 4)
    decoder.weight = encoder.weight
    net = nn.ModuleDict({"encoder": encoder, "first": shared, "second": shared, "decoder": decoder})
    assert_layers(esd_report(net), {"encoder": encoder.weight, "first": shared.weight})


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
)
def test_dtypes(dtype: torch.dtype) -> None:
    value = torch.complex(drawn(6, 5), drawn(6, 5, seed=1)).to(dtype) if dtype.is_complex else drawn(6, 5).to(dtype)
    layer = nn.Linear(5, 6)
    layer.weight = nn.Parameter(value, requires_grad=False)
    assert_layers(esd_report(layer), {"weight": value})


def test_int8_parameters_have_lost_their_scale() -> None:
    layer = nn.Linear(5, 6)
    layer.weight = nn.Parameter(torch.ones(6, 5, dtype=torch.int8), requires_grad=False)
    (entry,) = esd_report(layer).layers
    assert (entry.name, entry.shape, entry.alpha, entry.status.code) == ("weight", (6, 5), None, "quantized")
    assert "weight" in entry.status.message
    assert "int8" in entry.status.message


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("convert", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_sparse_parameters(convert: Callable[[Tensor], Tensor]) -> None:
    value = drawn(6, 5).relu()
    layer = nn.Linear(5, 6)
    layer.weight = nn.Parameter(convert(value))
    assert_layers(esd_report(layer), {"weight": value})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel and other:UserWarning")
def test_quantised_weights() -> None:
    quantized = pytest.importorskip("torch.ao.nn.quantized")

    def coded(*shape: int) -> Tensor:
        return torch.quantize_per_tensor(drawn(*shape), 0.05, 0, torch.qint8)

    bare = nn.ParameterList([nn.Parameter(coded(6, 5), requires_grad=False)])
    assert_layers(esd_report(bare), {"0": coded(6, 5).dequantize()})

    linear, conv = quantized.Linear(5, 6), quantized.Conv2d(4, 6, 3, groups=2)
    linear.set_weight_bias(coded(6, 5), None)
    conv.set_weight_bias(coded(6, 2, 3, 3), None)
    report = esd_report(nn.ModuleDict({"linear": linear, "conv": conv}))
    expected = {"linear": coded(6, 5).dequantize(), "conv": groups_of(coded(6, 2, 3, 3).dequantize(), 2)}
    assert_layers(report, expected)
    table = quantized.Embedding(9, 8, dtype=torch.quint8)
    assert_layers(esd_report(table), {"weight": table.weight().dequantize()})


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_scripted_modules() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Linear(5, 6))
    expected = {"0": groups_of(net[0].weight, 2), "1": net[1].weight}
    assert_layers(esd_report(torch.jit.script(net)), expected)


def test_compiled_modules_keep_their_names() -> None:
    inner = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    plain = {"0": inner[0].weight, "1": inner[1].weight}
    assert_layers(esd_report(torch.compile(inner)), plain)
    nested = nn.ModuleDict({"net": torch.compile(inner)})
    assert_layers(esd_report(nested), {f"net.{name}": weight for name, weight in plain.items()})
    layer = nn.Linear(5, 4)
    assert_layers(esd_report(torch.compile(layer)), {"weight": layer.weight})


def test_lazy_modules_wait_for_their_shape() -> None:
    net = nn.Sequential(nn.LazyLinear(6), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Linear(5, 6))
    report = esd_report(net)
    assert [layer.name for layer in report.layers] == ["0", "1", "3"]
    for layer in report.layers[:2]:
        assert (layer.status.code, layer.shape, layer.n, layer.alpha) == ("uninitialized", (), 0, None)
        assert layer.status.message.startswith(layer.name)
        assert "forward pass" in layer.status.message
    assert isinstance(net[0], nn.LazyLinear)
    net[0](torch.zeros(2, 5))
    assert_layers(esd_report(net[0]), {"weight": net[0].weight})


def test_meta_modules() -> None:
    with torch.device("meta"):
        layer = nn.Linear(30, 40)
    (entry,) = esd_report(layer).layers
    assert (entry.status.code, entry.shape, entry.n) == ("meta", (40, 30), 0)
    assert entry.status.message.startswith("weight [40, 30]")


# -- effective weights ---------------------------------------------------------------------------------------


def effective(layer: nn.Module, name: str = "weight") -> Tensor:
    """What the network applies, by torch itself, on a copy."""
    return getattr(copy.deepcopy(layer).eval(), name).detach()  # type: ignore[no-any-return]


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


@pytest.mark.parametrize(
    "build",
    [
        lambda: parametrizations.spectral_norm(nn.Linear(6, 6)),
        lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
        lambda: parametrizations.weight_norm(nn.Linear(6, 6), dim=None),
        lambda: parametrizations.orthogonal(nn.Linear(6, 6)),
        lambda: parametrizations.spectral_norm(parametrizations.weight_norm(nn.Linear(6, 6))),
        lambda: identity(parametrizations.spectral_norm(identity(nn.Linear(6, 6)))),
        lambda: parametrizations.spectral_norm(nn.Conv2d(4, 6, 3)),
        lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 3)),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_parametrised_weights(build: Callable[[], nn.Module], training: bool) -> None:
    layer = build().train(training)
    report = esd_report(nn.ModuleDict({"layer": layer}))
    assert_layers(report, {"layer": effective(layer)})
    assert report.layers[0].kind in {"Linear", "Conv2d", "ConvTranspose1d"}


def test_parametrisations_are_applied_in_turn() -> None:
    layer = nn.Linear(5, 5)
    plain = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Symmetric())
    parametrize.register_parametrization(layer, "weight", Double())
    assert_layers(esd_report(layer), {"weight": 2 * (plain.triu() + plain.triu(1).T)})


def test_a_parametrised_bias_is_no_matrix_and_the_weight_stays() -> None:
    layer = identity(nn.Linear(5, 6), "bias")
    assert_layers(esd_report(layer), {"weight": layer.weight})


def test_parametrised_recurrent_weights() -> None:
    layer = nn.LSTM(5, 4)
    parametrizations.spectral_norm(layer, "weight_hh_l0")
    parametrize.register_parametrization(layer, "weight_ih_l0", Double())
    report = esd_report(layer)
    names = ("weight_hh_l0", "weight_ih_l0")
    assert_layers(report, {name: effective(layer, name) for name in names})
    assert {entry.kind for entry in report.layers} == {"LSTM"}


def test_a_parametrised_position_embedding() -> None:
    net = nn.ParameterDict({"position": nn.Parameter(drawn(1, 7, 6)), "token": nn.Parameter(drawn(1, 1, 6))})
    for name in net:
        parametrize.register_parametrization(net, name, Double(), unsafe=True)
    assert_layers(esd_report(net), {"position": 2 * drawn(7, 6)})


def test_inside_a_parametrisation_cache_nothing_is_left() -> None:
    # the training step inside the user's cache must not find a weight that was read without gradients
    layer = nn.Linear(5, 6)
    parametrize.register_parametrization(layer, "weight", Double())
    with parametrize.cached():
        esd_report(layer)
        assert layer.weight.requires_grad


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.utils.spectral_norm(nn.Linear(5, 6)),
        lambda: nn.utils.weight_norm(nn.Linear(5, 6)),
        lambda: nn.utils.spectral_norm(nn.Conv2d(4, 6, 3)),
        lambda: nn.utils.weight_norm(nn.Conv2d(4, 6, 3)),
        lambda: nn.utils.weight_norm(nn.Linear(5, 6), dim=None),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_older_norms(build: Callable[[], nn.Module], training: bool) -> None:
    layer = build()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in ("weight_g", "weight_orig"):
                parameter.mul_(3)  # the attribute `weight` is stale until the next forward pass
    report = esd_report(nn.ModuleDict({"layer": layer.train(training)}))
    layer.eval()(torch.ones((2, 5) if isinstance(layer, nn.Linear) else (1, 4, 5, 5)))
    assert_layers(report, {"layer": layer.weight.detach()})


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_older_norms_of_recurrent_weights() -> None:
    layer = nn.utils.weight_norm(nn.LSTM(5, 4), "weight_hh_l0")
    expected = {"weight_hh_l0": layer.weight_hh_l0, "weight_ih_l0": layer.weight_ih_l0}
    assert_layers(esd_report(layer), expected, rtol=1e-6)


def test_pruned_weights() -> None:
    layer = nn.Conv2d(6, 6, 3, groups=2)
    prune.l1_unstructured(layer, "weight", 0.4)
    prune.random_structured(layer, "weight", 1, dim=0)  # a PruningContainer of two
    prune.random_unstructured(layer, "bias", 0.5)
    with torch.no_grad():
        layer.weight_orig.mul_(2)  # `weight` is stale
    masked = (layer.weight_orig * layer.weight_mask).detach()
    assert int((masked == 0).sum()) > 0.4 * masked.numel()
    assert_layers(esd_report(nn.Sequential(layer)), {"0": groups_of(masked, 2)})


def test_a_pruned_position_embedding() -> None:
    net = nn.ParameterDict({"position": nn.Parameter(drawn(1, 7, 6)), "token": nn.Parameter(drawn(1, 1, 6))})
    for name in ("position", "token"):
        prune.random_unstructured(net, name, 0.3)
    assert_layers(esd_report(net), {"position": (net.position_orig * net.position_mask)[0].detach()})


def test_modules_of_the_user() -> None:
    class Loss(nn.Module):  # a method called weight is no weight
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 6)

        def weight(self, t: float) -> float:
            return t

    class LowRank(nn.Conv2d):  # a matrix beside the kernel, that knows nothing of its groups
        def __init__(self) -> None:
            super().__init__(4, 6, 3, groups=2)
            self.down = nn.Parameter(drawn(3, 7))

    class Groups(nn.Module):  # the names of a convolution, and something else
        def __init__(self) -> None:
            super().__init__()
            self.kernel_size, self.groups = 3, nn.ModuleList([nn.Linear(5, 6)])
            self.position = nn.Parameter(drawn(1, 7, 6))

    loss, low_rank, groups = Loss(), LowRank(), Groups()
    assert_layers(esd_report(loss), {"net": loss.net.weight})
    assert_layers(esd_report(low_rank), {"weight": groups_of(low_rank.weight, 2), "down": low_rank.down})
    assert_layers(esd_report(groups), {"position": drawn(7, 6), "groups.0": groups.groups[0].weight})


def test_deformable_convolutions() -> None:
    ops = pytest.importorskip("torchvision.ops")
    layer = ops.DeformConv2d(4, 6, 3, groups=2)
    assert_layers(esd_report(layer), {"weight": groups_of(layer.weight, 2)})


def test_sharded_weights_are_gathered() -> None:
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or distributed.is_initialized():
        pytest.skip("needs a process group of its own")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        layer = nn.Linear(5, 6)
        layer.weight = nn.Parameter(distribute_tensor(drawn(6, 5), init_device_mesh("cpu", (1,)), [Shard(0)]))
        assert isinstance(layer.weight, DTensor)
        assert_layers(esd_report(layer), {"weight": drawn(6, 5)})
    finally:
        distributed.destroy_process_group()


def test_the_adjoint_pair_shares_a_parameter_and_counts_once() -> None:
    forward, adjoint = nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3)
    adjoint.weight = forward.weight
    assert_layers(esd_report(nn.Sequential(forward, adjoint)), {"0": forward.weight})


def test_names_are_unique_and_reading_is_deferred() -> None:
    reads = []

    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            reads.append(tuple(weight.shape))
            return weight

    net = nn.Sequential(nn.Linear(5, 6), nn.LSTM(5, 4), nn.Sequential(nn.Linear(5, 6)))
    parametrize.register_parametrization(net[0], "weight", Counted())
    reads.clear()
    weights = network_weights(net)
    assert reads == []
    assert [weight.name for weight in weights] == ["0", "1.weight_ih_l0", "1.weight_hh_l0", "2.0"]
    weights[0].read()
    assert reads == [(6, 5)]


NAMES = ["encoder.0", "encoder.2", "encoder2", "lstm.weight_hh_l0", "head"]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen", "idle"),
    [
        ([], [], NAMES, []),
        (["encoder"], [], ["encoder.0", "encoder.2"], []),
        (["encoder*"], [], ["encoder.0", "encoder.2", "encoder2"], []),
        (["lstm"], [], ["lstm.weight_hh_l0"], []),
        (["lstm.weight_?h_l[0-9]"], [], ["lstm.weight_hh_l0"], []),
        ([], ["encoder", "head"], ["encoder2", "lstm.weight_hh_l0"], []),
        (["encoder"], ["*.2"], ["encoder.0"], []),
        (["head", "Head"], ["tail"], ["head"], ["Head", "tail"]),
        (["enc"], [], [], ["enc"]),
        ([], ["*"], [], []),
        ([""], [], [], [""]),
    ],
)
def test_select(include: list[str], exclude: list[str], chosen: list[str], idle: list[str]) -> None:
    assert select(NAMES, include, exclude) == (chosen, idle)
