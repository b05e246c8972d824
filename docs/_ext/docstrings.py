"""Docstrings of this package on the site: examples as blocks of code, and links from short names."""

import inspect
import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature

#: How docstrings write the packages: `models.list_sites` means `dropzoo.models.list_sites`.
_PACKAGES = ("layers", "models", "training", "serving", "predictions", "sweep")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def indent_examples(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Indents what follows `Example:`, since Napoleon takes only indented text for a section."""
    inside, found = False, []
    for line in lines:
        if line == "Example:":
            inside = True
        elif re.fullmatch(r"[A-Z][A-Za-z ]+:", line):
            inside = False
        found.append(f"    {line}" if inside and line and line != "Example:" else line)
    lines[:] = found


def show_arguments(
    app: Sphinx, what: str, name: str, documented: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Returns the arguments of a class that shows `(*args, **kwargs)`, as layers do by the `__new__` of Keras."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    own = inspect.signature(documented.__init__)
    arguments = [each for each in own.parameters.values() if each.name != "self"]
    return stringify_signature(own.replace(parameters=arguments), unqualified_typehints=True), returns


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.reference | None:
    """Finds the page of a class that is written without its package, or of a function that is written with it."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or not _NAME.fullmatch(target):
        return None
    first = target.partition(".")[0]
    if first in _PACKAGES:
        names = [f"dropzoo.{target}"]
    elif first[0].isupper():
        names = [f"dropzoo.{package}.{target}" for package in _PACKAGES]
    else:
        return None  # an argument, such as `rate`
    pages = env.get_domain("py").data["objects"]
    for name in names:
        if name in pages:
            link = nodes.reference("", "", content, internal=True)
            link["refuri"] = (
                f"{app.builder.get_relative_uri(node['refdoc'], pages[name].docname)}#{pages[name].node_id}"
            )
            return link
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the functions to the build; examples come before Napoleon."""
    app.connect("autodoc-process-docstring", indent_examples, priority=100)
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
