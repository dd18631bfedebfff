"""What TensorBoard is told: charts by question, and what scalars mean."""

import re

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from fpstab.callbacks import ESDMonitor, JacobianMonitor, LipschitzMonitor
from tests.callbacks.toys import loaders, task, trainer


def train(tmp_path, logger, monitors):
    fit = trainer(tmp_path, monitors, logger=logger, max_epochs=2)
    fit.fit(task(), *loaders())
    return fit


def layout_of(events):
    layout = Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    return layout


def test_charts_of_all_monitors_are_grouped_by_question_once(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    monitors = [
        ESDMonitor(budget=None),
        JacobianMonitor(map="net", size=4, budget=None),
        LipschitzMonitor(map="net", size=4, budget=None),
        LipschitzMonitor(map="net.0", size=4, budget=None, name="first"),
    ]
    train(tmp_path, logger, monitors)
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0}).Reload()
    assert len(events.Tensors("custom_scalars__config__")) == 1
    layout = layout_of(events)
    assert [category.title for category in layout.category] == [
        "Heavy tails?",
        "Contracting?",
        "How far can it stretch a difference?",
        "How far can it stretch a difference? (first)",
    ]
    tags = events.Tags()["scalars"]
    alphas = layout.category[0].chart[0]
    assert alphas.title == "exponent α of each layer's spectrum"
    shown = [tag for tag in tags for pattern in alphas.multiline.tag if re.match(pattern, tag)]
    assert shown == [tag for tag in tags if re.fullmatch(r"fpstab/esd/net\.\d+/alpha", tag)]
    assert len(shown) > 1


def test_scalars_bear_their_meaning_and_all_their_values_are_there(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    monitor = JacobianMonitor(map="net", size=4, budget=None)
    train(tmp_path, logger, [monitor])
    events = EventAccumulator(logger.log_dir).Reload()
    said = events.SummaryMetadata("fpstab/jacobian/rho_max")
    assert "spectral radius" in said.summary_description
    assert said.display_name == "fpstab/jacobian/rho_max"
    written = [event.value for event in events.Scalars("fpstab/jacobian/rho_max")]
    assert written == pytest.approx(monitor.history.series("fpstab/jacobian/rho_max")[1], rel=1e-6)
    assert len(written) == 4


def test_a_logger_with_a_prefix_keeps_it(tmp_path):
    logger = TensorBoardLogger(tmp_path, prefix="run")
    train(tmp_path, logger, [JacobianMonitor(map="net", size=4, budget=None)])
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    assert "run-fpstab/jacobian/rho_max" in tags["scalars"]
    assert "fpstab/jacobian/rho_max" not in tags["scalars"]
    assert "custom_scalars__config__" not in tags["tensors"]


def test_other_loggers_get_the_values_as_ever(tmp_path):
    logger = CSVLogger(tmp_path)
    train(tmp_path, logger, [JacobianMonitor(map="net", size=4, budget=None)])
    header, *rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    column = header.split(",").index("fpstab/jacobian/rho_max")
    step = header.split(",").index("step")
    found = {int(row.split(",")[step]) for row in rows if row.split(",")[column]}
    assert {0, 8} <= found
