"""Where a checkpoint keeps its weights, among optimiser states, settings, and other things."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# The first of these that holds any weights is taken.
_NESTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "model_state", "params", "weights")
_OPTIMIZER = re.compile("optim", re.IGNORECASE)
_MAX_DEPTH = 5


def find_state_dict(value: Any) -> tuple[dict[str, Tensor], str]:
    """Find the weights in what torch.load gives, whatever they are nested in; optimiser states are none.

    Of several state dicts the one under the most usual name is taken; if none has such a name, all are, and the
    names in them begin with theirs. A tensor alone is called `weight`.

    Returns:
        Tensors by name, with a matrix among them, or else those at the top; and what was taken, if it was nested.

    >>> import torch
    >>> tensors, taken = find_state_dict({"epoch": 3, "model": {"0.weight": torch.ones(2, 2)}})
    >>> list(tensors), taken
    (['0.weight'], "'model'")
    """
    if isinstance(value, Tensor):
        return {"weight": value}, ""
    return _find(value, set(), 0)


def _find(value: Any, seen: set[int], depth: int) -> tuple[dict[str, Tensor], str]:
    if not isinstance(value, Mapping) or "param_groups" in value or id(value) in seen or depth > _MAX_DEPTH:
        return {}, ""
    seen.add(id(value))
    own = {
        name: item
        for name, item in value.items()
        if isinstance(name, str) and isinstance(item, Tensor) and not item.is_nested
    }
    nests: dict[str, tuple[dict[str, Tensor], str]] = {}
    for name, item in value.items():
        if isinstance(name, str) and not _OPTIMIZER.search(name):
            found = _find(item, seen, depth + 1) if isinstance(item, Mapping) else ({}, "")
            if found[0]:
                nests[name] = found
    if (nests or depth) and all(tensor.ndim < 2 for tensor in own.values()):
        own = {}
    taken = next((name for name in _NESTS if name in nests), None)
    if taken is None and len(nests) == 1 and not own:
        taken = next(iter(nests))
    if taken is not None:
        tensors, inner = nests[taken]
        left = [repr(name) for name in nests if name != taken]
        inner = f", in it {inner}" if inner else ""
        return tensors, f"{taken!r}{inner}" + (f" (not {', '.join(left)})" if left else "")
    if not nests:
        return own, ""
    tensors = own | {f"{key}.{name}": tensor for key, (nest, _) in nests.items() for name, tensor in nest.items()}
    return tensors, ", ".join(map(repr, nests))
