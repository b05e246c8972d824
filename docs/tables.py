"""Writes docs/models.md, every model with its size and the dropout of its paper, and both into README's table.

python docs/models.py
"""

import os
import re
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from dropzoo import models

HEAD = """# Models

Written by `python docs/models.py`. Parameters are those that are trained, of the model with its default options;
sites are the places where dropout may stand; the last column is what `dropout="paper"` puts there.

| model | what | parameters | sites | paper |
|---|---|---|---|---|
"""


def summary(specs: dict[str, str]) -> str:
    """`0.5 at a, b`, or the range of the rates where many sites have others."""
    layers = Counter(spec.partition(":")[0] for spec in specs.values())
    if len(specs) <= 4:
        return "; ".join(f"`{spec}` at `{name}`" for name, spec in specs.items())
    (layer, _), *_ = layers.most_common()
    rates = sorted({round(float(spec.partition(":")[2]), 3) for spec in specs.values()})
    span = f"{rates[0]}" if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
    first, last = list(specs)[0], list(specs)[-1]
    return f"`{layer}` {span} at {len(specs)} sites, `{first}` to `{last}`"


def in_short(specs: dict[str, str]) -> str:
    """`dropout up to 0.5`: the layers and their rates."""
    rates: dict[str, set[float]] = {}
    for spec in specs.values():
        layer, _, rate = spec.partition(":")
        rates.setdefault(layer, set()).add(round(float(rate), 2))
    spans = {layer: ("up to " if len(r) > 1 else "") + f"{max(r):g}" for layer, r in rates.items()}
    return ", ".join(f"{layer} {span}" for layer, span in spans.items()) or "none"


def with_figures(readme: str, sizes: dict[str, int], papers: dict[str, str]) -> str:
    """README with the last two columns of its table of models as they are; what stands before them is kept."""

    def row(match: re.Match[str]) -> str:
        names = [name for name in re.findall(r"`(\w+)`", match["names"]) if name in sizes]
        if "encoder=" in match["names"]:
            return match[0]
        millions = ", ".join(f"{sizes[name] / 1e6:.2f}" for name in names)
        paper = "; ".join(dict.fromkeys(papers[name] for name in names))
        return f"|{match['names']}|{match['what']}| {millions} | {paper} |"

    head, table, rest = re.split(r"(?<=\n)(\| models \|.*?\n)(?=\n)", readme, maxsplit=1, flags=re.S)
    table = re.sub(r"^\|(?P<names> `[^|]*)\|(?P<what>[^|]*)\|[^|\n]*\|[^|\n]*\|$", row, table, flags=re.M)
    return head + table + rest


def main() -> None:
    rows, sizes, papers = [], {}, {}
    for name in models.list_models():
        model = models.build_model(name, dropout="paper")
        sites = models.list_sites(model)
        count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
        what = (models.get_builder(name).__doc__ or "").partition("\n")[0]
        specs = {site.name: site.spec for site in sites if site.spec}
        placed, sizes[name], papers[name] = summary(specs), count, in_short(specs)
        rows.append(f"| `{name}` | {what} | {count:,} | {len(sites)} | {placed} |")
        print(rows[-1], flush=True)
    here = Path(__file__).parent
    (here / "models.md").write_text(HEAD + "\n".join(rows) + "\n")
    readme = here.parent / "README.md"
    readme.write_text(with_figures(readme.read_text(), sizes, papers))


if __name__ == "__main__":
    main()
