"""Networks made affine at a point while they run: every activation by its factor, all else by what is known of it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fpstab.jacobian.elementwise import Mode, Side, match
from fpstab.results import AnalysisError, Status

# Affine in the argument that depends on x, or selecting from it. Of products only one factor may depend on x.
_AFFINE_NAMES = (
    "clone contiguous to double float type detach_ view view_as reshape reshape_as flatten unflatten ravel squeeze "
    "unsqueeze permute transpose swapaxes swapdims movedim t T mT moveaxis expand expand_as repeat tile "
    "repeat_interleave roll flip narrow select index_select gather take chunk split tensor_split unbind cat concat "
    "concatenate stack hstack vstack pad getitem __getitem__ sum mean cumsum diff add sub rsub neg negative add_ sub_ "
    "neg_ __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __neg__ subtract positive where masked_fill tril triu diagonal "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d "
    "max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax amin max min maximum minimum sort "
    "median topk interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle batch_norm dropout dropout1d dropout2d "
    "dropout3d alpha_dropout feature_alpha_dropout zeros_like ones_like requires_grad_ retain_grad unfold fold __get__ "
    "_max_pool1d _max_pool2d _max_pool3d _adaptive_max_pool1d _adaptive_max_pool2d "
    "_adaptive_max_pool3d boolean_dispatch fn"
)
_AFFINE = frozenset(_AFFINE_NAMES.split())
_PRODUCTS_NAMES = (
    "mul multiply mul_ div divide div_ true_divide __mul__ __rmul__ __imul__ __truediv__ __itruediv__ matmul __matmul__ "
    "__rmatmul__ mm bmm mv addmm baddbmm addmv einsum tensordot dot linear conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d lerp addcmul"
)
_PRODUCTS = frozenset(_PRODUCTS_NAMES.split())
_DIVISIONS = ("div", "divide", "div_", "true_divide", "__truediv__", "__itruediv__")


class Linearising(TorchFunctionMode):
    """Gives every activation the factor Λ as its derivative, and refuses what is not affine.

    Args:
        x: The input of what will run, with a graph.
        mode: Of the factors; with `"tangent"` nothing is refused.
        side: Of the derivative at z = 0.
        freeze: Whether norms and gates are frozen; otherwise they are refused.

    Attributes:
        frozen: Names of what was frozen, in order.
    """

    def __init__(self, x: Tensor, mode: Mode, side: Side, freeze: bool) -> None:
        super().__init__()
        self._mode, self._side, self._freeze = mode, side, freeze
        self._seen: dict[int, Tensor] = {id(x): x}
        self.frozen: dict[str, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = [each for each in _flat((args, kwargs)) if each.requires_grad]
        for each in inputs:
            self.require_seen(each, f"the input of {name}")
        result = self._apply(func, name, args, kwargs, inputs)
        for each in _flat(result):
            if each.requires_grad:
                self._seen[id(each)] = each
        return result

    def require_seen(self, tensor: Tensor, what: str) -> None:
        """Refuse a tensor that comes from an operation torch does not show (compiled code, an `autograd.Function`)."""
        if self._mode != "tangent" and tensor.requires_grad and id(tensor) not in self._seen:
            raise AnalysisError(
                _unsupported(
                    f"{what} comes from an operation that cannot be seen: compiled code, or an autograd.Function"
                )
            )

    def _apply(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: list[Tensor]) -> Any:
        if not inputs:
            return func(*args, **kwargs)
        found = match(func, args, kwargs)
        if found is not None and found[1].requires_grad:
            activation, z, inplace = found
            if len(inputs) > 1:
                raise AnalysisError(_unsupported(f"{name} has a parameter that depends on the input"))
            value = _with_slope(activation(z.detach()), activation.factors(z.detach(), self._mode, self._side)[0], z)
            return z.copy_(value) if inplace else value
        if self._mode == "tangent":
            return func(*args, **kwargs)
        if name in _FREEZABLE:
            if not self._freeze:
                raise AnalysisError(_unsupported(f"{name} is not elementwise (freeze=True freezes its statistics)"))
            self.frozen[name] = None
            affine = _FREEZABLE[name](*args, **kwargs)
            return affine + (func(*args, **kwargs) - affine).detach()
        result = func(*args, **kwargs)
        if name in _PRODUCTS:
            divisor = name in _DIVISIONS and _depends(args[1] if len(args) > 1 else kwargs.get("other"))
            if len(inputs) > 1 or divisor:
                raise AnalysisError(
                    _unsupported(f"{name} of two tensors that both depend on the input, or a division by one")
                )
        elif name not in _AFFINE and any(each.requires_grad for each in _flat(result)):
            raise AnalysisError(_unsupported(f"{name} is neither affine nor an activation that is known"))
        return result


def _with_slope(value: Tensor, slope: Tensor, z: Tensor) -> Tensor:
    return value + slope * (z - z.detach())


def _layer_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    scaled = centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt().detach()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _rms_norm(
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    scaled = input / (input.square().mean(dims, keepdim=True) + eps).sqrt().detach()
    return scaled if weight is None else scaled * weight


def _group_norm(
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    groups = input.reshape(len(input), num_groups, -1)
    scaled = _layer_norm(groups, groups.shape[2:], eps=eps).reshape(input.shape)
    channels = (1, -1, *(1,) * (input.ndim - 2))
    scaled = scaled if weight is None else scaled * weight.reshape(channels)
    return scaled if bias is None else scaled + bias.reshape(channels)


def _glu(input: Tensor, dim: int = -1) -> Tensor:  # noqa: A002
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate).detach()


_FREEZABLE: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "glu": _glu,
}


def _unsupported(what: str) -> Status:
    return Status("unsupported", f"{what}, so there is no pointwise affine map. mode='tangent' (the Jacobian) exists.")


def _depends(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        return [each for value in values for each in _flat(value)]
    return []
