"""Trainings in which the order of the images is the question: one class after the other, and shuffled."""

import keras
import numpy as np
import tensorflow as tf
from jobs import Figures, Job
from networks import build

from dropzoo import training

ORDERS = ("circles, then squares", "digits, class after class")


def in_order(job: Job) -> Figures:
    """Trains on images in order and on the same images shuffled; returns what the first classes gain by order."""
    return circles_then_squares(job) if job.data == ORDERS[0] else class_after_class(job)


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


def circles_then_squares(job: Job) -> Figures:
    """Trains image by image, `epochs` steps each, as the article does."""
    images, labels = shapes(job.images // 2, job.seed)
    test_images, test_labels = shapes(200, 1000 + job.seed)
    found: Figures = {}
    for order in ("ordered", "shuffled"):
        index = np.arange(len(labels))
        if order == "shuffled":
            index = np.random.default_rng(job.seed).permutation(index)
        steps = np.repeat(images[index], job.epochs, 0), np.repeat(labels[index], job.epochs)
        right = _right(job, steps, 1, 1, (test_images, test_labels), 2)
        found |= _ends(order, right[test_labels == 0], right[test_labels == 1])
    return found | advantage(found)


def class_after_class(job: Job) -> Figures:
    """Trains on digits sorted by class in each epoch; the first and the last three classes are compared."""
    data = training.load_data("digits", batch_size=100, validation_split=0.0)
    images, labels = _arrays(data.train.as_stored())
    chosen = np.random.default_rng(job.seed).permutation(len(labels))[: job.images]
    images, labels = images[chosen], labels[chosen]
    test = _arrays(data.test)
    found: Figures = {}
    for order in ("ordered", "shuffled"):
        index = np.argsort(labels, kind="stable") if order == "ordered" else np.arange(len(labels))
        right = _right(job, (images[index], labels[index]), 32, job.epochs, test, 10)
        found |= _ends(order, right[test[1] <= 2], right[test[1] >= 7])
    return found | advantage(found)


def _arrays(batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (np.concatenate(each) for each in zip(*batches.as_numpy_iterator(), strict=True))
    return images, labels


def _right(
    job: Job,
    train: tuple[np.ndarray, np.ndarray],
    batch: int,
    epochs: int,
    test: tuple[np.ndarray, np.ndarray],
    classes: int,
) -> np.ndarray:
    """Trains on batches in the given order; returns which test images are right."""
    model = build(job.network, job.dropout, train[0].shape[1:], classes, job.seed)
    stream = tf.data.Dataset.from_tensor_slices(train).batch(batch)
    steps = epochs * -(-len(train[1]) // batch)
    rate = keras.optimizers.schedules.CosineDecay(job.learning_rate, steps) if epochs > 1 else job.learning_rate
    optimizer = keras.optimizers.AdamW(rate, weight_decay=job.decay)
    training.Trainer(model, optimizer, metrics=[], steps_per_execution=20).fit(stream, epochs=epochs, verbose=0)
    return np.argmax(model.predict(test[0], verbose=0), -1) == test[1]


def _ends(order: str, first: np.ndarray, last: np.ndarray) -> Figures:
    return {f"{order}_first": float(first.mean()), f"{order}_last": float(last.mean())}


def advantage(found: Figures) -> Figures:
    """Returns the advantage of the first classes over the last, minus what there is of it in shuffled order."""
    first, last = (found[f"ordered_{end}"] - found[f"shuffled_{end}"] for end in ("first", "last"))
    return {
        "advantage_of_first": first - last,
        "ordered_score": (found["ordered_first"] + found["ordered_last"]) / 2,
        "lost_by_order": -(first + last) / 2,
    }
