"""Writes the tables of docs/models.md and docs/choosing-a-layer.md from the code; a test compares them.

python docs/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
"""

import inspect
import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from dropzoo import layers, models

ROOT = Path(__file__).parents[1]
MODELS, CHOOSING = ROOT / "docs" / "models.md", ROOT / "docs" / "choosing-a-layer.md"


def paragraphs(documented: object) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(documented) or "").split("\n\n")]


def layer_rows(sites_only: bool) -> list[str]:
    """What each layer does, when to use it and its paper: the first two paragraphs and the reference."""
    at_sites = layers.list_layers(sites_only=True)
    rows = []
    for name in at_sites if sites_only else sorted({*layers.list_layers()} - {*at_sites}):
        what, use, *rest = paragraphs(layers.get_class(name))
        use = use.partition("When to use it: ")[2] or use
        (paper,) = (p.removeprefix("Reference: ") for p in rest if p.startswith("Reference: "))
        rows.append(f"| `{name}` | {what} | {use[0].upper() + use[1:]} | {paper} |")
    return rows


def dropped(specs: dict[str, str]) -> str:
    """`0.5 at a, b`, or the range of the rates where many sites have others."""
    kinds = Counter(spec.partition(":")[0] for spec in specs.values())
    if len(specs) <= 4:
        return "; ".join(f"`{spec}` at `{name}`" for name, spec in specs.items())
    (kind, _), *_ = kinds.most_common()
    rates = sorted({round(float(spec.partition(":")[2]), 3) for spec in specs.values()})
    span = f"{rates[0]}" if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
    first, last = list(specs)[0], list(specs)[-1]
    return f"`{kind}` {span} at {len(specs)} sites, `{first}` to `{last}`"


def model_row(name: str) -> str:
    """Builds the model, which takes seconds for the large ones."""
    model = models.build_model(name, dropout="paper")
    sites = models.list_sites(model)
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    gives = "classes" if len(model.output_shape) == 2 else "masks"
    what = paragraphs(models.get_builder(name))[0]
    placed = dropped({site.name: site.spec for site in sites if site.spec})
    return f"| `{name}` | {what} | {gives} | {count:,} | {len(sites)} | {placed} |"


def of_plans() -> dict[str, list[str]]:
    """The table of the plans in docs/models.md."""
    head = ["| plan | what it drops | reported effect | paper |", "|---|---|---|---|"]
    plans = [(name, models.get_plan(name)) for name in models.list_plans()]
    return {"plans": head + [f"| `{n}` | {p.description} | {p.effect or ''} | {p.reference} |" for n, p in plans]}


def of_layers() -> dict[str, list[str]]:
    """The tables of docs/choosing-a-layer.md."""
    head = ["| layer | what it does | when to use it, and why | paper |", "|---|---|---|---|"]
    return {"site layers": head + layer_rows(True), "other layers": head + layer_rows(False)}


def of_models(names: list[str]) -> dict[str, list[str]]:
    """The table of the models in docs/models.md."""
    head = ["| model | what it is | output | parameters | sites | paper |", "|---|---|---|---|---|---|"]
    return {"models": head + [model_row(name) for name in names]}


def filled(page: str, tables: dict[str, list[str]]) -> str:
    """The text of a page with its tables as they should be."""
    for name, lines in tables.items():
        before, mark, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (mark and end):
            raise ValueError(f"A page must have a place `<!-- table: {name} -->` ... `<!-- end -->`. It has none.")
        page = before + mark + "\n".join(lines) + "\n" + end + after
    return page


def main() -> None:
    MODELS.write_text(filled(MODELS.read_text(), of_plans() | of_models(models.list_models())))
    CHOOSING.write_text(filled(CHOOSING.read_text(), of_layers()))


if __name__ == "__main__":
    main()
