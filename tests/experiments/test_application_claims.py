"""What trained networks make of papers 1 and 2's claims, on made-up trainings and a small real one."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from fpstab.experiments import application_claims
from fpstab.experiments.application_claims import spectra_findings
from fpstab.experiments.heavy_tails import Observation


def ends(verdicts, seeds=3, cause="correlations"):
    """Of each layer the verdict for each seed."""
    return [
        Observation("net", seed, 9, layer, "9×9", by_seed[seed % len(by_seed)], cause, 2.0, 0, 0.1)
        for layer, by_seed in verdicts.items()
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("verdicts", "seeds", "expected"),
    [
        ({"a": ["heavy"], "b": ["heavy"]}, 3, "reproduced"),
        ({"a": ["heavy"], "b": ["light+spikes"]}, 3, "corrected"),
        ({"a": ["light"], "b": ["undecided"]}, 3, "not reproduced"),
        ({"a": ["heavy", "light", "light"], "b": ["light"]}, 3, "inconclusive"),
        ({"a": ["heavy"], "b": ["heavy"]}, 2, "inconclusive"),
        ({"a": ["too_few"]}, 3, "inconclusive"),
    ],
)
def test_becoming_heavy(verdicts, seeds, expected):
    assert spectra_findings(ends(verdicts, seeds), seeds)[0].verdict == expected


@pytest.mark.parametrize(
    ("cause", "expected"), [("entries", "reproduced"), ("correlations", "not reproduced"), (None, "inconclusive")]
)
def test_the_cause(cause, expected):
    found = spectra_findings(ends({"a": ["heavy"], "b": ["heavy"]}, cause=cause), 3)[1]
    assert (found.verdict, found.sample) == (expected, 6)


def test_layers_that_are_too_small_do_not_count():
    found = spectra_findings(ends({"a": ["heavy"], "b": ["too_few"]}), 3)[0]
    assert found.verdict == "reproduced"
    assert "b" not in found.said.replace("by", "")


def trial(stored, by_basin, information=0.2):
    recall = SimpleNamespace(stored=torch.tensor(stored), n_stored=sum(stored))
    return SimpleNamespace(recall=recall, by_basin=by_basin, unknown_information=information, name="loss")


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial([True, True], 0.9)], "reproduced"),
        ([trial([True, False], 0.9), trial([True, True], 0.9)], "corrected"),
        ([trial([True, True], 0.4), trial([False, True], 0.9)], "not reproduced"),
    ],
)
def test_classes_by_basins(trials, expected):
    result = SimpleNamespace(
        trials=trials, exemplars=[0, 1], nearest_exemplar=0.5, nearest_image=0.95, kmeans_information=0.48
    )
    known, unknown = application_claims._FINDINGS["semi-supervised"](result)
    assert known.verdict == expected
    assert unknown.verdict == "not reproduced"
    assert [f.verdict for f in application_claims._FINDINGS["identification"](result)] == [expected]
    result.kmeans_information = 0.1
    assert application_claims._FINDINGS["semi-supervised"](result)[1].verdict == "reproduced"


@pytest.mark.parametrize(
    ("stored", "expected"), [((5, 5), "reproduced"), ((5, 2), "corrected"), ((0, 5), "not reproduced")]
)
def test_memories(stored, expected):
    few = [SimpleNamespace(name=str(n), recall=SimpleNamespace(n_stored=n)) for n in stored]
    (found,) = application_claims._FINDINGS["memories"](SimpleNamespace(few=few, exemplars=range(5)))
    assert found.verdict == expected


@pytest.mark.parametrize(("groups", "expected"), [(1, "not reproduced"), (3, "reproduced")])
def test_unsupervised(groups, expected):
    result = SimpleNamespace(groupings=[SimpleNamespace(count=groups)], spread=0.01)
    (found,) = application_claims._FINDINGS["unsupervised"](result)
    assert found.verdict == expected


@pytest.mark.parametrize(
    ("distance", "captured", "tail", "expected"),
    [
        (0.001, 1.0, "light+spikes", ["reproduced", "reproduced", "not reproduced"]),
        (0.1, 0.99, "heavy (correlations)", ["not reproduced", "not reproduced", "reproduced"]),
        (0.001, 1.0, "undecided", ["reproduced", "reproduced", "inconclusive"]),
    ],
)
def test_toy(distance, captured, tail, expected):
    recall = SimpleNamespace(distance=torch.tensor([distance, 0.0]), stored=torch.tensor([True, True]), n_stored=2)
    result = SimpleNamespace(
        recall=recall,
        centres=[0, 1],
        captured=torch.tensor([captured, 1.0]),
        tails=lambda: [("layers.2", "light", tail)],
        scalars=dict,
    )
    assert [f.verdict for f in application_claims._FINDINGS["toy"](result)] == expected


def test_apply_claims_makes_a_study(monkeypatch):
    from fpstab.experiments import applications

    class Result:
        seed = 3
        few = (SimpleNamespace(name="n", recall=SimpleNamespace(n_stored=1)),)
        exemplars = (0,)

        def table(self):
            return [{"a": 1}]

        def scalars(self):
            return {"holds": 1.0}

        plot = Figure

    called = {}
    monkeypatch.setattr(applications, "APPLICATIONS", {"memories": lambda seed, **o: called.update(o) or Result()})
    monkeypatch.setattr(applications, "BATCH_SIZES", {})
    study = application_claims.apply_claims(name="memories", seed=3, epochs=2)
    assert called == {"epochs": 2}
    assert [f.verdict for f in study.findings] == ["reproduced"]
    assert study.table() == [{"a": 1}]
    assert isinstance(study.plot(), Figure)


def test_trained_spectra_takes_its_own_seeds_only():
    study = application_claims.trained_spectra(seed=1000, seeds=2, epochs=1)
    assert {row["seed"] for row in study.rows} == {1000, 1001}
    assert {row["epoch"] for row in study.rows} == {-1, 0}  # -1 is before training
    assert {finding.verdict for finding in study.findings} == {"inconclusive"}  # two seeds are too few
