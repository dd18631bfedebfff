"""Arguments that several commands take."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_checkpoint(parser: argparse.ArgumentParser, described: str) -> None:
    """Add the checkpoint, and `--config`, a YAML that describes e.g. `"the model"`."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="of Lightning or PyTorch, or safetensors")
    parser.add_argument("--config", metavar="FILE", help=f"YAML that describes {described} (default: config.yaml in a "
                        "folder above the checkpoint)")  # fmt: skip


def add_folders(parser: argparse.ArgumentParser, out: str, written: str) -> None:
    """Add `--out`, where what is `written` goes (a folder, by default `out`), and `--data`."""
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder for {written} (default: {out})")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder that may hold MNIST/raw (default: data)"
    )


def whole(least: int, expected: str, below: float = float("inf")) -> Callable[[str], int]:
    """Make a parser of integers from `least` to less than `below`; `expected` says in an error what they are.

    >>> whole(1, "a positive integer")("12")
    12
    """

    def parse(text: str) -> int:
        value = int(text) if text.isdecimal() else -1
        if not least <= value < below:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse
