"""Data in every form that `fit` takes train as in `fit`, and a stopped run goes on to the same bits.

The rule: what `fit` trains, the trainer trains, with the same history. A resumed run sees the same batches where
the data allow it; `Feed.resumes` is the sentence that says what they must do. Data without a known end need
`steps_per_epoch`, and an error says so.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from tensorflow.python.framework.config import disable_op_determinism

from _trainer_runs import StopAt
from dropzoo.training.loop.forms import feed_of
from dropzoo.training.loop.ordered import Order
from dropzoo.training.trainer import Trainer

ROWS, SIZE = 22, 5  # the last batch is short
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4))  # float64, as NumPy makes it
LABELS = RNG.integers(0, 3, ROWS)
HEIGHTS = RNG.normal(size=(ROWS, 1))
WEIGHTS = RNG.random(ROWS)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Batches(keras.utils.PyDataset):
    """Batches by number, with a noise that the hooks change, as an augmentation in NumPy does."""

    def __init__(self, parts=(X, LABELS), noise=0.0, **options):
        super().__init__(**options)
        self.parts, self.noise, self.epoch = parts, noise, 0

    def __len__(self):
        return -(-ROWS // SIZE)

    def __getitem__(self, index):
        rows = slice(index * SIZE, (index + 1) * SIZE)
        x, *rest = keras.tree.map_structure(lambda part: part[rows], self.parts)
        x = x + self.noise * np.random.default_rng([self.epoch, index]).normal(size=x.shape) if self.noise else x
        return (x, *rest)

    def on_epoch_end(self):
        self.epoch += 1


class Endless(Batches):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return super().__getitem__(index % 4)


def generator(parts=(X, LABELS)):
    data = Batches(parts)
    for index in itertools.count():
        yield data[index % len(data)]


def one(dropout=0.0):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(dropout, seed=1)(layers.Dense(6)(inputs))))


def two_inputs(as_dict=True):
    keras.utils.set_random_seed(3)
    left, right = keras.Input((4,), name="left"), keras.Input((1,), name="right")
    inputs = {"left": left, "right": right} if as_dict else [left, right]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([left, right])))


def two_outputs(as_dict=False):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    kind, height = layers.Dense(3, name="kind")(hidden), layers.Dense(1, name="height")(hidden)
    return keras.Model(inputs, {"kind": kind, "height": height} if as_dict else [kind, height])


class Reconstruction(layers.Layer):
    def call(self, pair):
        self.add_loss(ops.mean((pair[0] - pair[1]) ** 2))
        return pair[1]


def autoencoder(named=False):
    keras.utils.set_random_seed(3)
    x = keras.Input((4,), name="x")
    return keras.Model(
        {"x": x} if named else x, Reconstruction()([x, layers.Dense(4)(layers.Dense(2, activation="relu")(x))])
    )


def tf_data(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


BY_NAME = {"kind": LABELS, "height": HEIGHTS}
STEPS = {"steps_per_epoch": 3}
FORMS = {
    # name: (model, loss, the data for `fit`, how both read them)
    "arrays": (one, CROSS_ENTROPY, lambda: {"x": X, "y": LABELS}, {"batch_size": SIZE}),
    "arrays with weights": (
        one,
        CROSS_ENTROPY,
        lambda: {"x": X, "y": LABELS, "sample_weight": WEIGHTS},
        {"batch_size": SIZE},
    ),
    "tensors": (one, CROSS_ENTROPY, lambda: {"x": tf.constant(X, "float32"), "y": tf.constant(LABELS)}, {}),
    "arrays cut by steps": (one, CROSS_ENTROPY, lambda: {"x": X, "y": LABELS}, STEPS),
    "a dict of inputs": (
        two_inputs,
        CROSS_ENTROPY,
        lambda: {"x": {"left": X, "right": HEIGHTS}, "y": LABELS},
        {"batch_size": SIZE},
    ),
    "a list of inputs": (
        lambda: two_inputs(False),
        CROSS_ENTROPY,
        lambda: {"x": [X, HEIGHTS], "y": LABELS},
        {"batch_size": SIZE},
    ),
    "a list of targets": (
        two_outputs,
        [CROSS_ENTROPY, "mse"],
        lambda: {"x": X, "y": [LABELS, HEIGHTS]},
        {"batch_size": SIZE},
    ),
    "targets by name": (
        two_outputs,
        {"kind": CROSS_ENTROPY, "height": "mse"},
        lambda: {"x": X, "y": BY_NAME},
        {"batch_size": SIZE},
    ),
    "weights by output": (
        lambda: two_outputs(True),
        {"kind": CROSS_ENTROPY, "height": "mse"},
        lambda: {"x": X, "y": BY_NAME, "sample_weight": {"kind": WEIGHTS, "height": 1 - WEIGHTS}},
        {"batch_size": SIZE},
    ),
    "inputs alone": (autoencoder, [], lambda: {"x": X}, {"batch_size": SIZE}),
    "a PyDataset": (one, CROSS_ENTROPY, lambda: {"x": Batches()}, {}),
    "a PyDataset with workers": (one, CROSS_ENTROPY, lambda: {"x": Batches(workers=3, max_queue_size=2)}, {}),
    "a PyDataset with weights": (one, CROSS_ENTROPY, lambda: {"x": Batches((X, LABELS, WEIGHTS))}, {}),
    "a PyDataset whose hooks change it": (one, CROSS_ENTROPY, lambda: {"x": Batches(noise=1.0)}, {}),
    "a PyDataset without an end": (one, CROSS_ENTROPY, lambda: {"x": Endless()}, STEPS),
    "a PyDataset of two outputs": (
        two_outputs,
        [CROSS_ENTROPY, "mse"],
        lambda: {"x": Batches((X, (LABELS, HEIGHTS)))},
        {},
    ),
    "a PyDataset of inputs alone": (autoencoder, [], lambda: {"x": Batches((X,))}, {}),
    "a generator": (one, CROSS_ENTROPY, lambda: {"x": generator()}, STEPS),
    "a generator of inputs alone": (autoencoder, [], lambda: {"x": generator((X,))}, STEPS),
    "a dataset": (one, CROSS_ENTROPY, lambda: {"x": tf_data(X, LABELS).batch(SIZE)}, {}),
    "a dataset without an end": (
        one,
        CROSS_ENTROPY,
        lambda: {"x": tf_data(X, LABELS).batch(SIZE).repeat()},
        STEPS,
    ),
    "a dataset in parts": (one, CROSS_ENTROPY, lambda: {"x": tf_data(X, LABELS).batch(SIZE)}, STEPS),
    "a dataset of inputs alone": (autoencoder, [], lambda: {"x": tf_data(X).batch(SIZE)}, {}),
    "a dataset of named inputs alone": (
        lambda: autoencoder(True),
        [],
        lambda: {"x": tf_data(X).batch(SIZE).map(lambda x: {"x": x})},
        {},
    ),
}


@pytest.fixture(autouse=True)
def any_determinism():
    yield
    disable_op_determinism()


# `fit` ends an epoch where the dataset ends, with a warning, and calls `on_epoch_end` before the first one.
NOT_IN_FIT = ("a dataset in parts", "a PyDataset whose hooks change it")


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", [name for name in FORMS if name not in NOT_IN_FIT])
def test_each_form_trains_as_in_fit(name):
    build, loss, data, options = FORMS[name]
    first, second = build(), build()
    first.compile(keras.optimizers.SGD(0.1), loss or None, jit_compile=False)
    fit = {**options, "epochs": 3, "shuffle": False, "verbose": 0}
    expected = first.fit(**data(), **fit).history
    found = Trainer(second, keras.optimizers.SGD(0.1), loss, []).fit(**data(), **fit).history
    assert list(found) == sorted(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=2e-4, err_msg=key)
    for variable, value in zip(second.weights, first.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), atol=1e-5)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    "name",
    [
        "arrays with weights",
        "arrays cut by steps",
        "targets by name",
        "inputs alone",
        "a PyDataset with workers",
        "a PyDataset whose hooks change it",
        "a PyDataset without an end",
        "a generator",
        "a dataset in parts",
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(name, tmp_path):
    build, loss, data, options = FORMS[name]
    build = (lambda: one(0.5)) if build is one else build

    def run(directory=None, seed=1, callbacks=()):
        model = build()
        trainer = Trainer(model, keras.optimizers.Adam(0.1), loss, [], deterministic=True)
        np.random.seed(seed)  # of the process: the order of a resumed run is that of its checkpoint
        fit = {"checkpoint_dir": directory, "callbacks": callbacks, "epochs": 3, "verbose": 0}
        return model, trainer.fit(**data(), **options, **fit).history

    whole, expected = run()
    run(tmp_path, 1, [StopAt(5)])
    resumed, history = run(tmp_path, 2)
    assert history == expected
    for variable, value in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)


def test_arrays_and_numbered_batches_are_shuffled_anew_in_each_epoch_by_the_seed():
    rows = np.arange(10)
    for data in ((rows,), Batches((np.arange(ROWS),))):

        def epoch(number, seed=0, shuffle=True, data=data):
            feed = feed_of(data, "train", Order(None, shuffle, seed, 3))
            return np.concatenate([x.numpy() for (x,) in feed.epoch(number, 0)]).tolist()

        first, again, second, other = epoch(0), epoch(0), epoch(1), epoch(0, seed=1)
        assert first == again and sorted(first) == sorted(second) == sorted(other) == epoch(0, shuffle=False)
        assert len({tuple(each) for each in (first, second, other, sorted(first))}) == 4


def test_an_epoch_may_read_a_part_of_arrays_or_more_than_all():
    for steps in (3, 7):
        feed = feed_of((np.arange(10),), "train", Order(steps, True, 0, 3))
        read = [x.numpy().tolist() for epoch in range(4) for (x,) in feed.epoch(epoch, 0)]
        assert len(read) == 4 * steps
        passes = [sum(read[start : start + 4], []) for start in range(0, 4 * (len(read) // 4), 4)]
        assert all(sorted(each) == list(range(10)) for each in passes)
        rest = [x.numpy().tolist() for (x,) in feed.epoch(1, 2)]
        assert rest == read[steps + 2 : 2 * steps]


class Loader:
    """Numbered batches that can be read again and again, as those of a `DataLoader` of PyTorch."""

    def __len__(self):
        return 4

    def __iter__(self):
        return ((np.full((2, 1), number, "float32"), np.zeros(2)) for number in range(4))


@pytest.mark.parametrize("data", [Loader(), tf.data.Dataset.from_tensor_slices(np.arange(4)).batch(1)])
def test_an_epoch_of_some_steps_begins_where_the_last_one_ended(data):
    feed = feed_of(data, "train", Order(3))
    epochs = [list(feed.epoch(epoch, 0).take(3)) for epoch in range(3)]
    read = [[int(np.ravel(tf.nest.flatten(batch)[0])[0]) for batch in epoch] for epoch in epochs]
    assert read == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]


def test_workers_may_be_processes():
    feed = feed_of(Batches(workers=2, use_multiprocessing=True), "train", Order())
    read = [labels.numpy() for _, labels in feed.epoch(0, 1)]
    np.testing.assert_array_equal(np.concatenate(read), LABELS[SIZE:])


def test_an_error_in_a_batch_is_told():
    class Broken(Batches):
        def __getitem__(self, index):
            if index == 3:
                raise RuntimeError("the file is gone")
            return super().__getitem__(index)

    for workers in (1, 2):
        with pytest.raises(tf.errors.UnknownError, match="the file is gone"):
            Trainer(one(), "sgd", CROSS_ENTROPY, []).fit(Broken(workers=workers), verbose=0)


@pytest.mark.costly(keep=2)
@pytest.mark.parametrize(
    "validation, steps",
    [
        ((X, LABELS), None),
        ((X, LABELS, WEIGHTS), None),
        (Batches(), None),
        (tf_data(X, LABELS).batch(SIZE).repeat(), 5),
    ],
    ids=["arrays", "weights", "PyDataset", "steps"],
)
def test_validation_data_of_each_form(validation, steps):
    first, second = one(), one()
    first.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, run_eagerly=True)
    fit = {"validation_data": validation, "validation_steps": steps, "batch_size": SIZE, "epochs": 2, "verbose": 0}
    expected = first.fit(X, LABELS, shuffle=False, **fit).history
    trainer = Trainer(second, keras.optimizers.SGD(0.1), CROSS_ENTROPY, [])
    found = trainer.fit((X, LABELS), shuffle=False, **fit).history
    np.testing.assert_allclose(found["val_loss"], expected["val_loss"], rtol=1e-5)
    evaluated = trainer.evaluate(validation, batch_size=SIZE, steps=steps)["loss"]
    assert evaluated == pytest.approx(expected["val_loss"][-1], rel=1e-5)
    assert trainer.evaluate(generator(), steps=5)["loss"] == pytest.approx(
        trainer.evaluate(Batches())["loss"], rel=1e-5
    )


def test_data_that_run_out_stop_the_run_with_a_warning():
    few = (batch for batch in list(itertools.islice(generator(), 5)))
    trainer = Trainer(one(), "sgd", CROSS_ENTROPY, [])
    with pytest.warns(UserWarning, match="ended after 1 of the 4 batches of epoch 2"):
        assert trainer.fit(few, steps_per_epoch=4, epochs=5, verbose=0).epoch == [0, 1]
    few = (batch for batch in list(itertools.islice(generator(), 4)))
    with pytest.warns(UserWarning, match="ended after 0 of the 4 batches of epoch 2"):
        assert trainer.fit(few, steps_per_epoch=4, epochs=5, verbose=0).epoch == [0]


def test_bad_data_are_refused_with_the_way_out():
    trainer = Trainer(one(), "sgd", CROSS_ENTROPY, [])
    for arguments, message in [
        ({"train": generator()}, "never ends, or its length is not known: pass `steps_per_epoch`"),
        ({"train": Endless()}, "pass `steps_per_epoch`"),
        ({"train": tf_data(X, LABELS).batch(5).repeat()}, r"pass `steps_per_epoch`.*\.take\(batches\)"),
        ({"train": (X, LABELS), "validation_data": generator()}, "pass `validation_steps`"),
        ({"train": X, "validation_data": LABELS}, r"fit\(\(x, y\)\) or fit\(x=x, y=y\)"),
        ({"train": X}, r"inputs without targets, but the loss needs them: give \(x, y\)"),
        ({"train": (X, LABELS), "y": LABELS}, "Pass the training data as `train`, or arrays as `x`"),
        (
            {"x": Batches(), "y": LABELS},
            "`y` and `sample_weight` can only be passed with arrays. Received: x=Batches",
        ),
        ({}, "Pass the training data"),
        ({"train": iter([])}, "pass `steps_per_epoch`"),
        ({"train": iter([]), "steps_per_epoch": 2}, "`train` is empty"),
        ({"train": (X, LABELS), "steps_per_epoch": 0}, "`steps_per_epoch` must be a positive int"),
        ({"train": (X, LABELS), "batch_size": 0}, "`batch_size` must be a positive int"),
        ({"train": "slides/"}, "`train` must be a tf.data.Dataset.*Received: str"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer.fit(**arguments, verbose=0)
            pytest.fail(f"not refused: {arguments}")


def test_what_a_resumed_run_needs_is_printed_with_checkpoints(tmp_path, capsys):
    for name, data, options in [
        ("generator", generator, STEPS),
        ("arrays", lambda: (X, LABELS), {}),
        ("PyDataset", Batches, {}),
        ("dataset", lambda: tf_data(X, LABELS).batch(5), {}),
    ]:
        trainer = Trainer(one(), "sgd", CROSS_ENTROPY, [])
        trainer.fit(data(), **options, verbose=2)
        assert "A resumed run" not in capsys.readouterr().out
        trainer.fit(data(), **options, checkpoint_dir=tmp_path / name, verbose=2)
        said = capsys.readouterr().out
        assert said.count("Trainer: A resumed run") == 1 and name in said and "exact if" in said
