"""Claims 1 to 6 and 13: where dropout is, which kind, how much, beside which regularisers, for how many images."""

from dataclasses import replace

from protocol import Claim, Condition, Setting, Statement
from settings import BOTTLENECK, BRANCHES, COLOUR, DROPOUT, MODULES_AND_DENSE, NONE, NUCLEI, RESIDUAL, SIZES, SMALL

BEST = (("accuracy is higher", "score", 1), ("calibrated NLL is lower", "nll", -1))
_PAIRS = tuple((setting, (NONE, DROPOUT)) for setting in SIZES)
_OTHERS = (
    (COLOUR, (NONE, DROPOUT)),
    (RESIDUAL, (NONE, BRANCHES)),
    *((each, (NONE, BOTTLENECK)) for each in NUCLEI),
)
ONE_PASS = (
    Statement("One pass: test accuracy is higher", "score_one", "dropout", "none", 1),
    Statement("One pass: test NLL is lower", "nll_one", "dropout", "none", -1),
    Statement("One pass with temperature: test NLL is lower", "nll_one_t", "dropout", "none", -1),
    Statement("Samples with temperature: test NLL is lower", "nll", "dropout", "none", -1),
)


def _sites() -> dict[str, Condition]:
    rates = {
        "input": ("input {}", (0.05, 0.1, 0.2)),
        "after conv": ("module?_conv? {}", (0.1, 0.2, 0.4)),
        "between modules": ("module? {}", (0.1, 0.2, 0.4)),
        "before Flatten": ("features {}", (0.2, 0.4, 0.6)),
        "after dense": ("dense* {}", (0.3, 0.5, 0.7)),
    }
    found = {name: Condition(name, tuple(plan.format(r) for r in each)) for name, (plan, each) in rates.items()}
    return found | {"modules and dense": Condition("modules and dense", MODULES_AND_DENSE)}


SITES = _sites()
UNET_SITES = {
    name: Condition(name, tuple(f"{pattern} {rate}" for rate in (0.1, 0.3)))
    for name, pattern in {
        "encoder": "encoder*_conv?",
        "skips": "skip*",
        "bottleneck": "bottleneck_conv?",
        "decoder": "decoder*_conv?",
    }.items()
}
KINDS = {
    "SpatialDropout2D": Condition(
        "SpatialDropout2D", tuple(f"module?_conv? spatial_dropout2d:{rate}" for rate in (0.05, 0.1, 0.2))
    ),
    "DropBlock": Condition(
        "DropBlock", tuple(f"module?_conv? drop_block2d:{rate},block_size=5" for rate in (0.05, 0.1, 0.2))
    ),
    "Gaussian dropout": Condition(
        "Gaussian dropout", tuple(f"module?_conv? gaussian_dropout:{rate}" for rate in (0.1, 0.2, 0.4))
    ),
}
ELEMENTS = replace(SITES["after conv"], name="element-wise dropout")
_AUGMENT, _DECAY = ("augment", "shift=0.1,rotation=10"), ("decay", 0.1)
_NO_NORM = ("network", "small CNN without BatchNorm")
_BESIDE = {
    "BatchNorm": (),
    "augmentation": (_NO_NORM, _AUGMENT),
    "weight decay": (_NO_NORM, _DECAY),
    "all three": (_AUGMENT, _DECAY),
    "no regulariser": (_NO_NORM,),
}
_TWO_RATES = MODULES_AND_DENSE[:2]


def _regularisers() -> tuple[Condition, ...]:
    found = []
    for name, changes in _BESIDE.items():
        found += [Condition(name, changes=changes), Condition(f"{name} + dropout", _TWO_RATES, changes)]
    before = Condition("dropout before BatchNorm", ("module? 0.1", "module? 0.2", "module? 0.4"))
    return (
        *found,
        before,
        Condition("dropout after the last BatchNorm", ("dense* 0.3", "dense* 0.5", "dense* 0.7")),
    )


FIVE = replace(SMALL, seeds=5)
_RATES = (0.1, 0.5, 0.9)
_ALONE = {"input": "input", "after conv": "module?_conv?", "between modules": "module?", "after dense": "dense*"}
UNDERFITS = Setting("Fashion-MNIST, 20,000 images, tiny CNN", "fashion_mnist", 20000, "tiny CNN", 20, (2e-3,), 5)


def _fixed(name: str, plan: str, *measures: str, schedule: str = "") -> Condition:
    changes = (("schedule", schedule),) if schedule else ()
    return Condition(name, (plan,), changes, measures, fixed=True)


_WATCHED = tuple(
    _fixed(name, plan, "curve", "gradients")
    for name, plan in {
        "none": "none",
        "0.3": "module? 0.3 + dense* 0.3",
        "0.6": "module? 0.6 + dense* 0.6",
        "0.8": "module? 0.8 + dense* 0.8",
    }.items()
)
_TIMES = (
    _fixed("none", "none"),
    _fixed("all along", "dense* 0.3"),
    _fixed("early", "dense* 0.3", schedule="dense* early:0.3"),
    _fixed("late", "dense* 0.3", schedule="dense* late:0.3"),
)

CLAIMS = (
    Claim(
        1,
        "Dropout narrows the gap between training and test, so the network generalises better.",
        "The settings are the CNN on 200 to 58,000 images, the CNN on colour images, a ResNet, and U-Nets. Each "
        "network is trained without dropout, and with dropout at its best rate. Each condition has its own best "
        "learning rate and number of epochs. The gap is the training accuracy minus the test accuracy, in one "
        "pass.",
        (*_PAIRS, *_OTHERS),
        (Statement("The gap in accuracy is smaller", "gap", "dropout", "none", -1), *ONE_PASS),
        "compared networks with and without dropout, usually after the same number of epochs (5 to 60). With "
        "dropout, the gap was smaller everywhere. The accuracy was lower, because the training with dropout was "
        "not finished.",
    ),
    Claim(
        2,
        "Dropout helps most after dense layers.",
        "In each condition, dropout is at one kind of site of the small CNN (or at two kinds together), or in one "
        "part of a U-Net, at its best rate. The first statements compare each kind of site with no dropout, by "
        "accuracy and by calibrated NLL. The last statements test the claim itself: they compare dropout after "
        "dense layers with dropout at each other kind of site, by calibrated NLL.",
        (
            (SMALL, (NONE, *SITES.values())),
            (NUCLEI[1], (NONE, *UNET_SITES.values())),
        ),
        (
            *(
                Statement(f"{name}: {text} than without dropout", figure, name, "none", sign)
                for name in (*SITES, *UNET_SITES)
                for text, figure, sign in BEST
            ),
            *(
                Statement(f"after dense: calibrated NLL is lower than {name}", "nll", "after dense", name, -1)
                for name in SITES
                if name != "after dense"
            ),
        ),
        "found no site that helps, with one rate for each site and 20 epochs.",
    ),
    Claim(
        3,
        "On feature maps of convolutions, element-wise dropout is weaker than SpatialDropout2D, DropBlock and "
        "Gaussian dropout.",
        "Each kind of dropout is placed after every convolution of the small CNN, at its best rate. The "
        "statements compare accuracy and calibrated NLL.",
        ((SMALL, (NONE, ELEMENTS, *KINDS.values())),),
        tuple(
            Statement(f"{name}: {text} than with element-wise dropout", figure, name, ELEMENTS.name, sign)
            for name in KINDS
            for text, figure, sign in BEST
        ),
        "compared equal rates, at which SpatialDropout2D and DropBlock regularise more. They lowered the "
        "training accuracy more, and were no better.",
    ),
    Claim(
        4,
        "Batch normalisation, augmentation or weight decay helps more than dropout, and dropout before BatchNorm "
        "hurts.",
        "The small CNN is trained with none of these regularisers, with each one alone, and with all three. In "
        "each of these cases, it is trained once without dropout, and once with dropout between modules and after "
        "the dense layer. Two more conditions have BatchNorm, and dropout in one place: before the BatchNorms, or "
        "after the last BatchNorm.",
        ((FIVE, _regularisers()),),
        (
            *(
                Statement(
                    f"{name}: NLL is lower than with dropout alone", "nll", name, "no regulariser + dropout", -1
                )
                for name in ("BatchNorm", "augmentation", "weight decay")
            ),
            *(
                Statement(f"Dropout adds to {name}: {text}", figure, f"{name} + dropout", name, sign)
                for name in ("BatchNorm", "augmentation", "weight decay", "all three")
                for text, figure, sign in BEST
            ),
            Statement(
                "Before BatchNorm: NLL is higher than without dropout",
                "nll",
                "dropout before BatchNorm",
                "BatchNorm",
                1,
            ),
            Statement(
                "Before BatchNorm: NLL is higher than after the last BatchNorm",
                "nll",
                "dropout before BatchNorm",
                "dropout after the last BatchNorm",
                1,
            ),
        ),
        "found batch normalisation and weight decay better than dropout, and dropout next to BatchNorm harmful, "
        "after 20 epochs. It did not show that augmentation is better than dropout.",
    ),
    Claim(
        5,
        "Dropout slows convergence; early dropout helps networks that underfit, and late dropout helps networks "
        "that overfit; the validation loss falls more smoothly; too much dropout makes training unstable.",
        "The rates are fixed, and training always takes 60 epochs (20 for a CNN of one module with 4 filters, on "
        "20,000 images), because the claim is about the course of training and not about its result. The "
        "first four statements are about the number of epochs until the validation NLL is below 0.65 (one more "
        "than the last, if it never is); *wiggle*, the mean absolute second difference of the validation NLL from "
        "epoch to epoch; how far the validation NLL rises after its minimum; and the standard deviation of the "
        "gradient norm over training batches, divided by its mean. "
        "Early dropout ends after a sixth of the epochs, and late dropout begins then, as in Liu et al., 2023.",
        ((FIVE, _WATCHED), (UNDERFITS, _TIMES), (replace(FIVE, name=f"{SMALL.name}, early and late"), _TIMES)),
        (
            Statement("More epochs to the given loss", "epochs_to_given_nll", "0.3", "none", 1),
            Statement("The curve of the validation loss is smoother", "wiggle", "0.3", "none", -1),
            Statement("The validation loss rises less after its minimum", "rise_after_best", "0.3", "none", -1),
            Statement("The gradient norm varies more at 0.8 than at 0.3", "gradient_variation", "0.8", "0.3", 1),
            Statement(
                "Early dropout: accuracy of one pass is higher than without", "score_one", "early", "none", 1
            ),
            Statement(
                "Late dropout: NLL is lower than with dropout in all epochs", "nll", "late", "all along", -1
            ),
        ),
        "found that, in a network that overfits, the validation loss rises less after its minimum with dropout. "
        "Version 1 shows nothing about networks that underfit, because these were trained for only two epochs.",
        ("epochs_to_given_nll", "wiggle", "rise_after_best", "gradient_variation"),
    ),
    Claim(
        6,
        "With too high a rate, the network underfits; each site has its own best rate.",
        "In each condition, dropout is at one kind of site of the small CNN, at the rate 0.1, 0.5 or 0.9. "
        "Training takes 60 epochs. The statements compare accuracies in one pass. This network has BatchNorm, "
        "and its moving statistics are collected in training, with dropout. In one pass, the dropout is off, "
        "so the inputs of BatchNorm have a different variance (Li et al., 2018, arXiv:1801.05134). If the rate is "
        "high, this alone makes the accuracy collapse. Samples have the same dropout as training: with "
        "samples, the accuracy in the rows `input 0.9` and `after conv 0.9` is several times as high. There "
        "is no such shift in `after dense`, whose dropout is after the last BatchNorm. No statement tests the "
        "second half of the claim; the table has the calibrated NLL of the three rates at each site.",
        (
            (
                FIVE,
                (
                    _fixed("none", "none"),
                    *(_fixed(f"{n} {r}", f"{pattern} {r}") for n, pattern in _ALONE.items() for r in _RATES),
                ),
            ),
        ),
        (
            *(
                Statement(f"0.9 {n}: accuracy is lower than without dropout", "score_one", f"{n} 0.9", "none", -1)
                for n in _ALONE
            ),
            *(
                Statement(
                    f"0.9 {n}: training accuracy is lower than at 0.1", "train_score", f"{n} 0.9", f"{n} 0.1", -1
                )
                for n in _ALONE
            ),
        ),
        "found that the claim was true after 20 epochs.",
    ),
)
LEARNING_CURVE = Claim(
    13,
    "With enough training images, dropout no longer helps.",
    "The training runs of claim 1 with and without dropout are compared, for each number of images.",
    _PAIRS,
    tuple(
        Statement(text, figure, "dropout", "none", sign)
        for text, figure, sign in (
            ("Accuracy is higher (samples)", "score", 1),
            ("NLL is lower (samples with temperature)", "nll", -1),
            ("ECE is lower (one pass)", "ece_one", -1),
        )
    ),
)
