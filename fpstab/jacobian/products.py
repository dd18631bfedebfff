"""Products with the Jacobian of a map at many points, from one kept autograd graph."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fpstab.maps import analysis_modes
from fpstab.results import AnalysisError, Status

Map = Callable[[Tensor], Tensor]

_ROWS = 64  # rows of a batch from which on a product is no cheaper per row
_ADJOINT = 1e-6  # relative; ⟨w, Jv⟩ and ⟨Jᵀw, v⟩ agree to rounding where double backward is right


class JacobianProducts:
    """The Jacobian J = ∂Φ/∂x of a map at the rows of `x`, as an operator: a row's J acts on a row's vector.

    The map is evaluated once and its graph is kept. A product Jᵀw costs about one evaluation; a product Jv is the
    derivative of u ↦ Jᵀu in the direction v, and costs the same after a first one of about three.

    Args:
        map: A map of flat batches `[B, n] -> [B, m]`, each row on its own, e.g. a `SelfMap`.
        x: Points `[B, n]`.
        check: Compare the first product Jv with Jᵀ, by one product more: the second derivative of an operation may be
            wrong.

    Attributes:
        x: The points `[B, n]`, detached.
        value: The map's value `[B, m]`, detached.

    >>> square = JacobianProducts(lambda x: x**2, torch.tensor([[1.0, 2.0]]))
    >>> square.vjp(torch.tensor([[1.0, 10.0]])), square.jvp(torch.tensor([[1.0, 10.0]]))
    (tensor([[ 2., 40.]]), tensor([[ 2., 40.]]))
    """

    def __init__(self, map: Map, x: Tensor, *, check: bool = True) -> None:  # noqa: A002
        self._map, self._check = map, check
        with analysis_modes():
            self.x = x.detach().clone()
            self._x = self.x.clone().requires_grad_()
            self._y = map(self._x)
        if self._y.ndim != 2 or len(self._y) != len(x):
            raise ValueError(
                f"map: expected a map [B, n] -> [B, m], but it maps {list(x.shape)} to {list(self._y.shape)}."
            )
        self.value = self._y.detach()
        self._u: Tensor | None = None
        self._g: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(B, m, n)`: of J at all points."""
        return len(self.x), self._y.shape[1], self.x.shape[1]

    def vjp(self, w: Tensor) -> Tensor:
        """Jᵀw `[B, n]` for `w` `[B, m]`."""
        return self._vjp(w) if len(w) else torch.zeros_like(self.x)

    def jvp(self, v: Tensor) -> Tensor:
        """Jv `[B, m]` for `v` `[B, n]`.

        Raises:
            AnalysisError: If an operation of the map cannot be differentiated twice (or is, wrongly).
        """
        if not len(v):
            return torch.zeros_like(self.value)
        if self._u is None:
            self._differentiate_twice(v)
        return self._jvp(v)

    def take(self, rows: Tensor) -> "JacobianProducts":
        """The operator at some of the points; evaluates the map there.

        Args:
            rows: Indices `[k]` or a mask `[B]` of rows.
        """
        return JacobianProducts(self._map, self.x[rows], check=self._check)

    def _vjp(self, w: Tensor, create_graph: bool = False) -> Tensor:
        if not self._y.requires_grad:
            return torch.zeros_like(self.x)
        with _product_modes():
            g: Tensor | None
            (g,) = torch.autograd.grad(
                self._y, self._x, w, retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        return torch.zeros_like(self.x) if g is None else g

    def _jvp(self, v: Tensor) -> Tensor:
        assert self._u is not None
        if self._g is None or not self._g.requires_grad:
            return torch.zeros_like(self.value)
        with _product_modes():
            product: Tensor | None
            (product,) = torch.autograd.grad(self._g, self._u, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.value) if product is None else product

    def _differentiate_twice(self, v: Tensor) -> None:
        """Build the graph of u ↦ Jᵀu, and test it against Jᵀ."""
        try:
            with analysis_modes():
                self._u = torch.zeros_like(self.value, requires_grad=True)
                self._g = self._vjp(self._u, create_graph=True)
            product = self._jvp(v)
        except RuntimeError as error:
            self._u = self._g = None
            raise AnalysisError(_no_double_backward(str(error).splitlines()[0])) from error
        if self._check and not self._is_adjoint(v, product):
            self._u = self._g = None
            raise AnalysisError(_no_double_backward("⟨w, Jv⟩ and ⟨Jᵀw, v⟩ differ: its second derivative is wrong"))

    def _is_adjoint(self, v: Tensor, product: Tensor) -> bool:
        w = torch.linspace(0.5, 1.5, self.value.shape[1], dtype=self.value.dtype, device=self.value.device)
        back = self._vjp(w.expand_as(self.value))
        left, right = w * product, back * v
        scale = left.abs().sum(1) + right.abs().sum(1)
        return not bool(((left.sum(1) - right.sum(1)).abs() > _ADJOINT * scale).any())  # NaN says nothing


def jacobian_matrix(map: Map, x: Tensor) -> Tensor:  # noqa: A002
    """The Jacobians `[B, m, n]` of a map at all points, entry by entry, row by row on `map`'s device.

    Costs min(m, n) products with all points; points are repeated until a product works on 64 rows.

    Args:
        map: A map of flat batches `[B, n] -> [B, m]`, each row on its own.
        x: Points `[B, n]`.
    """
    if not len(x):
        return x.new_zeros(0, JacobianProducts(map, x).shape[1], x.shape[1])
    _, m, n = JacobianProducts(map, x).shape
    if n < m:
        try:
            return _columns(map, x, n)
        except AnalysisError:  # no second derivative: by rows
            pass
    return _by_units(map, x, m, transposed=True)


def _columns(function: Map, x: Tensor, n: int) -> Tensor:
    return _by_units(function, x, n, transposed=False).mT.contiguous()


def _by_units(function: Map, x: Tensor, k: int, transposed: bool) -> Tensor:
    """Products with the `k` unit vectors: the rows of J `[B, k, n]`, or its columns `[B, k, m]`."""
    b = len(x)
    copies = max(1, min(k, _ROWS // b))
    operator = JacobianProducts(function, x.repeat(copies, 1))
    units = torch.eye(k, dtype=x.dtype, device=x.device)
    parts = []
    for chunk in torch.split(units, copies):
        if len(chunk) < copies:
            operator = JacobianProducts(function, x.repeat(len(chunk), 1))
        vectors = chunk.repeat_interleave(b, dim=0)
        product = operator.vjp(vectors) if transposed else operator.jvp(vectors)
        parts.append(product.reshape(len(chunk), b, -1))
    return torch.cat(parts).transpose(0, 1).contiguous()


def _product_modes() -> AbstractContextManager[None]:
    """The modes that a product needs, where they are not those outside: to enter all would take a tenth of its time."""
    if torch.is_inference_mode_enabled() or any(map(torch.is_autocast_enabled, ("cpu", "cuda", "xpu"))):
        return analysis_modes()
    return nullcontext()


def _no_double_backward(reason: str) -> Status:
    return Status(
        "no_double_backward",
        f"The map cannot be differentiated twice ({reason}), so there are no products Jv. Products Jᵀw exist: "
        "spectral radii can be had, and singular values by method='dense'.",
    )
