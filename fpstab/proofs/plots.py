"""Pictures of proofs."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from fpstab.proofs.counts import Proof

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOK = {"stable": ("o", "tab:blue"), "unstable": ("x", "tab:red"), "unknown": ("D", "0.4")}


def plot_proof(proof: Proof, ax: "Axes | None" = None) -> "Axes":
    """Draw the fixed points by kind, the boxes in which each is the only one, and the unknown boxes.

    Args:
        proof: Of a map of the plane.
        ax: Where to draw; by default on a new figure.

    Raises:
        ValueError: If the map is not one of the plane.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if proof.box.shape[1] != 2:
        raise ValueError(f"A proof in {proof.box.shape[1]} dimensions cannot be drawn: expected a map of the plane.")
    if ax is None:
        ax = Figure(figsize=(4.8, 4.8), layout="constrained").add_subplot()

    def rectangles(boxes: Tensor, **style: Any) -> None:
        patches = [Rectangle((x0, y0), x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in boxes.tolist()]
        ax.add_collection(PatchCollection(patches, **style))

    rectangles(proof.box[None], facecolor="none", edgecolor="black", linewidth=1.0)
    rectangles(proof.unique, facecolor="tab:green", edgecolor="tab:green", alpha=0.25, linewidth=0.8)
    rectangles(proof.unknown_boxes, facecolor="0.6", edgecolor="0.3", alpha=0.6, linewidth=0.8)
    for kind, (marker, colour) in _LOOK.items():
        where = [k for k, each in enumerate(proof.kind) if each == kind]
        if where:
            x = proof.points[where]
            ax.plot(x[:, 0], x[:, 1], marker, color=colour, label=f"{len(where)} {kind}", linestyle="none")
    if proof.found:
        ax.legend(loc="best", fontsize="small")
    (x0, y0), (x1, y1) = proof.box.tolist()
    margin = 0.06 * max(x1 - x0, y1 - y0, 1e-12)
    ax.set_xlim(x0 - margin, x1 + margin)
    ax.set_ylim(y0 - margin, y1 + margin)
    ax.set_aspect("equal")
    ax.set_xlabel("x₁")
    ax.set_ylabel("x₂")
    title = (
        f"{proof.count} fixed points, proved"
        if proof.complete
        else f"{proof.found} proved, {proof.n_unknown} boxes unknown"
    )
    ax.set_title(title, fontsize="medium")
    return ax
