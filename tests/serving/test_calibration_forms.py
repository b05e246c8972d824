"""Held-out data in all the forms that `fit` takes.

The rule: data that `fit` and `evaluate` read can calibrate too, with the same result as arrays; data that cannot
be read again, or would be read wrongly, are refused with a way on.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dropzoo import serving
from dropzoo.serving.calibration.fitting.heldout import check_labels
from tests.serving._answers import answers

X, Y = answers(40)
ONE_HOT = np.eye(4)[Y]


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays, length=5):
        super().__init__()
        self._arrays, self._length = arrays, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return tuple(None if x is None else x[rows] for x in self._arrays)


class Endless(Batches):
    @property
    def num_batches(self):
        return None


class Loader:
    """As a `DataLoader` of PyTorch: it has a length, and gives lists."""

    def __len__(self):
        return 5

    def __iter__(self):
        return ([X[i : i + 8], Y[i : i + 8]] for i in range(0, 40, 8))


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


FORMS = {
    "a PyDataset": lambda: (Batches(X, Y),),
    "a PyDataset with weights of None": lambda: (Batches(X, Y, None),),
    "a PyDataset of one-hot labels": lambda: (Batches(X, ONE_HOT),),
    "a loader": lambda: (Loader(),),
    "a dataset of labels (n, 1)": lambda: (dataset(X, Y[:, None]).batch(8),),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "one-hot labels": lambda: (X, ONE_HOT),
    "one-hot integers": lambda: (X, ONE_HOT.astype(int)),
    "a list of one array": lambda: ([X], Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_what_arrays_give(identity, form):
    expected = serving.calibrate(identity, X, Y, verbose=0)
    found = serving.calibrate(identity, *FORMS[form](), verbose=0)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-5)


WEIGHTS = np.ones(40)
REFUSED = {
    "a generator": (lambda: ((pair for pair in [(X, Y)]),), "can be read only once.*from_generator"),
    "a PyDataset without an end": (lambda: (Endless(X, Y),), "give it a `__len__`"),
    "a dataset without an end": (lambda: (dataset(X, Y).batch(8).repeat(),), r"leave out `repeat\(\)`"),
    "single examples": (lambda: (dataset(X, Y),), r"pass dataset.batch\(32\)"),
    "single examples of one-hot labels": (lambda: (dataset(X, ONE_HOT),), r"shape \(None, 4\). Received: \(4,\)"),
    "weights": (
        lambda: (dataset(X, Y, WEIGHTS).batch(8),),
        "If the third is a weight, leave it out: .*ignore_class",
    ),
    "weights of a PyDataset": (lambda: (Batches(X, Y, WEIGHTS),), "If the third is a weight"),
    "images alone": (lambda: (dataset(X).batch(8),), r"Received: \(\(8, 4\),\)"),
    "labels twice": (lambda: (Batches(X, Y), Y), "leave `labels` out"),
    "no labels": (lambda: (X,), "a tf.data.Dataset or a keras.utils.PyDataset"),
    "no rows": (lambda: (Batches(X, Y, length=0),), "Received: none"),
    "images of another size": (lambda: (X[:, :3], Y), r"shape \(None, 4\). Received: \(16, 3\)"),
    "shares of classes": (lambda: (X, np.full((40, 4), 0.25)), r"one-hot.*pass np.argmax\(labels, -1\)"),
    "several classes of one image": (lambda: (X, np.ones((40, 4))), "one-hot"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused_with_a_way_on(identity, form):
    given, words = REFUSED[form]
    with pytest.raises(ValueError, match=words):
        serving.calibrate(identity, *given(), verbose=0)


def test_one_hot_pixels_and_their_void():
    """Maps of 2 x 2 pixels of 3 classes; a model of one unit has no one-hot labels."""
    classes = np.array([[[0, 1], [2, 1]]])
    found = check_labels(np.eye(3)[classes], "multi_class", (None, 2, 2, 3))
    assert found.tolist() == [[0, 1, 2, 1]]
    with pytest.raises(ValueError, match="Received: the shape"):
        check_labels(np.eye(2)[classes % 2], "binary", (None, 2, 2, 1))
