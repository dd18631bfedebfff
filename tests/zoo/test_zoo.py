"""All monitors at once on networks that fpstab did not write: not a bit of training changes, and each says what it is about."""

import contextlib
import copy
import logging
import math
import random
import re

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from fpstab.callbacks import (
    EquilibriumMonitor,
    ESDMonitor,
    FixedPointMonitor,
    JacobianMonitor,
    LipschitzMonitor,
    OrbitMonitor,
    StabilityMonitor,
    read_lines,
)
from fpstab.maps import first_tensor
from tests.zoo.networks import ZOO

NO_DEQ = "holds no fpstab.equilibrium.FixedPointLayer"
NO_BLOCKS = r"blocks='blocks\.\*' matches no module"
DRAWN = ("spectral_norm",)  # figures are the dearest


@pytest.fixture(autouse=True)
def _advice_of_lightning():
    import warnings

    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*GPU available but not used.*",
            ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
            ".*but have no `val_dataloader`.*",
            ".*but have no `validation_step`.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def monitors(animal):
    common = {"budget": None}
    mapped = common | {"map": animal.map, "size": 2}
    return [
        ESDMonitor(**common),
        FixedPointMonitor(max_iter=20, **mapped),
        JacobianMonitor(sigma=True, **mapped),
        LipschitzMonitor(time_limit=1.0, **mapped),
        EquilibriumMonitor(**mapped),
        StabilityMonitor(time_limit=1.0, **mapped),
        OrbitMonitor(animal.blocks, animal.map, n_points=8, **common),
    ]


def train(animal, path, watching, drawn=False):
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    torch._dynamo.reset()
    module = animal.make()
    options = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "default_root_dir": path,
        "logger": TensorBoardLogger(path) if drawn else False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    fit = pl.Trainer(callbacks=[*animal.callbacks(), *watching], **options | animal.options)
    fit.fit(module, *animal.loaders())
    return fit, getattr(module, "_orig_mod", module)


def bits(tensor):
    if tensor is None or nn.parameter.is_lazy(tensor):
        return tensor is None
    return (
        tensor.dtype,
        tuple(tensor.shape),
        tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
    )


def flat(value):
    """A nested state with tensors as bits."""
    if isinstance(value, torch.Tensor):
        return bits(value)
    if isinstance(value, dict):
        return {key: flat(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [flat(each) for each in value]
    return value.tobytes() if isinstance(value, np.ndarray) else value


def state(fit, module):
    """Everything of a training that somebody could find changed."""
    modules = dict(module.named_modules())
    seen = {
        "weights": {name: (bits(p), p.requires_grad, bits(p.grad)) for name, p in module.named_parameters()},
        "buffers": {name: bits(b) for name, b in module.named_buffers()},
        "classes": {name: type(m).__name__ for name, m in modules.items()},
        "modes": {name: m.training for name, m in modules.items()},
        "hooks": {
            (name, key): len(hooks)
            for name, m in modules.items()
            for key, hooks in vars(m).items()
            if "hooks" in key and isinstance(hooks, dict)
        },
        "hooks of tensors": {
            name: (p._backward_hooks, p._post_accumulate_grad_hooks) for name, p in module.named_parameters()
        },
        "hooks of all": [
            len(vars(nn.modules.module)[key]) for key in vars(nn.modules.module) if key.endswith("_hooks")
        ],
        "attributes": {
            (name, key): value
            for name, m in modules.items()
            for key, value in vars(m).items()
            if isinstance(value, (bool, int, float, str, type(None))) and key != "_torchdynamo_wrapper_id"
        },
        "optimizers": [flat(each.state_dict()) for each in fit.optimizers],
        "metrics": {key: bits(value) for key, value in fit.callback_metrics.items() if not key.startswith("fpstab/")},
        "random": (random.getstate(), flat(np.random.get_state()), bits(torch.get_rng_state())),  # noqa: NPY002
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.is_inference_mode_enabled(),
        ),
        "steps": (fit.global_step, fit.current_epoch),
    }
    assert seen["weights"]
    return seen


def expected(animal):
    says = {"equilibrium": NO_DEQ} | animal.says
    return says | ({"orbits": NO_BLOCKS} if animal.blocks == "blocks.*" else {})


@pytest.mark.parametrize("name", ZOO)
def test_every_monitor_at_once(name, tmp_path, caplog):
    animal = ZOO[name]
    alone = state(*train(animal, tmp_path / "alone", []))
    caplog.clear()
    caplog.set_level(logging.WARNING)
    watching = monitors(animal)
    fit, module = train(animal, tmp_path / "watched", watching, drawn=name in DRAWN)
    watched = state(fit, module)
    assert [key for key in alone if alone[key] != watched[key]] == []

    said = [record.getMessage() for record in caplog.records if record.name.endswith(".fpstab")]
    assert len(said) == len(set(said))
    for each in watching:
        scalars, key = each.history.records[-1]["scalars"], f"fpstab/{each.name}/failed"
        reason = expected(animal).get(each.name)
        assert scalars[key] == (reason is not None), (each.name, said)
        own = [message for message in said if message.startswith(f"{type(each).__name__} ")]
        if reason is None:
            assert [record["failed"] for record in each.history.records if record["step"]].count(True) == 0
            sensible(each, module)
        else:
            assert each.result is None
            assert any(re.search(reason, message) for message in own), (each.name, said)
        assert len(own) == (reason is not None) + (bool(animal.early) and reason is None and each.name != "esd"), own
        assert not any(re.search(r"0x[0-9a-f]{6}|Traceback|object at", message) for message in own)
        if animal.early and reason is None and each.name != "esd":
            assert each.history.records[0]["failed"]
            assert animal.early in own[0]
    lines = [line for path in tmp_path.rglob("fpstab.jsonl") for line in read_lines(path)]
    assert len(lines) == sum(len(each.history.records) for each in watching)
    assert all(line["message"] for line in lines if line["failed"])


def sensible(monitor, module):
    """The last numbers are those of the network, computed by other means; the averaged ones come after the last look."""
    values = {key.split("/", 2)[2]: value for key, value in monitor.history.records[-1]["scalars"].items()}
    assert any(math.isfinite(value) for key, value in values.items() if key not in ("failed", "seconds"))
    network = copy.deepcopy(module.net if not hasattr(module.net, "_orig_mod") else module.net._orig_mod)
    same = not any(type(callback).__name__.endswith("Averaging") for callback in module.trainer.callbacks)
    if monitor.name == "esd":
        for key, value in values.items():
            layer = key.removesuffix("/largest_singular_value")
            weight = module.state_dict().get(f"{layer}.weight")
            if layer != key and weight is not None and weight.ndim == 2 and same and "_u" not in key:
                if any(f"{layer}.weight_u" in name for name in module.state_dict()):
                    continue  # normalised anew in evaluation mode
                assert value == pytest.approx(float(torch.linalg.matrix_norm(weight.double(), 2)), rel=1e-6)
    if monitor.name in ("jacobian", "lipschitz", "fixed_points", "stability") and same:
        network = network.double().eval().requires_grad_(False)
        x = first_tensor(monitor.probe.batch)[:2].double()
        jacobians = [torch.autograd.functional.jacobian(lambda z: network(z[None])[0].flatten(), z) for z in x]
        jacobians = [each.flatten(1) for each in jacobians]
        norm = max(float(torch.linalg.matrix_norm(each, 2)) for each in jacobians)
        rho = max(float(torch.linalg.eigvals(each).abs().max()) for each in jacobians)
        residual = max(float((network(z[None])[0] - z).norm()) for z in x)
        if monitor.name == "jacobian":
            assert values["rho_max"] == pytest.approx(rho, rel=1e-2)
            assert values["sigma_max"] == pytest.approx(norm, rel=1e-2)
            assert values["residual_max"] == pytest.approx(residual, rel=1e-9)
        elif monitor.name == "lipschitz":
            assert values["value"] >= norm
            assert values["sampled_lower"] == pytest.approx(norm, rel=1e-2)
        elif monitor.name == "fixed_points":
            assert values["residual_max"] == pytest.approx(residual, rel=1e-9)
        elif values["certified"]:
            assert values["value"] < 1
            assert values["attractor"] == 0


@pytest.mark.parametrize("name", ["batchnorm and dropout", "gan"])
def test_without_the_guard_training_would_change(name, tmp_path, monkeypatch):
    alone = state(*train(ZOO[name], tmp_path / "alone", []))
    monkeypatch.setattr("fpstab.guard.untouched", lambda module: contextlib.nullcontext())
    watched = state(*train(ZOO[name], tmp_path / "watched", monitors(ZOO[name])))
    assert alone["weights"] != watched["weights"]
