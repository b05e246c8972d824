"""The order in which pages are read: the tutorials, which are executed, apart from each other."""

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def spread(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Puts the tutorials at equal distances, since each process of `-j 2` gets a run of neighbouring pages."""
    slow = [name for name in docnames if name.startswith("tutorials/")]
    others = [name for name in docnames if name not in slow]
    step = len(others) // max(len(slow), 1) + 1
    for place, name in enumerate(slow):
        others.insert(place * step, name)
    docnames[:] = others


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the function to the build."""
    app.connect("env-before-read-docs", spread)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
