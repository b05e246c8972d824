"""The markup of docstrings: what Sphinx and Napoleon would misread is put in words that they read right."""

import inspect
import re

NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
SECTION = re.compile(r"[A-Z][A-Za-z ]+:")
_CODE = re.compile(r"(?<![`:])`([^`]+)`(?!`)")
_PAPER = re.compile(r"\barXiv:(\d{4}\.\d{4,5})|\bdoi:(10\.\d+/[^\s,;]*[^\s,;.])")


def rewritten(lines: list[str], before: str = "") -> list[str]:
    """Returns a docstring as Napoleon needs it.

    Names stay in single backticks, which may become links; other code gets double ones. Papers become links.

    Args:
        lines: The docstring.
        before: A sentence to put before its first section.
    """
    text, examples = _without_examples(lines)
    text = _CODE.sub(lambda code: code[0] if NAME.fullmatch(code[1]) else f"`{code[0]}`", text)
    text = _PAPER.sub(_link, text)
    text = re.sub(r"^(Returns|Yields):\n((?:[ ]+.*\n|\n(?=[ ]))+)", _field, text, flags=re.M)
    if before:
        text = re.sub(rf"^(?={SECTION.pattern}$|:)|\Z", f"\n{before}\n\n", text, count=1, flags=re.M)
    return re.sub(r"^\x00(\d+)$", lambda place: examples[int(place[1])], text, flags=re.M).split("\n")


def _without_examples(lines: list[str]) -> tuple[str, list[str]]:
    """Returns a docstring with a mark for each example, and the examples, indented as Napoleon needs them."""
    inside, kept, examples = False, [], []
    for line in lines:
        if line == "Example:":
            inside = True
            kept += [line, f"\x00{len(examples)}"]
            examples.append("")
        elif inside and not SECTION.fullmatch(line):
            examples[-1] += f"    {line}\n" if line else "\n"
        else:
            inside = False
            kept.append(line)
    return "\n".join(kept) + "\n", examples


def _link(paper: re.Match[str]) -> str:
    url = f"https://arxiv.org/abs/{paper[1]}" if paper[1] else f"https://doi.org/{paper[2]}"
    return f"`{paper[0]} <{url}>`__"


def _field(section: re.Match[str]) -> str:
    """Returns `Returns:` as a field, since Napoleon would take text before a colon for a type."""
    name = section[1].lower() if section[1] == "Returns" else section[1]
    return f":{name}: {inspect.cleandoc(section[2])}\n".replace("\n", "\n    ").rstrip(" ") + "\n"


def types_beside_names(lines: list[str]) -> list[str]:
    """Returns Napoleon's text of attributes with each type in the first line of its attribute, without modules."""
    found: list[str] = []
    place = 0
    for line in lines:
        if line.startswith(".. attribute::"):
            place = len(found) + 1
        if line.startswith("   :type: "):
            found.insert(place, re.sub(r"(?:\b\w+\.)+(?=\w)", "", line).replace("DatasetV2", "Dataset"))
        else:
            found.append(line)
    return found
