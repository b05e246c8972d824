"""The front of the command line: what it loads, its version, tables as JSON, `doctor`, log lines of TensorFlow."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
import typer
from rich.table import Table

import dropzoo
from _cli import run
from dropzoo.cli import doctor, quiet
from dropzoo.cli.console import console, rows_of

LIGHT = "import sys; sys.argv = ['dropzoo']; import dropzoo.cli.app; print(*sys.modules)"


def test_the_command_line_loads_neither_keras_nor_numpy():
    """So `--help` and bad options are answered at once; the commands import the rest when they run."""
    loaded = subprocess.run(
        [sys.executable, "-c", LIGHT], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "dropzoo.cli.app" in loaded
    assert not {"keras", "tensorflow", "numpy", "matplotlib", "PIL", "scipy", "dropzoo.layers"} & {*loaded}


@pytest.mark.parametrize(
    ("argv", "line", "is_command"),
    [
        (["/usr/bin/dropzoo", "train"], None, True),
        (["C:/Scripts/dropzoo.exe"], None, True),
        (["-m", "list"], ["python", "-X", "dev", "-m", "dropzoo.cli", "list"], True),
        (["-m"], ["python", "-m", "dropzoo"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["train.py", "dropzoo"], None, False),
        (["-c"], ["python", "-c", "..."], False),
        ([], None, False),
    ],
)
def test_only_the_command_puts_off_the_import_of_the_layers(monkeypatch, argv, line, is_command):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", line or argv)
    assert dropzoo._is_command_line() == is_command


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"dropzoo {dropzoo.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["list", "layers"], ["list", "plans"], ["sites", "lenet5"]])
def test_tables_as_json(capsys, arguments):
    """The same rows as the table, on stdout alone."""
    status, table, _ = run(capsys, *arguments)
    assert status == 0
    status, out, _ = run(capsys, *arguments, "--json")
    (found,) = json.loads(out)["tables"]
    assert status == 0 and len(found["rows"]) > 5 and console.kept is None
    first = list(found["rows"][0])[0]
    assert all(row[first] in table for row in found["rows"])


def test_cells_become_numbers():
    table = Table("", "NLL\nof T", "n", title="a")
    table.add_row("[bold]no dropout[/bold]", "0.109 ± 0.042", "1,234")
    table.add_row("a [b\\]", "-", "")
    uncertain = {"value": 0.109, "plus_minus": 0.042}
    assert rows_of(table)[0] == {"name": "no dropout", "NLL of T": uncertain, "n": 1234.0}
    assert rows_of(table)[1]["NLL of T"] is None and rows_of(table)[1]["n"] is None


def test_names_stay_text_and_every_row_is_whole():
    table = Table("", "name", "class", "what", "x\ny", "x y")
    table.add_row("007", "1", "3", "0.5", "nan", "1 ± nan")
    table.add_row("", "2", "-", "a:0.5", "inf", "2")
    assert rows_of(table) == [
        {
            "name": "007",
            "name (2)": 1.0,
            "class": "3",
            "what": "0.5",
            "x y": None,
            "x y (2)": {"value": 1.0, "plus_minus": None},
        },
        {"name": "007", "name (2)": 2.0, "class": None, "what": "a:0.5", "x y": None, "x y (2)": 2.0},
    ]


@pytest.mark.parametrize("end", [typer.Exit(1), typer.Exit(2), ValueError("3 files cannot be read")])
def test_tables_are_json_also_if_the_command_ends_with_a_status_or_an_error(capsys, end):
    with pytest.raises(type(end)) as ended, console.as_json():
        console.print(Table("image", title="a"))
        raise end
    assert ended.value is end and console.kept is None
    assert json.loads(capsys.readouterr().out) == {"tables": [{"title": "a", "rows": []}]}


def test_an_error_leaves_no_json(capsys):
    status, out, err = run(capsys, "list", "nothing", "--json")
    assert (status, out) == (2, "") and "Unknown kind of list" in err and console.kept is None


def test_doctor(capsys):
    status, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert status == (1 if found["problems"] else 0)
    assert found["packages"]["dropzoo"] and found["packages"]["tensorflow"] and found["backend"]
    assert any("CPU" in device for device in found["devices"]) and {"serve", "dev"} <= {*found["extras"]}
    status, out, _ = run(capsys, "doctor")
    assert "tensorflow" in out and "extra serve" in out


@pytest.mark.parametrize(
    ("found", "environment", "said"),
    [
        ({}, {}, None),
        ({"backend": "jax"}, {}, "KERAS_BACKEND=tensorflow"),
        ({"error": "ImportError: no"}, {}, "TensorFlow cannot be used: ImportError: no"),
        ({}, {"TF_USE_LEGACY_KERAS": "1"}, "unset this variable"),
    ],
)
def test_doctor_says_what_is_known_not_to_work(monkeypatch, found, environment, said):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    whole = {"backend": "tensorflow", "devices": ["CPU"], "error": None, **found}
    problems = doctor.problems({"keras": ">=3"}, whole)
    assert [said in each for each in problems] == ([] if said is None else [True])


def test_tensorflow_cpu_does_the_work_of_tensorflow(monkeypatch):
    def version(name: str) -> str:
        if name == "tensorflow":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.21.0"

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    assert doctor.missing({"tensorflow": ">=2.18"}) == []
    monkeypatch.setattr(doctor, "installed", lambda name: name.startswith("tensorflow"))
    problems = doctor.problems({}, {"backend": "tensorflow", "devices": ["GPU"], "error": None})
    assert len(problems) == 1 and "uninstall both" in problems[0]


def test_doctor_names_packages_that_are_missing_or_too_old():
    wanted = {"keras": ">=99", "no-such-package": ">=1", "numpy": ">=1"}
    assert doctor.missing(wanted) == ["keras>=99", "no-such-package>=1"]
    problems = doctor.problems(wanted, {"backend": "tensorflow", "devices": ["GPU"], "error": None})
    assert "version" in problems[0] and "it is not installed" in problems[1]


def test_doctor_knows_what_the_extras_of_a_package_need(monkeypatch):
    versions = {"tensorflow": "2.21.0", "jinja2": "3.1.6", "numpy": "2.0"}
    needs = {"tensorflow": ["numpy>=1", "nvidia-thing>=1; extra == 'and-cuda'", "jinja2>=4; extra == 'other'"]}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", needs.get)
    monkeypatch.setattr(doctor, "installed", lambda name: name in versions)
    assert doctor.missing({"tensorflow": ">=2.18"}) == []
    assert doctor.missing({"tensorflow[and-cuda]": ">=2.18"}) == ["tensorflow[and-cuda]>=2.18"]
    versions["nvidia-thing"] = "1.0"
    assert doctor.missing({"tensorflow[and-cuda]": ">=2.18"}) == []
    assert doctor._have("jinja2>=4") == "version 3.1.6 is installed"


def test_doctor_reads_extras_in_brackets(monkeypatch):
    lines = ["jinja2>=3.1", "ray[tune,serve]>=2.50; extra == 'ray'", "tensorflow[and-cuda]>=2; extra == 'gpu'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    required, extras = doctor.requirements()
    assert required == {"jinja2": ">=3.1"}
    assert extras == {"ray": {"ray[serve,tune]": ">=2.50"}, "gpu": {"tensorflow[and-cuda]": ">=2"}}


class Noisy:
    """A loader of a module that writes to file descriptor 2."""

    def __init__(self, error: bool) -> None:
        self.error = error

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        os.write(2, b"a line of a library\n")
        if self.error:
            raise ImportError("broken")


@pytest.mark.parametrize("error", [False, True])
def test_lines_of_a_library_are_kept_aside_unless_its_import_fails(capfd, error):
    spec = importlib.util.spec_from_loader("noisy", quiet._Loader(Noisy(error)))
    module = importlib.util.module_from_spec(spec)
    if error:
        with pytest.raises(ImportError, match="broken"):
            spec.loader.exec_module(module)
    else:
        spec.loader.exec_module(module)
        assert isinstance(module.__loader__, Noisy)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == ("a line of a library\nafter\n" if error else "after\n")


@pytest.mark.parametrize("lacking", ["stderr", "descriptor", "folder"])
def test_without_stderr_or_a_folder_for_files_a_module_is_still_imported(monkeypatch, lacking):
    def fail(*_):
        raise OSError("there is none")

    if lacking == "stderr":
        monkeypatch.setattr(sys, "stderr", None)
    elif lacking == "descriptor":
        monkeypatch.setattr(quiet.os, "dup", fail)
    else:
        monkeypatch.setattr(quiet.tempfile, "TemporaryFile", fail)
    spec = importlib.util.spec_from_loader("noisy", quiet._Loader(Noisy(False)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert isinstance(module.__loader__, Noisy)
