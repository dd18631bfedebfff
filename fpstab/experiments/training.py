"""Lightning's command line, with fpstab's classes and configurations at hand."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning.cli import LightningCLI

CONFIGS = Path(__file__).parent.parent / "configs"


def lightning_cli(arguments: Sequence[str], **options: Any) -> "LightningCLI":
    """Make (and, unless `run=False`, run) a LightningCLI for any LightningModule and LightningDataModule.

    Any of them can be named in the configuration, any monitor among its `trainer.callbacks`.

    Args:
        arguments: Of the command line: `fit`, `validate`, `test` or `predict`, and options. `--config` takes a
            file, or the name of a configuration that fpstab ships.
        options: For LightningCLI.

    Raises:
        SystemExit: If a configuration is refused; what is wrong stands on stderr.
    """
    # Lightning 2.6 calls what jsonargparse 5 will drop; that is nothing to tell a user about
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    from pytorch_lightning import LightningDataModule, LightningModule
    from pytorch_lightning.cli import LightningCLI

    arguments = [packaged_config(argument) for argument in arguments]
    for argument in arguments:
        _check_text(Path(argument.rpartition("=")[2]))
    with _command_line(arguments):
        return LightningCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            **options,
        )


def packaged_config(argument: str) -> str:
    """Replace the name of a shipped configuration by its path; anything else stays as it is.

    >>> packaged_config("mnist_autoencoder").endswith("configs/mnist_autoencoder.yaml")
    True
    """
    flag, separator, name = argument.rpartition("=")
    shipped = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    if Path(name).exists() or Path(name).name != name or not shipped.is_file():
        return argument
    return f"{flag}{separator}{shipped}"


def _check_text(path: Path) -> None:
    """Refuse a configuration that is no text: jsonargparse would show its own stack."""
    if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            print(f"{path} is no configuration: expected YAML in UTF-8, but {error}.", file=sys.stderr)
            raise SystemExit(2) from None


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """LightningCLI warns of `args` beside arguments on the command line, so these become the command line."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before
