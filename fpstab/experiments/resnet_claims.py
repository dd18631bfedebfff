"""What paper 5's tables and figures claim, with rules, and what a run of `resnet_paper` makes of it."""

from collections.abc import Callable
from typing import Any

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.experiments.resnet_tables import ResNetTable, title

_TRAINED = "a network trained for 100 epochs of all images, measured on 10,000; otherwise inconclusive"

PERFORMANCE = Claim(
    5,
    "Table 1",
    "Precision, recall, F1 and loss of revised ResNets.",
    f"F1 within two standard errors of the test set plus .005 of the printed one: reproduced; {_TRAINED}.",
    "F1 .9891, .9857 (MNIST), .7644, .7400 (CIFAR-10)",
)
EXPANSIVE_TEXT = Claim(
    5,
    "Table 2, g-expansive, what it is",
    "The g-expansive constants of Table 2 (4.14e-5 … .0081) are the ε of Definition 1, a maximum over the blocks.",
    "The least maximum and the least minimum over the blocks of a trained network, 500 images or more: the printed number within a "
    "factor 10 of the former: reproduced; not so, and the former at least 100 times the latter: corrected (a minimum); else "
    "inconclusive.",
    "4.14e-5, 8.75e-6, .0081, .0048",
)
EXPANSIVE_VALUE = Claim(
    5,
    "Table 2, g-expansive, value",
    "The g-expansive constant of the network.",
    f"Within a factor of 2 of the printed number (as the least minimum): reproduced; {_TRAINED}.",
    "4.14e-5, 8.75e-6, .0081, .0048",
)
SHADOWING_VALUE = Claim(
    5,
    "Table 2, g-shadowing, value",
    "The g-shadowing constant of the network.",
    f"Within 20 % of the printed number: reproduced; {_TRAINED}.",
    "2.3583, .0031, .9867, 1.0023",
)
LIPSCHITZ_METHOD = Claim(
    5,
    "Table 2, Lip(g), method",
    "LipSDP-Neuron behind an identity layer gives Lip(g).",
    "Its optimum and σ_max of the head within 1e-4 of each other.",
)
LIPSCHITZ_VALUE = Claim(
    5,
    "Table 2, Lip(g), value",
    "The Lipschitz constant of the trained head.",
    f"Within 20 % of the printed number: reproduced; {_TRAINED}.",
    "3.38, 1.77, 3.51, 2.37",
)
CLOSEST = Claim(
    5,
    "Table 3",
    "The closest images of two classes at a block are at 4e-5 to 9e-5 (MNIST), .007 to .011 (CIFAR-10).",
    f"The least of our pairs within a factor of 10 of the least printed: reproduced; {_TRAINED}.",
    "4e-5 (MNIST), .007 (CIFAR-10)",
)
OWN_CLASS = Claim(
    5,
    "Figure 2",
    "In the mean over the blocks two images of a class are the closest (ResNet-50, CIFAR-10).",
    f"The own class is the closest in at least 9 of 10 classes: reproduced; ResNet-50 on CIFAR-10, and {_TRAINED}.",
)
CLOSE_CLASSES = Claim(
    5,
    "Figure 3",
    "At a block 4 and 6, and 2 with 1, 5, 6, 7 come closest (ResNet-50, MNIST).",
    f"Of these five pairs at least three among our five closest: reproduced; ResNet-50 on MNIST, and {_TRAINED}.",
    "4–6, 1–2, 2–5, 2–6, 2–7",
)
CHAINS_18 = Claim(
    5,
    "Table 4",
    "The best-traced chain of ResNet-18 from a 4 goes on to other classes (9s).",
    f"The best-traced chain of class 4 leaves it: reproduced; MNIST, and {_TRAINED}.",
)
CHAINS_50 = Claim(
    5,
    "Table 5",
    "The best-traced chains of ResNet-50 on MNIST keep to their class.",
    f"Those of at least 9 of 10 classes keep to it: reproduced; MNIST, and {_TRAINED}.",
)

_PAIRS = {(4, 6), (1, 2), (2, 5), (2, 6), (2, 7)}
_TABLE_3 = {"mnist": 4e-5, "cifar10": 0.007}


def resnet_findings(table: ResNetTable) -> tuple[Finding, ...]:
    """What a run of a table or figure makes of the paper's claims, network by network.

    Raises:
        ValueError: If it is none of the tables 1–5 and figures 2 and 3.
    """
    makers: dict[str, Callable[[ResNetTable, Any], list[Finding]]] = {
        "table 1": _performance,
        "table 2": _constants,
        "table 3": _closest,
        "figure 2": _own_class,
        "figure 3": _close_classes,
        "table 4": lambda table, run: _chains(CHAINS_18, run, 18),
        "table 5": lambda table, run: _chains(CHAINS_50, run, 50),
    }
    if table.name not in makers:
        raise ValueError(f"there are no claims of {table.name!r}; known are {', '.join(makers)}.")
    return tuple(finding for run in table.runs for finding in makers[table.name](table, run))


def _as_printed(run: Any) -> bool:
    """Whether the network is trained and measured as the paper's."""
    settings = run.settings
    return bool(settings.get("epochs", 0) >= 100 and settings.get("train_images", 0) >= 50_000 and run.n >= 10_000)


def _verdict(run: Any, holds: bool) -> Verdict:
    return "inconclusive" if not _as_printed(run) else "reproduced" if holds else "not reproduced"


def _row(table: ResNetTable, run: Any, source: str) -> dict[str, Any] | None:
    for row in table.rows:
        if (row["source"], row["images"], row["depth"]) == (source, run.images, run.depth):
            return row
    return None


def _said(run: Any, text: str) -> str:
    return f"{title(run)}, N = {run.n:,}, {run.training}: {text}"


def _not_printed(claim: Claim, run: Any) -> Finding:
    return claim.found("inconclusive", _said(run, "these images are not in the paper."), sample=run.n)


def _performance(table: ResNetTable, run: Any) -> list[Finding]:
    ours, paper = _row(table, run, "ours"), _row(table, run, "paper")
    if ours is None or paper is None:
        return [_not_printed(PERFORMANCE, run)]
    accuracy = float(ours["accuracy"])
    error = (accuracy * (1 - accuracy) / run.n) ** 0.5
    holds = abs(float(ours["f1"]) - float(paper["f1"])) <= 2 * error + 0.005
    text = f"F1 {ours['f1']:.4f} against {paper['f1']:.4f}, loss {ours['loss']:.3f} against {paper['loss']:.3f}."
    return [PERFORMANCE.found(_verdict(run, holds), _said(run, text), float(ours["f1"]), error, run.n)]


def _constants(table: ResNetTable, run: Any) -> list[Finding]:
    ours, paper = _row(table, run, "ours"), _row(table, run, "paper")
    if ours is None or paper is None:
        return [
            _not_printed(claim, run) for claim in (EXPANSIVE_TEXT, EXPANSIVE_VALUE, SHADOWING_VALUE, LIPSCHITZ_VALUE)
        ]
    found = run.report().expansivity
    definition, block, printed = found.definition.value, found.block.value, float(paper["g_expansive"])
    if printed / 10 <= definition <= printed * 10:
        text: Verdict = "reproduced"
    else:
        text = "corrected" if run.n >= 500 and definition >= 100 * block else "inconclusive"
    shadow, lip = float(ours["g_shadowing"]), float(ours["lipschitz_logits"])
    lipsdp = float(ours["lipschitz_lipsdp"])
    same = abs(lipsdp / lip - 1) <= 1e-4
    return [
        EXPANSIVE_TEXT.found(
            text,
            _said(run, f"least maximum {definition:.3g}, least minimum {block:.3g}, printed {printed:.3g}."),
            definition,
            sample=run.n,
        ),
        EXPANSIVE_VALUE.found(
            _verdict(run, printed / 2 <= block <= printed * 2),
            _said(run, f"{block:.3g} against {printed:.3g}."),
            block,
            sample=run.n,
        ),
        SHADOWING_VALUE.found(
            _verdict(run, abs(shadow / float(paper["g_shadowing"]) - 1) <= 0.2),
            _said(run, f"{shadow:.4g} against {paper['g_shadowing']:.4g}."),
            shadow,
            sample=run.n,
        ),
        LIPSCHITZ_METHOD.found(
            "reproduced" if same else "not reproduced",
            _said(run, f"LipSDP {lipsdp:.6g}, σ_max {lip:.6g}."),
            lipsdp,
            abs(lipsdp - lip),
        ),
        LIPSCHITZ_VALUE.found(
            _verdict(run, abs(lip / float(paper["lipschitz_logits"]) - 1) <= 0.2),
            _said(run, f"{lip:.4g} against {paper['lipschitz_logits']:.4g}."),
            lip,
        ),
    ]


def _closest(table: ResNetTable, run: Any) -> list[Finding]:
    printed = _TABLE_3.get(run.images)
    if printed is None:
        return [_not_printed(CLOSEST, run)]
    constant = run.report().expansivity.block
    pairs = [pair for pair in constant.pairs if pair.classes[0] != pair.classes[1]]
    if not pairs:
        return [CLOSEST.found("inconclusive", _said(run, "there is no pair of two classes."), sample=run.n)]
    least = pairs[0].value
    holds = printed / 10 <= least <= printed * 10
    return [CLOSEST.found(_verdict(run, holds), _said(run, f"the least is {least:.2e}."), least, sample=run.n)]


def _own_class(table: ResNetTable, run: Any) -> list[Finding]:
    matrix = run.report().expansivity.mean.matrix
    count = sum(all(float(row[b]) >= float(row[a]) for b in range(len(row)) if b != a) for a, row in enumerate(matrix))
    text = f"in {count} of {len(matrix)} classes."
    if (run.images, run.depth) != ("cifar10", 50):
        return [OWN_CLASS.found("inconclusive", _said(run, text), float(count), sample=run.n)]
    return [OWN_CLASS.found(_verdict(run, count >= 0.9 * len(matrix)), _said(run, text), float(count), sample=run.n)]


def _close_classes(table: ResNetTable, run: Any) -> list[Finding]:
    constant = run.report().expansivity.block
    pairs = [tuple(sorted(p.classes)) for p in constant.pairs if p.classes[0] != p.classes[1]][:5]
    common = len(_PAIRS & set(pairs))
    text = f"closest are {', '.join(f'{run.class_names[a]}–{run.class_names[b]}' for a, b in pairs)}."
    if (run.images, run.depth) != ("mnist", 50):
        return [CLOSE_CLASSES.found("inconclusive", _said(run, text), sample=run.n)]
    return [CLOSE_CLASSES.found(_verdict(run, common >= 3), _said(run, text), float(common), sample=run.n)]


def _chains(claim: Claim, run: Any, depth: int) -> list[Finding]:
    shadow = run.report().shadowing
    kept = {}
    for label in shadow.classes():
        best = shadow.of_class(label)
        kept[label] = all(int(shadow.labels[i]) == label for i in best.chain)
    count = sum(kept.values())
    text = f"the best-traced chains of {count} of {len(kept)} classes keep to their class."
    if run.images != "mnist" or run.depth != depth:
        return [claim.found("inconclusive", _said(run, text), float(count), sample=run.n)]
    holds = not kept.get(4, True) if claim is CHAINS_18 else count >= 0.9 * len(kept)
    return [claim.found(_verdict(run, holds), _said(run, text), float(count), sample=run.n)]
