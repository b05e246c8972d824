"""What draws at random is sampled, wherever it is.

Rule: the variance of the samples is that of plain passes with `training=True` (batch normalisation frozen),
whatever draws: a layer by class, a layer of a user's own, a function, a cell, a model without a graph. What the
sampler cannot redirect runs once a sample, is named by `cut()`, and changes nothing in the model. The same call
gives the same answer where the draws have a seed, and a warning names those that have none.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from _drawing import (
    Block,
    Cell,
    DroppingCell,
    GlobalSeed,
    LoosePath,
    OneCoin,
    OnlyInTraining,
    OwnGenerator,
    Scanned,
    SeededPath,
    Subclassed,
    Tripled,
    frozen_norms,
    of_frames,
    of_images,
    of_sequences,
)
from dropzoo import layers, models, serving
from dropzoo.serving.calibration.fitting.sources import rates_of


def nested():
    inner = keras.Sequential([keras.Input((6, 6, 3)), kl.Conv2D(4, 1), SeededPath(0.4, name="deep")], name="inner")
    return of_images(lambda x: kl.Dropout(0.2)(inner(x)))


# By name: the model, and what is sampled by plain passes in it; None if the sampler draws all masks itself.
MODELS = {
    "a drop path": (
        lambda: of_images(lambda x: kl.Dropout(0.1)(SeededPath(0.5, name="mine")(kl.Conv2D(4, 3)(x)))),
        "mine",
    ),
    "loose draws": (lambda: of_images(lambda x: LoosePath(0.5, name="mine")(x)), "mine"),
    "no generator": (lambda: of_images(lambda x: GlobalSeed(name="mine")(x)), "mine"),
    "one coin": (lambda: of_images(lambda x: OneCoin(name="mine")(x)), "mine"),
    "in training only": (lambda: of_images(lambda x: OnlyInTraining()(x)), None),
    "a function": (
        lambda: of_images(lambda x: kl.Lambda(lambda y: tf.nn.dropout(y, 0.5), name="mine")(x)),
        "mine",
    ),
    "more than dropout": (lambda: of_images(lambda x: Tripled(0.3, name="mine")(x)), "mine"),
    "a generator": (lambda: of_images(lambda x: OwnGenerator(name="mine")(x)), "mine"),
    "noise": (lambda: of_images(lambda x: kl.GaussianNoise(0.5, name="mine")(x)), "mine"),
    "a block": (lambda: of_images(lambda x: Block(name="mine")(x)), "mine/path"),
    "nested": (nested, "inner/deep"),
    "LSTM": (lambda: of_sequences(lambda x: kl.LSTM(4, dropout=0.4, name="mine")(x)), "mine"),
    "GRU": (lambda: of_sequences(lambda x: kl.GRU(4, recurrent_dropout=0.4, name="mine")(x)), "mine"),
    "both ways": (
        lambda: of_sequences(lambda x: kl.Bidirectional(kl.LSTM(4, dropout=0.4), name="mine")(x)),
        "mine",
    ),
    "a cell": (lambda: of_sequences(lambda x: kl.RNN(Cell(4), name="mine")(x)), "mine"),
    "dropout in a cell": (lambda: of_sequences(lambda x: kl.RNN(DroppingCell(4), name="mine")(x)), "mine"),
    "a loop": (lambda: of_sequences(lambda x: Scanned(name="mine")(x)), "mine"),
    "attention": (lambda: of_sequences(lambda x: kl.MultiHeadAttention(2, 3, dropout=0.4)(x, x)), None),
    "ConvLSTM": (lambda: of_frames(lambda x: kl.ConvLSTM2D(2, 2, dropout=0.4, name="mine")(x)), "mine"),
    "each step": (lambda: of_sequences(lambda x: kl.TimeDistributed(kl.Dropout(0.4))(x)), None),
    "each step of many": (lambda: of_sequences(lambda x: kl.TimeDistributed(kl.Dropout(0.4))(x), None), None),
    "no graph": (lambda: Subclassed(), "block/path"),
    "no graph, known dropout": (lambda: Subclassed(path=False), None),
}
LOOSE = ("loose draws", "a function", "a cell", "dropout in a cell", "a loop")  # they have no seed


def batch(model, rows=12):
    shape = model.input_shape[1:] if getattr(model, "inputs", None) else (6, 6, 3)
    return np.random.default_rng(0).normal(size=(rows, *(5 if n is None else n for n in shape))).astype("float32")


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("name", MODELS)
def test_samples_are_those_of_plain_passes(name):
    make, plain = MODELS[name]
    model = frozen_norms(make())
    x = batch(model)
    right = model(x)
    before = [variable.numpy().copy() for variable in model.variables]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mc = serving.MonteCarlo(model, 250, "independent", task="regression")
        first, second = mc(x), mc(x)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert bool(said) == (name in LOOSE) and all("cannot be seeded" in str(w.message) for w in said)
    if name not in LOOSE:
        np.testing.assert_array_equal(first["mean"], second["mean"])
    assert (mc.plain_passes is None) == (plain is None) and (plain or "") in (mc.plain_passes or "")
    assert ("by a plain pass in each sample" in str(mc.cut())) == (plain is not None)

    passes = tf.function(lambda images: model(images, training=True))
    drawn = np.stack([passes(x) for _ in range(250)]).astype("float64")
    if hasattr(model, "block") and plain or name == "a block":  # its augmentation is on in such a pass
        drawn = None
    if drawn is not None:
        assert 0.8 < first["variance"].numpy().mean() / drawn.var(0).mean() < 1.25
        error = np.sqrt(2 * drawn.var(0) / 250).max()
        assert np.abs(first["mean"] - drawn.mean(0)).max() < 6 * error
    assert first["variance"].numpy().mean() > 0
    if name not in ("a function",):  # which draws in inference too
        np.testing.assert_array_equal(model(x), right)


def test_batch_normalisation_and_augmentation_stay_off():
    """At rates of 0, code in training mode gives what inference gives."""
    model = of_images(lambda x: Block()(x))
    model.layers[1].norm.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    model.layers[1].drop_path.rate = 0.0
    mc = serving.MonteCarlo(model, 2, task="regression", sites={"*": 0.0})
    x = batch(model)
    np.testing.assert_allclose(mc(x)["mean"], model(x), atol=1e-5)
    np.testing.assert_array_equal(model.layers[1].norm.moving_mean, [1, 2, 3, 4])


def test_what_comes_before_is_computed_once():
    model = of_images(lambda x: SeededPath(0.5, name="mine")(kl.Conv2D(4, 3, name="stem")(x)))
    cut = serving.MonteCarlo(model, 8, task="regression").cut()
    assert cut.frontier == ("stem",) and cut.f > 0.5
    assert cut.plain == (("mine", "SeededPath draws its own random numbers"),)
    assert "sampled by a plain pass in each sample: mine (SeededPath draws its own random numbers)" in str(cut)


def test_suspicion_is_not_proof():
    """A layer that holds a generator and a rate and draws nothing stays in the trunk, and samples are folded."""

    class Calm(SeededPath):
        def call(self, x, training=False):
            return x * 2.0

    model = of_images(lambda x: kl.Dropout(0.3)(kl.Conv2D(2, 1, name="conv")(Calm(0.5, name="calm")(x))))
    mc = serving.MonteCarlo(model, 4, fold=2, task="regression")
    assert mc.plain_passes is None and mc.cut().frontier == ("conv",)
    assert [*rates_of(mc).values()] == [0.3]  # a calibration names no site that draws nothing
    with pytest.raises(ValueError, match="'calm' does not draw random numbers, so it cannot be in"):
        serving.MonteCarlo(model, 2, sites={"calm": True})


@pytest.mark.parametrize("name", ["a function", "nested", "both ways"])
def test_every_printed_name_is_a_site(name):
    model = MODELS[name][0]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw without a seed
        printed = [site for site, _ in serving.MonteCarlo(model, 2).cut().plain]
        printed += [row.site for row in models.dropout_report(model)]
        assert printed
        for site in printed:
            serving.MonteCarlo(model, 2, sites={site: True})


def test_sites_choose_among_plain_passes():
    model = of_images(lambda x: kl.Dropout(0.2, name="known")(kl.Conv2D(4, 1)(SeededPath(0.5, name="mine")(x))))
    x = batch(model)

    def variance(sites):
        return (
            serving.MonteCarlo(model, 100, "independent", sites, task="regression")(x)["variance"].numpy().mean()
        )

    both, path, known = variance(None), variance({"mine": True}), variance({"known": True})
    assert 0 < known < path < both
    np.testing.assert_allclose(variance({"*": True, "mine": 0.0}), known, rtol=1e-5)
    assert variance({"mine": 0.0, "known": 0.0}) < 1e-9
    with pytest.raises(ValueError, match="'mine' is sampled by plain passes.*pass True, or 0.0 to turn it off"):
        variance({"mine": 0.3})
    with pytest.raises(ValueError, match="Unknown dropout site 'mime'"):
        variance({"mime": True})


def test_seeds_of_plain_passes():
    model = of_images(lambda x: SeededPath(0.5)(x))
    mc, x = serving.MonteCarlo(model, 3, task="regression", seed=1), batch(model)
    first = mc(x)["mean"].numpy()
    assert not np.allclose(mc(x, seed=2)["mean"], first)
    np.testing.assert_array_equal(mc(x)["mean"], first)
    many = serving.MonteCarlo(
        model, "auto", task="regression", tolerance=0.0, max_samples=32, return_samples=False
    )(x)
    assert (many["num_samples"].numpy() == 32).all() and many["variance"].numpy().min() > 0


def test_what_is_stuck_or_cannot_be_fixed_is_named():
    model = of_images(
        lambda x: kl.Dropout(0.2, name="known")(kl.Lambda(lambda y: tf.nn.dropout(y, 0.5), name="stuck")(x))
    )
    with pytest.warns(UserWarning, match="not in `sites`, .* turned off: stuck") as caught:
        serving.MonteCarlo(model, 2, sites={"known": True})
    assert caught[0].filename == __file__
    path = of_images(lambda x: SeededPath(0.5, name="mine")(x))
    with pytest.warns(UserWarning, match="cannot fix the dropout masks of mine"):
        serving.MonteCarlo(path, 2, "fixed")


def test_outputs_for_training_only():
    """A layer that gives its auxiliary head in training only is sampled in inference mode."""

    class Deep(kl.Layer):
        def __init__(self, path=False, **kwargs):
            super().__init__(**kwargs)
            self.drop, self.draws = layers.Dropout(0.5), SeededPath(0.5) if path else None

        def call(self, x, training=None):
            y = self.drop(x, training=training)
            y = self.draws(y, training=training) if self.draws else y
            return [y, y] if training else y

        def compute_output_spec(self, x, training=None):
            return keras.KerasTensor(x.shape, x.dtype)

    model = of_images(lambda x: Deep()(x))
    assert serving.MonteCarlo(model, 4, task="regression")(batch(model))["variance"].numpy().max() > 0
    deeper = of_images(lambda x: Deep(path=True, name="deeper")(x))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        serving.MonteCarlo(deeper, 4)
    text = "The dropout in deeper is not sampled, because the number or the shapes of its outputs differ"
    assert any(text in str(w.message) for w in said)


def test_a_subclassed_model_in_every_sampler():
    model = Subclassed(path=False)
    mc, x = serving.MonteCarlo(model, 3), batch(model)
    with pytest.raises(ValueError, match="sample one batch first"):
        mc.cut()
    assert mc(x)["mean"].shape == (12, 2) and mc(x[:3])["mean"].shape == (3, 2)
    assert serving.Ensemble([model, Subclassed(path=False)])(x)["variance"].numpy().max() > 0
    tta = serving.TestTimeAugmentation(model, ["identity", "flip_horizontal"])(x)
    assert tta["variance"].numpy().max() > 0
    with pytest.raises(ValueError, match="must have the shape"):
        mc(x[:, 0])
