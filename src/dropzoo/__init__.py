"""CNNs and U-Nets for Keras in which every dropout site has a name.

`import dropzoo` imports `layers` and `models`, and registers every layer for loading. `training` and `serving`,
which need TensorFlow, are imported when they are first used.
"""

import importlib
from types import ModuleType

from dropzoo import layers, models

__version__ = "0.1.0"
__all__ = ["layers", "models", "serving", "training"]


def __getattr__(name: str) -> ModuleType:
    if name in ("serving", "training"):
        return importlib.import_module(f"dropzoo.{name}")
    raise AttributeError(f"module 'dropzoo' has no attribute {name!r}")
