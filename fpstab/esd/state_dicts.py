"""The weights in a state dict: which of its tensors are matrices that a network applies, known by name and shape."""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fpstab.esd.stored import StoredTensor
from fpstab.esd.weights import Weight

_PARAMETRIZED = re.compile(r"(?P<owner>.*\.)?parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)")
_OPTIMIZER_STATES = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "acc_delta"}
_SHOWN = 3  # names in a note


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A weight, put together from one or two tensors."""

    name: str
    shape: tuple[int, ...]
    identity: Hashable
    read: Callable[[], Tensor]
    as_stored: bool = False  # a parametrisation stands between it and what the network applies


def state_dict_weights(tensors: Mapping[str, StoredTensor]) -> tuple[list[Weight], list[str]]:
    """List the weights with at least two dimensions among the tensors of a state dict.

    A state dict has no modules, so their names and shapes must do. Weights called `weight` with three to five
    dimensions are read as convolutions; groups are not stored, so that a grouped one is read as a single matrix.
    Weight normalisation and pruning are undone: v · g/‖v‖, weight · mask. Other parametrised weights are taken
    as stored. Tied tensors count once. Integers, biases, masks and optimiser states are left out.

    Args:
        tensors: Tensors by their name in the state dict.

    Returns:
        The weights in the order of the tensors, named as `fpstab.esd.weights.network_weights` names them, and
        sentences on what is not obvious from them.
    """
    weights = []
    first: dict[Hashable, str] = {}
    integers, biases, as_stored, tied = [], [], [], []
    for key, tensor in tensors.items():
        found = _found(key, tensors)
        if found is None or _OPTIMIZER_STATES.intersection(key.split(".")):
            continue
        name = _module_name(found.name)
        attribute = found.name.rpartition(".")[2]
        is_conv = attribute == "weight" and 3 <= len(found.shape) <= 5
        if not _is_matrix(found.shape, is_conv):
            continue
        if not tensor.is_float:
            integers.append(f"{name} ({tensor.dtype})")
        elif attribute.endswith(("bias", "mask", "tril")):
            biases.append(name)
        elif found.identity in first:
            tied.append(f"{name} is {first[found.identity]}")
        else:
            first[found.identity] = name
            if found.as_stored:
                as_stored.append(name)
            kind = f"Conv{len(found.shape) - 2}d" if is_conv else "Tensor"
            weights.append(Weight(name, kind, 1, is_conv, partial(_matrix, found.read, is_conv)))
    notes = (
        ("Taken as stored, without their parametrisation", as_stored),
        ("Tied, analysed once", tied),
        ("Left out as biases and masks", biases),
        ("Left out as integers", integers),
    )
    return weights, [f"{what}: {_listed(names)}." for what, names in notes if names]


def _found(key: str, tensors: Mapping[str, StoredTensor]) -> _Found | None:
    """The weight that a tensor is, or is the larger part of; nothing for a smaller part."""
    tensor = tensors[key]
    if match := _PARAMETRIZED.fullmatch(key):
        base = (match["owner"] or "") + match["name"]
        part, stem = match["part"], key.removesuffix(match["part"])
        g, v = tensors.get(f"{stem}original0"), tensors.get(f"{stem}original1")
        if g and v and f"{stem}original2" not in tensors and _is_norm(g, v):
            return _normalised(base, g, v) if part == "original1" else None
        if part == "original":
            return _Found(base, tensor.shape, tensor.identity, tensor.read, as_stored=True)
        if re.fullmatch(r"original\d+", part):
            return _Found(f"{base}.{part}", tensor.shape, tensor.identity, tensor.read, as_stored=True)
        return None  # a buffer of the parametrisation
    base, _, part = key.rpartition("_")
    if part in ("g", "v"):
        g, v = tensors.get(f"{base}_g"), tensors.get(f"{base}_v")
        if g and v and _is_norm(g, v):
            return _normalised(base, g, v) if part == "v" else None
    if part in ("orig", "mask"):
        original, mask = tensors.get(f"{base}_orig"), tensors.get(f"{base}_mask")
        if original and mask and original.shape == mask.shape:
            read = partial(_masked, original.read, mask.read)
            return _Found(base, original.shape, original.identity, read) if part == "orig" else None
        if part == "orig":
            return _Found(base, tensor.shape, tensor.identity, tensor.read, as_stored=True)
    return _Found(key, tensor.shape, tensor.identity, tensor.read)


def _is_norm(g: StoredTensor, v: StoredTensor) -> bool:
    """Whether `g` may be the norms of `v` over all dimensions but one, or over all."""
    if not g.shape:
        return len(v.shape) > 1
    fits = len(g.shape) == len(v.shape) and all(a in (1, b) for a, b in zip(g.shape, v.shape, strict=True))
    return fits and sum(a != 1 for a in g.shape) <= 1


def _normalised(base: str, g: StoredTensor, v: StoredTensor) -> _Found:
    def read() -> Tensor:
        size, direction = g.read(), v.read()
        dtype = torch.promote_types(direction.dtype, torch.float32)
        size, direction = size.to(dtype), direction.to(dtype)
        dims = [d for d in range(direction.ndim) if not size.ndim or size.shape[d] == 1]
        norm: Tensor = torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
        return direction * (size / norm)

    return _Found(base, v.shape, v.identity, read)


def _masked(original: Callable[[], Tensor], mask: Callable[[], Tensor]) -> Tensor:
    tensor = original()
    return tensor * mask().to(tensor.dtype)


def _module_name(key: str) -> str:
    parts = [part for part in key.split(".") if part != "_orig_mod"]  # torch.compile's wrapper
    return ".".join(parts[:-1] if parts[-1] == "weight" and len(parts) > 1 else parts)


def _is_matrix(shape: tuple[int, ...], is_conv: bool) -> bool:
    return len(shape) == 2 or (len(shape) > 2 and (is_conv or sum(d > 1 for d in shape) > 1))


def _matrix(read: Callable[[], Tensor], is_conv: bool) -> Tensor:
    tensor = read()
    return tensor.squeeze() if tensor.ndim > 2 and not is_conv else tensor  # [1, length, width] is a matrix


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
