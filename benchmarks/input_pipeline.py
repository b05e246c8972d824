"""How quickly images come from files: `load_data` against `image_dataset_from_directory`, both augmented alike.

Each round reads one epoch with each, one after the other, so that both see the same machine. It prints the medians
over the rounds, and their ratio.

    python benchmarks/input_pipeline.py FOLDER --rounds 5

FOLDER holds one folder of images for each class. `--cache none` reads the files anew in each epoch, as Keras does;
the default keeps small sets in memory.
"""

import argparse
import statistics
import time
import warnings

import keras
import tensorflow as tf

from dropzoo import training

AUGMENT = training.Augment(flip_horizontal=True, shift=0.1)


def ours(folder: str, batch_size: int, cache: str) -> tuple[tf.data.Dataset, int]:
    """Batches of the training images of `load_data`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"test_split": 0.0, "validation_split": 0.0, "cache": cache}
        data = training.load_data(folder, batch_size=batch_size, augment=AUGMENT, **options)
    return data.train, data.info.input_shape[0]


def theirs(folder: str, batch_size: int, size: int) -> tf.data.Dataset:
    """Batches of Keras, with the same augmentation by its own layers."""
    found = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=batch_size, verbose=False
    )
    layers = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(0.1, 0.1)]

    def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = images / 255
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    return found.map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def rate(dataset: tf.data.Dataset) -> float:
    """Images a second over one epoch."""
    start, count = time.perf_counter(), 0
    for images, _ in dataset:
        count += len(images)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--cache", default="none", choices=("auto", "memory", "disk", "none"))
    arguments = parser.parse_args()
    start = time.perf_counter()
    own, size = ours(arguments.folder, arguments.batch_size, arguments.cache)
    ready = time.perf_counter()
    other = theirs(arguments.folder, arguments.batch_size, size)
    print(f"start: load_data {ready - start:.1f} s, Keras {time.perf_counter() - ready:.1f} s")
    rates: dict[str, list[float]] = {"load_data": [], "Keras": []}
    for number in range(arguments.rounds + 1):
        for name, dataset in (("load_data", own), ("Keras", other)):
            found = rate(dataset)
            if number:  # the first epoch of each warms up
                rates[name].append(found)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name}: {medians[name]:,.0f} images a second ({spread} in {arguments.rounds} rounds)")
    print(f"ratio: {medians['load_data'] / medians['Keras']:.2f}")


if __name__ == "__main__":
    main()
