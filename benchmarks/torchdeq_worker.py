"""torchdeq 0.1.0 in a process of its own: one JSON task a line in, one answer a line out."""

import json
import sys
import time

import numpy as np
import torch

torch.set_num_threads(1)
sys.stdout, answers = sys.stderr, sys.stdout

from torchdeq import get_deq  # noqa: E402


def run(folder, solver, backward):
    data = {name: torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in ("W", "x", "cotangent")}
    W, x = data["W"].requires_grad_(), data["x"].requires_grad_()
    counts = [0]

    def f(z):
        counts[0] += 1
        return torch.tanh(z @ W.T + x)

    settings = {
        "ift": True,
        "f_solver": solver,
        "b_solver": solver,
        "f_tol": 1e-5,
        "b_tol": 1e-5,
        "f_stop_mode": "rel",
        "b_stop_mode": "rel",
        "f_max_iter": 100,
        "b_max_iter": 100,
    }
    deq = get_deq(**settings)
    start = time.process_time()
    z = deq(f, torch.zeros_like(data["x"]))[0][-1]
    z = z[0] if isinstance(z, list) else z
    seconds = time.process_time() - start
    answer = {"seconds": seconds, "evaluations": counts[0] - 1}  # one more attaches the graph
    if backward:
        start = time.process_time()
        z.backward(data["cotangent"])
        answer["seconds"] = time.process_time() - start
    np.save(f"{folder}/theirs_z.npy", z.detach().numpy())
    if backward:
        np.save(f"{folder}/theirs_gW.npy", W.grad.numpy())
        np.save(f"{folder}/theirs_gx.npy", x.grad.numpy())
    return answer


for line in sys.stdin:
    answers.write(json.dumps(run(**json.loads(line))) + "\n")
    answers.flush()
