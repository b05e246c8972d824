"""Runs killed at any moment, asked to stop, and out of room: what is left is whole, and goes on exactly."""

import contextlib
import functools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from _killed import EPOCHS, LINES, RUNS
from _trainer_runs import dataset, linear_model
from dropzoo.training.trainer import Trainer

RUN = Path(__file__).with_name("_killed.py")
LIMIT = 300
CHECKPOINTS = "epoch?????_step???????.npz"


@contextlib.contextmanager
def begun(*args):
    """The run as a process, from its first step on."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, str(RUN), *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(LIMIT, process.kill)
    timer.start()
    try:
        first = process.stdout.readline()
        while first and not first.startswith("step"):
            first = process.stdout.readline()
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.stdout.close()
        process.wait()


def finished(run, folder, end):
    """The end of the run, trained to it in a process of its own: other threads would add in another order."""
    with begun(*run, folder, end) as process:
        output = process.communicate()[0]
        assert process.returncode == 0, output
    return end


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For the name of a run: its first arguments, and the end of the run that nothing stops."""

    @functools.cache
    def of(name):
        data, folder = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("whole")
        DATA[name](data)
        return (name, data), finished((name, data), folder, folder / "end.npz")

    return of


def write_masks(data):
    """Bright squares on noise, with a rim of void."""
    for number in range(32):
        image = np.random.default_rng(number).integers(0, 100, (12, 12), dtype="uint8")
        mask = np.zeros_like(image)
        mask[2 + number % 4 : 8, 3:9] = 1
        image[mask == 1] += 100
        mask[0] = 255
        for kind, pixels in (("images", image), ("masks", mask)):
            (data / kind).mkdir(exist_ok=True)
            PIL.Image.fromarray(pixels).save(data / kind / f"{number:02}.png")


def write_labels(data):
    """Dark and bright noise, in three and in one of four images."""
    for number in range(32):
        label = int(number % 4 == 0)
        pixels = np.random.default_rng(number).integers(0, 150, (8, 8), dtype="uint8") + 90 * label
        (data / str(label)).mkdir(exist_ok=True)
        PIL.Image.fromarray(pixels.astype("uint8")).save(data / str(label) / f"{number:02}.png")


DATA = {"masks": write_masks, "labels": write_labels}


def assert_same_end(path, other):
    with np.load(path) as found, np.load(other) as expected:
        assert set(found) == set(expected)
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize(
    "name, kills",
    [*((name, 1) for name in RUNS), *(pytest.param(name, 20, marks=pytest.mark.slow) for name in RUNS)],
)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, whole, name, kills):
    run, end = whole(name)
    draw = random.Random(kills)
    positions = []
    for _ in range(kills):
        with begun(*run, tmp_path) as process:
            # In a step, in the writing of a checkpoint, in validation, anywhere.
            few, many = (LINES, 2 * LINES) if kills == 1 else (1, 3 * EPOCHS * LINES // (2 * kills + 1))
            for _ in range(draw.randint(few, many)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            process.wait()
        positions.append(max((path.name for path in tmp_path.glob(CHECKPOINTS)), default=""))
    assert positions == sorted(positions) and positions[-1] > (positions[0] if kills > 1 else "")
    assert_same_end(finished(run, tmp_path, tmp_path / "end.npz"), end)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_saves_says_where_and_ends(tmp_path, whole, number, code):
    run, end = whole("masks")
    with begun(*run, tmp_path) as process:
        process.send_signal(number)
        output = process.communicate()[0]
    assert process.returncode == code, output
    assert f"{number.name}: stopping after the current steps" in output
    newest = max(tmp_path.glob(CHECKPOINTS))
    assert f"Interrupted. Saved to {newest}" in output
    assert ("Traceback" in output) == (number == signal.SIGINT)  # Python's own way to end by Ctrl-C
    assert_same_end(finished(run, tmp_path, tmp_path / "end.npz"), end)


@pytest.mark.costly(keep=0)
def test_a_signal_in_validation_and_a_handler_of_the_users_own(tmp_path):
    class Raise(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        trainer = Trainer(linear_model())
        trainer.fit(dataset(), dataset(), checkpoint_dir=tmp_path, callbacks=[Raise()], verbose=0)
    assert stop.value.code == 143
    assert [path.name for path in tmp_path.iterdir()] == ["epoch00000_step0000004.npz"]

    own, interrupts = [], signal.getsignal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, lambda *_: own.append(1))
    try:
        assert Trainer(linear_model()).fit(dataset(), dataset(), callbacks=[Raise()], verbose=0).epoch == [0]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(own) == 4 and signal.getsignal(signal.SIGINT) is interrupts


def test_fit_in_a_thread_takes_no_signals():
    epochs = []
    thread = threading.Thread(
        target=lambda: epochs.extend(Trainer(linear_model()).fit(dataset(), verbose=0).epoch)
    )
    thread.start()
    thread.join()
    assert epochs == [0]


def test_a_full_disk_leaves_the_old_checkpoint_whole_and_says_so(tmp_path):
    """A file system that takes no more bytes, by the limit of a process on the size of its files."""
    Trainer(linear_model()).fit(dataset(), checkpoint_dir=tmp_path, verbose=0)
    [whole] = tmp_path.iterdir()
    content = whole.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written.*The newest complete checkpoint") as error:
            Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(whole) in str(error.value) and "Free some disk space and start again" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]
    assert whole.read_bytes() == content
    assert Trainer(linear_model()).fit(dataset(), epochs=2, checkpoint_dir=tmp_path, verbose=0).epoch == [0, 1]
