import argparse
from pathlib import Path

import pytest

from fpstab.cli_arguments import add_checkpoint, add_folders, whole


def test_whole_numbers():
    parse = whole(2, "an integer from 2 to 9", 10)
    assert [parse("2"), parse("9"), whole(0, "any")("12345678901")] == [2, 9, 12345678901]
    for text in ("1", "10", "-3", "2.0", "two", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected an integer from 2 to 9, got"):
            parse(text)


def test_what_commands_share():
    parser = argparse.ArgumentParser()
    add_checkpoint(parser, "the model")
    add_folders(parser, "runs/there", "pictures")
    given = parser.parse_args(["last.ckpt", "--config", "mine", "--data", "images"])
    assert vars(given) == {
        "checkpoint": Path("last.ckpt"),
        "config": "mine",
        "out": Path("runs/there"),
        "data": Path("images"),
    }
    text = " ".join(parser.format_help().split())
    assert "YAML that describes the model (default" in text
    assert "folder for pictures (default: runs/there)" in text
