"""The 828 networks of paper 3 in one go against a loop over models and points: python benchmarks/dynamics.py.

The loop is this file's own, in the style in which pointwise affine maps are usually computed: for each model and each point
the layers are run, diag(σ(z)/z) is built and multiplied, and torch.linalg.eig is called. It is timed on 18 models,
one of each depth and activation, and scaled to 828. Everything is float64, on one thread; seconds are of the
processor.
"""

import argparse
import time
from pathlib import Path

import torch
from timing import interleave, save

from fpstab.experiments.dynamics.models import ACTIVATIONS, GRID, Model, draw_parameters, stacks
from fpstab.jacobian import affine_map
from fpstab.maps import SelfMap
from fpstab.stability.plots import plane
from fpstab.stability.stacked_attractors import classify_stack

HERE = Path(__file__).parent
SAMPLE = [46 * k + 7 * k % 46 for k in range(18)]  # of each depth and activation one, each with other weights
ORBITS, STEPS = 16, 60


def clock(run):
    """Seconds of the processor that one call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def starts():
    angle = torch.arange(ORBITS, dtype=torch.float64) * (2 * torch.pi / ORBITS)
    return 5.4 * torch.stack((angle.cos(), angle.sin()), 1)


def layers_of(model: Model):
    weights, biases = draw_parameters(model.map, model.depth, 0)
    return [(W, b if model.bias else torch.zeros_like(b)) for W, b in zip(weights, biases, strict=True)]


def run(layers, sigma, x):
    for W, b in layers:
        x = sigma(W @ x + b)
    return x


def loop(models, grid, first):
    """A*, eigenvalues, arrows and orbits of each model, its layers with its σ, point by point."""
    results = []
    for layers, sigma in models:
        matrices, spectra, arrows, orbits = [], [], [], []
        for x in grid:
            A, h = torch.eye(2, dtype=torch.float64), x
            for W, b in layers:
                z = W @ h + b
                h = sigma(z)
                A = torch.diag(h / z) @ W @ A
            matrices.append(A)
            spectra.append(torch.linalg.eig(torch.where(torch.isfinite(A), A, 0.0))[0])
            arrows.append(h - x)
        for x in first:
            orbit = [x]
            for _ in range(STEPS):
                orbit.append(run(layers, sigma, orbit[-1]))
            orbits.append(torch.stack(orbit))
        results.append([torch.stack(each) for each in (matrices, spectra, arrows, orbits)])
    return results


def together(models, grid, first):
    """The same of stacks of models."""
    results = {}
    for places, stack in models:
        affine = stack.affine(grid, mode="paper")
        results[tuple(places)] = affine.A, affine.eigenvalues(), affine.step, stack.orbits(first, STEPS)
    return results


def compare(ours, theirs, grid, first):
    """Largest difference of all outputs, relative to 1 + the size of each; where z = 0, σ(z)/z is not there in the loop."""
    found = {}
    for places, results in together(ours, grid, first).items():
        for i, place in enumerate(places):
            found[place] = [each[i] for each in results]
    worst, points = 0.0, 0
    for place, expected in zip(SAMPLE, loop(theirs, grid, first), strict=True):
        usable = torch.isfinite(expected[0]).all(2).all(1)
        points += int(usable.sum())
        for k, (a, b) in enumerate(zip(found[place], expected, strict=True)):
            if k == 1:  # as sets: the order of a pair is nobody's
                a, b = ((each.real.sum(1), each.prod(1).real) for each in (a, b))
                a, b = torch.stack(a, 1), torch.stack(b, 1)
            a, b = (a[usable], b[usable]) if k < 3 else (a, b)
            finite = torch.isfinite(b)
            if not bool(finite.any()):  # a dead layer: 0/0 everywhere
                continue
            worst = max(worst, float(((a - b).abs() / (1 + b.abs()))[finite].max()))
    print(
        f"largest relative difference {worst:.2e} of {len(SAMPLE)} models, {points} of {len(SAMPLE) * len(grid)} points"
    )
    assert worst < 1e-8
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    grid, first = plane(24), starts()
    # the weights are drawn alike for both, before anything is timed
    ours = list(stacks())
    theirs = [(layers_of(GRID[i]), ACTIVATIONS[GRID[i].activation]()) for i in SAMPLE]
    compare(ours, theirs, grid, first)
    times = interleave(
        {
            "ours": lambda: clock(lambda: together(ours, grid, first)),
            "loop": lambda: clock(lambda: loop(theirs, grid, first)),
        },
        repeats,
    )
    seconds = times["loop"] * len(GRID) / len(SAMPLE)
    what = "828 models: A*, eigenvalues at 576 points, arrows, 16 orbits of 60 steps"
    peer = f"loop over models and points ({len(SAMPLE)} models, scaled)"
    rows = [{"what": what, "peer": peer, "peer_seconds": seconds, "ours_seconds": times["ours"], "ratio": seconds / times["ours"]}]  # fmt: skip
    for activation in ("Tanh", "GELU"):
        deep = next(model for model in GRID if (model.depth, model.activation) == (8, activation))
        ((_, stack),) = stacks([deep])
        network = SelfMap(stack.network(0), torch.zeros(1, 2))
        points = plane(121)
        seconds = interleave(
            {"ours": lambda n=network, p=points: clock(lambda: affine_map(n, p).spectral_radius())}, 15
        )["ours"]
        rows.append({"what": f"121 × 121 map of ρ(A), 8 layers, {activation}", "peer": "", "peer_seconds": None,
                     "ours_seconds": seconds, "ratio": None})  # fmt: skip
    with torch.enable_grad():
        seconds = clock(lambda: [classify_stack(stack) for _, stack in stacks()])
    rows.append({"what": "828 models classified, 24 starts each", "peer": "", "peer_seconds": None,
                 "ours_seconds": seconds, "ratio": None})  # fmt: skip
    save(HERE / "dynamics.csv", [{key: "" if value is None else value for key, value in row.items()} for row in rows])


if __name__ == "__main__":
    main()
