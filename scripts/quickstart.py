"""fpstab in five minutes, without Lightning: run it as a script, or cell by cell in an editor that knows `# %%`."""

# %% A small network that maps the plane to itself
import torch
from torch import nn

from fpstab.esd import esd_report
from fpstab.fixed_points import basins, find_fixed_points
from fpstab.jacobian import jacobian_spectrum
from fpstab.lipschitz import lipschitz_bound
from fpstab.stability import classify_attractor, stability_criteria

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2), nn.Tanh()).double()
with torch.no_grad():
    net[0].weight.mul_(2.5)
    net[2].weight.mul_(4.0)
starts = 2 * torch.rand(200, 2, dtype=torch.float64) - 1

# %% How many fixed points has it, and how complete is the count?
found = find_fixed_points(net, starts, unstable="newton")
print(f"{len(found)} fixed points: {', '.join(found.kind)}")
print(f"sum of the indices {found.index_sum}; 1 if none was missed")
coverage = found.coverage["starts"]
print(
    f"a new start ends at a known one with probability {coverage.coverage:.2f}; Chao1 estimates {coverage.chao1:.0f} limits"
)

# %% Where does each start go?
regions = basins(net, ((-1.0, 1.0), (-1.0, 1.0)))
share = regions.scalars()
print(f"on the papers' grid {share['share_fixed']:.0%} go to a fixed point and {share['share_cycle']:.0%} to a cycle")

# %% Does it contract? At the points, from below; for all inputs, from above
spectrum = jacobian_spectrum(net, starts[:16], sigma=True)
print(f"largest spectral radius {float(spectrum.rho.max()):.3f}, largest norm {float(spectrum.sigma.max()):.3f}")
bound = lipschitz_bound(net)
print(f"certified: no difference grows by more than {bound.value:.3f} in one step")

# %% Is it stable when it is iterated: what is proved, what is only seen?
print(stability_criteria(net))
print(f"seen: {classify_attractor(net, starts[:24]).label}")

# %% Are the weights' spectra heavy-tailed?
for row in esd_report(net).layers:
    print(f"{row.name}: {row.verdict}")
