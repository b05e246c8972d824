"""Docstrings of this package on the site: readable signatures, and links from short names."""

import importlib
import inspect
import re

from docutils import nodes
from markup import NAME, rewritten, types_beside_names
from numpy.typing import ArrayLike
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

#: How docstrings write the packages: `models.list_sites` means `dropzoo.models.list_sites`.
_PACKAGES = ("layers", "models", "training", "serving", "predictions", "sweep")
#: Members without an underscore that only other modules of dropzoo use.
_PLUMBING = ("class_loss", "draw", "image_loss", "stage")
#: What a signature shows, and what is clearer.
_CLEARER = (
    (stringify_annotation(ArrayLike, mode="smart"), "~numpy.typing.ArrayLike"),
    ("~tensorflow.python.data.ops.dataset_ops.DatasetV2", "~tensorflow.data.Dataset"),
    ("[[...], ", "[..., "),
    ("<factory>", "{}"),
    (repr(1 / 6), "1 / 6"),
    (repr(2**25), "32 * 2**20"),
)
_FUNCTION = re.compile(r"<(?:built-in )?function ([\w.]+(?:<lambda>)?)(?: at 0x\w+)?>")


def prepare(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Rewrites a docstring before Napoleon reads it, and names the base classes that have a page."""
    words = ""
    if what == "class" and (bases := _public_bases(documented)):
        *others, last = bases
        names = f"{', '.join(others)} and {last}" if others else last
        words = f"It also has the attributes and methods of {names}."
    lines[:] = rewritten(lines, words)
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # a comment, or Napoleon takes text before a colon in the first line for a type


def _public_bases(documented: type) -> list[str]:
    known = [
        each for package in _PACKAGES for each in vars(importlib.import_module(f"dropzoo.{package}")).values()
    ]
    return [f"`{base.__name__}`" for base in documented.__mro__[1:] if any(base is each for each in known)]


def put_types_beside_names(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Moves the types of attributes beside their names."""
    lines[:] = types_beside_names(lines)


def show_arguments(
    app: Sphinx, what: str, name: str, documented: object, options: object, signature: str | None, returns: str
) -> tuple[str, str] | None:
    """Returns a readable signature; that of a class returns nothing, and a result that nobody creates has none."""
    if signature is None:
        return None
    if what == "class":
        returns = ""
        if signature == "(*args, **kwargs)":  # layers show this, because of the `__new__` of Keras
            own = inspect.signature(documented.__init__)
            arguments = [each for each in own.parameters.values() if each.name != "self"]
            signature = stringify_signature(
                own.replace(parameters=arguments, return_annotation=own.empty), unqualified_typehints=True
            )
        elif name.removeprefix("dropzoo.").count(".") > 1:
            signature = ""
    signature = _FUNCTION.sub(lambda found: "..." if "lambda" in found[1] else found[1], signature)
    for before, after in _CLEARER:
        signature, returns = signature.replace(before, after), (returns or "").replace(before, after)
    return signature, returns


def leave_out_plumbing(
    app: Sphinx, what: str, name: str, documented: object, skip: bool, options: object
) -> bool | None:
    """Returns True for a member that is no part of the public interface."""
    is_field = type(documented).__name__ == "_tuplegetter"  # of a named tuple, whose docstring lists it
    return True if name in _PLUMBING or is_field else None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.reference | None:
    """Finds the page of a class or function that is written without its package, or without `dropzoo`."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or not NAME.fullmatch(target):
        return None
    pages = env.get_domain("py").data["objects"]
    first = target.partition(".")[0]
    if first in _PACKAGES:
        names = [f"dropzoo.{target}"]
    elif first[0].isupper() or "_" in target:  # one lower-case word may be an argument, such as `rate`
        names = [f"dropzoo.{package}.{target}" for package in _PACKAGES]
        kinds = ("class", "exception", "function")
        names += [each for each, page in pages.items() if each.endswith(f".{target}") and page.objtype in kinds]
    else:
        return None
    for name in names:
        if name in pages:
            link = nodes.reference("", "", content, internal=True)
            link["refuri"] = (
                f"{app.builder.get_relative_uri(node['refdoc'], pages[name].docname)}#{pages[name].node_id}"
            )
            return link
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the functions to the build; Napoleon comes between the first two."""
    app.connect("autodoc-process-docstring", prepare, priority=100)
    app.connect("autodoc-process-docstring", put_types_beside_names, priority=900)
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("autodoc-skip-member", leave_out_plumbing)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
