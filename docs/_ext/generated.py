"""Pages that are made from the code before Sphinx reads the others: those of the commands and of the models."""

import importlib
import inspect
from itertools import groupby
from pathlib import Path

import typer.core
import typer.main
from sphinx.application import Sphinx

from dropzoo import models
from dropzoo.cli.app import app as command_line


def command_page(name: str, command: typer.core.TyperCommand) -> str:
    """Returns the page of a command: what it does, how it is called, its arguments and options."""
    text, *examples = inspect.cleandoc(command.help or "").split("Example: ")
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    words = [each.name.upper() + ("..." if each.nargs == -1 else "") for each in arguments]
    usage = [word if each.required else f"[{word}]" for word, each in zip(words, arguments, strict=True)]
    needed = [f"{max(each.opts, key=len)} {each.name.upper()}" for each in options if each.required]
    lines = [
        f"# dropzoo {name}",
        "",
        text.strip(),
        "",
        "```",
        " ".join(["dropzoo", name, *usage, *needed, "[OPTIONS]"]),
        "```",
    ]
    if examples:
        lines += ["", "For example:", "", "```", *(example.strip() for example in examples), "```"]
    for title, parameters in (("Arguments", arguments), ("Options", options)):
        if parameters:
            lines += ["", f"## {title}", "", f"| {title[:-1].lower()} | | default |", "|---|---|---|"]
            lines += map(row, parameters)
    return "\n".join(lines) + "\n"


def row(parameter: typer.core.TyperOption | typer.core.TyperArgument) -> str:
    """Returns the line of a table for one argument or option."""
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    text = " ".join((parameter.help or "").split())
    for mark in "|*<_":
        text = text.replace(mark, f"\\{mark}")
    value = parameter.default
    shown = value != "" and isinstance(value, (str, int, float)) and not isinstance(value, bool)
    default = f"`{value}`" if shown else ""
    return f"| {names} | {text} | {'required' if parameter.required else default} |"


def builders_page() -> str:
    """Returns the page of the functions that build the models, family by family."""
    lines = ["Models and their options", "========================", "", ".. currentmodule:: dropzoo.models", ""]
    lines += ["``models.build_model(name, ...)`` passes its options to the function of that name."]
    lines += [":doc:`../models` compares the models.", ""]
    for module, names in groupby(sorted(models.list_models(), key=_module), key=_module):
        names = list(names)
        family = importlib.import_module(module)
        title = module.rpartition(".")[2]
        written = [name for name in names if hasattr(family, name)]
        lines += [title, "-" * len(title), ""]
        for name in written:
            lines += [f".. autofunction:: {module}.{name}", ""]
        for name in names:
            if name not in written:
                summary = (models.get_builder(name).__doc__ or "").strip().partition("\n")[0]
                lines += [f"``{name}``", f"    {summary} It takes the options of ``{written[0]}``.", ""]
    return "\n".join(lines)


def _module(name: str) -> str:
    return models.get_builder(name).__module__


def write(path: Path, text: str) -> None:
    """Writes a page if it has changed, so that Sphinx does not read it again for nothing."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def generate(app: Sphinx) -> None:
    """Writes all pages."""
    folder = Path(app.srcdir) / "api"
    for name, command in typer.main.get_command(command_line).commands.items():
        write(folder / "commands" / f"{name}.md", command_page(name, command))
    write(folder / "builders.rst", builders_page())


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the function to the build, before autosummary looks for pages."""
    app.connect("builder-inited", generate, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
