"""What a FixedPointMonitor and a JacobianMonitor cost: python benchmarks/map_monitors.py."""

import logging
from pathlib import Path

import torch
from monitor import row, train
from timing import clock, interleave, save

from fpstab.jacobian import jacobian_spectrum
from fpstab.maps import SelfMap
from fpstab.models import Autoencoder, MNISTData

HERE = Path(__file__).parent
POINTS = 32


def measurement(repeats):
    """One measurement of a JacobianMonitor, all that it does, in forwards of its points in float64."""
    from fpstab.callbacks import JacobianMonitor

    data = MNISTData()
    data.prepare_data()
    data.setup("fit")
    images = data.val_set.tensors[0][:POINTS]
    torch.manual_seed(0)
    for name, module in (("untrained", train([], 0)[0]), ("trained", train([], 30)[0])):
        monitor = JacobianMonitor(map="net", points=images)
        monitor.history.append(step=0, epoch=0, phase="baseline", failed=False, scalars={})  # so none of all of J
        network = SelfMap(module.net, images)
        x = network.flatten(images)
        with torch.no_grad():
            times = interleave(
                {
                    "measure": lambda monitor=monitor, module=module: clock(lambda: monitor.measure(None, module)),
                    "forward": lambda network=network, x=x: clock(lambda: [network(x) for _ in range(60)]),
                },
                repeats,
            )
        error = relative_error(network, x)
        yield row(
            f"one JacobianMonitor measurement, {POINTS} points, {name} 784-256-64 autoencoder (worst error of ρ {error:.1e})",
            "60 forwards of the points, float64",
            times["measure"],
            times["forward"],
        )


def relative_error(network, x):
    logged = jacobian_spectrum(network, x, rtol=1e-2, max_products=100, throw=False).rho
    exact = jacobian_spectrum(network, x, method="dense", max_products=1000).rho
    return float(((logged - exact).abs() / exact).max())


def share(epochs):
    """The monitors' own accounts of one training with both at their defaults."""
    from fpstab.callbacks import FixedPointMonitor, JacobianMonitor

    monitors = [FixedPointMonitor(map="net"), JacobianMonitor(map="net")]
    _, seconds = train(monitors, epochs, logger=True)
    for monitor in monitors:
        yield row(
            f"{type(monitor).__name__} at its defaults, {len(monitor.history.records)} measurements and figures, "
            f"{epochs} epochs (budget 0.02)",
            "the whole training",
            monitor._budget.spent,
            seconds,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    import fpstab.callbacks  # noqa: F401

    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    assert Autoencoder().encoder.widths == (784, 256, 64)
    save(HERE / "map_monitors.csv", [*measurement(11), *share(1000)])
