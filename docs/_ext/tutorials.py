"""The tutorials: a link to each as a notebook, and the order in which they are executed."""

import re

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


def add_download(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts a link to the executed notebook below the title of a tutorial."""
    folder, _, name = docname.rpartition("/")
    if folder == "tutorials" and name != "index":
        link = f"{{nb-download}}`Download this page as a notebook <{name}.ipynb>`"
        source[0] = re.sub(r"^(# .*\n)", rf"\1\n{link}\n", source[0], count=1, flags=re.M)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the functions to the build."""
    app.connect("env-before-read-docs", spread)
    app.connect("source-read", add_download)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
