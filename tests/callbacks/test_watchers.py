"""EarlyStopping and ModelCheckpoint watch a monitor's key, in any order, whatever the measurements do."""

import itertools
import math

import pytest

from fpstab.callbacks import ESDMonitor, Every
from tests.callbacks.toys import NAMESPACES, Scripted, lightning, loaders, task, trainer

KEY = "fpstab/scripted/value"
BROKEN = ZeroDivisionError("made for the test")


def watchers(path, namespace="pytorch_lightning", key=KEY, **early):
    pl = lightning(namespace).callbacks
    checkpoint = pl.ModelCheckpoint(path / "checkpoints", filename="{epoch}", monitor=key, mode="min")
    return pl.EarlyStopping(key, mode="min", **({"patience": 100} | early)), checkpoint


def best_epoch(checkpoint):
    return checkpoint.best_model_path.rpartition("epoch=")[2].removesuffix(".ckpt")


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order(tmp_path, namespace, validation, order):
    monitor = Scripted([9.0, 5.0, 3.0, 4.0])
    early, checkpoint = watchers(tmp_path, namespace)
    callbacks = [(monitor, early, checkpoint)[i] for i in order]
    train, val = loaders()
    fit = trainer(tmp_path, callbacks, namespace)
    fit.fit(task(namespace), train, val if validation else None)
    assert early.best_score == 3.0  # the baseline's 9 was never judged, and 3 was when it stood
    assert early.wait_count == 1
    assert best_epoch(checkpoint) == "1"
    assert fit.callback_metrics[KEY] == 4.0
    assert monitor.measured == [("baseline", 0, 9.0), ("epoch", 4, 5.0), ("epoch", 8, 3.0), ("epoch", 12, 4.0)]


@pytest.mark.parametrize(
    ("script", "best", "epoch"),
    [
        ([BROKEN, 5.0, 3.0, 4.0], 3.0, "1"),  # the baseline fails
        ([9.0, BROKEN, 3.0, 4.0], 3.0, "1"),  # the first epoch fails: the baseline's value stays in force
        ([9.0, 5.0, BROKEN, 4.0], 4.0, "2"),
        ([BROKEN, BROKEN, 3.0, 4.0], 3.0, "1"),  # no value at all when the watchers look first
        ([BROKEN, BROKEN, BROKEN, BROKEN], math.inf, ""),
        ([9.0, math.nan, 3.0, math.inf], 3.0, "1"),  # succeeds, but the number is missing
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize("validation", [True, False])
def test_failing_measurements_do_not_stop_training(tmp_path, script, best, epoch, order, validation):
    monitor = Scripted(script)
    early, checkpoint = watchers(tmp_path)
    fit = trainer(tmp_path, [(monitor, early, checkpoint)[i] for i in order])
    train, val = loaders()
    fit.fit(task(), train, val if validation else None)
    assert fit.current_epoch == 3
    assert early.best_score == best
    assert best_epoch(checkpoint) == epoch
    assert (early.strict, checkpoint.save_top_k) == (True, 1)  # set back
    failures = [record["failed"] for record in monitor.history.records]
    assert failures == [isinstance(item, Exception) for item in script]


def test_every_second_epoch_patience_counts_validations(tmp_path):
    monitor = Scripted([9.0, 5.0, 7.0, 7.0, 7.0], every=Every(2))
    early, checkpoint = watchers(tmp_path, patience=4)
    fit = trainer(tmp_path, [early, monitor, checkpoint], max_epochs=20)
    fit.fit(task(), *loaders())
    assert fit.current_epoch == 5  # 5 at epoch 0 (and in force at 1), 7 from 2: validations 1, 2, 3, 4 were no better
    assert [(phase, value) for phase, _, value in monitor.measured] == [
        ("baseline", 9.0),
        ("epoch", 5.0),
        ("epoch", 7.0),
        ("epoch", 7.0),
    ]
    assert best_epoch(checkpoint) == "0"


def test_a_misspelt_key_is_left_to_lightnings_own_error(tmp_path):
    early, _ = watchers(tmp_path, key="fpstab/scripted/valeu")
    with pytest.raises(RuntimeError, match=r"fpstab/scripted/valeu.*which is not available"):
        trainer(tmp_path, [Scripted([1.0, 1.0]), early]).fit(task(), *loaders())


def test_a_key_that_never_has_a_value_waits(tmp_path, caplog):
    early, checkpoint = watchers(tmp_path, key="fpstab/scripted/never")
    fit = trainer(tmp_path, [early, Scripted([1.0] * 4), checkpoint])
    fit.fit(task(), *loaders())
    assert fit.current_epoch == 3
    assert early.strict
    waits = [r.message for r in caplog.records if "waits" in r.message]
    assert len(waits) == 2
    assert "EarlyStopping(monitor='fpstab/scripted/never')" in waits[0]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_early_stopping_on_the_exponent(tmp_path, namespace):
    monitor = ESDMonitor(every=Every(2), budget=None)
    early, checkpoint = watchers(tmp_path, namespace, key="fpstab/esd/alpha_median", patience=1, min_delta=1e9)
    fit = trainer(tmp_path, [early, checkpoint, monitor], namespace, max_epochs=9)
    fit.fit(task(namespace), *loaders())
    assert fit.current_epoch == 2  # nothing improves by a billion
    expected = monitor.history.records[1]["scalars"]["fpstab/esd/alpha_median"]
    assert float(early.best_score) == pytest.approx(expected, rel=1e-6)
