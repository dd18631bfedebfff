"""Functions that may be elementwise, evaluated in float64; what is not elementwise is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fpstab import guard

_COLUMNS = 8
_MANY = 4096  # entries that are drawn twice, to see that they are not drawn
_SAME = 1e-9  # relative; what another order of the entries may change, if kernels treat them differently


class Scalar:
    """A function σ of numbers, evaluated through a function of tensors `[B, 8]`.

    Args:
        call: What is evaluated.
        name: What messages call it.

    Raises:
        TypeError: If it is not elementwise, is random, or cannot be evaluated.
    """

    def __init__(self, call: Callable[[Tensor], Any], name: str) -> None:
        self._call, self.name = call, name
        z = torch.linspace(-2.0, 2.0, 3 * _COLUMNS, dtype=torch.float64)
        z = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(0))]
        value = self(z)
        many = torch.linspace(-2.0, 2.0, _MANY, dtype=torch.float64)
        if not torch.equal(self(many).nan_to_num(), self(many).nan_to_num()):
            raise TypeError(f"{name} is no activation that can be scanned: two calls differ, it is random.")
        # the company of each entry, its place, and the number of entries must not matter
        alone = torch.cat([self(each.expand(2 * _COLUMNS))[:1] for each in z])
        changed = z.clone()
        changed[0] = 7.0
        same = _close(self(z.flip(0)).flip(0), value) and _close(self(changed)[1:], value[1:]) and _close(alone, value)
        if not same:
            raise TypeError(
                f"{name} is no elementwise activation: its outputs depend on several inputs, or on where they stand."
            )

    def __call__(self, z: Tensor) -> Tensor:
        """σ(z), of z's shape, float64."""
        missing = -z.numel() % _COLUMNS
        flat = torch.cat((z.flatten(), z.new_zeros(missing))).reshape(-1, _COLUMNS)
        try:
            value = self._call(flat.clone())
        except Exception as error:  # a function of anybody may raise anything
            raise TypeError(
                f"{self.name} is no elementwise activation: it cannot be evaluated at a float64 tensor "
                f"{list(flat.shape)}: {error or type(error).__name__}"
            ) from error
        if not isinstance(value, Tensor) or value.shape != flat.shape or value.dtype != torch.float64:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(
                f"{self.name} is no elementwise activation: it makes {got} of a float64 tensor {list(flat.shape)}; expected "
                "the same shape and type."
            )
        return value.detach().flatten()[: z.numel()].reshape(z.shape)


@contextmanager
def as_scalar(activation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Scalar]:
    """A module or function as a function of numbers; modules and random states are afterwards as they were.

    Raises:
        TypeError: If it is not elementwise, is random, or cannot be evaluated.
    """
    owner = activation if isinstance(activation, nn.Module) else getattr(activation, "__self__", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    module = owner if isinstance(owner, nn.Module) else nn.Module()
    with guard.untouched(module), torch.no_grad():
        module.to("cpu", torch.float64)
        yield Scalar(lambda z: activation(z, *args, **kwargs), name)


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=_SAME, atol=0.0, equal_nan=True)
