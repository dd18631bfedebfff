"""Opens what a run of Lightning's command line leaves: its configuration, the model and data in it, a checkpoint."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule
    from torch import nn


class RefusedError(Exception):
    """Something cannot be opened; the message says in a sentence what, and what to do."""


def config_of(checkpoint: Path, config: str | None) -> Path:
    """The file that describes the model of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        config: A file, or the name of a configuration that fpstab ships; `None`: config.yaml in one of the two folders
            above the checkpoint, where LightningCLI puts it.

    Raises:
        RefusedError: If there is no such file.
    """
    from fpstab.experiments.training import packaged_config

    if config is not None:
        path = Path(packaged_config(config))
        if not path.is_file():
            raise RefusedError(f"{config}: there is no such file, and no configuration of this name is shipped.")
        return path
    for folder in checkpoint.resolve().parents[:2]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise RefusedError(f"{checkpoint}: no config.yaml beside it or in the folder above: give --config FILE.")


def build(path: Path) -> "tuple[LightningModule, LightningDataModule | None]":
    """The LightningModule and the LightningDataModule that a configuration of LightningCLI describes.

    Returns:
        Both; `None` where the configuration has no data.

    Raises:
        RefusedError: If it cannot be read, or one of them cannot be made.
    """
    from pytorch_lightning import LightningDataModule, LightningModule

    content = _read(path)
    model = _make(path, content, "model", LightningModule)
    return model, _make(path, content, "data", LightningDataModule) if "data" in content else None


def build_model(path: Path) -> "LightningModule":
    """The LightningModule that a configuration of LightningCLI describes; its data are not looked at.

    Raises:
        RefusedError: If it cannot be read, or the model cannot be made.
    """
    from pytorch_lightning import LightningModule

    model: LightningModule = _make(path, _read(path), "model", LightningModule)
    return model


def model_part(model: "nn.Module", path: str) -> "nn.Module":
    """The part of a model that the option `--map` names, `""` for all of it.

    Raises:
        RefusedError: If there is none, or it is no module.
    """
    import torch

    from fpstab.maps import part_of

    try:
        part = part_of(model, path)
    except ValueError as error:
        raise RefusedError(f"--map {path}: there is no such part; {error}") from error
    if not isinstance(part, torch.nn.Module):
        raise RefusedError(f"--map {path} is a {type(part).__name__}, expected a module.")
    return part


def read_tensors(path: Path) -> dict[str, Any]:
    """The state dict in a checkpoint of Lightning or PyTorch, or in a safetensors file. Nothing in it is run.

    Raises:
        RefusedError: If it cannot be read.
    """
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise RefusedError(f"{path} cannot be read as tensors: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict):
        raise RefusedError(f"{path} holds no state dict.")
    return state


def load_weights(model: Any, path: Path) -> None:
    """Read a checkpoint's weights into a module.

    Raises:
        RefusedError: If it cannot be read, or does not fit.
    """
    state = read_tensors(path)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RefusedError(f"{path} does not fit the model of the configuration: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """The sections of a configuration, of which one is `model`."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    content = content.get("fit", content) if isinstance(content, dict) else None
    if not isinstance(content, dict) or "model" not in content:
        raise RefusedError(f"{path} has no section 'model': expected a configuration of LightningCLI.")
    return content


def _make(path: Path, content: dict[str, Any], part: str, kind: type) -> Any:
    """What a section of a configuration describes."""
    # Lightning 2.6 calls what jsonargparse 5 will drop; that is nothing to tell a user about
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{part}", type=kind)
    try:
        return getattr(parser.instantiate_classes(parser.parse_object({part: content[part]})), part)
    except (ArgumentError, TypeError, ValueError, ImportError, AttributeError) as error:
        raise RefusedError(f"{path}: its {part} cannot be made: {error}") from error
