"""A sweep's advice follows the protocol of the evidence: calibrated NLL, and warnings of short trainings."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dropzoo.sweep import workbench
from dropzoo.sweep.advice import in_words, recommend
from dropzoo.sweep.run import Space
from dropzoo.sweep.trials import Outcome, Record

SPACE = Space(models=["simple_cnn"], data="digits", sites=["dense*"], rates=[0.3], seeds=range(3), epochs=4)
FITTED = {"train": 1.0, "validation": 0.9}
RISING, FALLING = [0.5, 0.3, 0.4, 0.6], [0.9, 0.6, 0.5, 0.4]


def records(train=1.0, validation=0.9, curve=RISING, without=("nll",), score="accuracy"):
    """Records in which dropout has the lower NLL, but the higher calibrated NLL."""
    found = []
    for trial in SPACE.trials():
        drops = not trial.is_baseline
        noise = 0.001 * trial.config.seed
        figures = {"nll": (0.4 if drops else 0.6) + noise, "calibrated_nll": (0.36 if drops else 0.35) + noise}
        figures = {k: v for k, v in figures.items() if k not in without}
        outcome = Outcome(
            seconds=1.0,
            curves={"val_nll": curve},
            validation={**figures, score: validation},
            train={score: train},
            test=figures,
        )
        found.append(Record(trial=trial, versions={}, outcome=outcome))
    return found


def test_the_recommendation_is_made_on_the_calibrated_nll():
    found = recommend(records(without=()))
    assert found.metric == "calibrated_nll" and found.chosen.is_baseline
    assert "calibrated NLL 0.351" in " ".join(in_words(found))
    by_nll = recommend(records(without=()), "nll")
    assert not by_nll.chosen.is_baseline
    # Files of sweeps that were run before have no calibrated NLL.
    assert recommend(records(without=("calibrated_nll",))).metric == "nll"


@pytest.mark.parametrize(
    "given, warning",
    [
        ({}, ""),
        ({"curve": FALLING}, "lowest in the last of 4 epochs"),
        ({"curve": []}, ""),
        ({"curve": [0.5]}, ""),
        ({"train": 0.8, "validation": 0.78}, "than to 1. Try more epochs before more dropout."),
        ({"train": 0.8, "validation": 0.78, "curve": FALLING}, '" underfits: after '),
        ({"train": 0.8, "validation": 0.6}, ""),  # far from fitted, but the gap is larger
        ({"train": 0.97, "validation": 0.965}, ""),
        ({"train": float("nan")}, ""),
        (
            {"train": 0.6, "validation": 0.58, "score": "mean_iou"},
            "its training mean IoU is closer to the validation mean IoU than to 1",
        ),
    ],
)
def test_trainings_that_were_too_short_are_told(given, warning):
    words = " ".join(in_words(recommend(records(without=(), **given))))
    assert (warning in words) if warning else ("Warning" not in words)


def test_most_of_the_runs_decide_whether_the_last_epoch_was_the_best():
    found = records(without=())
    one = [
        dataclasses.replace(r, outcome=dataclasses.replace(r.outcome, curves={"val_nll": FALLING}))
        for r in found[:1]
    ]
    assert "Warning" not in " ".join(in_words(recommend(one + found[1:])))


def test_the_calibrated_nll_is_that_of_the_temperature_of_the_validation_images():
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 3)).astype("float32")
    labels = np.array([random.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    labels[:10] = 255  # void
    images = tf.data.Dataset.from_tensor_slices((3 * logits, labels)).batch(64)  # three times too certain
    found = workbench._calibrated_nll(lambda x: tf.nn.log_softmax(x), images, images.take(2), 255)
    true = -np.take_along_axis(tf.nn.log_softmax(logits[10:]).numpy(), labels[10:, None], -1).mean()
    assert found["validation"] == pytest.approx(true, abs=0.01) and set(found) == {"validation", "test"}
    assert set(workbench._calibrated_nll(lambda x: tf.nn.log_softmax(x), images, None, 255)) == {"validation"}


@pytest.mark.costly(keep=0)
def test_balanced_data_are_not_those_of_another_trial():
    bench, config = workbench.Workbench(), SPACE.trials()[0].config
    plain = bench.load(config)
    assert bench.load(dataclasses.replace(config, balance="sampling")) is not plain
    assert bench.load(dataclasses.replace(config, balance="weights", epochs=1)) is plain


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    "changed", [{"augment": "noise=0.5"}, {"augment": "crop=6,flip_horizontal"}, {"balance": "sampling"}]
)
def test_the_training_images_are_judged_as_they_are_stored(changed):
    config = dataclasses.replace(SPACE.trials()[0].config, limit=12, batch_size=4)
    plain, other = (
        workbench.Workbench().load(each).seen.unbatch()
        for each in (config, dataclasses.replace(config, **changed))
    )
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_array_equal(one[0], two[0])


def test_ray_promotes_by_the_calibrated_nll():
    ray = pytest.importorskip("dropzoo.sweep.ray", reason="the extra `ray` is not installed", exc_type=ImportError)
    [both, plain] = (records(without=names)[0] for names in ((), ("calibrated_nll",)))
    assert ray._nll(both) == both.outcome.validation["calibrated_nll"]
    assert ray._nll(plain) == plain.outcome.validation["nll"]
