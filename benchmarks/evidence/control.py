"""The positive control: a set-up that cannot show a known effect cannot deny one."""

from protocol import Claim, Condition, Statement
from settings import OVERFITS

MODULES = "module? 0.2 + dense* 0.5"
_CONDITIONS = (
    Condition("none", fixed=True),
    Condition("dense", ("dense* 0.5",), fixed=True),
    Condition("spatial in modules, dense", ("module? spatial_dropout2d:0.1 + dense* 0.5",), fixed=True),
    Condition("modules, dense", (MODULES,), fixed=True, measures=("few",)),
)

CONTROL = Claim(
    0,
    "The positive control: where a network fits its training images, dropout and sampling calibrate it.",
    "In all conditions, the same CNN (three modules with 32, 64 and 128 filters, 256 dense units, BatchNorm) is "
    "trained on 2,000 images for 60 epochs, with AdamW and a learning rate that falls from 0.002 along a cosine. "
    "Each statement compares two predictions, neither with a temperature: one pass of the network without "
    "dropout, and the mean of 30 samples of the network with dropout.",
    ((OVERFITS, _CONDITIONS),),
    (
        *(
            Statement(f"{name}: {text}", f"{figure}_mc", name, "none", sign, other_figure=f"{figure}_one")
            for name in ("modules, dense", "spatial in modules, dense", "dense")
            for text, figure, sign in (
                ("higher accuracy", "score", 1),
                ("lower NLL", "nll", -1),
                ("lower ECE", "ece", -1),
            )
        ),
    ),
)
