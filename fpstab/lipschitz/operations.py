"""What can be done to affine tensors: select, apply matrices, average, scale, add, put neurons behind them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fpstab.activations import ActivationInfo
from fpstab.lipschitz.affine import Affine, Interval, Reading
from fpstab.lipschitz.exactness import widen
from fpstab.lipschitz.problem import Slopes, slope_pair
from fpstab.results import AnalysisError, Status

BATCH = 2
"""Rows of the batches that a network is read with; two, so that an operation that mixes rows is noticed."""


class UnsupportedLayer(AnalysisError):  # noqa: N818 (it names what it is about)
    """A layer or function of a network of which no Lipschitz bound can be computed here.

    Attributes:
        name: Path of the layer, or of the module in whose `forward` the function is called.
        type: Class of the layer, or name of the function.
        status: Code `"unsupported_layer"`, and the message.
    """

    def __init__(self, name: str, type: str, why: str) -> None:  # noqa: A002
        where = f"layer {name!r}" if name else "the network"
        super().__init__(Status("unsupported_layer", f"{where}: {type} {why}"))
        self.name, self.type = name, type


class Operations:
    """Operations on affine tensors, of a layer `name` and of a class or function `kind`, for messages.

    Args:
        reading: Where neurons are put down.
        max_entries: Of an explicit matrix; a larger one is refused.
        slopes: To use in place of the activations' own: a pair for all, or a list of one for each.
    """

    def __init__(self, reading: Reading, max_entries: int, slopes: Slopes | list[Slopes] | None = None) -> None:
        self.reading, self.max_entries, self.slopes = reading, max_entries, slopes
        self.n_activations = 0

    def finish(self) -> None:
        """Check that all slopes were used.

        Raises:
            ValueError: If there are more or fewer than activations.
        """
        if isinstance(self.slopes, list) and len(self.slopes) != self.n_activations:
            raise ValueError(
                f"{len(self.slopes)} pairs of slopes for {self.n_activations} activations: expected one each."
            )

    def activation(
        self, x: Affine, info: ActivationInfo, function: Callable[[Tensor], Tensor], name: str, kind: str
    ) -> Affine:
        """Apply an elementwise activation.

        Raises:
            UnsupportedLayer: If its slopes are not bounded.
        """
        if info.name == "Identity":
            return x
        self.n_activations += 1
        if self.slopes is not None:
            given = self.slopes
            if isinstance(given, list):
                given = given[min(self.n_activations, len(given)) - 1] if given else (0.0, 1.0)
            alpha, beta = slope_pair(given, x.n, f"the activation {name or kind!r}")
            return self.reading.activate(x, alpha, beta, function)
        if info.slope_range == (1.0, 1.0):
            return x
        if not math.isfinite(info.lipschitz):
            raise UnsupportedLayer(name, kind, "is discontinuous, or its slope is not bounded")
        try:
            alpha, beta = info.slopes(x.shape)
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from error
        return self.reading.activate(x, alpha, beta, function)

    def move(self, x: Affine, op: Callable[[Tensor], Tensor], name: str, kind: str) -> Affine:
        """An operation of which every output is one of the inputs: find out which, by moving the numbers 0, 1, 2, …."""
        numbers = torch.arange(BATCH * x.n, dtype=torch.float64).reshape(BATCH, *x.shape)
        moved = self._run(op, numbers, name, kind)
        if moved.ndim < 1 or len(moved) != BATCH or not torch.equal(moved[1], moved[0] + x.n) or (
            moved.numel() and not 0 <= float(moved[0].min()) <= float(moved[0].max()) < x.n
        ):  # fmt: skip
            raise UnsupportedLayer(name, kind, "mixes the samples of a batch, or its shape depends on their number")
        return self.reading.move(x, moved[0].flatten().long(), moved.shape[1:])

    def pad(self, x: Affine, pads: Any, value: Any, name: str, kind: str) -> Affine:
        """Surround each sample with a constant."""
        numbers = torch.arange(x.n, dtype=torch.float64).reshape(1, *x.shape)
        moved = self._run(lambda v: functional.pad(v, list(pads), value=-1.0), numbers, name, kind)
        index = moved.flatten().long()
        if len(moved) != 1:
            raise UnsupportedLayer(name, kind, "pads the batch")
        return self.reading.move(x, index, moved.shape[1:], torch.full((len(index),), float(value or 0.0)).double())

    def interpolate(self, x: Affine, op: Callable[[Tensor], Tensor], mode: str, name: str, kind: str) -> Affine:
        """Enlarge each sample by repeating its values."""
        if mode not in ("nearest", "nearest-exact"):
            raise UnsupportedLayer(name, kind, f"interpolates with mode={mode!r}; known is 'nearest'")
        return self.move(x, op, name, kind)

    def average(self, x: Affine, op: Callable[[Tensor], Tensor], name: str, kind: str) -> Affine:
        """An operation of which every output is the mean, or the sum, of some inputs: a sum, and then a factor."""
        shape = self._shape(x, op, name, kind)
        matrix = self._run(op, torch.eye(x.n, dtype=torch.float64).reshape(-1, *x.shape), name, kind)
        matrix = matrix.reshape(x.n, math.prod(shape)).T
        largest = matrix.amax(1)
        members = (matrix > 0).double()
        counts = members.sum(1)
        if not bool((((matrix - members * largest[:, None]).abs() <= 1e-12).all()) & (counts > 0).all()):
            raise UnsupportedLayer(name, kind, "is no plain average or sum")
        out = self.reading.linear(x, lambda v: v.flatten(1) @ members.T, shape, None, name or kind)
        if bool((largest == 1).all()):
            return out
        divisors = (1 / largest).round()  # integers: sizes of windows
        if not bool(((largest * divisors - 1).abs() <= 1e-12).all()):
            raise UnsupportedLayer(name, kind, "is no plain average or sum")
        return self.reading.rescale(out, _reciprocal(divisors))

    def linear(
        self,
        x: Affine,
        function: Callable[..., Tensor],
        rest: Sequence[Any],
        bias: Tensor | None,
        name: str,
        kind: str,
        channels: Tensor | None = None,
    ) -> Affine:
        """A product with a constant matrix, or a convolution (`channels`: its kernel)."""

        def op(v: Tensor) -> Tensor:
            return function(v, *rest)

        shape = self._shape(x, op, name, kind)
        if bias is not None:
            after = [1] * (len(shape) - 1) if channels is not None else []
            bias = bias.reshape(-1, *after).expand(shape).flatten()
        if channels is None and len(x.shape) == 1 and function is functional.linear and _plain(x):
            return self._whole(x, rest[0], bias, name or kind)
        return self.reading.linear(x, op, shape, bias, name or kind)

    def _whole(self, x: Affine, weight: Tensor, bias: Tensor | None, name: str) -> Affine:
        """A dense layer on a source as it is: its weight is the matrix, no product is needed."""
        ((source, _),) = x.terms.items()
        constant = weight @ x.constant
        return Affine((len(weight),), {source: weight}, constant if bias is None else constant + bias, label=name)

    def batch_norm(
        self,
        x: Affine,
        mean: Tensor | None,
        variance: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        name: str,
        kind: str,
    ) -> Affine:
        """Scale and shift each channel by running statistics.

        Raises:
            UnsupportedLayer: If there are none.
            ValueError: If running_var + eps is not positive.
        """
        mean, variance = constant(mean, name, "running_mean"), constant(variance, name, "running_var")
        weight, bias = constant(weight, name, "weight"), constant(bias, name, "bias")
        if mean is None or variance is None:
            raise UnsupportedLayer(name, kind, "has no running statistics: it would use those of each batch")
        if not x.shape or x.shape[0] != len(mean):
            raise UnsupportedLayer(name, kind, f"has {len(mean)} channels, its input the shape {list(x.shape)}")
        factor = (torch.ones_like(variance) if weight is None else weight) / (variance + eps).sqrt()
        if not bool(factor.isfinite().all()):
            raise ValueError(f"layer {name!r}: running_var + eps is not positive everywhere.")
        shift = (0.0 if bias is None else bias) - mean * factor

        def each(values: Tensor) -> Tensor:
            return values.reshape(-1, *[1] * (len(x.shape) - 1)).expand(x.shape).flatten()

        low, high = widen(factor, 4)  # three roundings
        zero = factor == 0 if weight is None else weight == 0
        low, high = low.masked_fill(zero, 0.0), high.masked_fill(zero, 0.0)
        out = self.reading.shift(self.reading.rescale(x, (each(low), each(high))), each(shift))
        out.label = x.label or name
        return out

    def cat(self, parts: Any, dim: int, name: str, kind: str) -> Affine:
        """Join tensors along a dimension of the batch."""
        if not isinstance(parts, list | tuple) or not all(isinstance(part, Affine) for part in parts):
            raise UnsupportedLayer(name, kind, "joins what is not a list of tensors computed from the input")
        starts = [sum(part.n for part in parts[:i]) for i in range(len(parts) + 1)]
        rows = [
            torch.stack(
                [torch.arange(part.n, dtype=torch.float64) + (start + row * starts[-1]) for row in range(BATCH)]
            )
            for part, start in zip(parts, starts, strict=False)
        ]
        whole = self.reading.concatenate(parts, name or kind)

        def join(_: Tensor) -> Tensor:
            return torch.cat([r.reshape(BATCH, *part.shape) for r, part in zip(rows, parts, strict=True)], dim)

        return self.move(whole, join, name, kind)

    def arithmetic(self, op: str, x: Any, y: Any, name: str, kind: str) -> Affine:
        """`x op y`, with op one of add, sub, rsub (y − x), mul, div, neg, and x or y a constant unless they are added."""
        if isinstance(x, Affine) and isinstance(y, Affine):
            if op not in ("add", "sub"):
                raise UnsupportedLayer(name, kind, "multiplies or divides two tensors that depend on the input")
            shape = self._broadcast(x.shape, y.shape, name, kind)
            x, y = self._expand(x, shape, name, kind), self._expand(y, shape, name, kind)
            return self.reading.add(x, self._negative(y) if op == "sub" else y, name or kind)
        if op == "rsub":
            op, x, y = "sub", y, x
        if isinstance(y, Affine):
            if op == "div":
                raise UnsupportedLayer(name, kind, "divides by a tensor that depends on the input")
            if op == "sub":
                x, y, op = self._negative(y), x, "add"
            else:
                x, y = y, x
        assert isinstance(x, Affine)
        if op == "neg":
            return self._negative(x)
        number = _constant_number(y, name)
        if number is None:
            raise UnsupportedLayer(name, kind, f"takes a {type(y).__name__}")
        shape = self._broadcast(x.shape, _sample_shape(number, x, name, kind), name, kind)
        x = self._expand(x, shape, name, kind)
        values = number.reshape(_sample_shape(number, x, name, kind)).expand(shape).flatten()
        if op in ("add", "sub"):
            return self.reading.shift(x, values if op == "add" else -values)
        if op == "mul":
            return self.reading.rescale(x, (values, values))
        if bool((values == 0).any()):
            raise ValueError(f"layer {name!r}: {kind} by zero.")
        return self.reading.rescale(x, _reciprocal(values))

    def _negative(self, x: Affine) -> Affine:
        minus = torch.full((x.n,), -1.0, dtype=torch.float64)
        return self.reading.rescale(x, (minus, minus))

    def _expand(self, x: Affine, shape: tuple[int, ...], name: str, kind: str) -> Affine:
        return x if x.shape == shape else self.move(x, lambda v: v.expand(len(v), *shape), name, kind)

    def _broadcast(self, x: tuple[int, ...], y: tuple[int, ...], name: str, kind: str) -> tuple[int, ...]:
        if len(x) != len(y) and x and y:  # with the batch in front, other dimensions would meet
            raise UnsupportedLayer(name, kind, f"combines samples of the shapes {list(x)} and {list(y)}")
        try:
            return tuple(np.broadcast_shapes(x, y))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {kind} of samples of the shapes {list(x)} and {list(y)}.") from error

    def _shape(self, x: Affine, op: Callable[[Tensor], Tensor], name: str, kind: str) -> tuple[int, ...]:
        """Shape of a sample of the result; refuses what mixes samples or is too large."""
        for rows in (BATCH, BATCH + 1):
            out = self._run(op, torch.zeros(rows, *x.shape, dtype=torch.float64), name, kind)
            if out.ndim < 1 or len(out) != rows:
                raise UnsupportedLayer(name, kind, "mixes the samples of a batch, or its shape depends on their number")
        shape = tuple(out.shape[1:])
        if (entries := math.prod(shape) * x.n) > self.max_entries:
            raise UnsupportedLayer(
                name, kind, f"has an explicit matrix of {math.prod(shape)}×{x.n} = {entries:,} entries, more than "
                f"{self.max_entries:,}"
            )  # fmt: skip
        return shape

    def _run(self, op: Callable[[Tensor], Tensor], v: Tensor, name: str, kind: str) -> Tensor:
        try:
            return op(v)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:  # what torch says to wrong shapes
            shape = ", ".join(map(str, v.shape[1:]))
            raise ValueError(f"layer {name!r}: {kind} cannot be applied to an input [B, {shape}]: {error}") from error


def constant(tensor: Any, name: str, what: str) -> Tensor | None:
    """A parameter or buffer as a float64 tensor on the CPU, exactly.

    Raises:
        ValueError: If it is not finite or has no values; names the layer.
        TypeError: If it is not real; names the layer.
    """
    if tensor is None:
        return None
    return _real(tensor, name, what)


def _real(tensor: Any, name: str, what: str) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"layer {name!r}: {what} is a {type(tensor).__name__}, expected a tensor.")
    tensor = tensor.detach()
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        raise ValueError(f"layer {name!r}: {what} has no values yet (lazy, or on the meta device).")
    if hasattr(tensor, "full_tensor"):  # sharded
        tensor = tensor.full_tensor()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if not tensor.is_floating_point():
        raise TypeError(f"layer {name!r}: {what} has dtype {tensor.dtype}, expected real floating-point numbers.")
    double: Tensor = tensor.to("cpu", torch.float64)
    if not bool(double.isfinite().all()):
        raise ValueError(
            f"layer {name!r}: {what} has {int((~double.isfinite()).sum())} NaN or infinite values among "
            f"{double.numel()}."
        )
    return double


def _plain(x: Affine) -> bool:
    return x.scale is None and list(x.terms.values()) == [None]


def _constant_number(value: Any, name: str) -> Tensor | None:
    if isinstance(value, Tensor):
        if not value.is_floating_point() and not value.is_complex():
            value = value.double()
        return constant(value, name, "a constant")
    if isinstance(value, int | float) and math.isfinite(value):
        return torch.tensor(float(value), dtype=torch.float64)
    return None


def _sample_shape(number: Tensor, x: Affine, name: str, kind: str) -> tuple[int, ...]:
    """Shape of a constant for one sample: without the batch dimension, if it has one."""
    full = len(x.shape) + 1
    shape = tuple(number.shape)
    if len(shape) > full or (len(shape) == full and shape[0] != 1):
        raise UnsupportedLayer(name, kind, f"combines a batch with a constant of shape {list(shape)}")
    shape = shape[1:] if len(shape) == full else shape
    return (1,) * (len(x.shape) - len(shape)) + shape


def _reciprocal(values: Tensor) -> Interval:
    """1/v, to within a rounding, or exactly for powers of two."""
    quotient = 1 / values
    low, high = widen(quotient, 1)
    exact = torch.frexp(values).mantissa.abs() == 0.5
    return torch.where(exact, quotient, low), torch.where(exact, quotient, high)
