"""Text to train language models on."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fpstab.models._checks import is_int, is_number, require
from fpstab.models._tokenizers import Tokenizer, check_tokenizer, make_tokenizer

Source = Literal["wikitext", "help"]

_FOLDERS = ("", "wikitext-103-raw", "wikitext-103", "wikitext-103-raw-v1", "wikitext-103-v1")
_PARTS = ("train", "valid", "test")


class TextData(pl.LightningDataModule):
    """Text in sequences of one length, each token with the one that follows it: `(tokens, targets)`, int64 `[B, T]`.

    WikiText-103 (or another WikiText), if its files `wiki.train.raw`, `wiki.valid.raw` and `wiki.test.raw` (or `….tokens`)
    are in `root` or in a folder `wikitext-103-raw` or `wikitext-103` there. Otherwise the topics of Python's `help()`, some
    400,000 characters of the language reference that come with Python as `pydoc_data`; what they say twice is taken once.
    One line of the log says which, and so does the attribute `source`. The topics differ between versions of Python, and
    perplexities between tokenizers: neither can be compared.

    The topics are put in an order that depends on `seed` only, and cut at two ends of lines: what stands first is for
    training, then comes validation, then the test. In each part the sequences follow each other without overlap; what is
    left at the end is dropped. Tokenizers that learn their vocabulary learn it from the training text. The order of
    the training batches comes from torch's global generator, as `seed_everything` expects.

    Args:
        root: The folder that may hold the files.
        tokenizer: `"byte"`, `"char"`, `"word"`, or the path of a `tokenizer.json` for the package tokenizers, if that is
            installed.
        vocabulary: How many tokens there are at most, with `"char"` and `"word"`; the rarest are unknown ones. `None`: as
            many as the training text has.
        length: T.
        batch_size: Sequences in a batch; the last batch of an epoch may be smaller.
        val_fraction: The part of the topics for validation; WikiText has its own.
        test_fraction: The part of the topics for the test.
        seed: Of the order of the topics.
        num_workers: Processes that load batches. The tokens are in memory, 0 is quick.

    Attributes:
        source: `"wikitext"` or `"help"`; `None` before `setup()`.
        tokens: The tokenizer, after `setup()`; its `size` is the vocabulary that a network needs.
        train_set: The training sequences, after `setup()`.
        val_set: The validation sequences, after `setup()`.
        test_set: The test sequences, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> TextData(tokenizer="letters")
    Traceback (most recent call last):
    ValueError: tokenizer must be 'byte', 'char', 'word' or the path of a tokenizer.json, got 'letters'
    """

    tokens: Tokenizer
    train_set: "Sequences"
    val_set: "Sequences"
    test_set: "Sequences"

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        *,
        tokenizer: str = "byte",
        vocabulary: int | None = None,
        length: int = 128,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        require(isinstance(root, str | os.PathLike), "root", root, "a path")
        self.root = Path(root).expanduser()
        require(not self.root.is_file(), "root", str(root), "a folder, not a file")
        require(vocabulary is None or is_int(vocabulary, 3), "vocabulary", vocabulary, "None or an integer ≥ 3")
        check_tokenizer(tokenizer, vocabulary)
        require(is_int(length, 1), "length", length, "a positive integer")
        require(is_int(batch_size, 1), "batch_size", batch_size, "a positive integer")
        for name, part in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            require(is_number(part) and 0 < part < 1, name, part, "a number between 0 and 1, exclusive")
        if val_fraction + test_fraction >= 1:
            raise ValueError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on")
        require(is_int(seed, 0), "seed", seed, "an integer ≥ 0")
        require(is_int(num_workers, 0), "num_workers", num_workers, "an integer ≥ 0")
        self.tokenizer, self.vocabulary, self.length, self.batch_size = tokenizer, vocabulary, length, batch_size
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.seed, self.num_workers = seed, num_workers
        self.source: Source | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits and tokenises the text, once.

        Raises:
            FileNotFoundError: Some of the files of WikiText are there, and others are missing.
            ValueError: A file is empty or no UTF-8, or a part is too short for one sequence.
            ModuleNotFoundError: There are no such files, and this Python comes without `pydoc_data`; or the tokenizer
                needs a package that is not installed.
        """
        if self.source is not None:
            return
        files = wikitext_files(self.root)
        if files:
            texts = [_read(files[part]) for part in _PARTS]
            where = f"the files in {files['train'].parent}"
        else:
            texts = _cut(help_topics(self.seed, self.root), self.val_fraction, self.test_fraction)
            where = f"the topics of Python's help() (no wiki.train.raw or wiki.train.tokens in {self.root})"
        self.tokens = make_tokenizer(self.tokenizer, lambda: texts[0], self.vocabulary)
        sets = [Sequences(self.tokens.encode(text), self.length) for text in texts]
        for part, sequences in zip(_PARTS, sets, strict=True):
            if not len(sequences):
                raise ValueError(
                    f"the {part} part of {where} has {len(sequences.tokens)} tokens, less than one sequence of "
                    f"length={self.length} with the token after it: take a smaller length, or a larger part"
                )
        self.train_set, self.val_set, self.test_set = sets
        self.source = "wikitext" if files else "help"
        sizes = ", ".join(f"{len(each)} {part}" for each, part in zip(sets, ("train", "val", "test"), strict=True))
        rank_zero_info(f"TextData: {sizes} sequences of {self.length} from {where}; {self.tokens.size} tokens")

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled batches of the training sequences."""
        return self._loader("train_set", shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of the validation sequences."""
        return self._loader("val_set")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of the test sequences."""
        return self._loader("test_set")

    def _loader(self, name: str, shuffle: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
        if self.source is None:
            raise RuntimeError("TextData has no text yet: call setup() first (a Trainer does).")
        return DataLoader(
            getattr(self, name),
            self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


class Sequences(Dataset[tuple[Tensor, Tensor]]):
    """Tokens `[n]` in sequences that do not overlap, each with the tokens that follow: int64 `[T]` and `[T]`.

    Args:
        tokens: `[n]`, of an integer dtype, which is kept.
        length: T.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        """How many there are."""
        return max(len(self.tokens) - 1, 0) // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sequence, and the tokens that follow each of its own."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} sequences, got {index}")
        start = index * self.length
        piece = self.tokens[start : start + self.length + 1].long()
        return piece[:-1], piece[1:]


def wikitext_files(root: Path) -> Mapping[str, Path]:
    """The files of WikiText in a folder, by their part: `train`, `valid`, `test`. Empty if there are none.

    Raises:
        FileNotFoundError: Some are there, and others are missing.
    """
    for folder in _FOLDERS:
        for ending in ("raw", "tokens"):
            files = {part: root / folder / f"wiki.{part}.{ending}" for part in _PARTS}
            missing = [path.name for path in files.values() if not path.is_file()]
            if not missing:
                return files
            if len(missing) < len(files):
                raise FileNotFoundError(f"{root / folder} lacks {', '.join(missing)} of WikiText's three files")
    return {}


def help_topics(seed: int, root: Path) -> str:
    """The topics of Python's `help()`, in an order that the seed decides; a paragraph that comes again is left out."""
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"there are no files of WikiText in {root}, and this Python comes without pydoc_data, whose text would stand in "
            "for them. Give a folder that holds wiki.train.raw, wiki.valid.raw and wiki.test.raw.",
            name=error.name,
        ) from error
    names = sorted(topics)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    seen: set[str] = set()
    kept = []
    for index in order:
        for paragraph in re.split(r"\n\s*\n", topics[names[index]]):
            words = " ".join(paragraph.split())
            if words and words not in seen:
                seen.add(words)
                kept.append(paragraph.rstrip())
    return "\n\n".join(kept) + "\n"


def _cut(text: str, val_fraction: float, test_fraction: float) -> list[str]:
    """Training, validation and test text, one after the other, cut behind ends of lines."""
    places = [round(len(text) * (1 - val_fraction - test_fraction)), round(len(text) * (1 - test_fraction))]
    first, second = (text.find("\n", place) + 1 or len(text) for place in places)
    return [text[:first], text[first:second], text[second:]]


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    if not text.strip():
        raise ValueError(f"{path} is empty: it may be what is left of a download")
    return text
