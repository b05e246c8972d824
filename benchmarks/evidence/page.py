"""Makes docs/evidence.md from the rows of training runs; nothing on the page is written by hand but its words."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pictures
from advice import first_paragraph
from protocol import (
    BANDS,
    VERDICTS,
    Claim,
    Condition,
    Effect,
    Rows,
    Setting,
    choose,
    effects,
    found_rows,
    value_of,
)

from dropzoo.sweep.stats import interval, interval_text

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
COLUMNS = {
    "one": "one pass",
    "one_t": "one pass, T",
    "mc": "samples",
    "mc_t": "samples, T",
}
_PROTOCOL = f"""## The protocol

These words have a fixed meaning on this page:

- A *setting* is a data set, a number of training images and a network. The tables name it in the column "where".
- A *condition* is one of the alternatives that a claim compares in a setting, such as "no dropout" and "dropout
  after dense layers".
- A *statement* usually compares one number, such as the accuracy or the NLL, of two conditions.
- There are four *ways to predict*: one pass; one pass with a temperature; the mean of 30 Monte-Carlo samples (10
  for masks); and the mean of the samples with a temperature. Temperatures are fitted on the validation images.
- The *calibrated NLL* of a condition is the NLL of the mean of its samples with a temperature. A condition without
  dropout has no samples, so its calibrated NLL is that of one pass with a temperature.

These are the rules:

1. **Each condition is compared at its best**, except in the control and where a claim says otherwise. First, its
   plan is chosen, then its learning rate, and then its number of epochs. Each time, the alternative with the
   lowest calibrated NLL on validation images is chosen. The plans to choose from are listed below the tables.
   For classification with up to 6,000 training images, the learning rates to choose from are 0.002 and 0.0005;
   with more images, and for U-Nets, the learning rate is 0.002. Each setting has two numbers of epochs to choose
   from: a larger one, such as 60 for 2,000 images, and a quarter of it.
2. **The choices and the results use different seeds.** Two seeds are reserved for the choices of item 1 and the
   check of item 3. Each condition is then trained with other seeds, and only these training runs are evaluated
   on the test images. There are five or ten of these seeds; the tables give the number. A seed determines the
   training images, the initial weights and the order of the images.
3. **Training is long enough.** The optimizer is AdamW, and the learning rate falls to 0 along a cosine. As a
   check, some conditions with dropout are also trained for twice the chosen number of epochs. If that lowers the
   calibrated NLL on validation images by more than the standard error of this NLL, the condition is trained for
   twice as long. Once a condition has been checked, a line below its table gives the change.
4. **Two situations.** Where possible, a claim is tested where the network without dropout fits its training
   images, and where it does not.
5. **A positive control comes first.** It tests whether the experiments show an effect that is known. An
   experiment that misses a known effect is no evidence against any other effect.
6. **Conditions are compared seed by seed.** For each seed, the value for one condition is subtracted from the
   value for the other. The tables show the mean of these differences, with a 95 % interval from Student's t
   distribution.
7. **Predictions have a temperature.** Unless a statement or the description of its claim says otherwise, a
   statement uses the samples of a condition with a temperature. For a condition without dropout, it uses one
   pass with a temperature.
8. **Each statement gets one of four verdicts.** A difference is *significant* if its p-value in Student's t-test
   is below 5 %, after Holm's correction over all rows of the claim's table of statements.
   - *Too small to matter*: the interval of the difference lies within ±{BANDS["score"]} for accuracy or IoU,
     ±{BANDS["nll"]} for NLL, or ±{BANDS["ece"]} for ECE, whether the difference is significant or not.
     Other numbers have no such bounds.
   - *Holds*: the interval is not within these bounds, and the difference is significant in the direction of the
     statement.
   - *The opposite*: the same, but the difference is in the other direction.
   - *Not shown*: none of the above. More seeds or images might settle the question.
9. **Small networks.** The networks and data sets are small, because everything runs on CPUs. A result on this
   page need not be true for a network that is a hundred times as large. The *small CNN* has three modules with
   16, 32 and 64 filters, and 128 dense units.

In the tables, *T* stands for a temperature, *train* for the score of one pass on the training images, and
*chosen* for the plan, the number of epochs and the learning rate.
"""
_UNTESTED = "not tested yet"
_HEADS = {
    "epochs_to_given_nll": "epochs until the NLL is below 0.65",
    "without_30": "accuracy without 30 % of the units",
    "without_60": "accuracy without 60 % of the units",
    "correlation": "correlation of the units",
}
_BEFORE = """## What version 1 of this page said, and why it was different

For version 1, most small CNNs were trained for 5 to 60 epochs, usually 20, and all conditions of a comparison
usually had the same number of epochs. (In claim 5, the networks that should underfit were trained for only 2
epochs.) Version 1 found that dropout lowers the accuracy and does little for the NLL. But training was stopped too
early: the networks without dropout had not yet become overconfident, and the networks with dropout had not
finished learning. So the verdicts of version 1 only show that dropout does not help if training is too short.
Version 1 had three other faults: it compared equal rates, where it should have compared the best rate of each
layer; it had no temperature scaling; and it did not correct for the number of statements. Its results are in the
history of the repository.

"""


def write(claims: Iterable[Claim], rows: Rows, page: Path = PAGE) -> None:
    """Writes the page and its figures, whole or not at all."""
    claims = list(claims)
    found = {claim.number: effects(claim, rows) for claim in claims}
    parts = [first_paragraph(rows), _overview(claims, rows, found), _PROTOCOL, "\n"]
    for claim in claims:
        parts.append(_section(claim, rows, found[claim.number], page.parent / "images"))
    before = [
        f"| {claim.number} | Version 1 {claim.before} |\n"
        for claim in claims
        if claim.before and found[claim.number]  # the sections of others say it
    ]
    parts += [_BEFORE, *(["| claim | what version 1 found |\n|---|---|\n"] if before else []), *before]
    temporary = page.with_suffix(".tmp")
    temporary.write_text("".join(parts))
    os.replace(temporary, page)


def progress(claim: Claim, rows: Rows) -> tuple[int, int]:
    """Returns how many of a claim's training runs with test figures are done, and how many there are."""
    done = [len(found_rows(setting, condition, rows)) for setting, condition in claim.each()]
    return sum(done), sum(setting.seeds for setting, _ in claim.each())


def state(claim: Claim, rows: Rows, found: list[Effect]) -> str:
    """Returns the state of a claim: its verdicts, and whether it is finished."""
    done, total = progress(claim, rows)
    if not found:
        return _UNTESTED
    counts = [(sum(each.verdict == word for each in found), word) for word in VERDICTS]
    words = ", ".join(f"{word}: {count}" for count, word in counts if count)
    return words if done >= total else f"not finished ({done} of {total} training runs); so far, {words}"


def _overview(claims: list[Claim], rows: Rows, found: dict[int, list[Effect]]) -> str:
    states = [state(claim, rows, found[claim.number]) for claim in claims]
    untested = (
        f" Claims that are *{_UNTESTED}* have not been tested with the protocol below. Some of them were tested "
        "for version 1 of this page, but training was stopped too early."
    )
    lines = [
        "## The claims\n\nA claim consists of statements, and each statement is tested in one or more settings. "
        "The last column counts the verdicts on the statements; there is no verdict on a claim as a whole. If a "
        "claim is not finished, the verdicts so far may concern only a part of it."
        f"{untested if _UNTESTED in states else ''}\n\n"
        "| | claim | verdicts |\n|---|---|---|\n"
    ]
    for claim, words in zip(claims, states, strict=True):
        name = "control" if claim.number == 0 else f"claim {claim.number}"
        link = f"[{name}](#{anchor(claim)})"
        lines.append(f"| {link} | {claim.text} | {words} |\n")
    return "".join([*lines, "\n"])


def anchor(claim: Claim) -> str:
    """Returns the anchor of a claim's section."""
    return "the-positive-control" if claim.number == 0 else f"claim-{claim.number}"


def _section(claim: Claim, rows: Rows, found: list[Effect], images: Path) -> str:
    title = "The positive control" if claim.number == 0 else f"Claim {claim.number}"
    parts = [f"## {title}\n\n**{claim.text}** {claim.method}\n\n"]
    done, total = progress(claim, rows)
    if not found:
        before = f" Version 1 of this page, whose training runs were too short, {claim.before}"
        runs = f"({done} of {total} training runs are done)"
        return "".join(
            [*parts, f"**Not tested with this protocol yet** {runs}.{before if claim.before else ''}\n\n"]
        )
    if done < total:
        parts.append(
            f"**Not finished** ({done} of {total} training runs are done). The table has only the statements for "
            "which there are results; the other statements of the claim have not been tested yet.\n\n"
        )
    picture = images / f"evidence_{claim.number}.png"
    if pictures.draw(claim, rows, picture):
        parts.append(f"![{pictures.caption(claim)}](images/{picture.name})\n\n")
    parts.append("| statement | where | difference | seeds | verdict |\n|---|---|---|---|---|\n")
    parts += [_effect(each) for each in found]
    for setting, conditions in claim.trials:
        parts.append(_table(claim, setting, conditions, rows))
    return "".join([*parts, "\n"])


def _effect(effect: Effect) -> str:
    shown = effect.verdict if effect.verdict == "not shown" else f"**{effect.verdict}**"
    cells = (effect.statement.text, effect.setting.name, effect.words, str(effect.seeds), shown)
    return f"| {' | '.join(cells)} |\n"


def _table(claim: Claim, setting: Setting, conditions: tuple[Condition, ...], rows: Rows) -> str:
    """Returns the means of all conditions of a setting, in four columns, and how they were chosen."""
    found = {each: list(found_rows(setting, each, rows).values()) for each in conditions}
    found = {each: some for each, some in found.items() if some}
    if not found:
        return ""
    figures = ["score_one", "score_mc", *(f"nll_{c}" for c in COLUMNS), *(f"ece_{c}" for c in COLUMNS)]
    figures = [
        name for name in [*figures, *claim.shown] if any(name in row for some in found.values() for row in some)
    ]
    heads = ["", "chosen", "train", *(_head(name) for name in figures), "seeds"]
    lines = [f"\n**{setting.name}**, means over seeds with 95 % intervals:\n\n| {' | '.join(heads)} |\n"]
    lines.append("|---" * len(heads) + "|\n")
    notes = []
    for condition, some in found.items():
        choice = choose(setting, condition, rows)
        chosen = f"{choice.chosen.plan}, {choice.chosen.epochs} epochs at {choice.chosen.learning_rate:g}"
        cells = [_mean(value_of(row, name) for row in some) for name in ["train_score", *figures]]
        lines.append(f"| {condition.name} | {chosen} | {' | '.join(cells)} | {len(some)} |\n")
        if choice.doubled:
            change, error = choice.doubled
            notes.append(
                f"\nTwice the epochs ({condition.name}) change the validation NLL by {change:+.4f}; its standard "
                f"error is {error:.4f}{_verdict_on_epochs(change, error)}\n"
            )
    grids = {each.plans for each in found if len(each.plans) > 1}
    if grids:
        words = "; ".join(", ".join(f"`{plan}`" for plan in plans) for plans in sorted(grids))
        notes.append(f"\nChosen from: {words}.\n")
    return "".join(lines + notes)


def _verdict_on_epochs(change: float, error: float) -> str:
    if change < -error:
        return ". The longer training was taken, and a still longer one might be better."
    return ", so the training is long enough." if change <= error else ", so longer training is worse."


def _head(figure: str) -> str:
    """The head of a column of a figure."""
    if figure in _HEADS:
        return _HEADS[figure]
    damage, found, _ = figure.partition("_score_one")
    if found and damage:
        return f"accuracy under {damage.replace('_', ' ')}, one pass"
    name, _, column = figure.partition("_")
    words = {"score": "accuracy or IoU", "nll": "NLL", "ece": "ECE"}.get(name)
    return f"{words}, {COLUMNS[column]}" if words and column in COLUMNS else figure.replace("_", " ")


def _mean(values: Iterable[float]) -> str:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return ""
    found = interval(finite)
    return interval_text(found, 3 if not math.isfinite(found.mean) or abs(found.mean) < 10 else 0)
