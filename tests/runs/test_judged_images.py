"""A model is judged on images as they are stored, also where only training images are left to judge it."""

import dataclasses

import numpy as np
import pytest

from dropzoo import training
from dropzoo.runs.data import judged_images


@pytest.mark.costly(keep=0)
def test_training_images_that_judge_are_not_augmented(tmp_path):
    def images(**options):
        data = training.load_data("digits", data_dir=tmp_path, limit=20, batch_size=8, **options)
        alone = dataclasses.replace(data, validation=None, test=None)
        return [image for images, _ in judged_images(alone) for image in images.numpy()]

    stored, augmented = images(), images(augment="rotation=40,shift=0.2")
    assert len(stored) == 20
    np.testing.assert_array_equal(stored, augmented)
