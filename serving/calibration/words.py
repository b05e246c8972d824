"""The promises of a calibration in sentences for people who know nothing about statistics."""

import math

from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.guarantee import Guarantee

_SENTENCES = {
    "set": "In at least {} images, the true class is among the classes that are named.",
    "miss": "The outer contour holds at least {} points that belong to an object, on average.",
    "false": "In the inner contour, at least {} points belong to the object, on average.",
    "error": "If the model does not say 'ask a human', at least {} answers are right.",
    "interval": "The true value lies between the two limits for at least {} values.",
}


def promises_in_words(calibration: Calibration) -> dict[str, str]:
    """Returns a sentence for each guarantee, by its name.

    Args:
        calibration: The calibration.

    Example:
    >>> from dropzoo.serving.calibration.facts import Facts
    >>> facts = Facts("multi_class", ((4,),), (4,), {}, 1, 1, None, 0)
    >>> cal = Calibration(1.0, {}, {"set": Guarantee("set", 0.1, (0.2,), n=(50,))}, facts)
    >>> promises_in_words(cal)
    {'set': 'In at least 90 of 100 images, the true class is among the classes that are named.'}
    """
    return {name: _sentence(guarantee) for name, guarantee in calibration.guarantees.items()}


def condition_in_words(calibration: Calibration) -> str:
    """Returns the sentence that says for which images the promises hold.

    Args:
        calibration: The calibration.
    """
    data = f" ({calibration.data})" if calibration.data else ""
    return (
        f"This was measured on {calibration.date[:10]} with {calibration.n:,} images{data}. It holds for new "
        "images from the same source, and on average over many of them. It does not hold for images from "
        "elsewhere, such as another camera."
    )


def calibration_info(calibration: Calibration) -> dict[str, object]:
    """Returns the entry of a model card and of `info.json` about a calibration.

    Args:
        calibration: The calibration.
    """
    words = promises_in_words(calibration)
    return {
        "temperature": calibration.temperature,
        "sites": dict(calibration.sites),
        "guarantees": {
            name: {
                "level": each.level,
                "confidence": each.confidence,
                "n": max(each.n),
                "classes": list(each.classes),
                "words": words[name],
            }
            for name, each in calibration.guarantees.items()
        },
        "n": calibration.n,
        "data": calibration.data,
        "date": calibration.date,
        "condition": condition_in_words(calibration),
    }


def _sentence(guarantee: Guarantee) -> str:
    level = guarantee.level
    many = next((m for m in (100, 1000) if abs(level * m - round(level * m)) < 1e-6), 10_000)
    sentence = _SENTENCES[guarantee.name].format(f"{many - math.ceil(level * many - 1e-6):,} of {many:,}")
    sure = f" This holds with a probability of {100 * guarantee.confidence:.10g}%." if guarantee.confidence else ""
    return sentence + sure
