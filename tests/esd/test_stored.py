"""Files as others write them, damage them, and arm them."""

import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.serialization import config

from fpstab.esd import CheckpointError, stored
from fpstab.esd.stored import stored_tensors


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state() -> dict[str, Tensor]:
    return {f"layers.{i}.weight": drawn(6, 5, seed=i) for i in range(11)} | {"n": torch.tensor(3)}


def zipped(tensors: Any, path: Path) -> None:
    torch.save(tensors, path)


def older(tensors: Any, path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def unchecked(tensors: Any, path: Path) -> None:
    with config.patch("save.compute_crc32", False):
        torch.save(tensors, path)


def fails(path: Path, code: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        stored_tensors(path)
    assert caught.value.status.code == code
    message = caught.value.status.message
    assert message.startswith(str(path))
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("save", [zipped, older, unchecked, safetensors.torch.save_file])
@pytest.mark.parametrize("suffix", ["pt", "bin", "safetensors"])
def test_what_was_saved_is_read(tmp_path, save, suffix):
    if suffix == "safetensors" and save is not safetensors.torch.save_file:
        pytest.skip("a file of torch.save called so is an error")
    path, tensors = tmp_path / f"model.{suffix}", state()
    save(tensors, path)
    listed, taken = stored_tensors(path)
    assert list(listed) == list(tensors)  # layers.2 before layers.10
    assert taken == ""
    for name, tensor in tensors.items():
        assert listed[name].shape == tuple(tensor.shape)
        assert listed[name].is_float == tensor.is_floating_point()
        assert torch.equal(listed[name].read(), tensor)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
          torch.complex64, torch.int64, torch.int8, torch.uint8, torch.bool]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("save", [zipped, safetensors.torch.save_file])
def test_dtypes(tmp_path, save, dtype):
    tensor = drawn(4, 3).to(dtype)
    save({"a": tensor}, tmp_path / "file")
    entry = stored_tensors(tmp_path / "file")[0]["a"]
    assert entry.is_float == (dtype.is_floating_point or dtype.is_complex)
    assert entry.read().dtype == dtype
    assert torch.equal(entry.read().to(torch.complex64), tensor.to(torch.complex64))


NESTS = {
    "Lightning": ({"epoch": 1, "state_dict": state(), "optimizer_states": [{"state": {0: {"exp_avg": drawn(9, 9)}}}],
                   "callbacks": {"EMA": {"shadow": drawn(7, 7)}}}, "'state_dict' (not 'callbacks')"),
    "a training script": ({"model_state_dict": state(), "loss": drawn(2, 2)}, "'model_state_dict'"),
    "detectron": ({"model": state(), "iteration": 3}, "'model'"),
    "timm": ({"state_dict_ema": {"w": drawn(3, 3)}, "state_dict": state()}, "'state_dict' (not 'state_dict_ema')"),
    "twice nested": ({"state": {"net": state()}}, "'state', in it 'net'"),
}  # fmt: skip


@pytest.mark.parametrize(("checkpoint", "taken"), NESTS.values(), ids=NESTS)
@pytest.mark.parametrize("save", [zipped, older])
def test_nested_state_dicts(tmp_path, save, checkpoint, taken):
    save(checkpoint, tmp_path / "last.ckpt")
    listed, said = stored_tensors(tmp_path / "last.ckpt")
    assert list(listed) == list(state())
    assert said == taken


def test_several_state_dicts_are_told_apart_by_their_keys(tmp_path):
    zipped({"step": 1, "generator": {"0.weight": drawn(3, 4)}, "critic": {"0.weight": drawn(5, 6)}}, tmp_path / "gan")
    listed, said = stored_tensors(tmp_path / "gan")
    assert {name: entry.shape for name, entry in listed.items()} == {"generator.0.weight": (3, 4), "critic.0.weight": (5, 6)}  # fmt: skip
    assert said == "'generator', 'critic'"


def test_optimiser_states_are_no_weights(tmp_path):
    net = nn.Linear(6, 5)
    optimizer = torch.optim.Adam(net.parameters())
    net(drawn(2, 6)).sum().backward()
    optimizer.step()
    zipped(
        {"my_opt": optimizer.state_dict(), "optimizer": {"w": drawn(3, 3)}, "ours": net.state_dict()}, tmp_path / "a"
    )
    assert list(stored_tensors(tmp_path / "a")[0]) == ["weight", "bias"]
    zipped(optimizer.state_dict(), tmp_path / "b")
    assert stored_tensors(tmp_path / "b") == ({}, "")


def test_odd_contents(tmp_path):
    zipped(drawn(3, 4), tmp_path / "tensor")
    assert list(stored_tensors(tmp_path / "tensor")[0]) == ["weight"]
    itself: dict[str, Any] = {"w": {"x": torch.zeros(3)}}
    itself["itself"] = itself
    zipped(itself, tmp_path / "cycle")
    assert stored_tensors(tmp_path / "cycle") == ({}, "")
    zipped([drawn(3, 4)], tmp_path / "list")
    assert stored_tensors(tmp_path / "list") == ({}, "")
    zipped({"norm.weight": torch.ones(3)}, tmp_path / "shard")  # of one that has its matrices elsewhere
    assert list(stored_tensors(tmp_path / "shard")[0]) == ["norm.weight"]
    zipped({"a": torch.sparse_coo_tensor([[0], [1]], [2.0], (3, 3), check_invariants=False)}, tmp_path / "sparse")
    assert stored_tensors(tmp_path / "sparse")[0]["a"].read().to_dense()[0, 1] == 2.0
    zipped({"a": torch.empty(3, 4, device="meta"), "b": torch.empty(3, 4, device="meta")}, tmp_path / "meta")
    a, b = stored_tensors(tmp_path / "meta")[0].values()
    assert a.shape == (3, 4)
    assert a.identity != b.identity


def test_tied_tensors_are_known(tmp_path):
    shared = drawn(6, 6)
    zipped({"a": shared, "b": shared, "t": shared.T, "part": shared[:3], "other": shared.clone()}, tmp_path / "tied")
    listed, _ = stored_tensors(tmp_path / "tied")
    assert listed["a"].identity == listed["b"].identity
    assert len({listed[name].identity for name in ("a", "t", "part", "other")}) == 4


class Armed:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("save", [zipped, older, unchecked])
@pytest.mark.parametrize("place", ["top", "beside", "within"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, save, place):
    armed = Armed(tmp_path / "mark")
    checkpoint = {"top": armed, "beside": {"state_dict": state(), "x": armed}, "within": {**state(), "layers.1": armed}}
    save(checkpoint[place], tmp_path / "evil.pt")
    message = fails(tmp_path / "evil.pt", "needs_code")
    assert f"{os.system.__module__}.system" in message
    assert "safetensors" in message
    assert not (tmp_path / "mark").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # it was armed
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_refused_and_not_run(tmp_path, protocol):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"w": np.ones((3, 3)), "x": Armed(tmp_path / "mark")}, protocol))
    assert f"{os.system.__module__}.system" in fails(path, "needs_code")
    path.write_bytes(pickle.dumps({"w": [1]}, protocol))
    fails(path, "needs_code")
    assert not (tmp_path / "mark").exists()


def test_a_whole_network_and_a_program_are_refused(tmp_path):
    torch.save(nn.Linear(3, 4), tmp_path / "net.pt")
    assert "torch.nn.modules.linear.Linear" in fails(tmp_path / "net.pt", "needs_code")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(nn.Linear(3, 4)), tmp_path / "script.pt")
    assert "TorchScript" in fails(tmp_path / "script.pt", "needs_code")


def test_a_newer_pickle_protocol_is_not_called_damage_alone(tmp_path):
    torch.save(state(), tmp_path / "a.pt", pickle_protocol=4)  # torch's own safe reader knows 2 and 3 only
    assert "weights_only=True" in fails(tmp_path / "a.pt", "needs_code")


@pytest.mark.parametrize("save", [zipped, older, safetensors.torch.save_file])
def test_a_truncated_file(tmp_path, save):
    path = tmp_path / "model.bin"
    save(state(), path)
    whole = path.read_bytes()
    for length in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            stored_tensors(path)
        assert caught.value.status.code in ("corrupt", "not_a_checkpoint", "needs_code")


@pytest.mark.parametrize("save", [zipped, older, safetensors.torch.save_file])
def test_damage_within_a_file(tmp_path, save):
    """Of torch.save's archives nothing wrong is ever read; of the others what their formats can tell."""
    path, tensors = tmp_path / "model.pt", state()
    save(tensors, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 8])):
            damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        message = None
        try:
            listed, _ = stored_tensors(path)
        except CheckpointError as error:
            message = error.status.message
        if message is not None:
            refused += 1
            assert message.startswith(str(path))
            assert "\n" not in message
        elif save is zipped:
            for name, entry in listed.items():
                assert torch.equal(entry.read(), tensors[name])
    assert refused > 30


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "text.pt").write_text("epoch,loss\n1,0.5\n" * 10)
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"hidden": 1}')
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    for name in ("text.pt", "config.json", "arrays.npz"):
        assert "torch.save" in fails(tmp_path / name, "not_a_checkpoint")
    assert "empty" in fails(tmp_path / "empty.pt", "not_a_checkpoint")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    fails(tmp_path / "text.safetensors", "corrupt")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    fails(tmp_path / "empty.safetensors", "corrupt")
    fails(tmp_path / "nowhere.pt", "missing")
    fails(tmp_path / "nowhere.safetensors", "missing")
    fails(tmp_path, "unreadable")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who can be refused")
def test_what_may_not_be_read(tmp_path):
    zipped(state(), tmp_path / "a.pt")
    (tmp_path / "a.pt").chmod(0)
    fails(tmp_path / "a.pt", "unreadable")


def test_pages_are_given_back_while_reading(tmp_path, monkeypatch):
    zipped({"state_dict": state(), "more": 1}, tmp_path / "a.pt")
    opened = []
    load = stored._load
    monkeypatch.setattr(stored, "_load", lambda *a: opened.append(a) or load(*a))
    monkeypatch.setattr(stored, "_MAPPED", 250)  # bytes: two tensors of 120 stay below
    listed, _ = stored_tensors(tmp_path / "a.pt")
    kept = [entry.read() for entry in listed.values()]
    assert all(torch.equal(tensor, there) for tensor, there in zip(kept, state().values(), strict=True))
    assert len(opened) == 1 + 3


@pytest.mark.parametrize("save", [zipped, safetensors.torch.save_file])
def test_a_file_that_changes_meanwhile(tmp_path, monkeypatch, save):
    monkeypatch.setattr(stored, "_MAPPED", -1)
    path = tmp_path / "last.ckpt"
    save(state(), path)
    listed, _ = stored_tensors(path)
    listed["layers.0.weight"].read()
    save(state() | {"more": drawn(2, 2)}, tmp_path / "next.ckpt")
    (tmp_path / "next.ckpt").replace(path)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        listed["layers.1.weight"].read()


def test_an_archive_with_a_password_is_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"x" * 50)
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[6] |= 1  # both headers say: encrypted
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.pt").write_bytes(data)
    fails(tmp_path / "a.pt", "corrupt")
