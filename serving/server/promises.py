"""The promises of a calibration on the page: the decision, the contours, and sentences for everyone."""

from typing import TypedDict

import numpy as np
from typing_extensions import NotRequired

from dropzoo.serving.calibration.answers import ANSWERS, class_probabilities
from dropzoo.serving.server.batching import Arrays
from dropzoo.serving.server.info import Output
from dropzoo.serving.server.png import data_address

# Transparent, then orange for the outer and blue for the inner contour, which colour-blind people can tell apart.
_CONTOURS = [(0, 0, 0), (230, 159, 0), (0, 114, 178)]


class Promised(TypedDict):
    """The data about promises that the page shows.

    Attributes:
        decision: The decision in words; it is empty if there is none to take.
        human: Whether to ask a human.
        contours: A picture of the contours as a data: address, to lay over the image.
        words: The promises, a sentence each.
        condition: The sentence that says when they hold.
    """

    decision: str
    human: bool
    words: list[str]
    condition: str
    contours: NotRequired[str]


def promised(answer: Arrays, output: Output) -> Promised | None:
    """Returns what the page shows of the promises for the first image of an answer; None without a calibration.

    Args:
        answer: Answer of `predict_mc` or `serving_default`, arrays by name.
        output: The description of the output, with its promises.
    """
    found = {name: answer[name][0] for name in ANSWERS if name in answer}
    if not found:
        return None
    human = bool(found.get("defer", False))
    shown = Promised(decision="", human=human, words=list(output.promises.values()), condition=output.condition)
    if human:
        shown["decision"] = "Ask a human"
    elif "set" in found:
        names = output.class_names or tuple(map(str, range(len(found["set"]))))
        p = next(answer[name][0] for name in ("mean", "probabilities") if name in answer)
        order = np.argsort(-np.asarray(class_probabilities(p)), kind="stable")
        shown["decision"] = _one_of([names[k] for k in order if found["set"][k]])
    elif "lower" in found and found["lower"].ndim == 1:
        limits = zip(found["lower"], found["upper"], strict=True)
        shown["decision"] = "; ".join(f"from {low:.4g} to {high:.4g}" for low, high in limits)
    elif "defer" in found:
        shown["decision"] = "No need to ask a human"
    masks = [found[name] for name in ("outer", "inner") if name in found and found[name].ndim == 3]
    if masks:
        shown["contours"] = data_address(_drawn(found), _CONTOURS, transparent=0)
    return shown


def _one_of(names: list[str]) -> str:
    """The set of classes in words."""
    if not names:
        return "Not sure: no class is likely enough"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _drawn(found: Arrays) -> np.ndarray:
    """The numbers of the colours of the contours, `(height, width)`; the inner ones lie above the outer ones."""
    drawn = np.zeros(found["outer" if "outer" in found else "inner"].shape[:2], np.uint8)
    for colour, name in ((1, "outer"), (2, "inner")):
        if name not in found:
            continue
        masks = found[name]
        # The first of several classes is the background, whose contours would only repeat those of the others.
        for k in range(1 if masks.shape[-1] > 1 else 0, masks.shape[-1]):
            drawn[_edge(masks[..., k])] = colour
    return drawn


def _edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that have a neighbour outside of it."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside
