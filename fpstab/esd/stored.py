"""The tensors in one file of weights, listed without reading them; nothing in a file is ever run."""

import ctypes
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fpstab.esd.nests import find_state_dict
from fpstab.results import AnalysisError, Status

_MAPPED = 1 << 26  # bytes of a mapped file that may stay in memory after they were read: 64 MiB
_REMEDY = "Save a state dict instead, torch.save(model.state_dict(), …), or safetensors."
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TORCH_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch.save began with before 1.6


class CheckpointError(AnalysisError):
    """A file holds no weights that can be read. Its `status.message` names the file, the reason and a remedy.

    Codes: `"missing"`, `"unreadable"` (the system refuses), `"not_a_checkpoint"`, `"corrupt"`, `"needs_code"`
    (reading it would run code that it carries or names), `"no_weights"`, `"ambiguous"` (a folder of several).
    """


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Its shape.
        dtype: Its dtype, as the file's format calls it.
        is_float: Whether its values are real or complex floats, or integers with their scale.
        identity: Equal for tensors of one shape in the same memory: tied ones.
        read: Reads it, and no other.
    """

    shape: tuple[int, ...]
    dtype: str
    is_float: bool
    identity: Hashable
    read: Callable[[], Tensor]


def stored_tensors(path: Path) -> tuple[dict[str, StoredTensor], str]:
    """List the tensors in a file that torch.save or safetensors wrote, whatever it is called.

    Where a checkpoint holds a state dict among other things, that is taken. Optimiser states are not.

    Returns:
        The tensors by name: in the file's order, or in natural order for safetensors, which has none; and a
        sentence on what was taken, if there was a choice.

    Raises:
        CheckpointError: If the file cannot be read, is damaged or something else, or needs code to be run.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path), ""
    if head.startswith(_ZIP):
        _check_archive(path)
        return _TorchFile(path, mapped=True).listed()
    if head.startswith(_PICKLE) and _TORCH_LEGACY in head:
        return _TorchFile(path, mapped=False).listed()
    if head.startswith(_PICKLE):
        wanted = f", which wants to load {', '.join(names)}" if (names := _globals(path)) else ""
        raise CheckpointError(Status("needs_code", f"{path} is a plain pickle{wanted}: refused. {_REMEDY}"))
    what = "is empty" if not head else "is no file of torch.save or safetensors"
    raise CheckpointError(Status("not_a_checkpoint", f"{path} {what}."))


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    stamp = _stamp(path)

    def read(name: str) -> Tensor:
        _check_unchanged(path, stamp)
        with safe_open(path, "pt") as file:  # opened each time: closing it gives its pages back
            tensor: Tensor = file.get_tensor(name)
        _give_back(tensor)
        return tensor

    tensors = {}
    try:
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys(), key=_natural):
                entry = file.get_slice(name)
                dtype = str(entry.get_dtype())
                is_float = dtype.startswith(("F", "BF", "C"))
                shape = tuple(entry.get_shape())
                tensors[name] = StoredTensor(shape, dtype, is_float, (path, name), partial(read, name))
    except SafetensorError as error:
        raise CheckpointError(
            Status("corrupt", f"{path} is truncated, damaged or no safetensors file ({error}).")
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return tensors


class _TorchFile:
    """A file of torch.save. It is mapped, not read; older formats cannot be and are held in memory."""

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self.path, self.mapped = path, mapped
        self.stamp = _stamp(path)
        self._open()

    def listed(self) -> tuple[dict[str, StoredTensor], str]:
        tensors = {
            name: StoredTensor(
                tuple(tensor.shape),
                str(tensor.dtype).removeprefix("torch."),
                tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized,
                _identity(name, tensor),
                partial(self.read, name),
            )
            for name, tensor in self.tensors.items()
        }
        return tensors, self.taken

    def read(self, name: str) -> Tensor:
        if self.touched > _MAPPED and self.mapped:  # pages that were read count as memory until they are unmapped
            _check_unchanged(self.path, self.stamp)
            self._open()
        tensor = self.tensors[name]
        self.touched += tensor.numel() * tensor.element_size()
        _give_back(tensor)
        return tensor

    def _open(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.touched = 0
        self.tensors, self.taken = find_state_dict(_load(self.path, self.mapped))


def _load(path: Path, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and other things that the reader cannot change
            return torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # a damaged pickle may raise anything
        said = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        reason = said[1] if said else f"{type(error).__name__} {error}".strip().splitlines()[0]
        if not isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(Status("corrupt", f"{path} is truncated or damaged ({reason}).")) from error
        if names := _refused(path, error):
            what = f"wants to load {', '.join(names)}, which could run any code"
        else:
            what = f"is damaged, or needs more than torch.load with weights_only=True gives ({reason})"
        raise CheckpointError(Status("needs_code", f"{path} {what}: refused. {_REMEDY}")) from error


def _refused(path: Path, error: Exception) -> list[str]:
    """What torch.load refused to import."""
    try:
        if names := torch.serialization.get_unsafe_globals_in_checkpoint(str(path)):
            return sorted(names)
    except Exception:  # of older formats, which it does not know
        pass
    return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]


def _check_archive(path: Path) -> None:
    """Torch does not look at the checksums of its archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
            damage = next((name for name, member in members.items() if not _is_sound(archive, member)), None)
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # a damaged directory may raise anything
        raise CheckpointError(Status("corrupt", f"{path} is truncated or damaged: it ends in no directory.")) from error
    if "constants.pkl" in members:
        message = f"{path} is a TorchScript program: refused. Save the state_dict() of what torch.jit.load gives."
        raise CheckpointError(Status("needs_code", message))
    if "data.pkl" not in members:
        raise CheckpointError(Status("not_a_checkpoint", f"{path} is a zip archive, but not one of torch.save."))
    if damage is not None:
        raise CheckpointError(Status("corrupt", f"{path} is damaged: the checksum of its part {damage} is wrong."))


def _is_sound(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if not member.CRC:  # none is written under torch.utils.serialization.config.save.compute_crc32 = False
        return True
    try:
        with archive.open(member) as file:
            while file.read(1 << 20):
                pass
    except OSError:
        raise
    except Exception:
        return False
    return True


def _give_back(tensor: Tensor) -> None:
    """Return to the system what was freed since the tensor before this one, if they are large.

    Glibc keeps freed memory in pieces between what is still in use; over hundreds of layers that adds up to a
    gigabyte. Other C libraries have no such function.
    """
    if tensor.numel() >= 1 << 18:
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def _identity(name: str, tensor: Tensor) -> Hashable:
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return name
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _globals(path: Path) -> list[str]:
    """What a pickle would import, as far as it can be parsed."""

    def parse() -> Iterator[str]:
        strings: list[str] = []
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:])
                elif "UNICODE" in opcode.name:
                    strings.append(str(argument))

    names: dict[str, None] = {}
    try:
        for name in parse():
            names[name] = None
    except Exception:  # a damaged pickle
        return list(names)
    return list(names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `layers.2` before `layers.10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_unchanged(path: Path, stamp: tuple[int, int, int]) -> None:
    if _stamp(path) != stamp:
        raise CheckpointError(Status("unreadable", f"{path} was changed while it was read."))


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(Status("missing", f"{path} does not exist."))
    return CheckpointError(Status("unreadable", f"{path} cannot be read: {error.strerror or error}."))
