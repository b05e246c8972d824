"""CNNs and U-Nets for Keras in which every dropout site has a name.

`import dropzoo` registers every layer for loading and, if TensorFlow is the backend, every loss and metric.
`serving` is imported when it is first used.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropzoo import layers, models

__version__ = "0.2.0"
__all__ = ["layers", "models", "serving", "training"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"dropzoo.{name}")
    raise AttributeError(f"module 'dropzoo' has no attribute {name!r}")


def _is_command_line() -> bool:
    """Whether this process is the command `dropzoo`, which answers `--help` without waiting for Keras."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # `python -m dropzoo.cli`: until the module is found, only the whole line has its name
        program = sys.orig_argv[-len(sys.argv)]
    return Path(program).name.removesuffix(".exe") in ("dropzoo", "dropzoo.cli")


if not _is_command_line():
    importlib.import_module("dropzoo.layers")
    importlib.import_module("dropzoo.models")
    if importlib.import_module("keras").config.backend() == "tensorflow":
        importlib.import_module("dropzoo.training")
