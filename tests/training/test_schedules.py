"""Rate schedules: their values, the rate at every step, resumed runs, and no second trace."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from dropzoo import layers, models, training
from dropzoo.training import constant, cosine, curriculum, early, late, linear, step

STEPS = 5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Record(keras.callbacks.Callback):
    """The rate of one layer in each step; stops after so many of them."""

    def __init__(self, stop_after=math.inf, name="head_dropout"):
        super().__init__()
        self.rates, self.stop_after, self.name = [], stop_after, name

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(self.model.get_layer(self.name).rate)
        self.model.stop_training = len(self.rates) >= self.stop_after


@keras.saving.register_keras_serializable(package="tests")
class Learned(layers.Dropout):
    rate = property(lambda self: self._live_rate.read())


def build():
    keras.utils.set_random_seed(1)
    inner = [
        keras.layers.Dense(8, "relu", name="block_dense"),
        layers.Dropout(0.0, name="dense1_dropout"),
        Learned(0.1, name="own"),
    ]
    inputs = keras.Input((12,))
    x = keras.Sequential([keras.Input((12,)), *inner], name="block")(inputs)
    x = layers.Dropout(0.2, name="head_dropout")(x)
    x = keras.layers.Dropout(0.1, name="theirs")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def data(known=True):
    random = np.random.default_rng(0)
    x, y = random.random((4 * STEPS, 12), "float32"), random.integers(0, 3, 4 * STEPS)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    return batches if known else batches.filter(lambda x, y: True)


def fit(how, schedules, *callbacks, model=None, known=True, epochs=4, compiled=None, **options):
    """Fits with Keras, or with the trainer; the model, with `model.history`."""
    model, rates = model or build(), training.RateSchedule(schedules)
    options |= {"epochs": epochs, "callbacks": [rates, *callbacks], "verbose": 0}
    if how == "trainer":
        deterministic = "checkpoint_dir" in options
        training.Trainer(model, "adam", LOSS, [], deterministic=deterministic).fit(data(known), **options)
    else:
        model.compile("adam", LOSS, **{"jit_compile": False, **(compiled or {})})
        model.fit(data(known), shuffle=False, **options)
    return model


def wanted(schedule, epochs=4, known=True):
    """The rate of every step: without the number of steps the first epoch stays at its start."""
    done = [n if known or n >= STEPS else 0 for n in range(epochs * STEPS)]
    return [schedule(n / (epochs * STEPS)) for n in done]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (constant(0.3), (0.3, 0.3, 0.3)),
        (linear(0.0, 0.3), (0.0, 0.15, 0.3)),
        (linear(0.5, 0.1), (0.5, 0.3, 0.1)),
        (cosine(0.0, 0.3), (0.0, 0.15, 0.3)),
        (step({0.0: 0.1, 0.5: 0.3}), (0.1, 0.3, 0.3)),
        (step({0.8: 0.2, 0: 0.1, 0.51: 0.4}), (0.1, 0.1, 0.2)),
        (curriculum(0.4), (0.0, 0.4 * (1 - math.exp(-5)), 0.4 * (1 - math.exp(-10)))),
        (curriculum(0.4, gamma=2), (0.0, 0.4 * (1 - math.exp(-1)), 0.4 * (1 - math.exp(-2)))),
        (early(0.2), (0.2, 0.0, 0.0)),
        (early(0.2, end=1.0), (0.2, 0.1, 0.0)),
        (early(0.2, end=0.6, decay="constant"), (0.2, 0.2, 0.0)),
        (early(0.2, end=0.5, decay="constant"), (0.2, 0.0, 0.0)),
        (late(0.2), (0.0, 0.2, 0.2)),
        (late(0.2, start=0.6), (0.0, 0.0, 0.2)),
        (late(0.2, start=0.5), (0.0, 0.2, 0.2)),
        (late(0.2, start=0), (0.2, 0.2, 0.2)),
    ],
)
def test_schedules(schedule, values):
    assert [schedule(t) for t in (0.0, 0.5, 1.0)] == pytest.approx(values, abs=1e-15)
    rates = [schedule(t) for t in np.linspace(0, 1, 301)]
    assert min(rates) >= 0 and max(rates) <= max(values) + 0.21  # `step` may be higher between the three
    assert all(type(rate) is float for rate in map(schedule, (0.0, 0.5, 1.0)))


def test_their_curves():
    """Where they differ: at a quarter, and in the paper's keep probability."""
    assert cosine(0.1, 0.5)(0.25) == pytest.approx(0.1 + 0.4 * (1 - math.sqrt(0.5)) / 2)
    assert early(0.3, end=0.5)(0.25) == pytest.approx(0.15)
    kept = (1 - 0.6) * math.exp(-10 * 0.2) + 0.6
    assert 1 - curriculum(1 - 0.6, gamma=10)(0.2) == pytest.approx(kept)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(1.0), r"\[0, 1\)"),
        (lambda: linear(-0.1, 0.3), "start=-0.1"),
        (lambda: linear(0.1, 1), "end=1"),
        (lambda: cosine(0.1, "0.3"), "end='0.3'"),
        (lambda: step({0.5: 0.3}), "an entry for 0"),
        (lambda: step({0: 0.3, 1.0: 0.1}), r"progress in \[0, 1\)"),
        (lambda: step({0: 0.3, 0.5: 1.5}), r"rates\[0.5\]=1.5"),
        (lambda: step([0.1, 0.2]), "must be a dict"),
        (lambda: curriculum(0.5, gamma=0), "gamma=0"),
        (lambda: curriculum(0.5, gamma=math.nan), "gamma=nan"),
        (lambda: early(1.2), "rate=1.2"),
        (lambda: early(0.2, end=0), "end=0"),
        (lambda: early(0.2, decay="cosine"), "decay='cosine'"),
        (lambda: late(0.2, start=1), "start=1"),
        (lambda: late(2), "rate=2"),
        (lambda: training.get_schedule("liner:0.1,0.2"), "Unknown rate schedule 'liner'. Did you mean 'linear'"),
        (lambda: training.get_schedule("linear:0.1"), "from 'linear:0.1'.*'end'"),
        (lambda: training.get_schedule("late:0.1,begin=0.2"), "'begin'"),
        (lambda: training.get_schedule("linear:0.1,,"), 'Expected "name:value,option=value"'),
        (lambda: training.get_schedule("linear:a,b"), "start='a'"),
        (lambda: training.get_schedule(None), "Received: None"),
        (lambda: training.RateSchedule({}), "must be a dict"),
        (lambda: training.RateSchedule(linear(0.0, 0.1)), "must be a dict"),
        (lambda: training.RateSchedule({"head": 1.5}), "rate=1.5"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        (0.3, constant(0.3)),
        ("constant:0.3", constant(0.3)),
        ("linear:0.0,0.3", linear(0.0, 0.3)),
        ("early:0.3,end=0.5,decay=constant", early(0.3, end=0.5, decay="constant")),
        ("step:{0: 0.1, 0.5: 0.3}", step({0: 0.1, 0.5: 0.3})),
        ("curriculum:0.5,gamma=3", curriculum(0.5, gamma=3)),
    ],
)
def test_as_text(text, schedule):
    ours = training.get_schedule(text)
    assert [ours(t / 7) for t in range(8)] == [schedule(t / 7) for t in range(8)]


@pytest.mark.covering("how", "known")
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("how", ["keras", "trainer"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of data of unknown length
def test_the_rate_at_every_step(how, known):
    record, schedule = Record(), linear(0.1, 0.5)
    model = fit(how, {"head": schedule}, record, known=known)
    assert record.rates == wanted(schedule, known=known)
    assert model.get_layer("head_dropout").rate == record.rates[-1]  # stays


def test_the_rate_at_every_step_of_a_later_start():
    record, schedule = Record(), lambda t: 0.9 * t
    fit("keras", {"head": schedule}, record, epochs=10, initial_epoch=3)
    assert record.rates == wanted(schedule, epochs=10)[3 * STEPS :] and record.rates[0] == 0.9 * 0.3


def test_the_rate_at_every_execution():
    record, schedule = Record(), linear(0.1, 0.5)
    fit("keras", {"head": schedule}, record, epochs=2, compiled={"steps_per_execution": 2})
    assert record.rates == [schedule(n / 10) for n in (0, 2, 4, 5, 7, 9)]


@pytest.mark.costly(keep=0)
@pytest.mark.covering("stop_after", "known")
@pytest.mark.parametrize("stop_after", [3, STEPS, STEPS + 2])
@pytest.mark.parametrize("known", [True, False])
def test_a_resumed_run_is_the_whole_one(tmp_path, known, stop_after):
    """Stopped within its first epoch, at its end or later: the same rates, history and weights, to the bit."""
    schedules, options = {"*dense1": curriculum(0.5), "head": early(0.6, end=0.7)}, {"known": known}
    try:
        whole, stopped, resumed = Record(), Record(stop_after), Record()
        first = fit("trainer", schedules, whole, checkpoint_dir=tmp_path / "whole", **options)
        fit("trainer", schedules, stopped, checkpoint_dir=tmp_path / "stopped", **options)
        second = fit("trainer", schedules, resumed, checkpoint_dir=tmp_path / "stopped", **options)
        done = fit("trainer", schedules, Record(), checkpoint_dir=tmp_path / "stopped", **options)
    finally:
        disable_op_determinism()
    assert stopped.rates == whole.rates[:stop_after]
    assert stopped.rates + resumed.rates == whole.rates == wanted(early(0.6, end=0.7), known=known)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    assert first.history.history == second.history.history
    assert {"rate/*dense1", "rate/head"} < set(first.history.history)
    assert done.get_layer("head_dropout").rate == whole.rates[-1]  # nothing is left to do


@pytest.mark.covering("how", "jit_compile")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("how", ["keras", "trainer"])
def test_it_acts_without_a_second_trace(how, jit_compile):
    """On a model that gives its mask away: the fraction dropped in each epoch, of 10,000 units a step."""
    traces = []

    class Traced(keras.layers.Layer):
        def call(self, inputs, training=False):
            traces.append(training)
            return inputs

    def dropped(y, p):
        return tf.reduce_mean(tf.cast(p == 0, tf.float32), axis=-1)

    keras.utils.set_random_seed(0)
    site = layers.Dropout(0.0, name="site_dropout")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(200, bias_initializer="ones"), Traced(), site])
    batches = tf.data.Dataset.from_tensor_slices((np.zeros((100, 3), "float32"), np.zeros((100, 200)))).batch(50)
    after_first = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: after_first.append(len(traces)))
    options = {
        "epochs": 3,
        "callbacks": [training.RateSchedule({"site": step({0: 0, 0.3: 0.5, 0.6: 0.8})}), count],
        "verbose": 0,
    }
    optimizer = keras.optimizers.SGD(0.0)
    if how == "trainer":
        trainer = training.Trainer(model, optimizer, "mse", [dropped], jit_compile=jit_compile)
        history = trainer.fit(batches, **options).history
        assert trainer._program.train.experimental_get_tracing_count() == 1
    else:
        model.compile(optimizer, "mse", metrics=[dropped], jit_compile=jit_compile)
        history = model.fit(batches, shuffle=False, **options).history
    assert after_first[0] == after_first[-1] == len(traces) and True in traces
    for found, rate in zip(history["dropped"], (0.0, 0.5, 0.8), strict=True):
        assert abs(found - rate) <= 5 * math.sqrt(rate * (1 - rate) / 20_000) + 1e-6
    assert history["rate/site"] == [0.0, 0.5, 0.8]


def test_the_last_rate_is_saved(tmp_path):
    schedules = {"head": linear(0.0, 0.5)}
    model = fit("keras", schedules, keras.callbacks.CSVLogger(tmp_path / "log.csv"), epochs=2)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").get_layer("head_dropout").rate == 0.45
    assert (tmp_path / "log.csv").read_text().startswith("epoch,loss,rate/head,")
    assert model.history.history["rate/head"] == [0.2, 0.45]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("head",), {"head": ["head_dropout"]}),
        (("head_dropout", "d*1"), {"head_dropout": ["head_dropout"], "d*1": ["dense1_dropout"]}),
        (("*e*_dropout", "head"), {"*e*_dropout": ["dense1_dropout"], "head": ["head_dropout"]}),
        (("head", "*e*_dropout"), {"*e*_dropout": ["dense1_dropout", "head_dropout"]}),
    ],
)
def test_what_a_pattern_matches(patterns, names):
    matched = training.RateSchedule(dict.fromkeys(patterns, 0.1)).match(build())
    assert {pattern: sorted(layer.name for layer in found) for pattern, found in matched.items()} == names


def test_every_site_that_is_listed_can_be_scheduled():
    """Those of a nested model too, by the name that `list_sites` prints."""
    dense, dropout = keras.layers.Dense, layers.Dropout
    inside = [dense(8, name="dense1"), dropout(0.1, name="dense1_dropout"), dense(8, name="dense2")]
    inputs = keras.Input((12,))
    x = dense(12, name="dense1")(inputs)
    x = keras.Sequential([keras.Input((12,)), *inside], name="block")(dropout(0.2, name="dense1_dropout")(x))
    model = keras.Model(inputs, dense(3)(dropout(0.3, name="head_dropout")(x)))
    names = [site.name for site in models.list_sites(model) if site.spec]
    assert "block/dense1" in names and len(names) == 3
    matched = training.RateSchedule({name: 0.1 for name in names}).match(model)
    assert [found[0].rate for found in matched.values()] == [0.2, 0.1, 0.3]
    with pytest.raises(ValueError, match="Unknown dropout site 'block/dense3'. Did you mean 'block/dense"):
        training.RateSchedule({"block/dense3": 0.1}).match(model)
    fit("keras", {"block/dense1": 0.4}, model=model, epochs=1)
    assert [found[0].rate for found in matched.values()] == [0.2, 0.4, 0.3]


def test_none_leaves_layers_alone():
    model = fit("keras", {"*": 0.4, "own": None, "theirs": None, "head": None}, epochs=1)
    assert model.get_layer("head_dropout").rate == 0.2 and model.get_layer("theirs").rate == 0.1
    assert model.get_layer("block").get_layer("dense1_dropout").rate == 0.4


@pytest.mark.covering("schedules", "how")
@pytest.mark.parametrize("how", ["keras", "trainer"])
@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"hed": 0.1}, "Unknown dropout site 'hed'. Did you mean 'head'"),
        ({"head": 0.1, "dense": None}, "Unknown dropout site 'dense'. Did you mean 'dense1'"),
        ({"theirs": 0.1}, "'theirs'.* a layer of Keras .*Put dropzoo.layers.Dropout there.*{'theirs': None}"),
        ({"own": 0.1}, "'own'.* a layer of the class Learned whose rate cannot be set"),
        ({"head": lambda t: 1.2 * t}, r"'head' must give a number in \[0, 1\). Received: 1.008 at progress 0.84"),
        ({"head": lambda t: t - 0.1}, "Received: -0.1 at progress 0"),
        ({"head": lambda t: None}, "Received: None at progress 0"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_before_the_first_step(how, schedules, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        fit(how, schedules, model=model)
    assert model.optimizer.iterations == 0 and model.get_layer("head_dropout").rate == 0.2


def test_a_run_without_dropout_or_progress_is_refused():
    plain = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="no dropout layer"):
        fit("keras", {"*": 0.1}, model=plain)
    with pytest.raises(ValueError, match="only epoch is not known"):
        fit("trainer", {"head": 0.1}, known=False, epochs=1)
