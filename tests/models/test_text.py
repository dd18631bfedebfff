"""Text, its tokenizers and its splits."""

import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fpstab.models import TextData
from fpstab.models._tokenizers import Bytes, Characters, Words
from fpstab.models.text import Sequences, help_topics


@given(st.text(max_size=50))
def test_bytes_and_characters_round_trip(text):
    assert Bytes().decode(Bytes().encode(text)) == text
    letters = Characters(text)
    assert letters.decode(letters.encode(text)) == text
    assert letters.size == len(set(text) - {"\ufffd"}) + 1


@given(st.text(alphabet="ab c.,\n@<unk>-", max_size=60))
def test_words_round_trip_up_to_spaces(text):
    words = Words(text)
    once = words.decode(words.encode(text))
    assert torch.equal(words.encode(once), words.encode(text))
    assert "".join(once.split()) == "".join(text.split())


def test_words_limit_and_order():
    words = Words("b b b a a c\n= Title =\na <unk> 3 @,@ 5", limit=4)
    assert words.size == 4
    assert words.encode("b a c\n").tolist() == [3, 2, 0, 1]  # a and b come three times each: by the alphabet
    assert Words("3 @,@ 5").encode("3 @,@ 5").tolist() == [2, 4, 3]
    letters = Characters("aaabbc", limit=3)
    assert letters.encode("abc").tolist() == [1, 2, 0]


@pytest.fixture
def wikitext(tmp_path):
    folder = tmp_path / "wikitext-103"
    folder.mkdir()
    for part, word in (("train", "one two three \n"), ("valid", "two \n"), ("test", "three four \n")):
        (folder / f"wiki.{part}.tokens").write_text(f" \n = Ä title = \n \n {word * 20}")
    return tmp_path


def test_wikitext(wikitext):
    data = TextData(wikitext, tokenizer="word", length=4, batch_size=3)
    data.setup()
    assert data.source == "wikitext"
    assert "four" not in data.tokens.decode(torch.arange(data.tokens.size))  # the vocabulary is the training text's
    assert data.tokens.decode(data.train_set.tokens).startswith("= Ä title =\none two three\n")
    assert data.tokens.decode(data.test_set.tokens).count("three <unk>\n") == 20
    tokens, targets = next(iter(data.val_dataloader()))
    assert tokens.shape == targets.shape == (3, 4)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens.flatten()[1:], targets.flatten()[:-1])  # val is not shuffled


def test_files_missing_empty_or_short(wikitext):
    folder = wikitext / "wikitext-103"
    test = folder / "wiki.test.tokens"
    with pytest.raises(ValueError, match="less than one sequence of length=1000"):
        TextData(wikitext, length=1000).setup()
    test.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        TextData(wikitext).setup()
    test.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="UTF-8"):
        TextData(wikitext).setup()
    test.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks wiki\.test\.tokens"):
        TextData(wikitext).setup()


def test_topics_are_cut_without_overlap(tmp_path):
    data = TextData(tmp_path, length=100, seed=3)
    data.setup()
    assert data.source == "help"
    texts = [data.tokens.decode(part.tokens) for part in (data.train_set, data.val_set, data.test_set)]
    whole = help_topics(3, tmp_path)
    assert "".join(texts) == whole
    assert [len(text) / len(whole) for text in texts] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    paragraphs = [" ".join(each.split()) for each in whole.split("\n\n") if each.strip()]
    assert len(paragraphs) == len(set(paragraphs))
    again, other = TextData(tmp_path, seed=3), TextData(tmp_path, seed=4)
    again.setup()
    other.setup()
    assert torch.equal(again.train_set.tokens, data.train_set.tokens)
    assert not torch.equal(other.train_set.tokens[:1000], data.train_set.tokens[:1000])


def test_global_generator_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    TextData(tmp_path).setup()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
def test_sequences(count, expected):
    sequences = Sequences(torch.arange(count), 4)
    assert len(sequences) == expected
    seen = [int(token) for i in range(expected) for token in sequences[i][0]]
    assert seen == list(range(4 * expected))
    assert all(torch.equal(sequences[i][1], sequences[i][0] + 1) for i in range(expected))
    with pytest.raises(IndexError):
        sequences[expected]


def test_tokenizer_file(tmp_path, monkeypatch):
    data = TextData(tmp_path, tokenizer=str(tmp_path / "no.json"))
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        data.setup()
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({}))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tokenizers"):
        TextData(tmp_path, tokenizer=str(path)).setup()


def test_python_without_topics(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModuleNotFoundError, match=r"wiki\.train\.raw"):
        TextData(tmp_path).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "bpe"}, "tokenizer must be"),
        ({"tokenizer": "byte", "vocabulary": 100}, "does not go with tokenizer='byte'"),
        ({"tokenizer": "word", "vocabulary": 2}, "vocabulary must be"),
        ({"length": 0}, "length must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"val_fraction": 0}, "val_fraction must be"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing"),
        ({"seed": -1}, "seed must be"),
        ({"root": __file__}, "root must be a folder"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        TextData(**options)


def test_loaders_before_setup():
    with pytest.raises(RuntimeError, match="setup"):
        TextData().train_dataloader()
