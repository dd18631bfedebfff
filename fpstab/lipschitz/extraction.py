"""From a module to the problem that a Lipschitz bound is about."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from fpstab import guard
from fpstab.lipschitz.affine import Affine, Reading
from fpstab.lipschitz.operations import Operations, UnsupportedLayer
from fpstab.lipschitz.problem import Feedforward, General, Slopes
from fpstab.lipschitz.tracing import trace
from fpstab.maps import SelfMap, first_tensor

__all__ = ["UnsupportedLayer", "extract", "sample_shape"]

_MAX_ENTRIES = 2**25  # of an explicit matrix; 256 MB
_POINTS = 4
_TOLERANCE = 1e-3  # of the differences of outputs; what is read wrongly differs by much more


def extract(
    target: nn.Module | Callable[..., Any],
    example: Any = None,
    *,
    input_shape: Sequence[int] | None = None,
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    max_entries: int = _MAX_ENTRIES,
) -> Feedforward | General:
    """Read a network as weights with slopes between them, by tracing its `forward` (torch.fx) in eval mode.

    The problem is about the function that the network computes in real arithmetic with the weights that it holds
    (float32 and narrower weights are float64 numbers, exactly). Nothing is rounded on the way, or else outward:

    * Linear layers, convolutions (transposed, grouped, padded in any mode; as explicit matrices), and products with
      constant matrices become weights; two in a row keep neurons of slopes (1, 1) between them.
    * A batch norm with running statistics scales the slopes of the neurons beside it, by an interval that holds the
      factor γ/√(v + ε); at the network's ends, where there are none, it scales weights, rounded up (by 4e-9).
    * Average pooling is a sum with a factor 1/k; flatten, reshape, permute, indexing, padding, nearest upsampling and
      the like select; dropout, casts and `nn.Identity` do nothing.
    * Activations: those of `fpstab.activations`. The last one's largest slope scales the last weight.
    * Sums of branches, concatenation, and modules used twice give the general form.

    Everything else is refused; nothing is skipped. What has been read is then compared with the network itself at a
    few random points, which finds hooks and control flow that tracing does not see. The network is not changed.

    Args:
        target: A module, or a bound method of one (`autoencoder.encode`).
        example: A batch in the network's own input shape, `[B, *shape]`; of `(x, y)` the first tensor. Only its shape
            matters. Needed where the shape cannot be told from the first layer.
        input_shape: The shape of one sample instead.
        slopes: `"auto"`, from the activations themselves; or (alpha, beta) to use for all of them, or one pair for each
            in the order of evaluation, where more is known of what they are fed with. (A wrong one makes a wrong bound.)
        max_entries: Of an explicit matrix; a network with a larger one is refused.

    Returns:
        A `Feedforward` if the network is a chain of weights, else a `General`.

    Raises:
        UnsupportedLayer: For a layer or function that cannot be expressed; names it.
        ValueError: If a weight is not finite or not initialised (names it), shapes do not fit, or there are not as many slopes as
            activations.
        TypeError: If a weight is not real (names the layer), or the target is no module.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 2))
    >>> extract(net).sizes
    (3, 4, 2)
    """
    module = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{target!r}: expected an nn.Module or a bound method of one.")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name} of a lazy layer has no shape yet. Call the network once.")
    call = target if target is not module else module
    shape = sample_shape(target, example, input_shape)
    with guard.untouched(module), _evaluating(module):
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        reading = Reading(math.prod(shape))
        operations = Operations(reading, max_entries, _pairs(slopes))
        out = trace(module, call, reading.input(shape), operations, dtype)
        operations.finish()
        _compare(target, module, reading, out, shape)
    return reading.problem(out, max_entries)


def sample_shape(
    target: nn.Module | Callable[..., Any], example: Any = None, given: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Shape of one input of a network: as given, of the example, as declared, or that of its first dense layer.

    Raises:
        ValueError: If nothing tells it, or an argument makes no sense.
    """
    module: nn.Module = target if isinstance(target, nn.Module) else getattr(target, "__self__", nn.Identity())
    if example is not None and given is not None:
        raise ValueError("Both example and input_shape are given: expected one of them.")
    if given is not None:
        if not given or not all(isinstance(size, int) and size > 0 for size in given):
            raise ValueError(f"input_shape={given!r}: expected positive integers, the shape of one sample.")
        return tuple(given)
    if example is None and target is module:
        declared = getattr(module, "input_shape", None)
        if isinstance(declared, tuple | list) and declared and all(isinstance(size, int) for size in declared):
            return tuple(declared)
        example = getattr(module, "example_input_array", None)  # Lightning's
    if example is not None:
        x = first_tensor(example)
        if x.ndim < 2 or not x.numel():
            raise ValueError(f"example: expected a batch [B, …] with one row or more, got shape {list(x.shape)}.")
        return tuple(x.shape[1:])
    if target is module:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                return (layer.in_features,)
            if isinstance(layer, _ConvNd):
                break
            if isinstance(layer, nn.BatchNorm1d | nn.LayerNorm) and layer.weight is not None:
                return tuple(layer.weight.shape)
    raise ValueError(
        f"{type(module).__name__}: its layers do not tell the shape of its input. Give a batch as example, or the "
        "shape of one sample as input_shape."
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; the guard around it restores the modes."""
    module.eval()
    with torch.no_grad():
        yield


def _pairs(slopes: str | Slopes | Sequence[Slopes]) -> Slopes | list[Slopes] | None:
    if isinstance(slopes, str):
        if slopes != "auto":
            raise ValueError(
                f"slopes={slopes!r} is unknown: expected 'auto', (alpha, beta), or one pair an activation."
            )
        return None
    if len(slopes) == 2 and all(np.ndim(one) == 0 for one in slopes):  # type: ignore[arg-type]
        return slopes  # type: ignore[return-value]
    return list(slopes)  # type: ignore[arg-type]


def _compare(target: Any, module: nn.Module, reading: Reading, out: Affine, shape: tuple[int, ...]) -> None:
    """Compare what was read with the network at some points."""
    if any(hasattr(parameter, "full_tensor") for parameter in module.parameters()):
        return  # sharded over processes: no single one can evaluate it
    points = torch.randn((_POINTS, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        actual = SelfMap(target, points)
        values = actual(actual.flatten(points)).detach().cpu()
    except ValueError as error:
        raise UnsupportedLayer("", type(module).__name__, f"cannot be evaluated: {error}") from error
    read = reading.evaluate(out, points.flatten(1))
    if values.shape != read.shape:
        raise UnsupportedLayer(
            "", type(module).__name__, f"gives {values.shape[1]} values, but {read.shape[1]} were read"
        )
    if not bool(values.isfinite().all() and read.isfinite().all()):
        return  # an overflow: nothing to compare
    wrong = _differences(values) - _differences(read)
    scale = _TOLERANCE * float(_differences(values).abs().max()) + 1e-9 * float(values.abs().max())
    if float(wrong.abs().max()) > scale:
        raise UnsupportedLayer(
            "", type(module).__name__, "computes something else than its layers: a hook, or a forward that depends on "
            f"values, changes the differences of outputs by up to {float(wrong.abs().max()):.3g}"
        )  # fmt: skip


def _differences(values: Tensor) -> Tensor:
    return values[1:] - values[:1]
