"""The cheapest sites that find errors as well as all sites do, and the picture of what each site brings."""

import keras
import numpy as np
import pytest

from dropzoo import layers, serving
from dropzoo.pages.drawing import draw_sites
from dropzoo.serving.calibration.fitting.cheapest import _auroc, _like


@pytest.fixture(scope="module")
def mc():
    """An early site that hardly matters, an expensive layer, and a late site."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    y = layers.Dropout(0.02, name="early_dropout")(keras.layers.Dense(16, "relu", name="early")(x))
    y = keras.layers.Dense(64, "relu")(keras.layers.Dense(64, "relu")(y))
    y = layers.Dropout(0.5, name="late_dropout")(keras.layers.Dense(8, "relu", name="late")(y))
    return serving.MonteCarlo(keras.Model(x, keras.layers.Dense(3, name="logits")(y)), 8)


@pytest.fixture(scope="module")
def held_out(mc):
    images = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
    p = mc.model(images).numpy()
    return images, (p + np.random.default_rng(1).normal(0, p.std(), p.shape)).argmax(1)


@pytest.mark.costly(keep=0)
def test_the_late_site_is_enough(mc, held_out):
    found = serving.cheapest_sites(mc, *held_out, keep=0.9)
    assert found.sites == {"late": 0.5} and found.cost < 0.5 * found.cost_of_all
    assert found.auroc >= 0.9 * found.auroc_of_all and "late: error AUROC" in str(found)
    out = serving.MonteCarlo(mc.model, 8, sites=found.sites)
    assert _auroc(out, held_out[0], held_out[1][:, None], "multi_class") == pytest.approx(found.auroc, abs=1e-6)


def test_all_sites_may_be_needed(mc, held_out):
    found = serving.cheapest_sites(mc, *held_out, keep=1.0)
    assert found.auroc >= found.auroc_of_all
    one = _like(mc, {"late": 0.3})
    only = serving.cheapest_sites(one, *held_out)
    assert only.sites == {"late": 0.3} and only.cost == only.cost_of_all


@pytest.mark.costly(keep=0)
def test_bad_input(mc, held_out):
    images, labels = held_out
    for options, message in (
        ({"keep": 0}, "`keep` must be in"),
        ({"keep": 1.5}, "`keep` must be in"),
        ({"labels": labels + 3}, "whole numbers from 0 to 2"),
        ({"labels": mc(images)["mean"].numpy().argmax(1)}, "0 errors in 96 answers|0 errors"),
    ):
        with pytest.raises(ValueError, match=message):
            serving.cheapest_sites(mc, images, options.pop("labels", labels), **options)
    cal = serving.calibrate(mc, images, labels, verbose=0)
    with pytest.raises(ValueError, match="choose the cheapest sites with a MonteCarlo without `calibration=`"):
        serving.cheapest_sites(serving.MonteCarlo(mc.model, calibration=cal), images, labels)


def test_the_drawing_fills_bars_to_their_share(mc):
    figure = draw_sites(mc.model, shares={"early": 0.04, "late": 0.96})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"4%", "96%"} <= set(texts) and len(figure.axes[0].patches) > len(draw_sites(mc.model).axes[0].patches)
