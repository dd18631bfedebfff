"""What the monitors of maps share: the part of the network that they study, and the points."""

from torch import Tensor

from fpstab.callbacks._lightning import LightningModule
from fpstab.callbacks.probe import Probe
from fpstab.maps import SelfMap, first_tensor, part_of


def check_path(module: LightningModule, path: str | None, monitor: str) -> None:
    """Refuse a path that leads nowhere before any training has begun.

    Raises:
        ValueError: If the module has no such part; the message lists the parts it has where the path ends.
    """
    try:
        part_of(module, path)
    except ValueError as error:
        raise ValueError(f"{monitor}(map={path!r}): {error}") from None


def check_size(size: int) -> None:
    """Refuse a number of points below one.

    Raises:
        ValueError: If `size` is no positive integer.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size={size!r}: expected a positive number of points.")


def map_and_points(
    module: LightningModule, path: str | None, probe: Probe, size: int, checked: bool
) -> tuple[SelfMap, Tensor]:
    """The part of the network as a map, and the first points of the probe `[B, n]`, float64, to evaluate it at.

    A module's own arguments beside its input stay at their defaults; of a batch like `(x, y)` `x` is taken.
    """
    points = first_tensor(probe.batch)[:size]
    network = SelfMap(module, points, path=path, checked=checked)
    return network, network.flatten(points)
