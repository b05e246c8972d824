"""The ways to predict with one trained model: in one pass and by samples, each without and with a temperature."""

import keras

from dropzoo import layers, serving, training
from dropzoo.runs.data import judged_images
from dropzoo.runs.evaluation import log_probabilities, score, with_temperature
from dropzoo.runs.inputs import fed
from dropzoo.runs.scores import Scores

ONE, ONE_T, SAMPLES, SAMPLES_T = WAYS = ("one pass", "one pass, temperature", "samples", "samples, temperature")


def judge(model: keras.Model, data: training.Data, num_samples: int) -> dict[str, Scores]:
    """Returns the scores on test images of each way to predict with a model.

    Args:
        model: The model.
        data: The data. The temperatures are fitted on the validation images.
        num_samples: Int, the number of samples.

    Returns:
        Dict of scores by `WAYS`; the samples are left out if the model drops nothing.
    """
    once = serving.calibrate(model, fed(data.validation, model), verbose=0)
    ways = {
        ONE: log_probabilities(model),
        ONE_T: log_probabilities(model, serving.MonteCarlo(model, calibration=once)),
    }
    if layers.dropouts(model):
        sampler = serving.MonteCarlo(model, num_samples=num_samples)
        ways[SAMPLES] = log_probabilities(model, sampler)
        ways[SAMPLES_T] = with_temperature(sampler, data)[1]
    test = judged_images(data)
    return {name: score(way, test, Scores(data.info)) for name, way in ways.items()}
