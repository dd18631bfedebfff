"""Checkpoints of one file and of several, and what it costs to read them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.esd import CheckpointError, ESDReport, esd_report, open_checkpoint
from fpstab.esd.checkpoints import group_shards


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Flatten(), nn.Linear(50, 40), nn.Linear(40, 9))


def assert_same(report: ESDReport, expected: ESDReport) -> None:
    layers = {layer.name: layer for layer in report.layers}
    assert sorted(layers) == sorted(layer.name for layer in expected.layers)
    for theirs in expected.layers:
        ours = layers[theirs.name]
        assert ours.shape == theirs.shape
        assert ours.metrics == theirs.metrics
        assert str(ours.verdict) == str(theirs.verdict)
        assert ours.status == theirs.status


def shard(folder: Path, state: dict[str, Tensor], kind: str, count: int = 3) -> list[Path]:
    """The layout of Hugging Face's `save_pretrained`, written by hand."""
    stem, save = {"safetensors": ("model", safetensors.torch.save_file), "bin": ("pytorch_model", torch.save)}[kind]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    paths, weight_map = [], {}
    for i in range(count):
        part = dict(list(state.items())[i::count])
        paths.append(folder / f"{stem}-{i + 1:05d}-of-{count:05d}.{kind}")
        save(part, paths[-1])
        weight_map |= dict.fromkeys(part, paths[-1].name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    return paths


def fails(code: str, *paths: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(*paths)
    assert caught.value.status.code == code
    return caught.value.status.message


@pytest.mark.parametrize("conv", ["flatten", "slices"])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors"])
def test_the_report_is_that_of_the_network(tmp_path, name, conv):
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(net().state_dict(), tmp_path / name)
    checkpoint = open_checkpoint(str(tmp_path / name))
    assert checkpoint.name == str(tmp_path / name)
    assert checkpoint.files == (tmp_path / name,)
    assert checkpoint.notes == ()
    assert_same(checkpoint.report(conv=conv), esd_report(net(), conv=conv))
    options = {"include": ["0", "3"], "exclude": "0", "randomize": True}
    assert_same(checkpoint.report(**options), esd_report(net(), **options))
    assert checkpoint.report(include="nothing").status.code == "no_match"
    with pytest.raises(ValueError, match="conv='rows'"):
        checkpoint.report(conv="rows")  # type: ignore[arg-type]


class Task(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(40, 30)))

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self.net(batch[0]), batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:GPU available")
def test_a_checkpoint_of_lightning(tmp_path):
    task = Task()
    loader = DataLoader(TensorDataset(torch.randn(64, 30)), 16)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", log_every_n_steps=1, **quiet)
    trainer.fit(task, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = open_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.notes == ("Took 'state_dict'.",)
    assert [weight.name for weight in checkpoint.weights] == ["net.0", "net.2"]
    assert checkpoint.report()["net.0"].metrics == esd_report(task)["net.0"].metrics
    assert checkpoint.report()["net.2"].alpha == pytest.approx(esd_report(task)["net.2"].alpha, rel=1e-4)


def test_torchvision(tmp_path):
    import torchvision

    network = torchvision.models.squeezenet1_1()
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    chosen = ["features.3", "classifier"]
    assert_same(
        open_checkpoint(tmp_path / "squeezenet.pth").report(include=chosen), esd_report(network, include=chosen)
    )


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path, kind):
    state = net().state_dict()
    shards = shard(tmp_path / "hf", state, kind)
    index = next((tmp_path / "hf").glob("*.index.json"))
    expected = esd_report(net())
    for paths in ([tmp_path / "hf"], [index], shards, [shards[1], index, shards[0]]):
        checkpoint = open_checkpoint(*paths)
        assert sorted(checkpoint.files) == shards
        assert_same(checkpoint.report(), expected)
    assert open_checkpoint(*shards).name == str(tmp_path / "hf" / index.name.removesuffix(".index.json"))
    assert open_checkpoint(index).name == str(index)
    assert open_checkpoint(tmp_path / "hf").notes == (f"Took {index.name}.",)
    index.unlink()
    assert_same(open_checkpoint(tmp_path / "hf").report(), expected)
    part = open_checkpoint(shards[0])
    assert part.notes == ("1 of 3 shards.",)
    assert [weight.name for weight in part.weights] == ["0", "4"]


def test_an_index_rules(tmp_path):
    """Shards that it does not name, and tensors that it does not name, are not the model's."""
    shards = shard(tmp_path, net().state_dict(), "safetensors")
    safetensors.torch.save_file({"old.weight": torch.ones(3, 3)}, tmp_path / "model-00004-of-00004.safetensors")
    held = safetensors.torch.load_file(shards[0])
    safetensors.torch.save_file(held | {"x.weight": torch.ones(3, 3)}, shards[0])
    assert_same(open_checkpoint(tmp_path).report(), esd_report(net()))
    assert_same(open_checkpoint(*tmp_path.glob("model*")).report(), esd_report(net()))


def test_a_damaged_layout(tmp_path):
    shards = shard(tmp_path, net().state_dict(), "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    written = json.loads(index.read_text())
    safetensors.torch.save_file({"x": torch.ones(3, 3)}, shards[2])
    assert shards[2].name in fails("corrupt", tmp_path)
    shards[1].unlink()
    assert "1 of the 3 shards" in fails("missing", index)
    for content in ("", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(content)
        assert "weight_map" in fails("corrupt", tmp_path)
    index.write_text(json.dumps(written | {"weight_map": {}}))
    assert "no state dict" in fails("no_weights", index)
    index.unlink()
    fails("missing", index)


def test_folders(tmp_path):
    fails("no_weights", tmp_path)
    fails("missing", tmp_path / "nowhere")
    (tmp_path / ".metadata").write_bytes(b"")
    assert "dcp_to_torch" in fails("not_a_checkpoint", tmp_path)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):  # of a transformers.Trainer
        torch.save({"state": {0: {"exp_avg": torch.ones(9, 9)}}}, tmp_path / name)
    safetensors.torch.save_file(net().state_dict(), tmp_path / "adapter_model.safetensors")
    assert open_checkpoint(tmp_path).notes == ("Took adapter_model.safetensors.",)
    torch.save(net().state_dict(), tmp_path / "pytorch_model.bin")
    assert open_checkpoint(tmp_path).notes == ("Took pytorch_model.bin.",)
    safetensors.torch.save_file(net().state_dict(), tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path).notes == ("Took model.safetensors.",)


def test_a_folder_of_several_checkpoints(tmp_path):
    for epoch in range(7):
        torch.save(net().state_dict(), tmp_path / f"epoch={epoch}.ckpt")
    message = fails("ambiguous", tmp_path)
    assert "epoch=0.ckpt, epoch=1.ckpt" in message
    assert message.endswith("….")


def test_no_weights(tmp_path):
    torch.save(nn.BatchNorm1d(4).state_dict(), tmp_path / "norm.pt")
    fails("no_weights", tmp_path / "norm.pt")
    safetensors.torch.save_file({"q": torch.ones(3, 3, dtype=torch.int32)}, tmp_path / "q.safetensors")
    assert "Left out as integers: q (I32)" in fails("no_weights", tmp_path / "q.safetensors")


def test_several_models_are_not_one(tmp_path):
    with pytest.raises(ValueError, match="shards of one model"):
        open_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    with pytest.raises(ValueError, match="shards of one model"):
        open_checkpoint()


def test_groups():
    names = ["b.pt", "x/m-00001-of-00002.bin", "m-00001-of-00002.bin", "b.pt", "m-00002-of-00002.bin",
             "m-00001-of-00002.safetensors", "m-00001-of-00003.bin", "m.safetensors.index.json", "x.index.json"]  # fmt: skip
    assert [[str(path) for path in group] for group in group_shards(map(Path, names))] == [
        ["b.pt"],
        ["x/m-00001-of-00002.bin"],
        ["m-00001-of-00002.bin", "m-00002-of-00002.bin"],
        ["b.pt"],
        ["m.safetensors.index.json", "m-00001-of-00002.safetensors"],
        ["m-00001-of-00003.bin"],
        ["x.index.json"],
    ]


def test_a_layer_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    state = {
        "a.weight": torch.randn(30, 30),
        "b.weight": torch.full((30, 30), torch.nan),
        "c.weight": torch.randn(30, 30),
    }
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    report = open_checkpoint(tmp_path / "a.safetensors").report()
    assert [layer.status.code for layer in report.layers] == ["ok", "not_finite", "ok"]


MEASURE = """
import re, sys
from fpstab.esd import open_checkpoint, stored
stored._MAPPED = 1 << 23
for path in sys.argv[1:]:
    for weight in open_checkpoint(path).weights:
        from fpstab.esd.layers import analyse_weight
        assert not analyse_weight(weight).failed
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
def test_one_weight_at_a_time_is_in_memory(tmp_path):
    """25 million parameters, 100 MB in float32; the largest layer takes 4 MiB in float64."""
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(1024, 512, generator=generator) for i in range(48)}
    state["layers.7.weight"].cauchy_(generator=generator)
    shard(tmp_path / "hf", state, "safetensors", count=4)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    torch.save({"a": torch.randn(64, 64), "b": torch.empty(64, 64).cauchy_()}, tmp_path / "small.pt")
    paths = [tmp_path / "small.pt", tmp_path / "hf", tmp_path / "last.ckpt"]
    run = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    small, sharded, single = (int(line) / 1024 for line in run.stdout.split())
    largest = 1024 * 512 * 8 / 2**20
    print(small, sharded, single)
    assert sharded - small < 2 * largest + 16
    assert single - small < 2 * largest + 8 + 16  # 8 MiB of a mapped file may stay
