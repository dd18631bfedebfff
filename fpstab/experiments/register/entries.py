"""What there is in the five papers, and what makes it anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAPERS: dict[int, str] = {
    1: "Berlyand, Slavin: Fixed points of deep neural networks: emergence, stability, and applications",
    2: "Berlyand, Krupchytskyi, Slavin: Random weights of DNNs and emergence of fixed points",
    3: "Drgoňa, Tuor, Vasisht, Skomski, Vrabie: Spectral analysis and stability of deep neural dynamics",
    4: "Agarwala, Schoenholz: Deep equilibrium networks are sensitive to initialization statistics",
    5: "A qualitative theory of dynamical systems for assessing stability in ResNets",
}
"""The papers, by number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A figure, table, theorem, or several that one run makes together.

    The function takes `seed` and its sizes by keyword, and returns a result with `scalars()`, `table()` and `plot()`; its
    `findings` are the rows of the register; a property `verdict` says what reproduces, and `records()` gives the rows behind
    those of the table, if it has them. Its module's `FULL` maps the function's name to the paper's sizes.

    Attributes:
        paper: 1 to 5.
        items: Where in the paper: `"Figure 5"`, `"Theorem 6"`, …; in another paper: `"paper 2, Figure 1"`.
        text: What it shows, for the list.
        module: Where the function is; empty for a schematic figure, of which there is nothing to run.
        function: Its name.
        options: Of the command's, e.g. `data` and `jobs`, those that the function takes.
        settings: Keyword arguments that it is always called with.
        quick: Those of `--quick`, where the defaults are too large.
        findings: `"module:function"` that makes findings of a result that has none.
        note: What the list adds: why it is schematic, or how long the paper's size takes.
    """

    paper: int
    items: tuple[str, ...]
    text: str
    module: str = ""
    function: str = ""
    options: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    findings: str = ""
    note: str = ""

    @property
    def schematic(self) -> bool:
        """Whether there is nothing to run."""
        return not self.module

    def items_of(self, paper: int) -> tuple[str, ...]:
        """Those of the items that are a paper's.

        >>> entry = Entry(1, ("Figure 2", "paper 2, Figure 1"), "basins")
        >>> entry.items_of(1), entry.items_of(2), entry.items_of(3)
        (('Figure 2',), ('Figure 1',), ())
        """
        others = [item for item in self.items if item.startswith("paper ")]
        if paper == self.paper:
            return tuple(item for item in self.items if item not in others)
        prefix = f"paper {paper}, "
        return tuple(item.removeprefix(prefix) for item in others if item.startswith(prefix))


def _schematic(paper: int, items: tuple[str, ...], text: str, note: str) -> Entry:
    return Entry(paper, items, text, note=f"schematic: {note}")


_CHECKS = "fpstab.experiments.corrections.studies"
_THEORY, _TRAINING = "fpstab.experiments.deq_theory", "fpstab.experiments.deq_training"
_DEQ_FINDINGS = "fpstab.experiments.deq_claims:theory_findings"
_RESNET, _RESNET_FINDINGS = "fpstab.experiments.resnet_paper", "fpstab.experiments.resnet_claims:resnet_findings"
_RESNET_OPTIONS = ("data", "depth", "images", "checkpoint", "out")
_SPECTRA, _EQUATIONS = "fpstab.experiments.jacobian_spectra", "fpstab.experiments.jacobian_spectra_equations"
_NETWORKS, _DYNAMICS = "fpstab.experiments.random_networks", "fpstab.experiments.dynamics"
_APPLIED = "fpstab.experiments.application_claims"
_HOURS = "long with --full: hours"


def _checks(paper: int, items: tuple[str, ...], text: str) -> Entry:
    return Entry(paper, items, text, _CHECKS, "check_claims", settings={"paper": paper})


def _resnet(items: tuple[str, ...], function: str, text: str) -> Entry:
    return Entry(5, items, text, _RESNET, function, _RESNET_OPTIONS, findings=_RESNET_FINDINGS, note=_HOURS)


def _theory(items: tuple[str, ...], function: str, text: str) -> Entry:
    return Entry(4, items, text, _THEORY, function, findings=_DEQ_FINDINGS, note="--full: minutes")


def _networks(paper: int, items: tuple[str, ...], function: str, text: str, note: str = "") -> Entry:
    return Entry(paper, items, text, _NETWORKS, function, ("jobs", "out"), note=note)


def _dynamics(name: str, items: tuple[str, ...], text: str, quick: dict[str, Any] | None = None) -> Entry:
    return Entry(3, items, text, _DYNAMICS, f"dynamics_{name}", quick=quick or {})


def _applied(paper: int, items: tuple[str, ...], name: str, text: str, note: str = "") -> Entry:
    options = () if name == "toy" else ("data",)
    return Entry(paper, items, text, _APPLIED, "apply_claims", options, settings={"name": name}, note=note)


ENTRIES: dict[str, Entry] = {
    # paper 1
    "encoding-fig1": _schematic(1, ("Figure 1",), "encoding and decoding of images", "a diagram; its idea is claims of apply-identification"),
    "number-fig3": _schematic(1, ("Figure 3",), "Q against depth, drawn", "“schematic illustration”; measured by the studies of random networks"),
    "algorithm-fig4": _schematic(1, ("Figure 4",), "how (20) is solved", "a flow chart; its iteration is run by spectra-fig4"),
    "number-by-depth": _networks(1, ("Proposition 2", "Figure 3", "paper 2, Figure 2"), "number_by_depth",
                                 "fixed points of Cauchy networks against depth, all outcomes", "--full: an hour"),
    "number-readings": _networks(1, ("Proposition 2", "paper 2, §III"), "readings", "the same under other readings of the papers"),
    "basins-fig2": _networks(1, ("Figure 2", "paper 2, Figure 1"), "basins_of_realisations", "basins of networks with Q = 1, 2, 3, 5, seeds named"),
    "light-tails": _networks(1, ("Proposition 1",), "light_tails", "one fixed point with light-tailed weights?"),
    "spectra-fig4": Entry(1, ("eq. (14)–(23)",), "iteration (20) against the solution by Newton's method", _EQUATIONS, "solving_iteration"),
    "spectra-fig5": Entry(1, ("Figure 5",), "JJᵀ of linear networks, L = 2: samples and theory", _SPECTRA, "linear_spectrum",
                          quick={"draws": 8}, note="--full: an hour"),
    "spectra-fig6": Entry(1, ("Figure 6",), "the spectrum of JJᵀ for growing depth", _SPECTRA, "spectra_by_depth"),
    "spectra-fig7": Entry(1, ("Figure 7",), "JJᵀ with Cauchy weights, for growing depth", _SPECTRA, "cauchy_spectra"),
    "spectra-functions": Entry(1, ("eq. (24) ff.",), "the generating functions of four activations", _EQUATIONS, "generating_functions"),
    "apply-identification": _applied(1, ("§II.2",), "identification", "one stored image a class"),
    "apply-unsupervised": _applied(1, ("§II.3, eq. (6)",), "unsupervised", "classes without labels, by one target"),
    "apply-semi-supervised": _applied(1, ("§II.4",), "semi-supervised", "classes by basins, some of them unknown"),
    "apply-restoration": _applied(1, ("§II.1",), "restoration", "damaged images restored by iteration"),
    "trained-spectra": Entry(1, ("§III", "paper 2, §II"), "whether training makes spectra heavy", _APPLIED, "trained_spectra",
                             note="--full: half an hour"),
    "checks-1": _checks(1, ("eq. (3), (6), (8), (14)–(24)", "§III–§V", "Proposition 1"), "claims of paper 1, one by one"),
    # paper 2
    "number-fig2": _schematic(2, ("Figure 2",), "Q against depth, drawn", "“presented schematically”; measured by the studies of random networks"),
    "number-activations": _networks(2, ("§III",), "activations", "fixed points of Cauchy networks by activation"),
    "toy-fig3": _networks(2, ("Figure 3", "§IV"), "trained_toy", "the trained toy over seeds, from both readings of its initialisation"),
    "contraction-fig4": _networks(2, ("Figure 4",), "by_beta", "g against β, width and activation, with β_cr", "--full: half an hour"),
    "contraction-fig5": _networks(2, ("Figure 5", "eq. (9)"), "by_layers", "g against the number of layers"),
    "contraction-areas": _networks(2, ("§V",), "areas", "where Cauchy networks contract, and where iteration converges"),
    "apply-toy": _applied(2, ("Figure 3", "§IV"), "toy", "the trained toy: five circles"),
    "apply-memories": _applied(2, ("§I",), "memories", "autoencoders on few images and on all"),
    "checks-2": _checks(2, ("eq. (9)", "Figure 4 b", "§III–§V"), "claims of paper 2, one by one"),
    # paper 3
    "dynamics-fig1": _dynamics("fig1", ("Figure 1", "Lemma 8"), "activations and what is true of them"),
    "dynamics-fig2": _dynamics("fig2", ("Figure 2",), "asymptotically stable, BIBO stable and unstable networks"),
    "dynamics-fig3": _dynamics("fig3", ("Figure 3",), "regions of ρ(A*) by activation"),
    "dynamics-fig4": _dynamics("fig4", ("Figure 4",), "one stable ReLU layer with and without bias"),
    "dynamics-fig5": _dynamics("fig5", ("Figure 5",), "eigenvalues of A* by depth"),
    "dynamics-fig6": _dynamics("fig6", ("Figure 6",), "six kinds of attractors"),
    "dynamics-fig7": _dynamics("fig7", ("Figure 7",), "regions of ρ(A*) of those"),
    "dynamics-fig8": _dynamics("fig8", ("Figure 8",), "eigenvalues of A* of those"),
    "dynamics-table1": _dynamics("table1", ("Table 1", "Theorem 6"), "the networks of the figures, drawn and measured anew"),
    "dynamics-grid828": _dynamics("grid828", ("Appendix D",), "the grid of 828 networks: attractors and certificates", {"models": 60}),
    "checks-3": _checks(3, ("Lemma 3", "Theorem 6", "Lemma 8", "Lemma 10", "Proposition 12", "Figure 1", "eq. (10), (21)–(26)"),
                        "claims of paper 3, one by one"),
    # paper 4
    "deq-fig1": _theory(("Figure 1",), "length_variance", "linear DEQ: length variance near the transition"),
    "deq-fig2": _theory(("Figure 2", "Theorem 3.1"), "field_variance", "nonlinear DEQ: σ_h² against √V"),
    "deq-fig3": _theory(("Figure 3", "Theorem 3.2"), "largest_eigenvalue", "nonlinear DEQ: largest eigenvalue against √V"),
    "deq-fig4": _theory(("Figure 4",), "residual", "nonlinear DEQ: residual after long iteration"),
    "deq-fig5": Entry(4, ("Figure 5",), "DEQs trained on MNIST: test error against √V", _TRAINING, "error_by_scale",
                      ("data", "jobs"), quick={"sqrt_vs": (0.5, 4.0)}, findings="fpstab.experiments.deq_claims:training_findings", note=_HOURS),
    "deq-fig6": Entry(4, ("Figure 6", "Table 1"), "DEQ transformer: perplexity by family and √V",
                      "fpstab.experiments.deq_transformer", "perplexity_by_scale", ("jobs",), note="long with --full: weeks on one machine"),
    "checks-4": _checks(4, ("eq. (7)–(20), (65), (66), (86), (93), (108), (122)–(124), (148)", "Lemma A.1", "Theorem A.2", "Lemma 2.2"),
                        "claims of paper 4, one by one"),
    # paper 5
    "resnet-fig1": _schematic(5, ("Figure 1",), "the revised ResNets", "a diagram; the network is fpstab.models.EqualWidthResNet"),
    "resnet-table1": _resnet(("Table 1",), "performance", "revised ResNets: precision, recall, F1, loss"),
    "resnet-table2": _resnet(("Table 2",), "constants", "revised ResNets: g-expansive, g-shadowing, Lip(g)"),
    "resnet-table3": _resnet(("Table 3",), "closest", "revised ResNets: closest images of two classes"),
    "resnet-table4": _resnet(("Table 4",), "traced_18", "revised ResNet-18: best-traced chains of images"),
    "resnet-table5": _resnet(("Table 5",), "traced_50", "revised ResNet-50: best-traced chains of images"),
    "resnet-fig2": _resnet(("Figure 2",), "mean_distances", "revised ResNets: least mean distances by class"),
    "resnet-fig3": _resnet(("Figure 3",), "block_distances", "revised ResNets: least distances at a block"),
    "checks-5": _checks(5, ("Theorem 1", "Definition 1", "Table 2", "App. A"), "claims of paper 5, one by one"),
}  # fmt: skip
"""What `fpstab reproduce` takes, by name. A further study adds its lines here."""
