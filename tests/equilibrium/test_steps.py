"""Each solver's iterates against a plain implementation of one sample."""

import numpy as np
import pytest
import torch

from fpstab.equilibrium import Anderson, Auto, Broyden, Picard
from tests.equilibrium.problems import Cell, batch

F, X = Cell(12, radius=0.9), batch(3, 12)


def f(z):
    with torch.no_grad():
        return F(z, X)


def iterates(solver, count):
    z = torch.zeros(3, 12, dtype=torch.float64)
    state, seen = solver.start(z), []
    for _ in range(count):
        seen.append(z.numpy())
        fz = f(z)
        z = state.step(z, fz, fz - z)
    return np.stack(seen, 1)  # [3, count, 12]


def one(z, i):
    with torch.no_grad():
        return F(torch.from_numpy(z)[None], X[i : i + 1])[0].numpy()


def test_picard():
    found = iterates(Picard(damping=0.3), 6)
    z = np.zeros(12)
    for k in range(6):
        assert np.allclose(found[1, k], z, atol=1e-13)
        z = 0.7 * z + 0.3 * one(z, 1)


@pytest.mark.parametrize(("memory", "damping"), [(1, 1.0), (2, 1.0), (5, 1.0), (3, 0.4), (50, 1.0)])
def test_anderson(memory, damping):
    """By least squares on the differences, in place of the Gram matrix."""
    found = iterates(Anderson(memory=memory, damping=damping, ridge=0.0), 9)
    for i in range(3):
        zs, fs = [], []
        z = np.zeros(12)
        for k in range(9):
            assert np.allclose(found[i, k], z, atol=1e-7)
            zs, fs = [*zs, z][-memory:], [*fs, one(z, i)][-memory:]
            r = np.array(fs) - np.array(zs)
            gamma = np.linalg.lstsq((r[-1] - r[:-1]).T, r[-1], rcond=None)[0] if len(r) > 1 else np.zeros(0)
            weights = np.append(gamma, 1 - gamma.sum())
            z = weights @ (np.array(zs) + damping * r)


def test_broyden():
    """By the inverse Jacobian as a matrix, its memory unlimited."""
    found = iterates(Broyden(memory=20), 10)
    for i in range(3):
        z, H = np.zeros(12), -np.eye(12)
        r = one(z, i) - z
        for k in range(10):
            assert np.allclose(found[i, k], z, atol=1e-9)
            s = -H @ r
            z = z + s
            r, r_last = one(z, i) - z, r
            y = r - r_last
            H = H + np.outer(s - H @ y, s @ H) / (s @ H @ y)


def test_broyden_with_little_memory_still_meets_the_last_secant():
    z = torch.zeros(3, 12, dtype=torch.float64)
    state = Broyden(memory=2).start(z)
    last = None
    for _ in range(8):
        fz = f(z)
        r = fz - z
        following = state.step(z, fz, r)
        if last is not None:
            filled = min(state.seen, 2)
            u, v = state.u[:, :filled], state.v[:, :filled]
            y, s = r - last[1], z - last[0]
            h_y = -y + torch.einsum("bmd,bm->bd", u, torch.einsum("bmd,bd->bm", v, y))
            assert torch.allclose(h_y, s, atol=1e-9)
        last, z = (z, r), following


def test_rows_leave():
    """What is kept goes on as if nothing had happened."""
    for solver in (Picard(), Anderson(), Broyden(memory=3), Auto(switch_rate=0.3)):
        z = w = torch.zeros(3, 12, dtype=torch.float64)
        rows = torch.tensor([0, 2])
        a, b = solver.start(z), solver.start(w)
        for k in range(9):
            fz = f(z)
            z = a.step(z, fz, fz - z)
            with torch.no_grad():
                fw = F(w, X if k < 4 else X[rows])
            w = b.step(w, fw, fw - w)
            if k == 3:
                b.keep(rows)
                w = w[rows]
        if type(solver) is not Auto:  # the median of the batch may decide otherwise
            assert torch.allclose(z[rows], w, atol=1e-11)


def test_auto_switches_at_its_rate():
    for radius, expected in ((0.5, False), (1.2, True)):
        map_, z = Cell(40, radius=radius), torch.zeros(6, 40, dtype=torch.float64)
        x = 0.1 * batch(6, 40)
        state = Auto(switch_rate=0.8).start(z)
        for _ in range(12):
            with torch.no_grad():
                fz = map_(z, x)
            z = state.step(z, fz, fz - z)
        assert (state.accelerated is not None) is expected
