"""The weights that a network holds: one entry for every matrix that it applies, under a name to log."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

# Their weights are no matrices, though they may have several dimensions, or none yet (lazy batch norms).
_ELEMENTWISE = (nn.LayerNorm, nn.RMSNorm, _NormBase)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A weight of a network, read when it is asked for.

    Attributes:
        name: Path of the module for an attribute called `weight` (`"encoder.0"`), else path and attribute
            (`"lstm.weight_hh_l0"`).
        kind: Class of the module that holds it.
        groups: Groups of a convolution, else 1.
        is_conv: Whether dimensions from the third on are a convolution's kernel.
        read: Gives the effective weight: parametrised, masked, gathered from its shards.
    """

    name: str
    kind: str
    groups: int
    is_conv: bool
    read: Callable[[], Tensor]


def network_weights(module: nn.Module) -> list[Weight]:
    """List every weight with at least two dimensions that a network holds.

    Linear, convolutions (transposed, grouped), Embedding, recurrent layers, attention projections, bare
    matrices; weights under a parametrisation (`torch.nn.utils.parametrizations`, pruning, the older
    `spectral_norm` and `weight_norm`) count as the matrix that the network applies; tied parameters count
    once; quantised modules that keep their weight behind a method are included.

    Reading a parametrised weight runs its parametrisation: put that in eval mode first (in train mode a
    spectral norm advances its power iteration).
    """
    seen: set[int] = set()
    weights = []
    for path, owner in module.named_modules():
        if "parametrizations" in path.split("."):
            continue
        for attribute, key, read in _matrices_of(owner):
            if key in seen:
                continue
            seen.add(key)
            is_conv = _is_conv(owner)
            weights.append(
                Weight(
                    name=_name(path, attribute),
                    kind=type(owner).__name__.removeprefix("Parametrized"),
                    groups=int(owner.groups) if is_conv else 1,
                    is_conv=is_conv,
                    read=partial(_dense, read, is_conv),
                )
            )
    return weights


def select(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> tuple[list[str], list[str]]:
    """Choose names by shell patterns; a pattern also takes everything below the module it names.

    Returns:
        The chosen names in their order (all, where `include` is empty), and the patterns that matched none.

    >>> select(["encoder.0", "encoder.2", "head"], ["encoder"], ["*.2"])
    (['encoder.0'], [])
    """

    def matches(name: str, pattern: str) -> bool:
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")

    chosen = [
        name
        for name in names
        if (not include or any(matches(name, p) for p in include)) and not any(matches(name, p) for p in exclude)
    ]
    idle = [p for p in (*include, *exclude) if not any(matches(name, p) for name in names)]
    return chosen, idle


def _name(path: str, attribute: str) -> str:
    path = ".".join(part for part in path.split(".") if part != "_orig_mod")  # torch.compile's wrapper
    if attribute == "weight":
        return path or attribute
    return f"{path}.{attribute}" if path else attribute


def _matrices_of(owner: nn.Module) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """Attribute, identity and reader of each matrix that a module holds itself."""
    if isinstance(owner, _ELEMENTWISE):
        return
    is_conv = _is_conv(owner)
    hidden: set[str] = set()  # parameters that are only the ingredients of a weight
    for hook in owner._forward_pre_hooks.values():
        if isinstance(hook, (SpectralNorm, WeightNorm, BasePruningMethod)):
            name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            hidden.update({f"{name}_orig", f"{name}_g", f"{name}_v"})
            if _is_matrix(getattr(owner, f"{name}_v" if isinstance(hook, WeightNorm) else f"{name}_orig"), is_conv):
                yield name, id(hook), _hooked(owner, hook)
    if parametrize.is_parametrized(owner):
        for name, originals in owner.parametrizations.items():  # type: ignore[operator, union-attr]
            tensors = list(originals.parameters(recurse=False))
            if any(_is_matrix(t, is_conv) for t in tensors):
                yield name, id(tensors[0]), originals
    for name, parameter in owner.named_parameters(recurse=False):
        if name not in hidden and _is_matrix(parameter, is_conv) and not (is_lazy(parameter) and name == "bias"):
            yield name, id(parameter), partial(getattr, owner, name)
    if hasattr(owner, "_packed_params") and callable(packed := getattr(owner, "weight", None)):  # quantised
        yield "weight", id(owner), packed


def _is_conv(owner: nn.Module) -> bool:
    """Convolutions that are no `nn.Conv` too: quantised, scripted, deformable."""
    return isinstance(owner, _ConvNd) or (
        hasattr(owner, "kernel_size") and isinstance(getattr(owner, "groups", None), int)
    )


def _is_matrix(parameter: Tensor, is_conv: bool) -> bool:
    if is_lazy(parameter):  # has no shape yet
        return True
    return parameter.ndim == 2 or (parameter.ndim > 2 and (is_conv or sum(d > 1 for d in parameter.shape) > 1))


def _dense(read: Callable[[], Tensor], is_conv: bool) -> Tensor:
    """Read a weight as the matrix, or the kernel, that it is."""
    tensor = read()
    if is_lazy(tensor):
        return tensor
    if hasattr(tensor, "full_tensor"):  # a DTensor: a shard is not the matrix
        tensor = tensor.full_tensor()
    if tensor.ndim > 2 and not is_conv:
        tensor = tensor.squeeze()  # a position embedding [1, length, width] is a matrix
    return tensor


def _hooked(owner: nn.Module, hook: SpectralNorm | WeightNorm | BasePruningMethod) -> Callable[[], Tensor]:
    def read() -> Tensor:
        if isinstance(hook, SpectralNorm):
            return torch.as_tensor(hook.compute_weight(owner, do_power_iteration=False))
        if isinstance(hook, WeightNorm):
            return torch.as_tensor(hook.compute_weight(owner))
        return torch.as_tensor(hook.apply_mask(owner))  # type: ignore[no-untyped-call]

    return read
