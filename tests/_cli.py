"""Runs the command line in this process, and a training that takes seconds."""

import pytest

from dropzoo.cli import app as cli

TINY = ["--option", "filters=(4,)", "--option", "dense=8", "--epochs", "1", "--limit", "64", "--batch-size", "16"]


def run(capsys, *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err
