"""What a layer does while it is trained, added up."""

from fpstab.equilibrium import FixedPointLayer


class Tally:
    """Adds up what a layer did in training batches.

    Args:
        layer: The layer; its `last` is read, and nothing of it is changed.
    """

    def __init__(self, layer: FixedPointLayer) -> None:
        self._layer = layer
        self._seen: object = layer.last
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self) -> None:
        """Count the last batch, if the layer has been called in it."""
        last = self._layer.last
        if last is None or last is self._seen:
            return
        self._seen = last
        numbers = {"fallback": last.fallback / len(last.forward.converged)}
        numbers["dropped"] = last.dropped / len(last.forward.converged)
        for name, each in (("forward", last.forward), ("backward", last.backward)):
            if each is not None:
                numbers[f"{name}_iterations"] = float(each.iterations.double().mean())
                numbers[f"{name}_unconverged"] = 1 - float(each.converged.double().mean())
        for key, value in numbers.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1

    def state_dict(self) -> dict[str, dict[str, float]]:
        """What was added up so far."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        """Continue to add up."""
        self._sums = dict(state["sums"])
        self._counts = {key: int(count) for key, count in state["counts"].items()}

    def take(self) -> dict[str, float]:
        """The means since the last time, by name."""
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means
