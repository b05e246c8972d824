"""Errors and warnings name only options that the running command has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from dropzoo.cli import app as cli
from dropzoo.cli.errors import _OPTIONS, in_options, options_in_errors

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / name for name in ("layers", "models", "training", "serving", "src/dropzoo")]


def strings(node: ast.AST) -> Iterator[str]:
    """Yields the strings of a module, with a 7 in place of each value."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "7" for each in node.values)
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from strings(child)


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """All texts of the API that name an option in brackets, and advice to pass an argument that has an option."""
    files = {file for folder in FOLDERS for file in folder.rglob("*.py") if "cli" not in file.parts}
    found = {text for file in files for text in strings(ast.parse(file.read_text("utf-8"))) if " (--" in text}
    return found | {f"Pass {argument}'7'" if argument[-1] == "=" else f"Pass {argument}" for argument in _OPTIONS}


def said_by(monkeypatch, name: str, text: str, block=None) -> str:
    """Returns what a command says if an error with the text is raised while it runs."""

    def fail(**_):
        if block is None:
            raise ValueError(text)
        with options_in_errors(block):
            raise ValueError(text)

    command = COMMANDS[name]
    monkeypatch.setattr(command, "callback", fail)
    with pytest.raises(ValueError) as caught:
        command.invoke(command.make_context(name, [], resilient_parsing=True))
    return str(caught.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_never_names_an_option_that_it_lacks(name, texts, monkeypatch):
    flags = {flag for each in COMMANDS[name].params for flag in (*each.opts, *each.secondary_opts)}
    assert len(texts) > 60
    for text in texts:
        said = said_by(monkeypatch, name, text)
        named = set(re.findall(r"--[a-z][a-z0-9-]*", re.sub(r"dropzoo [a-z][^;]*", "", said)))
        assert named <= flags, said


GREY = "Each grey is a class: pass masks_as='palette' (--masks-as palette). Received: masks_as='ids' (--masks-as)"
BROKEN = "Replace the file, or pass broken='skip' (--broken skip) to leave it out"
ARCHIVES = "Put its files in a folder and pass it as `manual_dir` (--manual-dir)"
SIGMOIDS = "For several sigmoids, pass task='multi_label'; otherwise, pass from_logits=False"


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        *((name, GREY, GREY) for name in ("train", "sweep", "evaluate", "inspect", "calibrate", "bench")),
        (
            "measure",
            GREY,
            "Each grey is a class: pass masks_as='palette' (in Python). Received: masks_as='ids'",
        ),
        ("bench-input", BROKEN, BROKEN),
        ("predict", BROKEN, "Replace the file, or pass broken='skip' (in Python) to leave it out"),
        *((name, ARCHIVES, ARCHIVES) for name in ("train", "calibrate", "bench", "bench-input")),
        ("predict", SIGMOIDS, "For several sigmoids, pass --task 'multi_label'; otherwise, pass --probabilities"),
        (
            "evaluate",
            SIGMOIDS,
            "For several sigmoids, pass task='multi_label' (in Python); otherwise, pass --probabilities",
        ),
        ("measure", "the model returns maps of task='regression'", "the model returns maps of task='regression'"),
        ("measure", "Pass num_samples=0 (--num-samples 0)", "Pass num_samples=0 (--num-samples 0)"),
        ("export", "Received: input_range=(0, 255), and so on", "Received: --input-range (0, 255), and so on"),
    ],
)
def test_arguments_become_options(command, text, said, monkeypatch):
    assert said_by(monkeypatch, command, text) == said
    assert said_by(monkeypatch, command, text, {}) == said  # also through a block of the command


def test_a_block_may_have_options_of_its_own(monkeypatch):
    block = {"--masks-as": None, "--manual-dir": "--ood-manual-dir"}
    assert "(--ood-manual-dir)" in said_by(monkeypatch, "evaluate", ARCHIVES, block)
    assert "--masks-as" not in said_by(monkeypatch, "evaluate", GREY, block)


def test_outside_of_a_command_all_options_count():
    assert in_options(GREY) == GREY
