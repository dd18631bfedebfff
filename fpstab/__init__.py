"""fpstab shows, while a network trains, how it behaves as a dynamical system.

Every analysis is a pure function from a network (or its weights) to a small frozen result; a callback in
`fpstab.callbacks` decides when to call it and where the result goes. Sub-packages load on first use.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = (
    "activations",
    "callbacks",
    "ensembles",
    "equilibrium",
    "esd",
    "fixed_points",
    "guard",
    "jacobian",
    "krylov",
    "lipschitz",
    "maps",
    "models",
    "orbits",
    "proofs",
    "records",
    "results",
    "rounding",
    "stability",
    "theory",
)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"fpstab.{name}")
    raise AttributeError(f"module 'fpstab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_SUBPACKAGES]
