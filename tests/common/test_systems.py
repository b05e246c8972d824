"""Windows and macOS, emulated on any system: no module needs POSIX, and files behave as they do there."""

import ast
import os
import shlex
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import layers
from dropzoo.cli.parsing import data_name
from dropzoo.common.files import lock, whole_file
from dropzoo.common.shell import join, quote
from dropzoo.layers.draws import xla
from dropzoo.training.loop import options
from dropzoo.training.loop.signals import StopSignals

ROOT = Path(__file__).parents[2]
MODULES = [
    path
    for folder in ("layers", "models", "training", "serving", "src")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# Modules of the standard library that one system lacks, and the only function that may import any of them.
OF_ONE_SYSTEM = {"crypt", "fcntl", "grp", "msvcrt", "nt", "posix", "pty", "pwd", "resource", "syslog", "termios"}
OF_ONE_SYSTEM |= {"tty", "uvloop", "winreg", "_posixsubprocess"}
MAY_IMPORT = {("files.py", "lock")}
# What other modules have on POSIX alone. A module may use these after it has asked with `hasattr`.
POSIX_NAMES = {
    "os": {
        *("chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getpgid"),
        *("getpriority", "getresuid", "getsid", "getuid", "initgroups", "killpg", "lchown", "mkfifo", "mknod"),
        *("nice", "O_NOFOLLOW", "openpty", "pathconf", "posix_fadvise", "posix_fallocate", "pread", "pwrite"),
        *("register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid", "setpriority"),
        *("setsid", "setuid", "statvfs", "sync", "sysconf", "uname", "wait3", "wait4", "WNOHANG"),
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer"},
    "socket": {"AF_UNIX", "SO_REUSEPORT", "socketpair"},
    "time": {"clock_gettime", "tzset"},
}


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Each node below a node, with the name of the function that it is in, "" at the top."""
    for child in ast.iter_child_nodes(tree):
        yield name, child
        inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else name
        yield from functions(child, inner)


def needs_one_system(path: Path) -> Iterator[str]:
    """The names in a module that Windows or POSIX lacks, and text files that it opens in the system's encoding."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked = {
        (call.args[0].id, call.args[1].value)
        for _, call in functions(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "hasattr"
        if isinstance(call.args[0], ast.Name) and isinstance(call.args[1], ast.Constant)
    }
    for function, node in functions(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module}
            if names & OF_ONE_SYSTEM and (path.name, function) not in MAY_IMPORT:
                yield f"{path}:{node.lineno} imports {names}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            use = (node.value.id, node.attr)
            if node.attr in POSIX_NAMES.get(node.value.id, ()) and use not in asked:
                yield f"{path}:{node.lineno} uses {'.'.join(use)}"
        elif isinstance(node, ast.Call) and (opened := text_without_encoding(node)):
            yield f"{path}:{node.lineno} calls {opened} without `encoding`"


def text_without_encoding(call: ast.Call) -> str:
    """The name of a function that opens text in the encoding of the system, or ""."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return ""
    if name in ("read_text", "write_text"):
        return name
    if name != "open" or (isinstance(function, ast.Attribute) and not isinstance(function.value, ast.Name)):
        return ""
    if isinstance(function, ast.Attribute) and "path" not in getattr(function.value, "id", ""):
        return ""
    modes = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
    return "" if any("b" in mode for mode in modes if isinstance(mode, str)) else name


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("folder", ["layers", "models", "training", "serving", "src"])
def test_no_module_needs_a_system_of_one_kind(folder):
    found = [use for path in MODULES if path.is_relative_to(ROOT / folder) for use in needs_one_system(path)]
    assert not found, "\n".join(found)


def test_the_check_sees_what_it_looks_for(tmp_path):
    bad = [
        "import fcntl",
        "def lock():\n    from resource import getrusage",
        "import os\nos.sched_getaffinity(0)",
        "import signal\nx = [signal.SIGKILL]",
        'open("names.txt")',
        "path.open()",
        'path.write_text("a")',
        'with open(path, "w", newline="") as file:\n    pass',
    ]
    good = [
        "import os\nx = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else 1",
        'open("a", "rb")\npath.open(mode="wb")\nopen("a", encoding="utf-8")',
        "Image.open(path)\nself.reader.open(0, 1)",
        "import signal\nsignal.signal(signal.SIGTERM, print)",
    ]
    for number, text in enumerate([*bad, *good]):
        (tmp_path / "module.py").write_text(text, encoding="utf-8")
        assert len(list(needs_one_system(tmp_path / "module.py"))) == (number < len(bad)), text


@pytest.fixture
def on_windows(monkeypatch) -> types.SimpleNamespace:
    """Windows as far as the code can see it: `sys.platform`, msvcrt in place of fcntl, and locks on bytes."""
    state = types.SimpleNamespace(locked=[], at=None)

    def locking(fd: int, mode: int, count: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        if position in state.locked:
            raise PermissionError(13, "Permission denied")
        state.locked.append(position)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    return state


def test_a_byte_far_behind_the_end_is_locked_and_the_file_can_be_read(tmp_path, on_windows):
    with open(tmp_path / "file", "ab", buffering=0) as one:
        one.write(b"first")
        lock(one)
        with pytest.raises(BlockingIOError):
            lock(one)
        one.write(b", second")
    assert on_windows.locked == [2**30] and (tmp_path / "file").read_bytes() == b"first, second"


@pytest.mark.parametrize("refusals", [0, 3, 1000])
def test_a_file_that_another_program_has_open_is_replaced_a_little_later(
    tmp_path, on_windows, monkeypatch, refusals
):
    """Windows refuses to replace an open file, so that a virus scanner could end a run of hours."""
    replace, left = os.replace, [refusals]

    def refuse(old: Path, new: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "The file is used by another process", str(old), 32, str(new))
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    path = tmp_path / "figures.json"
    path.write_text("old")
    if refusals < 1000:
        with whole_file(path) as unfinished:
            unfinished.write_text("new")
    else:
        with pytest.raises(PermissionError, match="another process"), whole_file(path) as unfinished:
            unfinished.write_text("new")
    assert path.read_text() == ("new" if refusals < 1000 else "old")
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_an_open_file_is_not_waited_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("slept"))
    with pytest.raises(PermissionError), whole_file(tmp_path / "file") as unfinished:
        unfinished.touch()


WORDS = ["dropzoo", "train", r"data\my images", "--dropout", "dense*=0.5", r"C:\runs\cnn", "it's"]


def test_commands_are_for_the_shell_of_the_system(on_windows):
    assert quote(r"runs\cnn") == r"runs\cnn" and quote(r"my runs\cnn") == r'"my runs\cnn"'
    assert join(WORDS[:3]) == r'dropzoo train "data\my images"'


def test_commands_are_as_shlex_writes_them_elsewhere():
    assert shlex.split(join(WORDS)) == WORDS and [shlex.split(quote(word)) for word in WORDS] == [
        [w] for w in WORDS
    ]


@pytest.mark.parametrize(
    ("data", "name"),
    [("cifar10:3.0.2", "cifar10-3.0.2"), ("a/b:1.0.0", "b-1.0.0"), ("my images", "my images"), ("x/y/", "y")],
)
def test_names_of_results_have_no_colon(data, name):
    assert data_name(data) == name


def test_a_gpu_of_a_mac_runs_the_same_masks_without_a_compiler(monkeypatch):
    def dropped() -> list[tf.Tensor]:
        x = tf.ones((4, 64, 128))
        return [layer(0.3, seed=1)(x, training=True) for layer in (layers.Dropout, layers.SpatialDropout1D)]

    expected = dropped()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(xla, "compiled", xla.compiled.__wrapped__)  # it keeps what it has compiled
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert options.xla_pays(model, None, False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not options.xla_pays(model, None, False)
    monkeypatch.setattr(tf, "function", lambda *_, **__: pytest.fail("compiled"))
    for found, same in zip(dropped(), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def test_a_stop_can_be_asked_for_without_posix_signals(monkeypatch):
    """Windows knows SIGINT and SIGTERM, though no process can send the second."""
    for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM"):
        monkeypatch.delattr(signal, name, raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore SIGINT
    try:
        with StopSignals(alone=True) as signals:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signals.check()
    finally:
        signal.signal(signal.SIGINT, before)
