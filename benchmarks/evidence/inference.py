"""Claims 7 to 10: trained networks, sampled, corrupted and damaged; the order of the data; and ensembles."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from harness import CNN, Claim, Figures, Job, Lab, Statement, has, images, microscopy
from placement import USUAL

from dropzoo import models, serving, training
from dropzoo.runs.config import RunConfig
from dropzoo.runs.evaluation import LogProbabilities, corrupted, log_probabilities, score
from dropzoo.runs.scores import Scores

SEVERITY = 3
SAMPLES = 20
PLANS = {
    "none": None,
    "dropout": USUAL,
    "spatial": {"module?": "spatial_dropout2d:0.2", "dense1": 0.5},
    "drop block": {"module?": "drop_block2d:0.2,block_size=5", "dense1": 0.5},
    "Gaussian noise": {"module?": "gaussian_dropout:0.2", "dense1": "gaussian_dropout:0.5"},
}
Build = Callable[..., tuple[str, RunConfig]]


def wrap(setting: str, condition: str, config: RunConfig, seed: int, run: Callable[[Lab, RunConfig], Any]) -> Job:
    config = replace(config, seed=seed)
    return Job(setting, condition, seed, lambda lab: run(lab, config))


def scored(predict: LogProbabilities, dataset: tf.data.Dataset, info: training.DataInfo) -> Figures:
    found = score(predict, dataset, Scores(info)).figures()
    return {
        "score": found.get("mean_iou", found["accuracy"]),
        **{name: found[name] for name in ("nll", "ece", "error_auroc")},
    }


def clean_and_corrupted(
    predict: LogProbabilities, images: tf.data.Dataset, info: training.DataInfo, names: Iterable[str]
) -> Figures:
    """Returns the figures on test images and, as `worse_*`, their means over corruptions of middle severity."""
    found = scored(predict, images, info)
    worse = [scored(predict, corrupted(images, name, SEVERITY), info) for name in names]
    return found | {f"worse_{name}": float(np.mean([each[name] for each in worse])) for name in found}


def sampling_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    jobs = []
    for limit in (2000,) if quick else (1000, 5000):
        setting, config = images(quick, limit, 15, dropout=USUAL)
        jobs += [wrap(setting, "weight scaling", config, seed, sampling) for seed in seeds]
    for name, epochs in {"dsb2018_nuclei": 30, "isbi2012_membranes": 150}.items():
        if has(name) and not quick:
            setting, config = microscopy(name, epochs, dropout={"bottleneck*": 0.3, "decoder*": 0.1})
            jobs += [wrap(setting, "weight scaling", config, seed, sampling) for seed in seeds]
    return jobs


def sampling(lab: Lab, config: RunConfig) -> dict[str, Figures]:
    lab.train(config)
    sampled = serving.MonteCarlo(lab.model, num_samples=SAMPLES)
    predicts = {
        "weight scaling": log_probabilities(lab.model),
        "Monte Carlo": log_probabilities(lab.model, sampled),
    }
    images, info, names = some_test_images(lab, config), lab.info(config), training.list_corruptions()
    return {title: clean_and_corrupted(predict, images, info, names) for title, predict in predicts.items()}


def some_test_images(lab: Lab, config: RunConfig) -> tf.data.Dataset:
    """Returns 1,000 test images, or 12 with masks; sampling all of them, corrupted, would outlast the training."""
    count, batch = (12, 4) if lab.info(config).task == "segmentation" else (1000, 250)
    return lab.test(config).unbatch().take(count).batch(batch).cache()


def robustness_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    jobs = []
    for condition, plan in PLANS.items():
        setting, config = images(quick, dropout=plan)
        jobs += [wrap(setting, condition, config, seed, robustness) for seed in seeds]
    return jobs


def robustness(lab: Lab, config: RunConfig) -> Figures:
    lab.train(config)
    images, info = some_test_images(lab, config), lab.info(config)
    predict = log_probabilities(lab.model)
    found = scored(predict, images, info)
    for name in training.list_corruptions():
        found[name] = scored(predict, corrupted(images, name, SEVERITY), info)["score"]
    bare = models.strip_dropout(lab.model)
    for share in (0.3, 0.6):  # the share of units that are removed at random; the others are scaled up
        damaged = models.retrofit(bare, {"features": share})
        found[f"without_{share:.0%}".replace("%", "")] = scored(dropping(damaged), images, info)["score"]
    units = keras.Model(bare.inputs, bare.get_layer("head").input)
    values = np.concatenate([units(batch, training=False).numpy() for batch, _ in images])
    values = values[:, values.std(0) > 1e-6]
    correlation = np.corrcoef(values.T)
    apart = ~np.eye(len(correlation), dtype=bool)
    return found | {"correlation": float(np.abs(correlation[apart]).mean()), "alive": float(values.shape[1])}


def dropping(model: keras.Model) -> LogProbabilities:
    """Returns the function that predicts in one pass with dropout on."""
    return tf.function(lambda images: tf.nn.log_softmax(model(images, training=True)), reduce_retracing=True)


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns 28x28 images of outlines at random places and sizes in noise: all circles (0), then squares (1)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:28, :28]
    made = []
    for label in (0, 1):
        for _ in range(count):
            radius, noise = rng.uniform(4, 9), rng.normal(0, 0.1, (28, 28))
            y, x = rng.uniform(radius + 1, 27 - radius, 2)
            down, right = np.abs(rows - y), np.abs(columns - x)
            distance = np.hypot(down, right) if label == 0 else np.maximum(down, right)
            made.append(np.clip((np.abs(distance - radius) < 1) * 0.8 + noise, 0, 1))
    return np.array(made, "float32")[..., None], np.repeat([0, 1], count).astype("int32")


def stream_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    jobs = []
    for condition, plan in {"none": None, "dropout": USUAL}.items():
        for seed in seeds:
            jobs.append(
                Job(
                    "ten circles, then ten squares",
                    condition,
                    seed,
                    lambda lab, plan=plan, seed=seed: circles_then_squares(plan, seed),
                )
            )
            jobs.append(
                Job(
                    "digits, class after class",
                    condition,
                    seed,
                    lambda lab, plan=plan, seed=seed: class_after_class(plan, seed, 2 if quick else 10),
                )
            )
    return jobs


def circles_then_squares(plan: Any, seed: int) -> Figures:
    """Trains image by image, five steps each, as the article does, and on the same images shuffled."""
    images, labels = shapes(10, seed)
    test_images, test_labels = shapes(200, 1000 + seed)
    found: Figures = {}
    for order in ("ordered", "shuffled"):
        keras.utils.set_random_seed(seed)
        model = models.build_model("simple_cnn", input_shape=(28, 28, 1), num_classes=2, dropout=plan, **CNN)
        index = np.arange(20) if order == "ordered" else np.random.default_rng(seed).permutation(20)
        stream = tf.data.Dataset.from_tensor_slices((np.repeat(images[index], 5, 0), np.repeat(labels[index], 5)))
        training.Trainer(model, "adam", steps_per_execution=100).fit(stream.batch(1), verbose=0)
        right = np.argmax(model.predict(test_images, verbose=0), -1) == test_labels
        found |= {
            f"{order}_first": right[test_labels == 0].mean(),
            f"{order}_last": right[test_labels == 1].mean(),
        }
    return found | advantage(found)


def class_after_class(plan: Any, seed: int, epochs: int) -> Figures:
    """Trains on digits sorted by class, and on shuffled ones; tests on the first and the last three classes."""
    data = training.load_data("digits", batch_size=32, seed=seed)
    images, labels = (
        np.concatenate(each) for each in zip(*data.train.at_epoch(0).as_numpy_iterator(), strict=True)
    )
    test_images, test_labels = (np.concatenate(each) for each in zip(*data.test.as_numpy_iterator(), strict=True))
    found: Figures = {}
    for order in ("ordered", "shuffled"):
        keras.utils.set_random_seed(seed)
        model = models.build_model("simple_cnn", input_shape=(8, 8, 1), num_classes=10, dropout=plan, **CNN)
        index = np.argsort(labels, kind="stable") if order == "ordered" else np.arange(len(labels))
        stream = tf.data.Dataset.from_tensor_slices((images[index], labels[index])).batch(32)
        training.Trainer(model, "adam", steps_per_execution=32).fit(stream, epochs=epochs, verbose=0)
        right = np.argmax(model.predict(test_images, verbose=0), -1) == test_labels
        found |= {
            f"{order}_first": right[test_labels <= 2].mean(),
            f"{order}_last": right[test_labels >= 7].mean(),
        }
    return found | advantage(found)


def advantage(found: Figures) -> Figures:
    """Returns the advantage of the first classes over the last, minus what there is of it in shuffled order."""
    first, last = (found[f"ordered_{end}"] - found[f"shuffled_{end}"] for end in ("first", "last"))
    return {
        "advantage_of_first": first - last,
        "ordered_score": (found["ordered_first"] + found["ordered_last"]) / 2,
        "lost_by_order": -(first + last) / 2,
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "two modules": {},
    "three modules": {"filters": (16, 32, 64)},
    "wide": {"filters": (32, 64), "dense": 128},
    "large kernels": {"kernel_size": 5},
    "strides": {"downsample": "stride", "activation": "elu"},
}


def ensemble_jobs(seeds: Iterable[int], quick: bool) -> list[Job]:
    setting, config = images(quick)
    return [wrap(setting, "one network", config, seed, ensemble) for seed in seeds]


def ensemble(lab: Lab, config: RunConfig) -> dict[str, Figures]:
    members, seconds = [], []
    for options in ARCHITECTURES.values():
        outcome = lab.train(replace(config, options={**config.options, **options}))
        members.append(keras.models.clone_model(lab.model))
        members[-1].set_weights(lab.model.get_weights())
        seconds.append(outcome.seconds)
    outcome = lab.train(replace(config, dropout=USUAL))
    dropped = lab.model
    rivals: dict[str, tuple[Any, float]] = {
        "one network": (None, seconds[0]),
        "ensemble of 5 architectures": (serving.Ensemble(members), sum(seconds)),
        "dropout, weight scaling": (None, outcome.seconds),
        "dropout, Monte Carlo": (serving.MonteCarlo(dropped, num_samples=SAMPLES), outcome.seconds),
    }
    tests, info = some_test_images(lab, config), lab.info(config)
    found = {}
    for title, (many, cost) in rivals.items():
        predict = log_probabilities(members[0] if title == "one network" else dropped, many)
        figures = clean_and_corrupted(predict, tests, info, ["gaussian_noise", "occlusion"])
        batch = next(iter(tests))[0]
        times = []
        for _ in range(5):
            start = time.perf_counter()
            predict(batch).numpy()
            times.append(1e6 * (time.perf_counter() - start) / len(batch))
        found[title] = figures | {"training_seconds": cost, "us_an_image": float(np.median(times))}
    return found


_STRUCTURED = ("occlusion", "missing_patches")
CLAIMS = [
    Claim(
        7,
        "monte_carlo",
        "Averaging over masks (Monte Carlo) is better than one pass with scaled weights.",
        f"The same trained networks predict by {SAMPLES} samples and in one pass, on 1,000 test images, or on 12 "
        f"with masks (their score is the mean IoU). Corrupted: the mean of six corruptions, severity {SEVERITY}.",
        sampling_jobs,
        [
            Statement("Accuracy is higher", "score", "Monte Carlo", "weight scaling", 1),
            Statement("NLL is lower", "nll", "Monte Carlo", "weight scaling", -1),
            Statement("ECE is lower", "ece", "Monte Carlo", "weight scaling", -1),
            Statement("Accuracy is higher, corrupted", "worse_score", "Monte Carlo", "weight scaling", 1),
            Statement("NLL is lower, corrupted", "worse_nll", "Monte Carlo", "weight scaling", -1),
            Statement("ECE is lower, corrupted", "worse_ece", "Monte Carlo", "weight scaling", -1),
            Statement("Finds its errors better", "error_auroc", "Monte Carlo", "weight scaling", 1),
        ],
        ("score", "nll", "ece", "error_auroc", "worse_score", "worse_nll", "worse_ece"),
    ),
    Claim(
        8,
        "robustness",
        "Dropout makes the network robust to noise and missing information, and redundant; structured dropping "
        "differs from Gaussian noise of the same power.",
        f"Accuracy under corruptions of severity {SEVERITY}; after removing 30 and 60 % of the units before "
        "Flatten at random; the mean absolute correlation of the units before the classifier over test images. "
        "The Gaussian noise is multiplicative, of the variance of dropout at the same rate.",
        robustness_jobs,
        [
            *(
                Statement(f"Better under {name}", name, "dropout", "none", 1)
                for name in training.list_corruptions()
            ),
            Statement("Better without 30 % of the units", "without_30", "dropout", "none", 1),
            Statement("Better without 60 % of the units", "without_60", "dropout", "none", 1),
            Statement("Units are less correlated", "correlation", "dropout", "none", -1),
            *(
                Statement(f"Drop block better than Gaussian noise under {n}", n, "drop block", "Gaussian noise", 1)
                for n in _STRUCTURED
            ),
        ],
        ("score", *training.list_corruptions(), "without_30", "without_60", "correlation"),
    ),
    Claim(
        9,
        "order",
        "Without dropout the first samples have an excessive influence, and later ones are not learned.",
        "Ten images of circles one after the other, then ten of squares, five steps an image; and digits class "
        "after class in every epoch. The advantage of the first over the last is the difference of their test "
        "accuracies in order, minus that of the same images shuffled.",
        stream_jobs,
        [
            Statement("Without dropout the first have the advantage", "advantage_of_first", "none", "", 1),
            Statement("Dropout makes that advantage smaller", "advantage_of_first", "dropout", "none", -1),
            Statement("In order, dropout is better", "ordered_score", "dropout", "none", 1),
        ],
        (
            "ordered_first",
            "ordered_last",
            "shuffled_first",
            "shuffled_last",
            "advantage_of_first",
            "lost_by_order",
        ),
    ),
    Claim(
        10,
        "ensembles",
        "One network with dropout does what an ensemble of different architectures does.",
        f"Five architectures without dropout, averaged; against one of them with dropout, in one pass and over "
        f"{SAMPLES} samples. Corrupted: Gaussian noise and occlusion at severity {SEVERITY}.",
        ensemble_jobs,
        [
            Statement("Dropout is better than one network", "score", "dropout, Monte Carlo", "one network", 1),
            Statement(
                "It is more accurate than the ensemble",
                "score",
                "dropout, Monte Carlo",
                "ensemble of 5 architectures",
                1,
            ),
            Statement("Its NLL is lower", "nll", "dropout, Monte Carlo", "ensemble of 5 architectures", -1),
            Statement(
                "Its NLL is lower, corrupted",
                "worse_nll",
                "dropout, Monte Carlo",
                "ensemble of 5 architectures",
                -1,
            ),
        ],
        ("score", "nll", "ece", "worse_score", "worse_nll", "training_seconds", "us_an_image"),
    ),
]
