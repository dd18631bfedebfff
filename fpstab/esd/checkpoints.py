"""The weights in a checkpoint: one file, or the shards of one model."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from fpstab.esd.reports import ESDReport, analyse_weights, select_weights
from fpstab.esd.spectra import Conv
from fpstab.esd.state_dicts import state_dict_weights
from fpstab.esd.stored import CheckpointError, StoredTensor, stored_tensors
from fpstab.esd.weights import Weight
from fpstab.results import Status

__all__ = ["Checkpoint", "CheckpointError", "group_shards", "open_checkpoint"]

_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<suffix>\.\w+)")
_INDEX = re.compile(r"(?P<stem>.+)(?P<suffix>\.\w+)\.index\.json")
_FIRST = ("model.safetensors", "*.safetensors.index.json", "pytorch_model.bin", "*.bin.index.json")  # in a folder
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_NO_WEIGHTS = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")  # beside a Trainer's weights


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights in a checkpoint, each read when it is asked for.

    Attributes:
        name: What it is called: its path, for shards without their numbers.
        files: Where the weights are.
        weights: They, in the order of the files; `Weight.read` reads one.
        notes: Sentences on what was taken, put together and left out.
    """

    name: str
    files: tuple[Path, ...]
    weights: tuple[Weight, ...]
    notes: tuple[str, ...]

    def report(
        self,
        *,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        conv: Conv = "flatten",
        randomize: bool = False,
        generator: torch.Generator | None = None,
    ) -> ESDReport:
        """Analyse the spectrum of every weight, one in memory at a time; for the arguments see `esd_report`.

        Raises:
            TypeError: If a pattern is not a string.
            ValueError: If `conv` is unknown.
        """
        selected, status = select_weights(self.weights, include, exclude)
        return ESDReport(tuple(analyse_weights(selected, conv, randomize=randomize, generator=generator)), status)


def open_checkpoint(*paths: str | Path) -> Checkpoint:
    """List the weights in a checkpoint of Lightning, PyTorch, torchvision or Hugging Face, or in safetensors.

    Nothing in a file is run: a pickle that asks for more than tensors and plain containers is refused. The
    checksums that torch.save writes are checked. Tensors stay on the disk until they are read (those of files
    older than PyTorch 1.6 excepted).

    Args:
        paths: A file; the index or the folder of a sharded model; or several shards of one model.

    Raises:
        CheckpointError: If it cannot be read, or holds no weights.
        ValueError: If several paths are not shards of one model.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"model": torch.nn.Linear(30, 40).state_dict()}, Path(folder, "last.pt"))
    ...     checkpoint = open_checkpoint(Path(folder, "last.pt"))
    ...     layer = checkpoint.report().layers[0]
    >>> layer.name, layer.shape, layer.n, checkpoint.notes
    ('weight', (40, 30), 30, ("Took 'model'.",))
    """
    groups = group_shards(map(Path, paths))
    if len(groups) != 1:
        raise ValueError(f"{', '.join(map(str, paths)) or 'Nothing'}: expected one checkpoint, or shards of one model.")
    name, files, notes = _located(groups[0])
    tensors: dict[str, StoredTensor] = {}
    for file, wanted in files.items():
        held, taken = stored_tensors(file)
        if taken:
            notes.append(f"Took {taken}.")
        if wanted is not None:
            if missing := sorted(wanted - held.keys()):
                message = f"{file} does not hold {missing[0]}, which the index of {name} places there."
                raise CheckpointError(Status("corrupt", message))
            held = {key: tensor for key, tensor in held.items() if key in wanted}
        tensors |= held
    weights, further = state_dict_weights(tensors)
    if not weights:
        reason = f"none of its {len(tensors)} tensors is a matrix" if tensors else "there is no state dict in it"
        raise CheckpointError(Status("no_weights", " ".join([f"{name} holds no weights: {reason}.", *further])))
    return Checkpoint(name, tuple(files), tuple(weights), tuple(dict.fromkeys([*notes, *further])))


def group_shards(paths: Iterable[Path]) -> list[list[Path]]:
    """Put the shards of one model together, after their index if it is among them; every other path is alone.

    >>> [len(group) for group in group_shards(map(Path, ["a-1-of-2.bin", "b.bin", "a-2-of-2.bin"]))]
    [2, 1]
    """
    paths = list(paths)
    indices = {_key(path, match): path for path in paths if (match := _INDEX.fullmatch(path.name))}
    groups: dict[object, list[Path]] = {}
    for number, path in enumerate(paths):
        if match := _SHARD.fullmatch(path.name):
            key = _key(path, match)
            groups.setdefault(key if key in indices else (*key, match["count"]), []).append(path)
        elif match := _INDEX.fullmatch(path.name):
            groups.setdefault(_key(path, match), []).insert(0, path)
        else:
            groups[number] = [path]
    return list(groups.values())


def _key(path: Path, match: re.Match[str]) -> tuple[Path, str, str]:
    return path.parent, match["stem"], match["suffix"]


def _located(paths: list[Path]) -> tuple[str, dict[Path, set[str] | None], list[str]]:
    """What a checkpoint is called, its files with the tensors to take from each (`None`: all), and notes."""
    name, notes = str(paths[0]), []
    try:
        if paths[0].is_dir():
            paths = _in_folder(paths[0])
            notes.append(f"Took {paths[0].name}.")
        elif len(paths) > 1 and (match := _SHARD.fullmatch(paths[0].name)):
            name = str(paths[0].with_name(match["stem"] + match["suffix"]))
        if _INDEX.fullmatch(paths[0].name):
            return name, _shards(paths[0]), notes
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        code = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise CheckpointError(Status(code, f"{error.filename} {reason}.")) from error
    files: dict[Path, set[str] | None] = dict.fromkeys(paths)
    if (match := _SHARD.fullmatch(paths[0].name)) and len(files) < int(match["count"]):
        notes.append(f"{len(files)} of {int(match['count'])} shards.")
    return name, files, notes


def _in_folder(folder: Path) -> list[Path]:
    """The file, the index or the shards to take from a folder."""
    for pattern in _FIRST:
        if len(found := sorted(folder.glob(pattern))) == 1:
            return found
    files = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES and file.is_file()]
    groups = group_shards(file for file in files if not file.name.startswith(_NO_WEIGHTS))
    if len(groups) == 1:
        return groups[0]
    if groups:
        names = ", ".join(group[0].name for group in groups[:5]) + (", …" if len(groups) > 5 else "")
        raise CheckpointError(Status("ambiguous", f"{folder} holds several checkpoints; name one of them: {names}."))
    if (folder / ".metadata").exists():
        remedy = "convert it by python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise CheckpointError(Status("not_a_checkpoint", f"{folder} is a distributed checkpoint: {remedy}."))
    raise CheckpointError(Status("no_weights", f"{folder} holds no weights: no file *{', *'.join(_SUFFIXES)}."))


def _shards(index: Path) -> dict[Path, set[str] | None]:
    """The shards that an index names, and the tensors in each."""
    shards: dict[Path, set[str]] = {}
    try:
        for tensor, shard in json.loads(index.read_bytes())["weight_map"].items():
            shards.setdefault(index.parent / shard, set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{index} is not the index of a sharded model: it has no weight_map."
        raise CheckpointError(Status("corrupt", message)) from error
    if absent := [shard for shard in shards if not shard.is_file()]:
        message = f"{absent[0]} is missing: {len(absent)} of the {len(shards)} shards that {index} names."
        raise CheckpointError(Status("missing", message))
    return dict(shards)
