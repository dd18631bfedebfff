"""fpstab.theory.jacobian_esd: its three solvers, and Erf's m_K against mpmath.lerchphi: python benchmarks/jacobian_esd.py."""

import argparse
import math
from pathlib import Path

import mpmath
import numpy as np
import torch
from timing import clock, interleave, save

from fpstab.theory import jacobian_esd

HERE = Path(__file__).parent
POINTS = 500


def lerch(u, q):
    """Erf's m_K as paper 1 has it (its constant corrected), one u at a time."""
    alpha, factor = 1 + 1 / (mpmath.pi * q), 1 / mpmath.sqrt(mpmath.pi * q)
    return np.array([complex(x * factor * mpmath.lerchphi(complex(x), 0.5, alpha)) for x in u])


def interior(activation, depth, q):
    support = jacobian_esd.edges(activation, depth, q=q)
    return np.linspace(max(1e-3, 1.05 * support.lower), 0.95 * support.upper, POINTS)


def solvers(repeats):
    for activation, depth, q in [
        ("linear", 5, 1.0), ("hardtanh", 2, 1.0), ("hardtanh", 5, 1.0), ("hardtanh", 5, None),
        ("erf", 5, 1.0), ("erf", 5, None), ("tanh", 5, None),
    ]:  # fmt: skip
        lam = interior(activation, depth, q)

        def run(solver, activation=activation, depth=depth, q=q, lam=lam):
            return jacobian_esd.density(lam, activation, depth, q=q, solver=solver, throw=False)

        names = ["newton"]
        names += ["polynomial"] if activation in ("linear", "hardtanh") else []
        names += ["paper"] if q is not None else []
        seconds = interleave({name: (lambda name=name: clock(lambda: run(name))) for name in names}, repeats)
        reference = run(names[1] if "polynomial" in names else "newton").rho
        for name in names:
            found = run(name)
            good = ~found.rho.isnan()
            yield {
                "what": f"density, {activation}, L = {depth}, q = {q or 'recursion'}, {POINTS} points",
                "method": name,
                "seconds": seconds[name],
                "converged": float(good.double().mean()),
                "reference": "polynomial" if "polynomial" in names else "newton",
                "max_relative_difference": float((found.rho / reference - 1).abs()[good].max()),
            }


def generating(repeats):
    rng = np.random.default_rng(0)
    u = np.exp(rng.uniform(-2, 3, 20) - 1j * rng.uniform(0.2, 3.0, 20))
    for q in (0.5, 2.0):
        law = jacobian_esd.slope_law("erf", q)
        exact, found = lerch(u, q), law.generating(u)[0]
        many = np.tile(u, 25)
        # lerchphi remembers nothing between calls; ours at 500 points, as a step of the solver has it
        seconds = interleave(
            {
                "mpmath": lambda q=q: clock(lambda: lerch(u, q)) / len(u),
                "ours": lambda law=law, many=many: clock(lambda: law.generating(many)) / len(many),
            },
            repeats,
        )
        difference = float(np.abs(found / exact - 1).max())
        for name, method in (("mpmath", f"mpmath {mpmath.__version__} lerchphi"), ("ours", "quadrature on a curve")):
            yield {
                "what": f"m_K of erf at a point, q = {q}",
                "method": method,
                "seconds": seconds[name],
                "converged": 1.0,
                "reference": "mpmath",
                "max_relative_difference": 0.0 if name == "mpmath" else difference,
            }


def closed_form():
    for L in (1, 2, 5, 10):
        phi = np.linspace(0.02, 0.98, POINTS) * math.pi / (L + 1)
        lam = np.sin((L + 1) * phi) ** (L + 1) / (np.sin(phi) * np.sin(L * phi) ** L)
        rho = np.sin(phi) ** 2 * np.sin(L * phi) ** (L - 1) / (math.pi * np.sin((L + 1) * phi) ** L)
        kept = lam >= 1e-3
        found = jacobian_esd.density(lam[kept], "linear", L).rho.numpy()
        yield {
            "what": f"density, linear, L = {L}, {int(kept.sum())} points",
            "method": "newton",
            "seconds": clock(lambda lam=lam[kept], L=L: jacobian_esd.density(lam, "linear", L)),
            "converged": 1.0,
            "reference": "closed form (Fuss–Catalan)",
            "max_relative_difference": float(np.abs(found / rho[kept] - 1).max()),
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*closed_form(), *solvers(arguments.repeats), *generating(arguments.repeats)]
    save(HERE / "jacobian_esd.csv", rows)


if __name__ == "__main__":
    main()
