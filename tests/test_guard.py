# ruff: noqa: NPY002 (the global NumPy state is among what must not change)
import copy
import random
import weakref
from collections import deque
from contextlib import nullcontext, suppress
from itertools import islice

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from fpstab.guard import untouched

X = torch.linspace(-1, 1, 32).reshape(8, 4)

# --------------------------------------------------------------------------------------- what there is to see


class Same:
    """Equal to nothing but the same object, which it keeps alive."""

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return self.thing is other.thing

    __hash__ = None

    def __repr__(self):
        return f"<{type(self.thing).__name__} {id(self.thing):#x}>"


def bits(tensor):
    about = [tensor.dtype, tensor.device, tensor.layout]
    about += [tensor.requires_grad, tensor.is_leaf, tensor.is_inference()]
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        return about
    about.append(tuple(tensor.shape))
    if tensor.layout == torch.strided:
        about += [tensor.stride(), tensor.data_ptr()]
    tensor = tensor.detach().resolve_conj()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    elif tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    # of a clone: NumPy makes the memory that it looks at unfit for resize_
    return [*about, tensor.clone().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()]


def look(thing, seen):
    """A description of all that can be seen of a thing, made without the guard's own means."""
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if id(thing) in seen:
        return Same(thing)
    seen.add(id(thing))
    described = [Same(thing), type(thing)]
    match thing:
        case torch.Tensor():
            lazy = nn.parameter.is_lazy(thing)
            described += [] if lazy else bits(thing)
            described += [look(thing.grad, seen) if thing.is_leaf else None]
            described += [look(thing._backward_hooks, seen), look(thing._post_accumulate_grad_hooks, seen)]
        case nn.Module():
            described += [thing.training, look(vars(thing), seen)]
            if isinstance(thing, torch.jit.ScriptModule):
                inside = [*thing.named_parameters(), *thing.named_buffers(), *thing.named_children()]
                described += [(name, look(value, seen)) for name, value in inside]
        case dict():
            described += [(key, look(value, seen)) for key, value in thing.items()]
        case list() | tuple() | deque():
            described += [look(value, seen) for value in thing]
        case set():
            described += [set(thing)]
        case np.ndarray():
            described += [thing.tobytes()]
        case torch.Generator():
            described += [thing.get_state().numpy().tobytes()]
        case random.Random():
            described += [thing.getstate()]
        case np.random.RandomState():
            described += [numpy_state(thing)]
        case np.random.Generator():
            described += [repr(thing.bit_generator.state)]
    return described


def numpy_state(generator):
    state = generator.get_state()
    return (state[0], state[1].tobytes(), *state[2:])


def surroundings():
    return {
        "python": random.getstate(),
        "numpy": numpy_state(np.random),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "seed for CUDA": look(vars(torch.cuda._lazy_seed_tracker), set()),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
    }


def fingerprint(module):
    return {"module": look(module, set()), **surroundings()}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On tensors of this size a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _clean_surroundings():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    yield
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", False)
    torch.set_autocast_dtype("cpu", torch.bfloat16)
    torch.set_autocast_cache_enabled(True)


# ----------------------------------------------------------------------------------- a module with everything


def keep(module, *_):
    """A forward hook, and by its shape also a pre-hook."""


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.spectral = parametrizations.spectral_norm(nn.Linear(4, 4))
        self.old_spectral = nn.utils.spectral_norm(nn.Linear(4, 4))
        self.shared = nn.ModuleList([self.linear, self.norm])
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.metrics = MetricCollection([MeanMetric(), MulticlassAccuracy(num_classes=4)])
        self.hidden_in_a_list = [nn.BatchNorm1d(4)]
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        running = torch.tensor([0.0, float("nan"), -0.0, float("inf")])
        self.register_buffer("expanded", running[:1].expand(3))
        self.register_buffer("running", running)
        self.register_buffer("expanded_too", running[:1].expand(3))
        self.register_buffer("volatile", torch.full((4,), -0.0), persistent=False)
        self.register_buffer("wide", torch.zeros(4, 4, dtype=torch.complex64).T)
        self.register_buffer("nothing", None)
        self.calls = 0
        self.plain = torch.arange(3)
        self.history = [torch.zeros(2)]
        self.window = deque([1, 2], maxlen=2)
        self.names = {"a", "b"}
        self.nested = {"deep": [{"deeper": (torch.zeros(1), [1])}]}
        self.counts = np.zeros(3)
        self.constants = np.broadcast_to(1.0, 3)
        self.generators = [torch.Generator(), random.Random(0)]
        self.generators += [np.random.RandomState(0), np.random.default_rng(0)]
        self.itself = {"itself": None}
        self.itself["itself"] = self.itself
        self.handle = self.linear.register_forward_hook(keep)
        self.parameter_handle = self.linear.weight.register_hook(lambda grad: grad)
        self.linear.weight.grad = torch.full((4, 4), float("nan"))
        self.norm.weight.grad = torch.zeros(4)

    def forward(self, x):
        self.calls += 1
        x = self.dropout(self.norm(self.linear(x)))
        return self.lstm(self.old_spectral(self.spectral(x)).unsqueeze(1))[0].squeeze(1)


def backward(net):
    net(X).square().sum().backward()


def backward_into_frozen(net):
    net.frozen.requires_grad_()
    net.frozen.sum().backward()


def update_metrics(net):
    net.metrics["MeanMetric"](X.sum())
    net.metrics["MulticlassAccuracy"].update(X, torch.arange(8) % 4)


def zero_grad_in_place(net):
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.zero_()


def replace_everything(net):
    for name in [*net._modules]:
        net.add_module(name, nn.Identity())


def add_hooks(net):
    for module in net.modules():
        module.register_forward_hook(keep)
        module.register_forward_pre_hook(keep)
        module.register_full_backward_hook(keep)
        module.register_full_backward_pre_hook(keep)
        module.register_state_dict_pre_hook(keep)
        module.register_load_state_dict_post_hook(keep)


def prune_a_weight(net):
    prune.l1_unstructured(net.linear, "weight", amount=0.5)


def parametrize_a_weight(net):
    parametrizations.orthogonal(net.linear)


def remove_a_parametrization(net):
    parametrize.remove_parametrizations(net.spectral, "weight")


def reorder(net):
    net._modules["linear"] = net._modules.pop("linear")


def in_graph(net):
    net.volatile.add_(net.linear.weight.sum())


def move_buffer(net):
    net.running.data = torch.ones(7, dtype=torch.float64)
    net.plain.set_(torch.arange(9))


def draw_from_owned(net):
    torch.rand(2, generator=net.generators[0])


def raise_in_the_middle(net):
    net.train(False).double()
    net.norm.running_mean += 1
    raise ZeroDivisionError


def interrupt(net):
    backward(net)
    raise KeyboardInterrupt


ACTS = {
    # passes through the network
    "dropout": lambda net: net.dropout(X),
    "batch norm": lambda net: net.norm(X),
    "spectral norm": lambda net: net.spectral(X),
    "old spectral norm": lambda net: net.old_spectral(X),
    "forward": lambda net: net(X),
    "hidden module": lambda net: net.hidden_in_a_list[0](X),
    "metrics": update_metrics,
    # gradients
    "backward": backward,
    "backward, frozen": backward_into_frozen,
    "grad to None": lambda net: net.zero_grad(),
    "grad to zero": zero_grad_in_place,
    "grad replaced": lambda net: setattr(net.linear.bias, "grad", torch.ones(4)),
    "requires_grad off": lambda net: net.requires_grad_(False),
    "requires_grad on": lambda net: net.frozen.requires_grad_(),
    # modes and types
    "eval": lambda net: net.eval(),
    "eval of one": lambda net: net.dropout.eval(),
    "double": lambda net: net.double(),
    "to meta": lambda net: net.to("meta"),
    "parameter data": lambda net: setattr(net.linear.weight, "data", torch.zeros(2, 2)),
    # hooks
    "hooks added": add_hooks,
    "hook removed": lambda net: net.handle.remove(),
    "state dict hook": lambda net: net._register_state_dict_hook(keep),
    "tensor hook": lambda net: net.linear.weight.register_hook(keep),
    "tensor hook, first": lambda net: net.linear.bias.register_hook(keep),
    "tensor hook removed": lambda net: net.parameter_handle.remove(),
    "post-accumulate hook": lambda net: net.linear.weight.register_post_accumulate_grad_hook(keep),
    # buffers and attributes
    "buffer added": lambda net: net.register_buffer("new", torch.zeros(1)),
    "buffer written": lambda net: net.running.add_(1),
    "buffer written, zero's sign": lambda net: net.volatile.zero_(),
    "buffer written, behind autograd": lambda net: net.volatile.numpy().fill(3),
    "buffer written, complex": lambda net: net.wide.mul_(0).add_(1j),
    "buffer replaced": lambda net: setattr(net, "running", net.running.clone()),
    "buffer deleted": lambda net: delattr(net, "volatile"),
    "buffer emptied": lambda net: setattr(net, "running", None),
    "buffer filled": lambda net: setattr(net, "nothing", torch.ones(1)),
    "buffer moved": move_buffer,
    "buffer in a graph": in_graph,
    "buffer persistent": lambda net: net.register_buffer("volatile", net.volatile, persistent=True),
    "attribute counted": lambda net: setattr(net, "calls", net.calls + 1),
    "attribute added": lambda net: setattr(net, "new", 1),
    "attribute deleted": lambda net: delattr(net, "plain"),
    "tensor attribute written": lambda net: net.plain.add_(1),
    "tensor attribute replaced": lambda net: setattr(net, "plain", torch.arange(3)),
    "list appended": lambda net: net.history.append(torch.zeros(2)),
    "list's tensor written": lambda net: net.history[0].add_(1),
    "deque": lambda net: net.window.append(3),
    "set": lambda net: net.names.discard("a"),
    "nested tensor": lambda net: net.nested["deep"][0]["deeper"][0].add_(1),
    "nested list": lambda net: net.nested["deep"][0]["deeper"][1].append(1),
    "array": lambda net: net.counts.__iadd__(1),
    # structure
    "module added": lambda net: net.add_module("new", nn.Linear(1, 1)),
    "module deleted": lambda net: delattr(net, "norm"),
    "module replaced": lambda net: setattr(net, "norm", nn.BatchNorm1d(4)),
    "modules replaced": replace_everything,
    "module list": lambda net: net.shared.append(nn.Identity()),
    "modules reordered": reorder,
    "parameter replaced": lambda net: setattr(net.linear, "weight", nn.Parameter(torch.ones(4, 4))),
    "parameter deleted": lambda net: delattr(net.linear, "bias"),
    "parametrized": parametrize_a_weight,
    "parametrization removed": remove_a_parametrization,
    "pruned": prune_a_weight,
    # random states
    "torch.rand": lambda net: torch.rand(1),
    "torch.manual_seed": lambda net: torch.manual_seed(7),
    "random": lambda net: random.random(),
    "random.seed": lambda net: random.seed(7),
    "numpy": lambda net: np.random.rand(),
    "numpy.seed": lambda net: np.random.seed(7),
    "own torch generator": lambda net: torch.rand(1, generator=net.generators[0]),
    "own random": lambda net: net.generators[1].random(),
    "own RandomState": lambda net: net.generators[2].rand(),
    "own numpy generator": lambda net: net.generators[3].random(),
    # the world
    "gradients off": lambda net: torch.set_grad_enabled(False),
    "autocast on": lambda net: torch.set_autocast_enabled("cpu", True),
    "autocast dtype": lambda net: torch.set_autocast_dtype("cpu", torch.float16),
    # bodies that raise
    "raises": raise_in_the_middle,
    "Ctrl-C": interrupt,
}


@pytest.mark.parametrize("act", [pytest.param(act, id=name) for name, act in ACTS.items()])
class TestEverything:
    @staticmethod
    def change(guard, act):
        net = Everything()
        before = fingerprint(net)
        with suppress(ZeroDivisionError, KeyboardInterrupt), guard(net):
            act(net)
        return before, fingerprint(net)

    def test_nothing_is_left(self, act):
        before, after = self.change(untouched, act)
        assert before == after

    def test_something_would_be_left(self, act):
        before, after = self.change(lambda _: nullcontext(), act)
        assert before != after


def test_all_at_once_and_again():
    """No act may hide another; the second time finds what the first left."""
    net = Everything()
    before = fingerprint(net)
    for _ in range(2):
        with untouched(net):
            for act in ACTS.values():
                with suppress(Exception, KeyboardInterrupt):
                    act(net)
        assert fingerprint(net) == before


def test_nothing_happens():
    net = Everything()
    before = fingerprint(net)
    with untouched(net):
        pass
    assert fingerprint(net) == before


# --------------------------------------------------------------------------------------- the body's own world


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.float16),
        lambda: torch.set_grad_enabled(False),
    ],
    ids=["no_grad", "inference_mode", "autocast", "set_grad_enabled"],
)
def test_the_body_sees_the_same_world_everywhere(around):
    net = Everything()
    before = fingerprint(net)
    with around():
        outside = surroundings()
        with untouched(net):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
            y = net(X)
            assert y.dtype == torch.float32
            assert not y.is_inference()
            (grad,) = torch.autograd.grad(y.square().sum(), [net.linear.bias])
            assert grad.dtype == torch.float32
            assert all(parameter.grad is None for parameter in net.parameters())
            torch.set_grad_enabled(False)
            torch.set_autocast_enabled("cpu", True)
        assert surroundings()["gradients"] == outside["gradients"]
        assert surroundings()["inference"] == outside["inference"]
        assert surroundings()["autocast"] == outside["autocast"]
    assert fingerprint(net)["module"] == before["module"]


def test_an_autocast_inside_does_not_share_its_cache_with_one_outside():
    net = nn.Linear(4, 4)
    with torch.autocast("cpu"):
        with untouched(net), torch.autocast("cpu"):
            net.weight.data = torch.zeros(4, 4)
            net(X)  # the cache would keep the zeros for this weight
        inside = net(X)
    with torch.autocast("cpu"):
        assert torch.equal(net(X), inside)


# ------------------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, StopIteration])
def test_the_exception_of_the_body_propagates(kind):
    net = Everything()
    before = fingerprint(net)
    error = kind("mine")

    def run():
        with untouched(net):
            net.double()
            raise error

    with pytest.raises(kind) as caught:
        run()
    assert caught.value is error
    assert fingerprint(net) == before


class Stubborn(dict):
    def clear(self):
        raise OSError("I stay as I am")


def test_one_part_that_cannot_be_restored_does_not_stop_the_others():
    net = Everything()
    before = fingerprint(net)
    net.stubborn = Stubborn()

    def run(error=None):
        with untouched(net):
            net.stubborn["new"] = 1
            interrupt(net) if error else backward(net)

    with pytest.raises(RuntimeError, match=r"untouched\(Everything\) could not restore all: I stay as I am"):
        run()
    net.stubborn = Stubborn()
    with pytest.raises(KeyboardInterrupt) as caught:
        run(KeyboardInterrupt)
    assert "I stay as I am" in caught.value.__notes__[0]
    del net.stubborn
    assert fingerprint(net) == before


def test_ctrl_c_while_restoring():
    class Interrupted(dict):
        interrupts = 1

        def clear(self):
            super().clear()
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt

    net = Everything()
    net.mapping = Interrupted(old=1)
    before = fingerprint(net)
    with pytest.raises(KeyboardInterrupt), untouched(net):  # noqa: PT012
        net.mapping["new"] = 2
        backward(net)
    assert net.mapping == {"old": 1}
    del net.mapping.interrupts
    assert fingerprint(net) == before


def test_a_write_to_a_parameter_is_found_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def run():
        with untouched(net):
            net[0].requires_grad_(False)
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()

    with pytest.raises(RuntimeError, match=r"values of 1\.weight, 1\.bias were written to"):
        run()
    assert net[0].weight.requires_grad
    assert net[1].weight.grad is None


# ------------------------------------------------------------------------------------------- kinds of tensors


class Writes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.copy_.default:
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("act", "written"), [("nothing", []), ("running_mean", [(5,)]), ("num_batches_tracked", [()])])
def test_only_a_changed_buffer_is_written(act, written):
    net = nn.BatchNorm1d(5)
    net.register_buffer("undefined", torch.full((2,), float("nan")))
    guard = untouched(net)
    guard.__enter__()
    net.eval()(torch.ones(2, 5))
    if act != "nothing":
        getattr(net, act).add_(1)
    with Writes() as writes:
        guard.__exit__(None, None, None)
    assert writes.shapes == written


def test_writing_back_does_not_count_as_a_write():
    net = nn.BatchNorm1d(4).double()
    with untouched(net):
        net.running_mean += 1
        version = net.running_mean._version
    assert net.running_mean._version == version
    assert net.running_mean.eq(0).all()


def test_a_pending_graph_stays_valid():
    def gradient(guarded):
        torch.manual_seed(1)
        net = Everything()
        net.zero_grad()
        loss = net(X).square().sum()
        loss += nn.functional.batch_norm(X, net.norm.running_mean, net.norm.running_var).sum()
        if guarded:
            with untouched(net):
                backward(net)
                net(X + 1)
                update_metrics(net)
                net.double()
        loss.backward()
        return [parameter.grad for parameter in net.parameters()]

    for mine, theirs in zip(gradient(True), gradient(False), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)


def test_inference_tensors():
    with torch.inference_mode():
        net = Everything()
        net.linear.weight.grad = None

    def act():
        with torch.inference_mode():
            net.running.add_(1)
            net.volatile.data = torch.ones(5)
            net.plain += 1
            net.history[0].resize_(1)
            net.norm(X)

    before = fingerprint(net)
    with untouched(net):
        act()
    assert fingerprint(net) == before
    act()
    assert fingerprint(net) != before


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.eye(3).to_sparse(), id="sparse"),
        pytest.param(lambda: torch.eye(3).to_sparse_csr(), id="csr"),
        pytest.param(lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), id="quantised"),
        pytest.param(lambda: torch.empty(3, device="meta"), id="meta"),
        pytest.param(lambda: torch.ones(1).expand(3), id="expanded"),
        pytest.param(lambda: torch.ones(3, dtype=torch.complex128), id="complex"),
        pytest.param(lambda: torch.ones(3, dtype=torch.complex64).conj(), id="conj"),
        pytest.param(lambda: torch.tensor(1j, dtype=torch.complex128), id="scalar"),
        pytest.param(lambda: torch.ones(3).to(torch.float8_e4m3fn), id="float8"),
        pytest.param(lambda: torch.ones(3, dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(lambda: torch.tensor([True, False]), id="bool"),
        pytest.param(lambda: torch.empty(0), id="empty"),
        pytest.param(lambda: torch.ones(4, 6)[::2, 1:4].T, id="strided"),
        pytest.param(lambda: torch.ones(3, requires_grad=True), id="leaf"),
        pytest.param(lambda: torch.ones(3, requires_grad=True) * 2, id="graph"),
    ],
)
class TestTensors:
    """Whatever its kind, a tensor on the module comes back, and does no harm."""

    @pytest.mark.parametrize("act", ["none", "replaced", "data", "zero", "added", "element", "copied"])
    def test_a_tensor(self, make, act):
        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("buffer", make())
                self.plain = make()

        net = Holder()
        before = fingerprint(net)
        with untouched(net):
            for tensor in (net.buffer, net.plain):
                if act == "data":
                    tensor.data = tensor.detach().clone()
                elif act in {"zero", "added", "element", "copied"}:
                    with suppress(RuntimeError, IndexError), torch.no_grad():
                        if act == "zero":
                            tensor.mul_(0)
                        elif act == "added":
                            tensor.add_(tensor.transpose(0, 1).clone() if tensor.ndim == 2 else 1)
                        elif act == "element":
                            tensor.select(-1, 0).fill_(0)
                        else:
                            tensor.copy_(torch.zeros(()))
            if act == "replaced":
                net.buffer, net.plain = make(), make()
        assert fingerprint(net) == before


def test_lazy_modules_stay_lazy():
    net = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    before = fingerprint(net)
    with untouched(net):
        backward(net)
        assert type(net[0]) is nn.Linear
    assert fingerprint(net) == before
    assert net(torch.ones(2, 9)).shape == (2, 3)


def test_double_by_swapping_tensors():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        net[0].weight.grad = torch.ones(4, 4)
        before = fingerprint(net)
        with untouched(net):
            net.double()
            assert net[0].weight.dtype == torch.float64
        assert fingerprint(net) == before
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


# ------------------------------------------------------------------------------------------- kinds of modules


def test_handles_and_optimisers_still_work_afterwards():
    net = Everything()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with untouched(net):
        inside = net.linear.register_forward_hook(keep)
        net.handle.remove()
        net.double()
    inside.remove()
    assert len(net.linear._forward_hooks) == 1
    net.handle.remove()
    assert not net.linear._forward_hooks
    net.parameter_handle.remove()
    assert not net.linear.weight._backward_hooks
    weight = net.linear.weight.detach().clone()
    net.zero_grad()
    backward(net)
    optimizer.step()
    assert not torch.equal(net.linear.weight, weight)


def test_nested():
    net = Everything()
    before = fingerprint(net)
    with untouched(net):
        backward(net)
        net.eval()
        between = fingerprint(net)
        with untouched(net):
            backward(net)
            net.double().train()
        assert fingerprint(net) == between
        with untouched(net.linear):
            net.linear.requires_grad_(False)
        assert fingerprint(net) == between
    assert fingerprint(net) == before


def test_a_dead_proxy_on_the_module():
    net, trainer = nn.Linear(1, 1), nn.Identity()
    object.__setattr__(net, "trainer", weakref.proxy(trainer))
    del trainer
    with untouched(net):
        pass


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec:FutureWarning")
def test_compiled_modules():
    def run(guard):
        torch.manual_seed(1)
        torch.compiler.reset()
        net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
        net = torch.compile(net, backend="eager")
        with guard(net):
            net(X)  # compiles here
        first = net(X)
        before = fingerprint(net)
        with guard(net):
            net(X).sum().backward()
            net.eval()
        return first, before, fingerprint(net)

    first, before, after = run(untouched)
    assert before == after
    second, before, after = run(lambda _: nullcontext())
    assert before != after
    assert not torch.equal(first, second)


@pytest.mark.skipif(not hasattr(torch.jit, "script"), reason="this torch has no TorchScript")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("compiler", ["script", "trace"])
def test_script_modules(compiler):
    plain = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.Linear(4, 4)))
    net = torch.jit.script(plain) if compiler == "script" else torch.jit.trace(plain, X, check_trace=False)
    net = nn.Sequential(net)
    next(net.parameters()).grad = torch.ones(4)

    def act():
        net(X).sum().backward()
        net.eval()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        net[0].register_forward_pre_hook(keep) if compiler == "trace" else None

    before = fingerprint(net)
    with untouched(net):
        act()
    assert fingerprint(net) == before
    act()
    assert fingerprint(net) != before


# ----------------------------------------------------------------------------------------------- accelerators


def test_generators_of_accelerators(monkeypatch):
    """CPU generators stand in for those of the devices."""
    cuda, xpu, mps = (torch.Generator(), torch.Generator()), (torch.Generator(),), torch.Generator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", cuda)
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.xpu, "default_generators", xpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", mps.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", mps.set_state)
    generators = [*cuda, *xpu, mps]

    def draw():
        return [torch.rand(1, generator=generator).item() for generator in generators]

    with untouched(nn.Identity()):
        inside = draw()
    assert draw() == inside
    assert draw() != inside


def test_it_starts_no_accelerator(monkeypatch):
    def never(*_):
        raise AssertionError("started")

    for name in ("_lazy_init", "init", "current_device", "device_count", "get_rng_state", "set_rng_state"):
        for backend in (torch.cuda, torch.xpu):
            monkeypatch.setattr(backend, name, never)
    monkeypatch.setattr(torch._C, "_cuda_init", never, raising=False)
    with untouched(nn.Linear(1, 1)):
        torch.rand(1)


# --------------------------------------------------------------------------------------------------- training


def seedless(state):
    """Without the queued seed, which is not the same object in two trainings."""
    return {key: value for key, value in state.items() if key != "seed for CUDA"}


def train(probe):
    """A short training in a plain loop: all that it leaves behind."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    net = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 8)),
        nn.BatchNorm1d(8),
        nn.Dropout(0.3),
        nn.utils.spectral_norm(nn.Linear(8, 2)),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randint(2, (64,)))
    losses = []
    for epoch in range(2):
        for x, y in torch.utils.data.DataLoader(data, batch_size=16, shuffle=True):
            probe(net)  # between the steps
            optimizer.zero_grad(set_to_none=epoch == 1)
            loss = nn.functional.cross_entropy(net(x + 0.1 * random.random() + 0.1 * np.random.rand()), y)
            probe(net)  # with a graph pending
            loss.backward()
            probe(net)  # with gradients waiting
            optimizer.step()
            losses.append(loss.item())
    look_at = [net.state_dict(), optimizer.state_dict(), losses]
    return copy.deepcopy(look_at), seedless(surroundings())


def probe(net):
    net.train()
    for x in islice(torch.utils.data.DataLoader(torch.randn(8, 4), batch_size=4, shuffle=True), 2):
        net(x).square().sum().backward()
    net.eval().double().requires_grad_(False)
    net(torch.randn(3, 4, dtype=torch.float64))
    net[1].register_buffer("probe", torch.rand(1))
    random.random()
    np.random.seed(3)
    torch.manual_seed(5)


def test_a_training_with_a_perturbing_probe_is_the_same_training():
    def guarded(net):
        with untouched(net):
            probe(net)

    (left, around), (expected, expected_around) = train(guarded), train(lambda _: None)
    torch.testing.assert_close(left, expected, rtol=0, atol=0)
    assert around == expected_around


def perturb_gently(net):
    """What a training survives, but not unchanged."""
    net(torch.randn(4, 4)).square().sum().backward()


def test_without_the_guard_it_would_be_another_training():
    left, around = train(perturb_gently)
    expected, expected_around = train(lambda _: None)
    assert around != expected_around
    assert left[2] != expected[2]


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"lr": 0.05})
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
        self.metric = MeanMetric()
        self.outputs = []

    def training_step(self, batch, _):
        loss = self.net(batch).square().mean()
        self.outputs.append(loss.detach())
        self.metric.update(loss)
        return loss

    def validation_step(self, batch, _):
        loss = self.net(batch).square().mean() + torch.rand(())
        self.metric.update(loss)
        self.log("mean", self.metric)
        self.log("loss", loss)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)


class Prober(pl.Callback):
    def __init__(self, guard):
        self.guard = guard
        self.probes = 0

    def probe(self, trainer, module, *_):
        before = fingerprint(module)
        with self.guard(module):
            module.train()
            for _ in range(2):  # training steps, all but the optimiser's
                self.probes += 1
                module.training_step(torch.randn(8, 4), 0).backward()
            module.metric.reset()
            module.hparams["lr"] = -1.0
            module.eval()
        assert fingerprint(module) == before

    on_fit_start = on_train_batch_start = on_train_batch_end = on_before_backward = probe
    on_after_backward = on_validation_epoch_end = on_validation_batch_end = on_train_epoch_end = probe


def fit(*callbacks):
    pl.seed_everything(1, verbose=False)
    task = Task()
    training = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=8, shuffle=True)
    validation = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        precision="bf16-mixed",
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, training, validation)
    left = [task.state_dict(), trainer.optimizers[0].state_dict(), task.outputs, trainer.callback_metrics]
    return left, seedless(surroundings())


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_a_lightning_module_in_a_running_trainer():
    prober = Prober(untouched)
    left, around = fit(prober)
    expected, expected_around = fit()
    assert prober.probes > 40
    torch.testing.assert_close(left, expected, rtol=0, atol=0)
    assert around == expected_around
    with pytest.raises(AssertionError):
        fit(Prober(lambda _: nullcontext()))
