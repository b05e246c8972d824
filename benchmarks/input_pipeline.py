"""How quickly images come from files: `load_data` against `image_dataset_from_directory`, both augmented alike.

Each round reads one epoch with each, one after the other, and in turns the other way round, so that both see the
same machine. Both read all files of the folder in a new order, decode them in parallel, and interpolate each image
with the same fill at its border. It prints the medians over the rounds, and their ratio.

    python benchmarks/input_pipeline.py FOLDER --rounds 5
    python benchmarks/input_pipeline.py FOLDER --repeat 60000

With `--repeat` it reads so many files instead, which are links to those of FOLDER, and prints how long it takes
until the first batch is there, and how much memory the process has used at most.

FOLDER holds one folder of images for each class. `--cache none` reads the files anew in each epoch, as Keras does;
the default keeps small sets in memory.
"""

import argparse
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path

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


def start_up(folder: str, count: int, batch_size: int) -> None:
    """Prints the time until the first batch of many files, and the memory until then."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.parent != Path(folder))
    with tempfile.TemporaryDirectory() as many:
        for number in range(count):
            source = files[number % len(files)]
            link = Path(many) / source.parent.name / f"{number:06}{source.suffix}"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(source.resolve())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = training.load_data(many, batch_size=batch_size, augment=AUGMENT)
        ready = time.perf_counter() - start
        next(iter(data.train))
        first = time.perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count:,} files: load_data {ready:.1f} s, first batch after {first:.1f} s")
    print(f"memory: {most:.2f} GiB at most, {before:.2f} GiB before")


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
    parser.add_argument("--repeat", type=int, help="the number of files, to measure the start alone")
    arguments = parser.parse_args()
    if arguments.repeat:
        start_up(arguments.folder, arguments.repeat, arguments.batch_size)
        return
    start = time.perf_counter()
    own, size = ours(arguments.folder, arguments.batch_size, arguments.cache)
    ready = time.perf_counter()
    other = theirs(arguments.folder, arguments.batch_size, size)
    print(f"start: load_data {ready - start:.1f} s, Keras {time.perf_counter() - ready:.1f} s")
    rates: dict[str, list[float]] = {"load_data": [], "Keras": []}
    for number in range(arguments.rounds + 1):
        both = [("load_data", own), ("Keras", other)]
        for name, dataset in both[:: 1 if number % 2 else -1]:
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
