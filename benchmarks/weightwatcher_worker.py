"""Runs WeightWatcher in a process of its own: one JSON task a line on stdin, one JSON answer a line on stdout."""

import contextlib
import io
import json
import logging
import sys
import time
import warnings

import numpy as np
import torch

torch.set_num_threads(1)
warnings.simplefilter("ignore")
with contextlib.redirect_stdout(io.StringIO()):
    import weightwatcher
    from weightwatcher.WW_powerlaw import WWFit
logging.disable(logging.CRITICAL)


def fit(path):
    data = np.load(path)
    start = time.perf_counter()
    result = WWFit(data, distribution="power_law")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "alpha": float(result.alpha), "xmin": float(result.xmin), "D": float(result.D)}


def analyze(path):
    from torchvision.models import resnet18

    model = resnet18()
    model.load_state_dict(torch.load(path, weights_only=True))
    watcher = weightwatcher.WeightWatcher(model=model)
    start = time.perf_counter()
    details = watcher.analyze()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "alpha": dict(zip(details.longname, map(float, details.alpha), strict=True))}


def mp_fit(path, shape):
    data = np.load(path)
    watcher = weightwatcher.WeightWatcher(model=torch.nn.Linear(30, 30))
    n, m = max(shape), min(shape)
    start = time.perf_counter()
    spikes, sigma, *_ = watcher.mp_fit(data, n, m, 1, "layer", 0, 0, False, False, ".", "blue", 0.5, True, data)
    return {"seconds": time.perf_counter() - start, "n_spikes": int(spikes), "sigma": float(sigma)}


TASKS = {"fit": fit, "analyze": analyze, "mp_fit": mp_fit, "version": lambda: {"version": weightwatcher.__version__}}

for line in sys.stdin:
    task = json.loads(line)
    with contextlib.redirect_stdout(io.StringIO()):
        answer = TASKS[task.pop("task")](**task)
    print(json.dumps(answer), flush=True)
