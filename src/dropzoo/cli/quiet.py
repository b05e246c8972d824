"""Keeps the log lines of TensorFlow's libraries away from what the commands print."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType


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
        sys.stderr.flush()
        screen = os.dup(2)
        with tempfile.TemporaryFile() as kept:
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
                sys.stderr.flush()
                os.dup2(screen, 2)
                os.close(screen)
