"""The pages of the site, without building it: every public name and command has one, links lead somewhere."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer.main

import dropzoo
from dropzoo.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("tutorials/*.md"), *DOCS.glob("coming-from/*.md")])
TUTORIALS = sorted(DOCS.glob("tutorials/[0-9]*.md"))
PACKAGES = ("layers", "models", "training", "serving", "predictions", "sweep")


def toctrees(page: Path) -> list[str]:
    """The pages that a page lists."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S)
    return [line for block in blocks for line in block.split("\n") if line and not line.startswith(":")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_one_page(package):
    """A new name is added to a list of docs/api/PACKAGE.rst; its own page is made from its docstring."""
    page = (DOCS / "api" / f"{package}.rst").read_text()
    listed = re.findall(r"^   (\w+)$", page, re.M)
    assert sorted(listed) == sorted(importlib.import_module(f"dropzoo.{package}").__all__)


def paths(package: str) -> list[str]:
    """The full import paths on the page of a package: results, which no package exports."""
    page = (DOCS / "api" / f"{package}.rst").read_text()
    return [f"dropzoo.{name}" for name in re.findall(r"^   ~([\w.]+)$", page, re.M)]


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


RESULTS = {path: imported(path) for package in PACKAGES for path in paths(package)}


def public_docstrings() -> dict[str, str]:
    """The docstrings on the pages, those of methods and properties too, by name."""
    things = dict(RESULTS)
    for package in PACKAGES:
        module = importlib.import_module(f"dropzoo.{package}")
        things |= {f"{package}.{name}": getattr(module, name) for name in module.__all__}
    found = {name: inspect.getdoc(thing) or "" for name, thing in things.items()}
    for name, thing in things.items():
        if inspect.isclass(thing):
            members = {n: m for n, m in vars(thing).items() if not n.startswith("_")}
            methods = (types.FunctionType, classmethod, property)
            found |= {f"{name}.{n}": m.__doc__ or "" for n, m in members.items() if isinstance(m, methods)}
    return found


@pytest.mark.parametrize("name", public_docstrings())
def test_a_class_in_a_docstring_has_a_page(name):
    """A reader who meets `Cut` wants to know what it holds."""
    loaded = [module for key, module in sys.modules.items() if key.startswith("dropzoo.")]
    ours = {
        key
        for module in loaded
        for key, thing in vars(module).items()
        if inspect.isclass(thing) and thing.__module__.startswith("dropzoo.")
    }
    pages = {path.rpartition(".")[2] for path in RESULTS}
    pages |= {each for package in PACKAGES for each in importlib.import_module(f"dropzoo.{package}").__all__}
    named = re.findall(r"`(?:[\w.]+\.)?([A-Z]\w+)(?:\(\))?`", public_docstrings()[name])
    assert ours & set(named) <= pages


@pytest.mark.parametrize("path", [path for path, thing in RESULTS.items() if dataclasses.is_dataclass(thing)])
def test_the_page_of_a_result_lists_its_attributes(path):
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", inspect.getdoc(RESULTS[path]) or "", re.M)
    listed = {name for names in re.findall(r"^    ([\w, ]+):", section[1], re.M) for name in names.split(", ")}
    assert {field.name for field in dataclasses.fields(RESULTS[path])} <= listed


def rewritten(text: str, monkeypatch) -> str:
    monkeypatch.syspath_prepend(DOCS / "_ext")
    return "\n".join(importlib.import_module("markup").rewritten(text.split("\n"))).rstrip()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("A `.keras` file and `keras.Model`.", "A ``.keras`` file and `keras.Model`."),  # `.keras` loses its dot
        (r"Such as `patient\d+`.", r"Such as ``patient\d+``."),
        ("`<model>/<site>`, `list_sites()`", "``<model>/<site>``, `list_sites()`"),  # or <site> is a target
        ("`two\nlines`", "``two\nlines``"),
        ("2017, arXiv:1706.02515.", "2017, `arXiv:1706.02515 <https://arxiv.org/abs/1706.02515>`__."),
        ("2010, doi:10.1007/s1-4.", "2010, `doi:10.1007/s1-4 <https://doi.org/10.1007/s1-4>`__."),
        ("Returns:\n    A dict: `mean`\n    and more.", ":returns: A dict: `mean`\n    and more."),
        ("Example:\n>>> f(`x`)\n1", "Example:\n    >>> f(`x`)\n    1"),
    ],
)
def test_docstrings_are_rewritten_for_sphinx(written, shown, monkeypatch):
    assert rewritten(written, monkeypatch) == shown


def test_the_type_of_an_attribute_is_beside_its_name(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_ext")
    napoleon = [".. attribute:: n", "", "   How many.", "", "   :type: a.b.Mapping[str, c.D]"]
    shown = importlib.import_module("markup").types_beside_names(napoleon)
    assert shown[:2] == [".. attribute:: n", "   :type: Mapping[str, D]"]


def test_every_command_is_on_one_page():
    """A new command is added to docs/api/commands/index.md; its own page is made from its help."""
    assert sorted(toctrees(DOCS / "api/commands/index.md")) == sorted(typer.main.get_command(app).commands)


def test_the_page_of_a_command_says_what_is_required(monkeypatch):
    application = types.ModuleType("sphinx.application")
    application.Sphinx = object  # Sphinx itself is not needed here
    monkeypatch.setitem(sys.modules, "sphinx.application", application)
    monkeypatch.setitem(sys.modules, "sphinx", types.ModuleType("sphinx"))
    monkeypatch.syspath_prepend(DOCS / "_ext")
    generated = importlib.import_module("generated")
    page = generated.command_page("train", typer.main.get_command(app).commands["train"])
    assert "dropzoo train MODEL --data DATA [OPTIONS]" in page
    assert re.search(r"^\| `--data` \|.*\| required \|$", page, re.M) and "| `10` |" in page
    page = generated.command_page("predict", typer.main.get_command(app).commands["predict"])
    assert "dropzoo predict PATHS... [OPTIONS]" in page and "| `` |" not in page


def test_every_page_is_in_the_navigation():
    inside = {"": DOCS / "index.md", "tutorials/": DOCS / "tutorials/index.md"}
    inside |= {"coming-from/": DOCS / "coming-from/index.md"}
    listed = {f"{folder}{name}" for folder, page in inside.items() for name in toctrees(page)} | {"index"}
    written = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES}
    assert written <= listed


@pytest.mark.parametrize("page", ["index.md", "tutorials/index.md", "coming-from/index.md", "api/index.md"])
def test_the_navigation_has_its_options_before_its_pages(page):
    """Sphinx takes an option behind an empty line for the name of a page."""
    for block in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / page).read_text(), re.S):
        pages = block.strip().partition("\n\n")[2]
        assert not re.search("^:", pages, re.M), block


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as code hosts and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    heads = [re.sub(r"[`*\[\]]", "", head) for head in re.findall(r"^#+ (.*)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        made = target.parent.name == "commands"  # pages that are made when the site is built
        assert target.exists() or made, f"{page.name}: {link}"
        if anchor and target.suffix == ".md" and not made:
            assert anchor in anchors(target), f"{page.name}: {link}"


def cells(page: Path) -> list[str]:
    """The code of a tutorial, cell by cell; a line for the shell becomes a call of the command."""
    found = re.findall(r"```\{code-cell\}\n(.*?)```", page.read_text(), re.S)
    code = [re.sub(r"\A(?::[^\n]*\n|---\n.*?\n---\n)*", "", cell, flags=re.S) for cell in found]
    call = (
        r"import subprocess, sys; subprocess.run([sys.executable, '-m', 'dropzoo.cli', *'\1'.split()], check=True)"
    )
    return [re.sub(r"\A!dropzoo (.*)", call, cell) for cell in code]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_are_notebooks_whose_code_parses(page):
    text = page.read_text()
    assert text.startswith("---\nfile_format: mystnb\nkernelspec:\n") and "caption:" in text
    assert len(cells(page)) > 3
    for cell in cells(page):
        ast.parse(cell)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run_from_top_to_bottom(page, tmp_path):
    """In a process and a folder of their own, as plain programs; `make docs` runs them as notebooks."""
    if "onnxruntime" in page.read_text():
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    program = tmp_path / "tutorial.py"
    program.write_text("\n".join(cells(page)))
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    run = subprocess.run(
        [sys.executable, program.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert dropzoo.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_there_are_seven_tutorials():
    assert [page.name[0] for page in TUTORIALS] == list("1234567")


def test_the_container_serves_without_rights_and_says_whether_it_is_healthy():
    """No container tool is needed to see the lines that matter; the command is one that exists."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text()).splitlines()
    words = {line.split()[0]: line for line in lines if line and line[0].isupper()}
    assert words["USER"].split()[1] not in ("0", "root") and "/healthz" in words["HEALTHCHECK"]
    assert words["FROM"].endswith("-slim") and words["ENTRYPOINT"] == 'ENTRYPOINT ["dropzoo", "serve"]'
    assert "serve" in typer.main.get_command(app).commands
