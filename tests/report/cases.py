"""Logs of runs that never were, with every monitor in them."""

import math

from fpstab.records import append_line

START = {
    "time": 1.7e9, "step": 0, "epoch": 0, "fpstab": "0.1.0", "torch": "2", "lightning": "2", "python": "3", "seed": "7",
    "module": "Task<script>", "parameters": 1234567, "device": "cpu", "precision": "32-true", "processes": 1,
    "max_epochs": 3, "max_steps": -1, "monitors": [],
}  # fmt: skip

LAST = {
    "ESDMonitor[esd]": {"n_heavy": 1.0, "alpha_median": 2.5, "n_spikes": 3.0, "a/verdict": 3.0, "b/verdict": 1.0, "a/alpha": 2.5},
    "FixedPointMonitor[fixed_points]": {
        "n_attracting": 7.0, "n_saddle": 12.0, "n_repelling": 0.0, "n_cycles": 1.0, "data/coverage": 0.5, "data/chao1": 11.0,
        "n_missing": 3.0, "share_recovered": 0.25, "share_stored": 0.5,
    },
    "JacobianMonitor[jacobian]": {
        "rho_max": 1.25, "rho_median": 0.5, "rho_error_max": 0.001, "share_expanding": 0.125, "sigma_max": 2.0, "residual_max": 3.0,
    },
    "LipschitzMonitor[lipschitz]": {"value": 0.5, "sampled_lower": 0.25, "solved": 1.0},
    "StabilityMonitor[stability]": {
        "certified": 1.0, "value": 0.5, "value/R1-2": 0.5, "value/R1-1": 3.0, "attractor": 0.0, "lyapunov": -0.7,
        "diagnostic/rho_affine_max": 0.4,
    },
    "EquilibriumMonitor[equilibrium]": {
        "forward/unconverged": 0.5, "forward/iterations_mean": 20.0, "backward/unconverged": 0.0, "rho_max": 0.9, "rho_error_max": 0.01,
    },
    "OrbitMonitor[orbits]": {
        "expansive_definition": 0.1, "expansive_block": 0.01, "expansive_mean": 0.05, "shadowing": 2.0, "stability_logits": 0.5,
    },
}  # fmt: skip


def write_log(folder, *, run="r1", monitors=LAST, steps=(0, 10, 20), message="", scale=1.0):
    path = folder / "fpstab.jsonl"
    append_line(path, {"run": run, "start": START})
    for step in steps:
        for key, scalars in monitors.items():
            name = key.partition("[")[2].removesuffix("]")
            share = (1 + steps.index(step)) / len(steps)
            values = {f"fpstab/{name}/{quantity}": value * share * scale for quantity, value in scalars.items()}
            if step == steps[-1] and scale == 1:
                values = {f"fpstab/{name}/{quantity}": value for quantity, value in scalars.items()}
            values |= {f"fpstab/{name}/seconds": 0.5, f"fpstab/{name}/failed": 0.0, f"fpstab/{name}/never": math.nan}
            append_line(
                path,
                {"run": run, "monitor": key, "time": 1.7e9 + step, "step": step, "epoch": step // 10, "phase": "epoch",
                 "failed": False, "scalars": values, "message": message, "result": {"expansivity": {"n": 64}}},
            )  # fmt: skip
    return folder
