"""Deep ensembles and test-time augmentation, against NumPy."""

import keras
import numpy as np
import pytest

from _small_cnn import images, small_cnn
from dropzoo import models, serving

# From an image (height, width, channels) and back.
TRANSFORMS = {
    "identity": (lambda x: x, lambda y: y),
    "flip_horizontal": (lambda x: x[:, ::-1], lambda y: y[:, ::-1]),
    "flip_vertical": (lambda x: x[::-1], lambda y: y[::-1]),
    "rotate_90": (np.rot90, lambda y: np.rot90(y, -1)),
    "rotate_180": (lambda x: np.rot90(x, 2), lambda y: np.rot90(y, 2)),
    "rotate_270": (lambda x: np.rot90(x, 3), np.rot90),
    "transpose": (lambda x: x.swapaxes(0, 1), lambda y: y.swapaxes(0, 1)),
    "anti_transpose": (lambda x: x.swapaxes(0, 1)[::-1, ::-1], lambda y: y[::-1, ::-1].swapaxes(0, 1)),
}


def unet(num_classes=3, seed=1, **options):
    keras.utils.set_random_seed(seed)
    shape = {"input_shape": (None, None, 1), "depth": 1, "filters": 4, "num_classes": num_classes}
    return models.build_model("unet", dropout={"bottleneck*": 0.3}, **{**shape, **options})


def cnn(num_classes=4, seed=1):
    return small_cnn(num_classes=num_classes, weights_seed=seed, scale=1.0)


def softmax(z):
    e = np.exp(z.astype("float64"))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype("float64")))


def entropy(p):
    return -(p * np.log(p)).sum(-1)


def coins(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1)


TASKS = {
    "multi_class": (3, softmax, entropy),
    "binary": (1, sigmoid, coins),
    "multi_label": (3, sigmoid, coins),
    "regression": (3, lambda z: z.astype("float64"), None),
}


def check(out, outputs, task):
    """`outputs` are what the passes gave, (passes, batch, ...)."""
    _, to_p, entropy_of = TASKS[task]
    p = to_p(outputs)
    assert p.std(0).max() > 1e-4
    expected = {"mean": p.mean(0), "variance": p.var(0)}
    if entropy_of:
        expected["predictive_entropy"] = entropy_of(p.mean(0))
        expected["mutual_information"] = entropy_of(p.mean(0)) - entropy_of(p).mean(0)
    assert list(out) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, atol=1e-5, err_msg=name)


@pytest.mark.costly(keep=2)
@pytest.mark.covering("task", "build")
@pytest.mark.parametrize("build", [cnn, unet])
@pytest.mark.parametrize("task", TASKS)
def test_ensemble(task, build):
    classes = TASKS[task][0]
    members = [build(classes, seed=i) for i in range(3)]
    x = images(2)
    out = serving.Ensemble(members, task=task)(x)
    check(out, np.stack([m(x, training=False).numpy() for m in members]), task)


def test_ensemble_of_saved_models(tmp_path):
    members = [small_cnn(weights_seed=i) for i in range(3)]
    members[0].save(tmp_path / "a.keras")
    serving.export_model(members[1], tmp_path / "b" / "1", num_samples=0)
    mixed = serving.Ensemble([tmp_path / "a.keras", str(tmp_path / "b" / "1"), members[2]])
    expected = serving.Ensemble(members)(images())
    for name, value in mixed(images()).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def own_loss(y, p):
    return keras.ops.mean(keras.ops.abs(y - p), -1)


@pytest.mark.parametrize(
    ("units", "loss", "kind"),
    [
        (1, "mse", "regression"),
        (1, None, "multi_class"),
        (3, keras.losses.Huber(), "regression"),
        (5, keras.losses.BinaryCrossentropy(from_logits=True), "multi_label"),
        (5, {"value": "mae"}, "regression"),
    ],
)
def test_a_file_tells_the_task_as_the_model_does(units, loss, kind, tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(units, name="value")(x))
    if loss is not None:
        model.compile("adam", loss)
    model.save(tmp_path / "a.keras")
    for members in ([tmp_path / "a.keras"], [model, tmp_path / "a.keras"], [model]):
        assert serving.Ensemble(members).task == kind


def test_members_of_different_tasks(tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    serving.export_model(model, tmp_path / "a", num_samples=0, task="regression")
    assert serving.Ensemble([tmp_path / "a" / "1"]).task == "regression"
    with pytest.raises(ValueError, match="'regression' for the first, 'multi_class' for number 2"):
        serving.Ensemble([tmp_path / "a" / "1", model])
    model.compile("sgd", own_loss)
    model.save(tmp_path / "b.keras")
    with pytest.raises(ValueError, match="compiled with the loss 'own_loss'.*Pass task='regression'"):
        serving.Ensemble([tmp_path / "b.keras"])
    assert serving.Ensemble([tmp_path / "b.keras"], task="regression").task == "regression"


def test_an_ensemble_follows_its_members():
    """They may be trained on after it was made."""
    members = [small_cnn(weights_seed=i) for i in range(2)]
    ensemble = serving.Ensemble(members)
    ensemble(images())
    members[0].set_weights(members[1].get_weights())
    np.testing.assert_allclose(ensemble(images())["variance"], 0.0, atol=1e-6)


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "build")
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("build", [cnn, unet])
def test_augmentation(build, name):
    model = build()
    x = images(2, (8, 8) if build is cnn else (8, 6))
    forth, back = TRANSFORMS[name]
    seen = []
    for f, b in (TRANSFORMS["identity"], (forth, back)):
        y = model(np.stack([f(image) for image in x]), training=False).numpy()
        seen.append(np.stack([b(each) for each in y]) if y.ndim == 4 else y)
    if name == "identity":
        np.testing.assert_allclose(
            serving.TestTimeAugmentation(model, [name])(x)["mean"], softmax(seen[0]), atol=1e-6
        )
    else:
        check(serving.TestTimeAugmentation(model, ("identity", name))(x), np.stack(seen), "multi_class")


@pytest.mark.costly(keep=2)
@pytest.mark.parametrize("task", TASKS)
def test_augmentation_by_task(task):
    model, x = unet(TASKS[task][0]), images(2, (6, 8))
    flipped = model(x[:, :, ::-1], training=False).numpy()[:, :, ::-1]
    check(serving.TestTimeAugmentation(model, task=task)(x), np.stack([model(x).numpy(), flipped]), task)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 6), (2, 6, 6), (2, 9), (2, 5, 6, 6)])
def test_images_with_their_channels_first(shape):
    """They are seen as the same images with their channels last are."""
    keras.utils.set_random_seed(0)
    padding = {2: keras.layers.ZeroPadding1D, 3: keras.layers.ZeroPadding2D, 4: keras.layers.ZeroPadding3D}
    pad = padding[len(shape)](1, data_format="channels_first")
    dense = keras.layers.Dense(3)
    rank = len(shape)
    first, last = keras.Input(shape), keras.Input((*shape[1:], shape[0]))
    to_first = keras.layers.Permute((rank, *range(1, rank)))
    one = keras.Model(first, dense(keras.layers.Flatten()(pad(first))))
    other = keras.Model(last, dense(keras.layers.Flatten()(pad(to_first(last)))))
    names = ["identity", "flip_horizontal"] if rank == 2 else list(TRANSFORMS)
    x = np.random.default_rng(0).random((2, *shape)).astype("float32")
    wanted = serving.TestTimeAugmentation(other, names)(np.moveaxis(x, 1, -1))
    for name, value in serving.TestTimeAugmentation(one, names)(x).items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-5)


@pytest.mark.costly(keep=0)
def test_over_all_ways_to_see_it_the_answer_turns_with_the_image():
    tta, x = serving.TestTimeAugmentation(unet(), tuple(TRANSFORMS)), images(2, (6, 8))
    out, turned = tta(x), tta(np.rot90(x, axes=(1, 2)))
    for name, value in out.items():
        np.testing.assert_allclose(turned[name], np.rot90(value, axes=(1, 2)), atol=1e-5)


@pytest.mark.costly(keep=0)
def test_in_tiles():
    x = images(1, (60, 45))[0]
    for rival in (serving.Ensemble([unet(), unet(seed=2)]), serving.TestTimeAugmentation(unet())):
        out, whole = serving.predict_tiled(rival, x, 48, 24), rival(x[None])
        for name, value in out.items():
            np.testing.assert_allclose(value, whole[name][0], atol=0.02)


def test_bad_input(tmp_path):
    ensemble, tta, model = serving.Ensemble, serving.TestTimeAugmentation, small_cnn()
    with pytest.raises(ValueError, match=r"list of at least one model or path. Received: \[\]"):
        ensemble([])
    with pytest.raises(ValueError, match="list of at least one model or path.*Received: 'a.keras'"):
        ensemble("a.keras")
    with pytest.raises(ValueError, match="a .keras file, or a folder.*single model.*Received: .*missing.keras"):
        ensemble([tmp_path / "missing.keras"])
    with pytest.raises(ValueError, match="Expected a model.*Received: 3"):
        ensemble([model, 3])
    with pytest.raises(
        ValueError, match=r"same shapes.*\(None, 4\)\) for the first, .*\(None, 2\)\) for number 2"
    ):
        ensemble([model, small_cnn(num_classes=2)])
    with pytest.raises(ValueError, match="one output unit"):
        ensemble([model], task="binary")
    with pytest.raises(ValueError, match="`images` must have the shape"):
        ensemble([model])(images(2, (9, 8)))
    with pytest.raises(ValueError, match="list of at least one name.*Received: 'identity'"):
        tta(model, "identity")
    with pytest.raises(ValueError, match="Unknown transform 'flip_horizontaly'. Did you mean 'flip_horizontal'"):
        tta(model, ["flip_horizontaly"])
    with pytest.raises(ValueError, match="each transform once"):
        tta(model, ["identity", "identity"])
    with pytest.raises(ValueError, match="Unknown task"):
        tta(model, task="classification")
    with pytest.raises(ValueError, match=r"\['rotate_90'\] swap height and width.*Received: \(None, 8, 6, 1\)"):
        tta(unet(input_shape=(8, 6, 1)), ["identity", "rotate_90"])
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"must take .*Received: a model that takes \(None, 4\) and"):
        tta(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
