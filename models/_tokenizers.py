"""Text as numbers: bytes, characters, words, or the pieces of a tokenizer of Hugging Face."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fpstab.models._checks import require

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"

# WikiText writes unknown words as <unk>, and a hyphen or comma within a word or number as @-@ or @,@
_WORD = re.compile(r"<unk>|@[^\w\s]@|\w+|[^\w\s]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """Text to tokens and back.

    Attributes:
        size: How many tokens there are; they are 0 to size − 1.
    """

    size: int

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, `[n]`, of an integer dtype."""

    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[n]`."""


class Bytes:
    """The bytes of the text in UTF-8: 256 tokens, every text and nothing unknown.

    >>> Bytes().decode(Bytes().encode("naïve"))
    'naïve'
    """

    size = 256

    def encode(self, text: str) -> Tensor:
        """The bytes, uint8 `[n]`."""
        return (
            torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)
        )

    def decode(self, tokens: Tensor) -> str:
        """The text; what is no UTF-8 (a character cut in two) becomes a replacement character."""
        return bytes(tokens.tolist()).decode(errors="replace")


class Characters:
    """The characters of a training text, the most frequent first, after a replacement character for all others.

    Args:
        text: The training text.
        limit: How many tokens there are at most; `None`: as many as there are.

    >>> letters = Characters("banana")
    >>> letters.size, letters.decode(letters.encode("bandana"))
    (4, 'ban�ana')
    """

    def __init__(self, text: str, limit: int | None = None) -> None:
        codes, counts = np.unique(_code_points(text), return_counts=True)
        known = codes[np.argsort(-counts, kind="stable")]  # of equal counts the lower code point first
        known = known[known != ord(_REPLACEMENT)][: None if limit is None else limit - 1]
        self.size = len(known) + 1
        self._characters = [_REPLACEMENT, *map(chr, known)]
        self._tokens = np.zeros(sys.maxunicode + 1, dtype=np.int32)
        self._tokens[known] = np.arange(1, self.size)

    def encode(self, text: str) -> Tensor:
        """One token a character, int32 `[n]`."""
        return torch.from_numpy(self._tokens[_code_points(text)])

    def decode(self, tokens: Tensor) -> str:
        """The text, with a replacement character for each unknown one."""
        return "".join(self._characters[token] for token in tokens.tolist())


class Words:
    r"""Words, punctuation marks and ends of lines of a training text, the most frequent first, after `<unk>` and `<eos>`.

    A word is a run of letters, digits and underscores; `<unk>`, `@-@` and their like stay whole, as WikiText has them. How
    much space there is between words is not kept.

    Args:
        text: The training text.
        limit: How many tokens there are at most; `None`: as many as there are.

    >>> words = Words("to be or not to be\n", limit=5)
    >>> words.decode(words.encode("to be, or not\n"))
    'to be <unk> <unk> not\n'
    """

    def __init__(self, text: str, limit: int | None = None) -> None:
        counts = Counter(word for word in _words(text) if word not in (UNKNOWN, END_OF_LINE))
        known = sorted(counts, key=lambda word: (-counts[word], word))[: None if limit is None else max(limit - 2, 0)]
        self._words = [UNKNOWN, END_OF_LINE, *known]
        self._tokens = {word: token for token, word in enumerate(self._words)}
        self.size = len(self._words)

    def encode(self, text: str) -> Tensor:
        """One token a word, mark or end of a line, int32 `[n]`."""
        known = self._tokens
        return torch.from_numpy(np.fromiter((known.get(word, 0) for word in _words(text)), dtype=np.int32))

    def decode(self, tokens: Tensor) -> str:
        """The words, with a space between two of a line."""
        words = [self._words[token] for token in tokens.tolist()]
        lines = " ".join("\n" if word == END_OF_LINE else word for word in words)
        return lines.replace(" \n ", "\n").replace(" \n", "\n").replace("\n ", "\n")


class Pieces:
    """The tokenizer in a file of Hugging Face's package `tokenizers`; it comes with its own vocabulary.

    Args:
        path: Of a `tokenizer.json`.

    Raises:
        ModuleNotFoundError: The package `tokenizers` is not installed.
        FileNotFoundError: There is no such file.
        ValueError: It is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"tokenizer: there is no file {path}")
        try:
            from tokenizers import Tokenizer as Loaded  # type: ignore[import-not-found,unused-ignore]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path} is for the package tokenizers, which is not installed: pip install tokenizers, or take "
                "tokenizer='byte', 'char' or 'word'.",
                name="tokenizers",
            ) from error
        try:
            self._loaded = Loaded.from_file(str(path))
        except Exception as error:  # the package raises bare exceptions
            raise ValueError(f"tokenizer: {path} cannot be read as one: {error}") from error
        self.size = int(self._loaded.get_vocab_size())

    def encode(self, text: str) -> Tensor:
        """The pieces, int32 `[n]`."""
        lines = text.splitlines(keepends=True)
        pieces = [piece for line in self._loaded.encode_batch(lines, add_special_tokens=False) for piece in line.ids]
        return torch.tensor(pieces, dtype=torch.int32)

    def decode(self, tokens: Tensor) -> str:
        """The text, as far as the tokenizer keeps it."""
        return str(self._loaded.decode(tokens.tolist()))


def check_tokenizer(name: str, limit: int | None) -> None:
    """Refuse what names no tokenizer, and a limit that does not go with it.

    Raises:
        ValueError: The message says what there is.
    """
    known = isinstance(name, str) and (name in ("byte", "char", "word") or name.endswith(".json"))
    require(known, "tokenizer", name, "'byte', 'char', 'word' or the path of a tokenizer.json")
    if limit is not None and name not in ("char", "word"):
        raise ValueError(f"vocabulary={limit} does not go with tokenizer={name!r}, which has its own; leave it out")


def make_tokenizer(name: str, training: Callable[[], str], limit: int | None) -> Tokenizer:
    """The tokenizer of this name; those that learn their vocabulary learn it from the training text."""
    if name == "byte":
        return Bytes()
    if name == "char":
        return Characters(training(), limit)
    if name == "word":
        return Words(training(), limit)
    return Pieces(Path(name).expanduser())


def _code_points(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")


def _words(text: str) -> Iterator[str]:
    """The words of a text, with `<eos>` for every end of a line; empty lines are left out."""
    start = 0
    while start < len(text):  # a line at a time: a list of all words of WikiText-103 takes gigabytes
        end = text.find("\n", start)
        found = _WORD.findall(text, start, len(text) if end < 0 else end)
        yield from found
        if end < 0:
            return
        if found:
            yield END_OF_LINE
        start = end + 1
