"""How TensorBoard shows what monitors log: charts by question, and what each scalar means."""

from collections.abc import Iterable, Mapping
from typing import Any

from fpstab.records.quantities import pattern_of, quantities_of


def layout(monitors: Iterable[tuple[str, str]]) -> dict[str, dict[str, list[Any]]]:
    """Charts for `SummaryWriter.add_custom_scalars`: a category for each question.

    Args:
        monitors: Analysis and name of each monitor.

    >>> layout([("lipschitz", "head")])["How far can it stretch a difference? (head)"]["certified, and by LipSDP"]
    ['Multiline', ['^fpstab/head/certified$', '^fpstab/head/solved$']]
    """
    categories = {}
    for analysis, name in monitors:
        known = quantities_of(analysis)
        title = known.question if name == analysis else f"{known.question} ({name})"
        if known.charts:
            categories[title] = {
                chart: ["Multiline", [pattern_of(name, quantity) for quantity in quantities]]
                for chart, quantities in known.charts.items()
            }
    return categories


def write_layout(logger: Any, monitors: Iterable[tuple[str, str]]) -> None:
    """Have TensorBoard's custom scalars show the charts of all monitors by question."""
    categories = layout(monitors)
    experiment = getattr(logger, "experiment", None)
    if categories and _writes_keys_as_they_are(logger) and hasattr(type(experiment), "add_custom_scalars"):
        experiment.add_custom_scalars(categories)  # type: ignore[union-attr]


def write_meanings(logger: Any, analysis: str, scalars: Mapping[str, float], step: int) -> bool:
    """Write the first values of scalars, with what they mean, which TensorBoard keeps for all later ones.

    Args:
        logger: Of Lightning.
        analysis: Of the monitor.
        scalars: By key.
        step: When they were measured.

    Returns:
        Whether the logger takes that; the values are to be logged in the usual way if not.
    """
    writer: Any = getattr(getattr(logger, "experiment", None), "file_writer", None)
    if not hasattr(type(writer), "add_summary") or not _writes_keys_as_they_are(logger):
        return False
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary, SummaryMetadata

    known = quantities_of(analysis)
    values = []
    for key, value in scalars.items():
        metadata = SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
            display_name=key,
            summary_description=known.meaning_of(key),
            data_class=DATA_CLASS_SCALAR,
        )
        values.append(Summary.Value(tag=key, simple_value=value, metadata=metadata))
    writer.add_summary(Summary(value=values), step)
    return True


def _writes_keys_as_they_are(logger: Any) -> bool:
    """Whether the logger puts no prefix before every key."""
    return not getattr(logger, "_prefix", "")
