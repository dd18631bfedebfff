"""fpstab.esd against powerlaw and WeightWatcher: python benchmarks/esd.py --peer-python PYTHON."""

import argparse
import json
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from timing import clock, interleave, save

from fpstab.esd import esd_report, fit_marchenko_pastur, fit_power_law

HERE = Path(__file__).parent


class Peer:
    """WeightWatcher in its own process."""

    def __init__(self, python):
        command = [python, str(HERE / "weightwatcher_worker.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, task, **arguments):
        self.process.stdin.write(json.dumps({"task": task} | arguments) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def samples():
    rng = np.random.default_rng(0)
    square = np.linalg.svd(rng.normal(size=(1024, 1024)), compute_uv=False) ** 2
    cauchy = np.linalg.svd(rng.standard_cauchy(size=(1024, 1024)), compute_uv=False) ** 2
    return {"gaussian": np.sort(square), "cauchy": np.sort(cauchy), "pareto": np.sort(rng.pareto(1.5, 1024) + 1)}


def powerlaw_fit(data):
    import powerlaw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return powerlaw.Fit(data, verbose=0, parameter_ranges={"alpha": [1, None]})


def compare_fits(peer, folder, repeats):
    for name, data in samples().items():
        path = str(folder / f"{name}.npy")
        np.save(path, data)
        ours, reference, other = fit_power_law(data), powerlaw_fit(data), peer("fit", path=path)
        assert ours.xmin == reference.xmin == other["xmin"]
        assert abs(ours.alpha / reference.alpha - 1) < 1e-9
        assert abs(ours.alpha / other["alpha"] - 1) < 1e-9
        times = interleave(
            {
                "ours": lambda data=data: clock(lambda: fit_power_law(data)),
                "powerlaw 2.0.0": lambda data=data: clock(lambda: powerlaw_fit(data)),
                "WeightWatcher 0.7.7": lambda path=path: peer("fit", path=path)["seconds"],
            },
            repeats,
        )
        for other_name in ("powerlaw 2.0.0", "WeightWatcher 0.7.7"):
            yield row(f"power-law fit, n=1024, {name}", other_name, times[other_name], times["ours"])


def compare_bulks(peer, folder, repeats):
    rng = np.random.default_rng(1)
    for shape in ((512, 512), (256, 1024)):
        w = rng.normal(size=shape)
        w += (
            4
            * shape[1] ** 0.5
            * np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
            / shape[0] ** 0.5
            / shape[1] ** 0.5
        )
        data = np.sort(np.linalg.svd(w, compute_uv=False) ** 2)
        path = str(folder / "bulk.npy")
        np.save(path, data)
        ours, other = fit_marchenko_pastur(data, shape), peer("mp_fit", path=path, shape=shape)
        print("spikes: ours", ours.n_spikes, "theirs", other["n_spikes"], "(planted: 1)")
        times = interleave(
            {
                "ours": lambda data=data, shape=shape: clock(lambda: fit_marchenko_pastur(data, shape)),
                "theirs": lambda path=path, shape=shape: peer("mp_fit", path=path, shape=shape)["seconds"],
            },
            repeats,
        )
        yield row(
            f"Marchenko-Pastur fit and spikes, {shape[0]}x{shape[1]}",
            "WeightWatcher 0.7.7",
            times["theirs"],
            times["ours"],
        )


def compare_resnet(peer, folder, repeats):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18()
    path = str(folder / "resnet18.pt")
    torch.save(model.state_dict(), path)
    slices = {layer.name: layer.alpha for layer in esd_report(model, conv="slices").layers}
    theirs = peer("analyze", path=path)["alpha"]
    common = [name for name in theirs if slices.get(name)]
    worst = max(abs(slices[name] / theirs[name] - 1) for name in common)
    print(f"alpha of {len(common)} of {len(theirs)} layers: worst relative difference {worst:.2e}")
    times = interleave(
        {
            "slices": lambda: clock(lambda: esd_report(model, conv="slices")),
            "flatten": lambda: clock(lambda: esd_report(model)),
            "theirs": lambda: peer("analyze", path=path)["seconds"],
        },
        repeats,
    )
    yield row(
        "ResNet-18, all layers and metrics, slices", "WeightWatcher 0.7.7 (slices)", times["theirs"], times["slices"]
    )
    yield row(
        "ResNet-18, all layers and metrics, flatten", "WeightWatcher 0.7.7 (slices)", times["theirs"], times["flatten"]
    )


def row(what, peer, theirs, ours):
    return {"what": what, "peer": peer, "peer_seconds": theirs, "ours_seconds": ours, "ratio": theirs / ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="Python of an environment with weightwatcher==0.7.7")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = Peer(arguments.peer_python)
    print(peer("version"))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for compare in (compare_fits, compare_bulks, compare_resnet):
            rows += compare(peer, Path(folder), arguments.repeats)
    save(HERE / "esd.csv", rows)


if __name__ == "__main__":
    main()
