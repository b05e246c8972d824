"""Keeps the log lines of TensorFlow's libraries away from what the commands print."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType
from typing import IO


def silence_tensorflow() -> None:
    """Lets TensorFlow load and run without log lines below the level of errors.

    The libraries write some lines to file descriptor 2 while they are loaded, before they read any level. So that
    descriptor leads to a file until TensorFlow is loaded. If the import fails, the file is printed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, once, as Python would, with a loader that keeps its lines aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """A loader whose module is executed while file descriptor 2 leads to a file."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        with contextlib.ExitStack() as stack:
            aside = _aside(stack)
            if aside is None:
                self.loader.exec_module(module)
            else:
                self._execute(module, *aside)

    def _execute(self, module: ModuleType, screen: int, kept: IO[bytes]) -> None:
        """Executes the module while descriptor 2 leads to `kept`, which is printed on `screen` if that fails."""
        _flush()
        os.dup2(kept.fileno(), 2)
        try:
            self.loader.exec_module(module)
            if config := getattr(module, "config", None):  # the search for a GPU has lines of its own
                config.list_physical_devices()
        except BaseException:
            kept.seek(0)
            os.write(screen, kept.read())
            raise
        finally:
            _flush()
            os.dup2(screen, 2)


def _aside(stack: contextlib.ExitStack) -> tuple[int, IO[bytes]] | None:
    """Returns a copy of descriptor 2 and a file; None without stderr, as in a service, or where no file can be."""
    if sys.stderr is None:
        return None
    try:
        screen = os.dup(2)
        stack.callback(os.close, screen)
        return screen, stack.enter_context(tempfile.TemporaryFile())
    except OSError:
        return None


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
