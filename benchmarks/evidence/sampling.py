"""Claims 7 to 12: samples against one pass, robustness, order, ensembles, and the sites of the uncertainty."""

from dataclasses import replace

from placement import FIVE
from protocol import Claim, Condition, Setting, Statement
from settings import (
    BOTTLENECK,
    COLOUR,
    DROPOUT,
    MEMBRANES,
    MODULES_AND_DENSE,
    NONE,
    NUCLEI,
    OVERFITS,
    SCENES,
    SIZES,
)

from dropzoo.training import list_corruptions

_PLENTY = SIZES[3]
_WORSE = replace(DROPOUT, measures=("few", "corruptions"))
_FIRST_FIVE = replace(OVERFITS, seeds=5)
_ENSEMBLE = Condition("ensemble of 5", like=NONE, changes=(("members", 5),))
_SHORT = Condition("ensemble of 5, a fifth of the epochs each", like=NONE, changes=(("members", 5),), share=5)
_DROPPED = Condition("ensemble of 5 with dropout", like=DROPOUT, changes=(("members", 5),))
_FAMILY = Condition("five architectures", like=NONE, changes=(("members", 5), ("network", "five architectures")))
_TRACED = replace(DROPOUT, measures=("few", "attribution"))


def _against_itself(text: str, figure: str, sign: int, column: str, other: str) -> Statement:
    return Statement(text, f"{figure}_{column}", "dropout", "dropout", sign, other_figure=f"{figure}_{other}")


def _kind(name: str, spec: str, dense: str) -> Condition:
    plans = tuple(f"module? {spec.format(rate)} + dense* {dense}" for rate in (0.1, 0.2))
    return Condition(name, plans, measures=("corruptions", "units"))


_KINDS = (
    Condition("none", measures=("corruptions", "units")),
    Condition("dropout", MODULES_AND_DENSE, measures=("corruptions", "units")),
    _kind("SpatialDropout2D", "spatial_dropout2d:{}", "0.5"),
    _kind("DropBlock", "drop_block2d:{},block_size=5", "0.5"),
    _kind("Gaussian dropout", "gaussian_dropout:{}", "gaussian_dropout:0.5"),
)
_ORDERED = tuple(
    Condition(name, (plan,), fixed=True)
    for name, plan in {"none": "none", "dropout": "module? 0.2 + dense* 0.5"}.items()
)
_NET = "small CNN without BatchNorm"

CLAIMS = (
    Claim(
        7,
        "Averaging over masks (Monte Carlo) is better than one pass with scaled weights.",
        "The same trained networks predict with 30 samples (10 for masks) and in one pass. Both ways to predict "
        "are tried without a temperature, and with a temperature of their own. The results on corrupted images "
        "are means over six corruptions at medium severity, with the temperature that was fitted on clean images.",
        (
            (OVERFITS, (_WORSE,)),
            (_PLENTY, (DROPOUT,)),
            (COLOUR, (DROPOUT,)),
            *((each, (BOTTLENECK,)) for each in (NUCLEI[1], MEMBRANES, SCENES)),
        ),
        (
            _against_itself("Accuracy is higher", "score", 1, "mc", "one"),
            _against_itself("NLL is lower", "nll", -1, "mc", "one"),
            _against_itself("ECE is lower", "ece", -1, "mc", "one"),
            _against_itself("NLL is lower, both with temperature", "nll", -1, "mc_t", "one_t"),
            _against_itself("ECE is lower, both with temperature", "ece", -1, "mc_t", "one_t"),
            _against_itself("Finds its errors better, both with temperature", "auroc", 1, "mc_t", "one_t"),
            _against_itself("NLL is lower, corrupted, both with temperature", "worse_nll", -1, "mc_t", "one_t"),
            _against_itself("ECE is lower, corrupted, both with temperature", "worse_ece", -1, "mc_t", "one_t"),
        ),
        "found mixed results, because its networks were not yet overconfident.",
    ),
    Claim(
        8,
        "Dropout makes the network robust to noise and to missing information, and makes its units redundant; "
        "structured dropout differs from Gaussian noise of the same power.",
        "The measures are the accuracy under corruptions of severity 3, the accuracy after removing a random 30 "
        "or 60 % of the units before Flatten, and the mean absolute correlation of the units before the "
        "classifier. All three are measured in one pass.",
        ((FIVE, _KINDS),),
        (
            *(
                Statement(f"Higher accuracy under {n}", f"{n}_score_one", "dropout", "none", 1)
                for n in list_corruptions()
            ),
            Statement("Higher accuracy without 30 % of the units", "without_30", "dropout", "none", 1),
            Statement("Higher accuracy without 60 % of the units", "without_60", "dropout", "none", 1),
            Statement("Units are less correlated", "correlation", "dropout", "none", -1),
            *(
                Statement(
                    f"DropBlock: higher accuracy than Gaussian under {n}",
                    f"{n}_score_one",
                    "DropBlock",
                    "Gaussian dropout",
                    1,
                )
                for n in ("missing_patches", "occlusion")
            ),
        ),
        "found that dropout makes the network more robust to only a few of the corruptions, after 20 epochs.",
        (*(f"{name}_score_one" for name in list_corruptions()), "without_30", "without_60", "correlation"),
    ),
    Claim(
        9,
        "Without dropout, the first images have an excessive influence, and later ones are not learned.",
        "There are two experiments. In one, the network is trained on ten images of circles, one after another, "
        "and then on ten images of squares, with five steps for each image. In the other, it is trained on "
        "digits that are sorted by class in every epoch; the first three classes are compared with the last "
        "three. In each experiment, we compute by how much the test accuracy is higher for the first classes than "
        "for the last classes: once after training in this order, and once after training on shuffled images. The "
        "*advantage of the first classes* is the number after ordered training minus the number after shuffled "
        "training. All accuracies are measured in one pass. The plans, the learning rate and the number of epochs "
        "are fixed. In the first experiment, the learning rate is constant.",
        (
            (Setting("Ten circles, then ten squares", "circles, then squares", 20, _NET, 5, (1e-3,)), _ORDERED),
            (Setting("Digits, class after class", "digits, class after class", 1400, _NET, 20, (1e-3,)), _ORDERED),
        ),
        (
            Statement(
                "Without dropout, the first classes have the advantage", "advantage_of_first", "none", "", 1
            ),
            Statement("Dropout makes that advantage smaller", "advantage_of_first", "dropout", "none", -1),
            Statement(
                "After training in order, accuracy is higher with dropout", "ordered_score", "dropout", "none", 1
            ),
        ),
        "found the opposite in the experiment with circles and squares: the last class has the advantage, with "
        "dropout and without. In the experiment with digits, it did not show an advantage.",
        ("ordered_first", "ordered_last", "shuffled_first", "shuffled_last", "advantage_of_first"),
    ),
    Claim(
        10,
        "One network with dropout is as good as an ensemble of different architectures.",
        "The mean of five architectures without dropout is compared with the samples of one network with dropout.",
        ((_FIRST_FIVE, (NONE, DROPOUT, _FAMILY)),),
        (
            Statement("NLL is lower than that of one network without dropout", "nll", "dropout", "none", -1),
            Statement("Accuracy is higher than the ensemble's", "score", "dropout", "five architectures", 1),
            Statement("NLL is lower than the ensemble's", "nll", "dropout", "five architectures", -1),
        ),
        "found the opposite.",
    ),
    Claim(
        11,
        "Calibrated samples are as good as an ensemble of 5, at equal cost.",
        "For equal cost of inference, 5 samples are compared with 5 members. For equal cost of training, one "
        "network with dropout is compared with 5 members that are each trained for a fifth of its epochs. All "
        "predictions have a temperature.",
        ((_FIRST_FIVE, (NONE, DROPOUT, _ENSEMBLE, _SHORT, _DROPPED)),),
        (
            Statement("Samples: NLL is lower than one pass", "nll_mc_t", "dropout", "dropout", -1, "nll_one_t"),
            Statement("5 samples: NLL is lower than one pass", "nll_mc5_t", "dropout", "dropout", -1, "nll_one_t"),
            Statement(
                "5 samples: NLL is lower than the ensemble's",
                "nll_mc5_t",
                "dropout",
                _ENSEMBLE.name,
                -1,
                "nll_mc_t",
            ),
            Statement(
                "5 samples: accuracy is higher than the ensemble's",
                "score_mc5_t",
                "dropout",
                _ENSEMBLE.name,
                1,
                "score_mc_t",
            ),
            Statement(
                "Samples: NLL is lower than that of 5 members with short training",
                "nll_mc_t",
                "dropout",
                _SHORT.name,
                -1,
            ),
            Statement(
                "Samples: accuracy is higher than that of 5 members with short training",
                "score_mc_t",
                "dropout",
                _SHORT.name,
                1,
            ),
            Statement(
                "Members with dropout: NLL is lower than without", "nll_mc_t", _DROPPED.name, _ENSEMBLE.name, -1
            ),
        ),
    ),
    Claim(
        12,
        "A few sites contribute most of the uncertainty, and dropout at these sites alone preserves it.",
        "`mc.attribute` computes the share of the variance that each site contributes. Then only the strongest "
        "site drops at inference, with a temperature that is fitted for this site alone.",
        ((OVERFITS, (_TRACED,)),),
        (
            Statement(
                "The strongest site alone has more than half of the variance",
                "strongest_over_half",
                "dropout",
                "",
                1,
            ),
            Statement(
                "Strongest alone: NLL is higher than with all sites",
                "nll_strongest_t",
                "dropout",
                "dropout",
                1,
                "nll_mc_t",
            ),
            Statement(
                "Strongest alone: NLL is lower than one pass",
                "nll_strongest_t",
                "dropout",
                "dropout",
                -1,
                "nll_one_t",
            ),
            Statement(
                "Strongest alone: finds errors worse", "auroc_strongest_t", "dropout", "dropout", -1, "auroc_mc_t"
            ),
        ),
    ),
)
