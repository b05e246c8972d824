"""Writes docs/models.md: every model with its size and the dropout of its paper.

python docs/models.py
"""

import os
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


def main() -> None:
    rows = []
    for name in models.list_models():
        model = models.build_model(name, dropout="paper")
        sites = models.list_sites(model)
        count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
        what = (models.get_builder(name).__doc__ or "").partition("\n")[0]
        placed = summary({site.name: site.spec for site in sites if site.spec})
        rows.append(f"| `{name}` | {what} | {count:,} | {len(sites)} | {placed} |")
        print(rows[-1], flush=True)
    (Path(__file__).parent / "models.md").write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
