"""docs/evidence.md, from the files of results."""

import os
from typing import Any

from harness import HERE, RESULTS, Claim, Effect, effects, read

from dropzoo.sweep_stats import interval, interval_text

PAGE = HERE.parents[1] / "docs" / "evidence.md"
_HEAD = """# What dropout buys: ten claims, tried

Made by `make evidence` from `benchmarks/evidence/results`; nothing here is written by hand. Small networks on
small data on a CPU: what holds here need not hold for a network a hundred times as large. Every difference is
taken seed by seed (the runs of a seed start from the same weights and see the same images in the same order),
with Student's 95 % interval; *d* is the mean difference over its standard deviation. **holds**: the interval
lies on the claimed side of 0; **the opposite**: on the other side; **not shown**: 0 is inside. There is no
correction for the number of statements: of twenty that are not true, one *holds* or shows *the opposite* by
chance.

"""


def difference(effect: Effect) -> str:
    """`+0.012 ± 0.004, d 2.1`"""
    half = effect.interval.half or 0.0
    return f"{effect.interval.mean:+.4f} ± {half:.4f}, d {effect.cohens_d:+.1f}"


def overall(claim: Claim, rows: list[dict[str, Any]]) -> str:
    """Of all statements in all settings together."""
    verdicts = [effect.verdict for statement in claim.statements for effect in effects(statement, rows)]
    if not verdicts:
        return "not run yet"
    counts = {word: verdicts.count(word) for word in ("holds", "the opposite", "not shown")}
    if counts["holds"] == len(verdicts):
        word = "holds"
    elif not counts["holds"]:
        word = "does not hold" if counts["the opposite"] else "not shown"
    else:
        word = "depends"
    return f"{word}: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}"


def write(claims: list[Claim]) -> None:
    """Makes the page; claims without results are named as such."""
    parts = [_HEAD, "| | claim | verdict, by statement and setting |\n|---|---|---|\n"]
    found = {claim.number: read(RESULTS / claim.file) for claim in claims}
    for claim in claims:
        name = f"[{claim.number}](#claim-{claim.number})"
        parts.append(f"| {name} | {claim.text} | {overall(claim, found[claim.number])} |\n")
    for claim in claims:
        rows = found[claim.number]
        parts.append(f"\n## Claim {claim.number}\n\n**{claim.text}** {claim.method}\n")
        if not rows:
            parts.append("\nNot run yet.\n")
            continue
        parts.append("\n| statement | where | difference | verdict |\n|---|---|---|---|\n")
        for statement in claim.statements:
            for effect in effects(statement, rows):
                verdict = f"**{effect.verdict}**" if effect.verdict != "not shown" else effect.verdict
                parts.append(f"| {statement.text} | {effect.setting} | {difference(effect)} | {verdict} |\n")
        for setting in dict.fromkeys(row["setting"] for row in rows):
            here = [row for row in rows if row["setting"] == setting]
            shown = [name for name in claim.shown if any(row.get(name) == row.get(name, 0) for row in here)]
            parts.append(f"\n{setting}, means over seeds with their intervals:\n\n")
            parts.append(f"| | {' | '.join(name.replace('_', ' ') for name in shown)} | seeds |\n")
            parts.append("|---|" + "---|" * (len(shown) + 1) + "\n")
            for condition in dict.fromkeys(row["condition"] for row in here):
                those = [row for row in here if row["condition"] == condition]
                cells = [interval_text(interval(row[name] for row in those)) for name in shown]
                parts.append(f"| {condition} | {' | '.join(cells)} | {len(those)} |\n")
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text("".join(parts))
    os.replace(temporary, PAGE)
