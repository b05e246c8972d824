"""Exports and their server for each task: what the signatures give, and what the page shows."""

import json

import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import images, small_cnn
from dropzoo import models, serving

TASKS = {"multi_class": 4, "binary": 1, "multi_label": 4, "regression": 2}


def dense(task):
    plan = {"bottleneck*": 0.4}
    shape = {"input_shape": (8, 8, 1), "num_classes": TASKS[task], "depth": 1, "filters": 4}
    return models.build_model("unet", dropout=plan, **shape)


@pytest.fixture(scope="module", params=TASKS)
def exported(request, tmp_path_factory):
    """The task, a classifier, its sampler, and the folder of its export."""
    task, model = request.param, small_cnn(num_classes=TASKS[request.param])
    folder = tmp_path_factory.mktemp("tasks") / "model"
    path = serving.export_model(model, folder, 5, sampling="balanced", task=task)
    return task, model, serving.MonteCarlo(model, 5, task=task), path


@pytest.mark.costly(keep=2)
def test_signatures_follow_the_task(exported):
    task, model, sampler, path = exported
    signatures, x = tf.saved_model.load(str(path)).signatures, images()
    logits = model(x).numpy().astype("float64")
    given = {name: value.numpy() for name, value in signatures["serving_default"](images=tf.constant(x)).items()}
    if task == "regression":
        np.testing.assert_allclose(given.pop("values"), logits, atol=1e-5)
    else:
        soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = soft if task == "multi_class" else 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(given.pop("probabilities"), expected, atol=1e-5)
        name, answer = {
            "multi_class": ("classes", logits.argmax(-1)),
            "binary": ("classes", (logits > 0)[:, 0]),
            "multi_label": ("labels", logits > 0),
        }[task]
        np.testing.assert_array_equal(given.pop(name), answer)
    assert not given
    sampled = signatures["predict_mc"](images=tf.constant(x))
    expected = sampler(x)
    assert sampled.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(sampled[name], value, atol=1e-5, err_msg=name)


def test_the_card_says_the_task(exported):
    task, _, _, path = exported
    extra = path / "assets.extra"
    assert json.loads((extra / "info.json").read_text())["task"] == task
    card = json.loads((extra / "model_card.json").read_text())
    assert card["task"] == task and card["outputs" if task == "regression" else "classes"] == TASKS[task]
    assert f"## Task\n\n{task}\n" in (extra / "model_card.md").read_text()


@pytest.mark.costly(keep=1)
def test_the_server_answers_each_task(exported):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from _live import live, png

    task, _, sampler, path = exported
    with live(path.parent) as running:
        body = json.dumps({"instances": images(2).tolist()}).encode()
        rows = json.loads(running.send("POST", "/v1/models/model:predict_mc", body)[1])["predictions"]
        expected = sampler(images(2))
        assert rows[0].keys() == expected.keys()
        for i, row in enumerate(rows):
            np.testing.assert_allclose(row["mean"], expected["mean"][i], atol=1e-5)
        image = np.round(images(1)[0] * 255).astype("uint8")
        address, kind = "/v1/models/model:picture", {"content-type": "image/png"}
        status, answer, _ = running.send("POST", address, png(image), **kind)
    assert status == 200
    shown = json.loads(answer)
    mean = sampler(image[None] / 255.0)["mean"][0].numpy()
    found = {each["name"]: each.get("value", each.get("probability")) for each in shown["classes"]}
    mean = [1 - mean[0], mean[0]] if task == "binary" else mean
    assert found == pytest.approx({str(i): value for i, value in enumerate(mean)}, abs=1e-5)
    views = {"multi_label": "labels", "regression": "values"}
    assert shown["view"] == views.get(task, "classes") and shown["sampled"]


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_maps_are_shown(task):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from dropzoo.serving.server.pictures import picture

    out = {name: value.numpy() for name, value in serving.MonteCarlo(dense(task), 3, task=task)(images(1)).items()}
    shown = picture(out, None, task)
    assert shown["mask"].startswith("data:image/png") and shown["heat"].startswith("data:image/png")
    if task == "regression":
        assert shown["view"] == "value_map" and shown["least"] == pytest.approx(float(out["mean"][..., 0].min()))
        assert shown["spread"] == pytest.approx(float(np.sqrt(out["variance"][..., 0].max())))
    else:
        shares = {each["name"]: each["probability"] for each in shown["classes"]}
        for i in range(4):
            assert shares.get(str(i), 0) == pytest.approx((out["mean"][..., i] > 0.5).mean())
        assert shares.get("none", 0) == pytest.approx((out["mean"].max(-1) <= 0.5).mean())


def test_names_and_bad_tasks(tmp_path):
    model = small_cnn(num_classes=1)
    path = serving.export_model(model, tmp_path / "m", 0, task="regression", class_names=["millimetres"])
    assert json.loads((path / "assets.extra" / "info.json").read_text())["class_names"] == ["millimetres"]
    with pytest.raises(ValueError, match="`class_names` must have 2 names. Received: 1"):
        serving.export_model(model, tmp_path / "n", 0, class_names=["yes"])
    with pytest.raises(ValueError, match="Unknown task 'regress'. Did you mean 'regression'"):
        serving.export_model(model, tmp_path / "n", 0, task="regress")
    with pytest.raises(ValueError, match="task='binary' needs a model with one output unit"):
        serving.export_model(small_cnn(), tmp_path / "n", 0, task="binary")
    assert not (tmp_path / "n").exists()
