"""A network while it is being read: tensors that are affine in the input and in the neurons met so far.

Nothing here is rounded. A layer is applied to an affine tensor only where the result is exact in float64; else the
tensor becomes neurons of its own first, with slopes (1, 1), and the layer applies to those. A factor that is not exact
(of a batch norm: 1/√(v + ε)) is kept as an interval and ends in the slopes of neurons.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fpstab.lipschitz.exactness import exact_product, exact_sum, interval_product, round_up, significant_bits
from fpstab.lipschitz.problem import Feedforward, General

INPUT = -1
"""The source that is the network's input."""

_DIGITS = 53

Interval = tuple[Tensor, Tensor]


@dataclass(slots=True, eq=False)
class Affine:
    """One sample of a tensor of the network, flat: scale ⊙ (Σ_k M_k y_k) + constant.

    Attributes:
        shape: Shape of a sample.
        terms: By source k (`INPUT`, or the index of a group of neurons) the matrix M_k `[n, n_k]`; `None` is the
            identity.
        constant: `[n]`; plays no part in a bound, only in comparing the reading with the network.
        scale: Interval `[n]`, `[n]` of each factor, or `None` for 1.
        label: The layer that made it.
    """

    shape: tuple[int, ...]
    terms: dict[int, Tensor | None]
    constant: Tensor
    scale: Interval | None = None
    label: str = ""

    @property
    def n(self) -> int:
        """Number of values of a sample."""
        return math.prod(self.shape)

    def assign(self, other: "Affine") -> None:
        """Become another one: what an operation in place does to a tensor."""
        self.shape, self.terms, self.constant = other.shape, other.terms, other.constant
        self.scale, self.label = other.scale, other.label


@dataclass(slots=True, eq=False)
class Neurons:
    """Neurons y = σ(Σ_k M_k y_k + …) with slopes in [alpha, beta].

    Attributes:
        terms: As those of `Affine`.
        alpha: `[n]`.
        beta: `[n]`.
        value: y as a function of Σ_k M_k y_k `[B, n]`, to compare the reading with the network.
        label: The layer whose outputs they are fed with.
    """

    terms: dict[int, Tensor | None]
    alpha: Tensor
    beta: Tensor
    value: Callable[[Tensor], Tensor]
    label: str

    @property
    def n(self) -> int:
        """How many they are."""
        return len(self.alpha)


@dataclass(slots=True, eq=False)
class Reading:
    """The neurons of a network in the order of evaluation, and what layers do to affine tensors."""

    n_in: int
    groups: list[Neurons] = field(default_factory=list)

    def size(self, source: int) -> int:
        """Number of values of a source."""
        return self.n_in if source == INPUT else self.groups[source].n

    def input(self, shape: Sequence[int]) -> Affine:
        """The network's input."""
        return Affine(tuple(shape), {INPUT: None}, torch.zeros(self.n_in, dtype=torch.float64), label="input")

    def activate(self, x: Affine, alpha: Tensor, beta: Tensor, function: Callable[[Tensor], Tensor]) -> Affine:
        """Put neurons behind `x`: slopes `[n]`, and the function of batches `[B, *shape]`."""
        scale, constant, shape = _middle(x.scale), x.constant, x.shape

        def value(z: Tensor) -> Tensor:
            return function((scale * z + constant).reshape(len(z), *shape)).flatten(1)

        if x.scale is not None:
            alpha, beta = interval_product(x.scale, (alpha, beta))
        group = self._add(Neurons(x.terms, alpha, beta, value, x.label))
        return Affine(shape, {group: None}, torch.zeros(x.n, dtype=torch.float64), label=x.label)

    def move(self, x: Affine, index: Tensor, shape: Sequence[int], fill: Tensor | None = None) -> Affine:
        """Rearrange: output k is the value `index[k]` of `x`, or the number `fill[k]` where the index is negative."""
        shape = tuple(shape)
        if torch.equal(index, torch.arange(x.n)):
            return Affine(shape, x.terms, x.constant, x.scale, x.label)
        kept = index >= 0
        chosen = index.clamp(min=0)
        terms: dict[int, Tensor | None] = {}
        for source, matrix in x.terms.items():
            rows = _selection(chosen, x.n) if matrix is None else matrix[chosen]
            terms[source] = rows * kept[:, None]
        constant = torch.where(kept, x.constant[chosen], 0.0 if fill is None else fill)
        scale = None if x.scale is None else (x.scale[0][chosen], x.scale[1][chosen])
        return Affine(shape, terms, constant, scale, x.label)

    def rescale(self, x: Affine, scale: Interval) -> Affine:
        """Multiply by factors of which an interval `[n]` is known (a number, if both ends are equal)."""
        middle = _middle(scale)
        scale = scale if x.scale is None else interval_product(x.scale, scale)
        return Affine(x.shape, x.terms, x.constant * middle, scale, x.label)

    def shift(self, x: Affine, constant: Tensor) -> Affine:
        """Add a constant `[n]`."""
        return Affine(x.shape, x.terms, x.constant + constant, x.scale, x.label)

    def linear(
        self, x: Affine, op: Callable[[Tensor], Tensor], shape: Sequence[int], bias: Tensor | None, label: str
    ) -> Affine:
        """Apply a linear map.

        Args:
            x: To what.
            op: The map of batches `[B, *x.shape]` -> `[B, *shape]` in float64, each of whose matrix's entries it
                gives without rounding.
            shape: Of a sample of the result.
            bias: `[prod(shape)]`, or `None`.
            label: The layer's name.
        """
        uniform = x.scale is not None and all(bool((each == each[0]).all()) for each in x.scale)
        if x.scale is not None and not uniform:
            x = self.resolve(x)
        if not all(_selects(matrix) for matrix in x.terms.values()):
            x = self.gather(x)
        n = math.prod(shape)
        terms: dict[int, Tensor | None] = {}
        for source, matrix in x.terms.items():
            columns = torch.eye(x.n, dtype=torch.float64) if matrix is None else matrix.T
            terms[source] = op(columns.reshape(-1, *x.shape)).reshape(-1, n).T.contiguous()
        constant = op(x.constant.reshape(1, *x.shape)).reshape(n)
        scale = None if x.scale is None else (x.scale[0][:1].expand(n), x.scale[1][:1].expand(n))
        return Affine(tuple(shape), terms, constant if bias is None else constant + bias, scale, label)

    def add(self, x: Affine, y: Affine, label: str) -> Affine:
        """Add two tensors of one shape."""
        x, y = self.resolve(x), self.resolve(y)
        if any(not _exact_sum(x.terms[k], y.terms[k], self.size(k)) for k in x.terms.keys() & y.terms.keys()):
            y = self.gather(y)
        terms = dict(x.terms)
        for source, matrix in y.terms.items():
            if source in terms:
                matrix = _dense(terms[source], self.size(source)) + _dense(matrix, self.size(source))
            terms[source] = matrix
        return Affine(x.shape, terms, x.constant + y.constant, label=label)

    def concatenate(self, parts: Sequence[Affine], label: str) -> Affine:
        """Put samples one behind the other, flat."""
        parts = [self.resolve(part) for part in parts]
        rows = sum(part.n for part in parts)
        terms: dict[int, Tensor | None] = {}
        start = 0
        for part in parts:
            for source, matrix in part.terms.items():
                whole = terms.setdefault(source, torch.zeros(rows, self.size(source), dtype=torch.float64))
                assert whole is not None
                whole[start : start + part.n] = _dense(matrix, self.size(source))
            start += part.n
        return Affine((rows,), terms, torch.cat([part.constant for part in parts]), label=label)

    def resolve(self, x: Affine) -> Affine:
        """Free `x` of its scale: into its rows, where that is exact, else into the slopes of neurons."""
        if x.scale is None:
            return x
        low, high = x.scale
        if torch.equal(low, high):
            dense = {source: _dense(matrix, self.size(source)) for source, matrix in x.terms.items()}
            if all(bool(exact_product(low[:, None], matrix).all()) for matrix in dense.values()):
                terms: dict[int, Tensor | None] = {source: low[:, None] * matrix for source, matrix in dense.items()}
                return Affine(x.shape, terms, x.constant, label=x.label)
        if len(x.terms) == 1:
            ((source, matrix),) = x.terms.items()
            uniform = bool((low == low[0]).all() and (high == high[0]).all())
            if source != INPUT and (matrix is None or uniform):  # scale those neurons, in a copy of theirs
                group = self.groups[source]
                ends = (low, high) if matrix is None else (low[:1].expand(group.n), high[:1].expand(group.n))
                middle, value = _middle(ends), group.value
                alpha, beta = interval_product(ends, (group.alpha, group.beta))
                copy = Neurons(group.terms, alpha, beta, lambda z: middle * value(z), group.label)
                return Affine(x.shape, {self._add(copy): matrix}, x.constant, label=x.label)
        return self.gather(x)

    def gather(self, x: Affine) -> Affine:
        """Make the values of `x` neurons of their own."""
        if x.scale is None and list(x.terms.values()) == [None]:
            return x
        ones = torch.ones(x.n, dtype=torch.float64)
        alpha, beta = x.scale or (ones, ones)
        middle = _middle(x.scale)
        group = self._add(Neurons(x.terms, alpha, beta, lambda z: middle * z, x.label))
        return Affine(x.shape, {group: None}, x.constant, label=x.label)

    def evaluate(self, out: Affine, points: Tensor) -> Tensor:
        """The values `[B, out.n]` at points `[B, n_in]`, by what has been read."""
        values = {INPUT: points}

        def combine(terms: dict[int, Tensor | None]) -> Tensor:
            parts = (values[k] if matrix is None else values[k] @ matrix.T for k, matrix in terms.items())
            return torch.as_tensor(sum(parts, points.new_zeros(1)))

        for index, group in enumerate(self.groups):
            values[index] = group.value(combine(group.terms))
        return (_middle(out.scale) * combine(out.terms) + out.constant).expand(len(points), -1)

    def problem(self, out: Affine, max_entries: int) -> Feedforward | General:
        """What a bound is about: a chain of weights if it is one, else the general form.

        Raises:
            ValueError: If the general form has more than `max_entries` entries.
        """
        out = self._fold_output(out)
        if not out.terms:  # a constant
            return Feedforward((torch.zeros(out.n, self.n_in, dtype=torch.float64),), (), (out.label,))
        used = self._used(out)
        groups = [self.groups[k] for k in used]
        chain = [INPUT, *used]
        steps = [group.terms for group in groups] + [out.terms]
        if all(list(terms) == [source] for terms, source in zip(steps, chain, strict=True)):
            weights = [_dense(terms[k], self.size(k)) for terms, k in zip(steps, chain, strict=True)]
            slopes = [(group.alpha, group.beta) for group in groups]
            names = [group.label for group in groups] + [out.label]
            while len(weights) > 1 and _is_identity(weights[0]):
                folded = _fold_columns(weights[1], *slopes[0])
                if folded is None:
                    break
                weights[:2], slopes[:1], names[:1] = [folded], [], []
            return Feedforward(tuple(weights), tuple(slopes), tuple(names))
        return self._general(out, used, max_entries)

    def _general(self, out: Affine, used: list[int], max_entries: int) -> General:
        groups = [self.groups[k] for k in used]
        m = sum(group.n for group in groups)
        if (m + out.n) * (m + self.n_in) > max_entries:
            raise ValueError(
                f"The network has {m} neurons that are no simple chain of layers; the general form would take "
                f"{(m + out.n) * (m + self.n_in):,} entries, more than {max_entries:,}. Bound its parts instead."
            )
        a, b = torch.zeros(m, m, dtype=torch.float64), torch.zeros(m, self.n_in, dtype=torch.float64)
        c, d = torch.zeros(out.n, m, dtype=torch.float64), torch.zeros(out.n, self.n_in, dtype=torch.float64)
        starts, start = {INPUT: 0}, 0
        for k, group in zip(used, groups, strict=True):
            starts[k], start = start, start + group.n
        rows = [(starts[k], group.n, group.terms) for k, group in zip(used, groups, strict=True)]
        for (inner, outer), blocks in (((a, b), rows), ((c, d), [(0, out.n, out.terms)])):
            for first, count, terms in blocks:
                for source, matrix in terms.items():
                    size = self.size(source)
                    target = outer if source == INPUT else inner
                    target[first : first + count, starts[source] : starts[source] + size] = _dense(matrix, size)
        return General(
            A=a, B=b, C=c, D=d,
            alpha=torch.cat([group.alpha for group in groups]) if groups else torch.zeros(0),
            beta=torch.cat([group.beta for group in groups]) if groups else torch.zeros(0),
            layers=tuple(group.n for group in groups),
            names=tuple(group.label for group in groups),
        )  # fmt: skip

    def _fold_output(self, out: Affine) -> Affine:
        """Without the neurons and factors that only the output sees: |σ(a) − σ(b)| ≤ d |a − b|, one by one.

        This costs nothing: the bound of the network with such neurons has every slope at its largest, too.
        """
        while True:
            slopes, terms, label = out.scale, out.terms, out.label
            if slopes is None:
                ((source, matrix), *others) = terms.items() or ((INPUT, None),)
                if source == INPUT or matrix is not None or others:
                    return out
                group = self.groups[source]
                slopes, terms, label = (group.alpha, group.beta), group.terms, group.label
            rows: dict[int, Tensor | None] = {}
            for source, matrix in terms.items():
                folded = _fold_columns(_dense(matrix, self.size(source)).T, *slopes)
                if folded is None:
                    return self.resolve(out)
                rows[source] = folded.T
            out = Affine(out.shape, rows, out.constant, label=label)

    def _used(self, out: Affine) -> list[int]:
        used: set[int] = set()
        todo = [k for k in out.terms if k != INPUT]
        while todo:
            if (k := todo.pop()) not in used:
                used.add(k)
                todo += [source for source in self.groups[k].terms if source != INPUT]
        return sorted(used)

    def _add(self, group: Neurons) -> int:
        self.groups.append(group)
        return len(self.groups) - 1


def _fold_columns(weight: Tensor, alpha: Tensor, beta: Tensor) -> Tensor | None:
    """W·diag(d) for the least d ≥ max(|α|, |β|) for which no entry is rounded; `None` if there is none nearby."""
    d = torch.maximum(alpha.abs(), beta.abs())
    if not bool(exact_product(weight, d).all()):
        spare = _DIGITS - int(significant_bits(weight).max())
        if spare < 24:  # the bound would grow by more than 1e-7
            return None
        d = round_up(d, spare)
        if not bool(exact_product(weight, d).all()):
            return None
    return weight * d


def _middle(scale: Interval | None) -> Tensor:
    return torch.ones(1, dtype=torch.float64) if scale is None else scale[0] + (scale[1] - scale[0]) / 2


def _dense(matrix: Tensor | None, n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64) if matrix is None else matrix


def _selection(index: Tensor, n: int) -> Tensor:
    matrix = torch.zeros(len(index), n, dtype=torch.float64)
    matrix[torch.arange(len(index)), index] = 1.0
    return matrix


def _selects(matrix: Tensor | None) -> bool:
    """Whether each column has at most one entry, a power of two: a product from the left is then exact."""
    return matrix is None or (int(matrix.count_nonzero(dim=0).max()) <= 1 and int(significant_bits(matrix).max()) <= 1)


def _exact_sum(x: Tensor | None, y: Tensor | None, n: int) -> bool:
    return bool(exact_sum(_dense(x, n), _dense(y, n)).all())


def _is_identity(weight: Tensor) -> bool:
    return weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight), dtype=torch.float64))
