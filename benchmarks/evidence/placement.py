"""Claims 1 to 6: where dropout is, which kind, how much, and beside which regularisers. One training per row."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from harness import Claim, Job, Lab, Statement, has, images, microscopy, plain, usual

from dropzoo.runs.config import RunConfig

USUAL = {"module?": 0.2, "dense1": 0.5}
SHOWN = ("score", "nll", "ece", "train_score", "gap")
SITES = {
    "input 0.2": {"input": 0.2},
    "after conv 0.2": {"module?_conv?": 0.2},
    "between modules 0.3": {"module?": 0.3},
    "before Flatten 0.3": {"features": 0.3},
    "after dense 0.5": {"dense1": 0.5},
    "modules and dense": USUAL,
}
GIVEN_NLL = 0.65  # networks with a moderate rate get below this
UNET_SITES = {
    "encoder": {"encoder*_conv?": 0.2},
    "skips": {"skip*": 0.2},
    "bottleneck": {"bottleneck*": 0.2},
    "decoder": {"decoder*_conv?": 0.2},
    "head": {"head": 0.2},
}


def each(
    seeds: Iterable[int], build: Callable[..., tuple[str, RunConfig]], plans: dict[str, Any], **common: Any
) -> list[Job]:
    """Returns a job for every plan and every seed, in the setting that `build(dropout=...)` gives."""
    found = []
    for condition, plan in plans.items():
        setting, config = build(dropout=plan, **common)
        found += [plain(setting, condition, config, seed) for seed in seeds]
    return found


def gap_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    plans = {"none": None, "dropout": USUAL}
    if quick or not has("fashion_mnist"):
        return each(seeds, partial(images, True), plans)
    jobs = []
    for size, epochs in {200: 60, 1000: 30, 5000: 15, 20000: 8, 60000: 5}.items():
        jobs += each(seeds, partial(images, False, size, epochs), plans)
        if size <= 5000:  # again for longer, since dropout needs more time
            longer = {f"{name}, 3x epochs": plan for name, plan in plans.items()}
            jobs += each(seeds, partial(images, False, size, 3 * epochs), longer)
    return jobs


def site_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    jobs = each(seeds, partial(images, quick), {"none": None, **SITES})

    def scenes(dropout: Any) -> tuple[str, RunConfig]:
        options = {"depth": 3, "filters": 8}
        settings = {"limit": 32, "epochs": 1} if quick else {"limit": 400, "epochs": 20, "learning_rate": 5e-3}
        name = f"digit_scenes, {settings['limit']} images, U-Net"
        return name, RunConfig(
            model="unet", data="digit_scenes", options=options, dropout=dropout, batch_size=8, **settings
        )

    jobs += each(seeds, scenes, {"none": None, **UNET_SITES})
    if has("dsb2018_nuclei") and not quick:
        jobs += each(seeds, partial(microscopy, "dsb2018_nuclei", 30), {"none": None, **UNET_SITES})
    return jobs


def variant_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    specs = ("dropout:{}", "spatial_dropout2d:{}", "drop_block2d:{},block_size=5")
    rates = (0.2,) if quick else (0.1, 0.2, 0.4)
    plans = {
        f"{spec.partition(':')[0]} {rate}": {"module?_conv?": spec.format(rate)}
        for spec in specs
        for rate in rates
    }
    return each(seeds, partial(images, quick), {"none": None, **plans})


def regulariser_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    norm = {"options": {"normalization": "batch"}}
    decay = {"options": {"weight_decay": 1e-3}}
    augment = {"augment": "shift=0.1,rotation=10"}
    every = {"options": {"normalization": "batch", "weight_decay": 1e-3}, **augment}
    others = {"": {}, "BatchNorm": norm, "augmentation": augment, "weight decay": decay, "all three": every}
    jobs = []
    for name, common in others.items():
        plans = {name or "none": None, f"{name} + dropout" if name else "dropout": USUAL}
        jobs += each(seeds, partial(images, quick), plans, **common)
    # The same rate at two places: before a batch normalisation, and behind the last one.
    places = {"BatchNorm + dropout before it": {"module?": 0.3}, "BatchNorm + dropout behind it": {"head": 0.3}}
    return jobs + each(seeds, partial(images, quick), places, **norm)


def convergence_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    jobs = []

    def add(setting: str, condition: str, config: RunConfig, seed: int) -> None:
        config = replace(config, seed=seed)
        jobs.append(Job(setting, condition, seed, lambda lab: convergence(lab, config)))

    shapes = {"early dropout": "early:0.3", "late dropout": "late:0.3"}
    for condition, rate in {"none": 0.0, "dropout 0.3": 0.3, "dropout 0.6": 0.6, "dropout 0.8": 0.8}.items():
        setting, config = images(quick, dropout={"module?": rate, "dense1": rate})
        for seed in seeds:
            add(setting, condition, config, seed)
    small, large = {"filters": (4,), "dense": 16}, {"filters": (32, 64), "dense": 128}
    for name, limit, epochs, options in (("underfits", 20000, 2, small), ("overfits", 500, 40, large)):
        for condition, shape in {"none": None, "dropout 0.3": 0.3, **shapes}.items():
            moving = isinstance(shape, str)
            _, config = images(
                quick,
                limit,
                epochs,
                options=options,
                dropout={"dense1": 0.3 if moving else shape},
                rate_schedule={"dense1": shape} if moving else None,
            )
            for seed in seeds:
                add(f"{'digits' if quick else 'fashion_mnist'}, a network that {name}", condition, config, seed)
    return jobs


def convergence(lab: Lab, config: RunConfig) -> dict[str, float]:
    """Returns the usual figures, and others on how the validation loss went down."""
    outcome = lab.train(config)
    curve = np.array(outcome.curves["val_nll"])
    below = np.flatnonzero(curve < GIVEN_NLL)
    wiggle = np.abs(np.diff(curve, 2)).mean() if len(curve) > 2 else float("nan")
    norms = gradient_norms(lab, config)
    return usual(outcome) | {
        "epochs_to_given_nll": float(below[0] + 1) if len(below) else float(len(curve) + 1),
        "best_nll": float(curve.min()),
        "rise_after_best": float(curve[-1] - curve.min()),
        "wiggle": float(wiggle),
        "gradient_norm_variation": float(norms.std() / norms.mean()),
    }


def gradient_norms(lab: Lab, config: RunConfig) -> np.ndarray:
    """Returns the gradient norms of the trained network on 32 training batches, with dropout on."""
    model = lab.model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)
    def norm(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return tf.linalg.global_norm(tape.gradient(value, [v.value for v in model.trainable_variables]))

    batches = lab.train_set(config).repeat().take(32)
    return np.array([norm(images, labels).numpy() for images, labels in batches])


def rate_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    rates = (0.3, 0.9) if quick else (0.1, 0.3, 0.5, 0.7, 0.9)
    sites = {
        "input": "input",
        "after conv": "module?_conv?",
        "between modules": "module?",
        "after dense": "dense1",
    }
    plans: dict[str, Any] = {"none": None}
    plans |= {f"{name} {rate}": {pattern: rate} for name, pattern in sites.items() for rate in rates}
    return each(seeds, partial(images, quick), plans)


CLAIMS = [
    Claim(
        1,
        "gap",
        "Dropout narrows the gap between training and validation.",
        "A small CNN on 200 to 60,000 images, without dropout and with it between modules (0.2) and after the "
        "dense layer (0.5), for the same number of epochs; and both for three times as many.",
        gap_jobs,
        [
            Statement("The gap in accuracy is smaller", "gap", "dropout", "none", -1),
            Statement("The gap in NLL is smaller", "nll_gap", "dropout", "none", -1),
            Statement("Test accuracy is higher", "score", "dropout", "none", 1),
            Statement("Test NLL is lower", "nll", "dropout", "none", -1),
            Statement("Higher, with 3x epochs for dropout", "score", "dropout, 3x epochs", "none", 1),
            Statement("Lower NLL, with 3x epochs for dropout", "nll", "dropout, 3x epochs", "none", -1),
            Statement("Higher, with 3x epochs for both", "score", "dropout, 3x epochs", "none, 3x epochs", 1),
            Statement("Lower NLL, with 3x epochs for both", "nll", "dropout, 3x epochs", "none, 3x epochs", -1),
        ],
        SHOWN,
    ),
    Claim(
        2,
        "sites",
        "Dropout helps most after dense layers.",
        "The same CNN with dropout at one kind of site, and a U-Net with 0.2 in one of its parts.",
        site_jobs,
        [
            *(Statement(f"{name}: better than none", "score", name, "none", 1) for name in [*SITES, *UNET_SITES]),
            *(
                Statement(f"After dense better than {name}", "score", "after dense 0.5", name, 1)
                for name in SITES
                if name not in ("after dense 0.5", "modules and dense")
            ),
        ],
        SHOWN,
    ),
    Claim(
        3,
        "variants",
        "On convolutional maps element-wise dropout is weaker than SpatialDropout2D and DropBlock.",
        "Each of them after every convolution at the same rates. Weaker means that it lowers the training "
        "accuracy less.",
        variant_jobs,
        [
            Statement(f"{name} regularises more at {rate}", "train_score", f"{name} {rate}", f"dropout {rate}", -1)
            for rate in (0.1, 0.2, 0.4)
            for name in ("spatial_dropout2d", "drop_block2d")
        ]
        + [
            Statement(f"{name} is better at {rate}", "score", f"{name} {rate}", f"dropout {rate}", 1)
            for rate in (0.1, 0.2, 0.4)
            for name in ("spatial_dropout2d", "drop_block2d")
        ],
        SHOWN,
    ),
    Claim(
        4,
        "regularisers",
        "Batch normalisation, augmentation or weight decay helps more, and dropout before BatchNorm hurts.",
        "Each alone, with dropout, and all together; with BatchNorm, dropout between modules (before the next "
        "BatchNorm) and before the classifier (behind the last).",
        regulariser_jobs,
        [
            *(
                Statement(f"{name} alone is better than dropout alone", "score", name, "dropout", 1)
                for name in ("BatchNorm", "augmentation", "weight decay")
            ),
            *(
                Statement(f"Dropout adds to {name}", "score", f"{name} + dropout", name, 1)
                for name in ("BatchNorm", "augmentation", "weight decay", "all three")
            ),
            Statement(
                "Before BatchNorm it is worse than none", "score", "BatchNorm + dropout before it", "BatchNorm", -1
            ),
            Statement(
                "Before BatchNorm it is worse than behind",
                "score",
                "BatchNorm + dropout before it",
                "BatchNorm + dropout behind it",
                -1,
            ),
        ],
        SHOWN,
    ),
    Claim(
        5,
        "convergence",
        "Dropout slows convergence; early dropout helps networks that underfit, late dropout those that overfit; "
        "the validation loss falls more smoothly; too much dropout makes training unstable.",
        f"Epochs until the validation NLL is below {GIVEN_NLL} (if it never is, the number of epochs plus one); "
        "the mean second difference of its curve (wiggle); the standard deviation of the gradient norm over 32 "
        "batches, divided by its mean. Early dropout ends, and late dropout begins, after a sixth of the run, as "
        "in the paper.",
        convergence_jobs,
        [
            Statement("More epochs to the given loss", "epochs_to_given_nll", "dropout 0.3", "none", 1),
            Statement("The curve of the validation loss is smoother", "wiggle", "dropout 0.3", "none", -1),
            Statement("It rises less after its best", "rise_after_best", "dropout 0.3", "none", -1),
            Statement(
                "The gradient norm varies more at 0.8", "gradient_norm_variation", "dropout 0.8", "dropout 0.3", 1
            ),
            Statement("Early dropout is better than none", "score", "early dropout", "none", 1),
            Statement("Late dropout is better than dropout all along", "score", "late dropout", "dropout 0.3", 1),
        ],
        ("score", "nll", "gap", "epochs_to_given_nll", "rise_after_best", "wiggle", "gradient_norm_variation"),
    ),
    Claim(
        6,
        "rates",
        "Too high a rate underfits; each site has its own best rate.",
        "One kind of site at a time, five rates.",
        rate_jobs,
        [
            Statement(f"0.9 {name}: worse than none", "score", f"{name} 0.9", "none", -1)
            for name in ("input", "after conv", "between modules", "after dense")
        ]
        + [
            Statement(
                f"0.9 {name}: lower training accuracy than 0.3", "train_score", f"{name} 0.9", f"{name} 0.3", -1
            )
            for name in ("input", "after conv", "between modules", "after dense")
        ],
        ("score", "nll", "train_score", "gap"),
    ),
]
