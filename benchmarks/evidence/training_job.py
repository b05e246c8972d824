"""Carries out one job: trains its network and measures it."""

import time
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf
from jobs import BASE, Figures, Job, Row, pairs, row_of
from measures import MEASURES, Trained
from networks import FAMILIES, Images, build, images_of
from order import ORDERS, in_order

from dropzoo import training
from dropzoo.training.data.augment import NUM_DRAWS, make_augment

_BATCH = {"classification": 64, "segmentation": 8}
_STEPS_PER_EXECUTION = 16


def carry_out(job: Job, measures: Iterable[str]) -> Row:
    """Trains the network of a job, measures it, and returns its row.

    Args:
        job: The job.
        measures: The names of further measures, see `MEASURES`.

    Returns:
        The row. Its seconds are processor time, which does not depend on what else the machine does.
    """
    start = time.process_time()
    names = {BASE, *measures}
    if job.data in ORDERS:
        return row_of(job, names, time.process_time() - start, in_order(job))
    images = images_of(job.data, job.images, job.seed)
    networks = FAMILIES.get(job.network, (job.network,) * job.members)
    models, history = [], None
    for member, network in enumerate(networks):
        seed = job.seed if len(networks) == 1 else 1000 * job.seed + member
        model, history = train(job, network, images, seed, watch="curve" in names)
        models.append(model)
    training_seconds = time.process_time() - start
    trained = Trained(job, models, images, history)
    figures: Figures = {"training_seconds": training_seconds, "weights": float(models[0].count_params())}
    for name in (BASE, *sorted(names - {BASE})):
        figures |= MEASURES[name](trained)
    keras.backend.clear_session(free_memory=True)
    return row_of(job, names, time.process_time() - start, figures)


def train(
    job: Job, network: str, images: Images, seed: int, watch: bool
) -> tuple[keras.Model, keras.callbacks.History]:
    """Returns a network, trained with AdamW while the learning rate falls to 0 along a cosine.

    Args:
        job: The job.
        network: Str, the name of the network.
        images: The images.
        seed: Int, the seed of the weights, of the order of the images and of the masks.
        watch: Bool, whether the history has the validation NLL after each epoch.
    """
    shape = images.train[0].shape[1:]
    model = build(network, job.dropout, shape, images.classes, seed)
    size = min(_BATCH[images.task], len(images.train[1]))
    steps = len(images.train[1]) // size
    decay = keras.optimizers.schedules.CosineDecay(job.learning_rate, job.epochs * steps)
    trainer = training.Trainer(
        model,
        keras.optimizers.AdamW(decay, weight_decay=job.decay),
        training.default_loss(images.task, images.classes, 0.0),
        metrics=[training.NegativeLogLikelihood(name="nll")] if watch else [],
        steps_per_execution=1 if job.schedule else min(_STEPS_PER_EXECUTION, steps),
    )
    callbacks = [training.RateSchedule(pairs(job.schedule))] if job.schedule else []
    history = trainer.fit(
        Epochs(images, size, seed, job.augment),
        images.validation if watch else None,
        epochs=job.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return model, history


class Epochs:
    """The batches of each epoch, whole ones only, in an order and with changes that the seed and the epoch fix."""

    def __init__(self, images: Images, size: int, seed: int, augment: str) -> None:
        self.images, self.size, self.seed = images, size, seed
        self.augment = make_augment(augment or None)

    def at_epoch(self, epoch: int | tf.Tensor) -> tf.data.Dataset:
        x, y = self.images.train
        random = np.random.default_rng([self.seed, int(epoch)])
        kept = random.permutation(len(y))[: len(y) // self.size * self.size]
        shape = (-1, self.size, *x.shape[1:]), (-1, self.size, *y.shape[1:])
        batches = tf.data.Dataset.from_tensor_slices((x[kept].reshape(shape[0]), y[kept].reshape(shape[1])))
        if self.augment is None:
            return batches
        apply, draws = self.augment.apply_batch, random.uniform(-1, 1, (len(kept), NUM_DRAWS)).astype("float32")
        changes = tf.data.Dataset.from_tensor_slices(draws.reshape(-1, self.size, NUM_DRAWS))
        zipped = tf.data.Dataset.zip(batches, changes)
        return zipped.map(lambda both, draw: apply(both[0], both[1], draw), num_parallel_calls=2).prefetch(2)
