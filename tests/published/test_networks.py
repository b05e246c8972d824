"""Surgery, report, sampling and export on networks that others publish, in small configurations.

`make test-published` installs the packages; the networks of one that is absent are skipped. The rule: a copy by
surgery answers as the original does, to the bit. A report measures the rates. Samples agree in mean and variance
with passes in training mode in which BatchNorm is frozen. An export answers as the sampler does. `strip_dropout`
names each layer that it leaves.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "published"
sys.path.insert(0, str(FOLDER))

import try_out  # noqa: E402
from trial import Failure, Trial, compare, shaken, tried  # noqa: E402
from zoo import ZOO, Published  # noqa: E402

RATE = 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the packages
@pytest.mark.parametrize("published", ZOO, ids=lambda published: published.id)
def test_published_network(published):
    if published.version is None:
        pytest.skip(f"{published.package} is not installed: make test-published")
    found = tried(published)
    failed = {step: found[step] for step in ("build", *Trial.STEPS) if found.get(step)}
    assert failed.keys() == published.limits.keys(), failed


def small(rate: float = RATE) -> keras.Model:
    layers = [keras.layers.Flatten(), keras.layers.Dropout(rate), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, name="conv"), *layers])


@pytest.mark.slow
def test_the_trial_itself():
    """A network that holds all promises passes; a plan that matches nothing is told."""
    options = {"package": "keras", "shape": (4, 4, 1), "samples": 20}
    good = Published(name="small", make=small, plan={"conv": 0.2}, **options)
    found = tried(good, lambda text: None)
    assert found == dict.fromkeys(Trial.STEPS, "")
    bad = tried(Published(name="small", make=small, plan={"cnov": 0.2}, **options), lambda text: None)
    assert bad["retrofit"].startswith("ValueError") and "conv" in bad["retrofit"]


def test_the_table_says_what_does_not_work():
    row = {"package": "keras", "version": "3", "model": "VGG16", "keras": "3", "tensorflow": "2"}
    empty = dict.fromkeys(try_out.COLUMNS, "") | row

    def line(**found: str) -> str:
        return try_out.table({"kerasVGG16": empty | found})[2]

    assert line() == "| keras 3 | VGG16 | works |  |"
    assert line(note_plain="X draws") == "| keras 3 | VGG16 | works, by plain passes | X draws |"
    assert line(export="no | way") == "| keras 3 | VGG16 | not: `export` | no / way |"
    assert line(build="why") == "| keras 3 | VGG16 | does not run | why |"


@pytest.mark.parametrize("change", ["none", "mean", "variance", "still"])
def test_samples_are_compared_within_their_error(change):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 60, 5, 3))
    changed = {"none": other, "mean": other + 0.9, "variance": other * 1.6, "still": other * 0}[change]
    if change == "none":
        compare(one, changed)
        return
    with pytest.raises(Failure, match="standard errors|do not vary"):
        compare(one, changed)


def test_shaken_weights_hide_nothing():
    model = shaken(keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]))
    assert all(np.asarray(weight).all() for weight in model.trainable_weights)
