"""The command line: every command on a tiny case."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from _cli import TINY, run
from dropzoo import layers, models, training


@pytest.mark.costly(keep=0)
def test_bench(capsys):
    data = ["--data", "digits", "--batch-size", "64", "--seconds", "0.1"]
    status, out, _ = run(capsys, "bench-input", *data, "--augment", "yes")
    later = r"later epochs +. (not reached: pass more --seconds|[1-9][\d,]* images/s)"  # as fast as the machine is
    assert status == 0 and re.search(r"first epoch +. [1-9][\d,]* images/s", out) and re.search(later, out)
    options = ["--option", "filters=(4,)", "--option", "dense=8", "--steps", "2"]
    status, out, _ = run(capsys, "bench", "simple_cnn", *data, "--dropout", "0.2", *options)
    assert status == 0 and "jit_compile=True" in out and re.search(r"input is [\d.]+ times as fast", out)
    status, _, error = run(capsys, "bench-input", "--data", "nowhere")
    assert status == 2 and "nowhere" in error


def test_plot(capsys, tmp_path):
    options = ["--option", "depth=2", "--option", "filters=4", "--dropout", "skip*=spatial_dropout2d:0.2"]
    status, _, _ = run(capsys, "plot", "unet", *options, "-o", str(tmp_path / "new" / "unet.svg"))
    text = (tmp_path / "new" / "unet.svg").read_text()
    assert status == 0
    assert all(f">{name}<" in text for name in ("bottleneck_conv1", "decoder2_conv2", "spatial_dropout2d", "0.2"))
    status, _, error = run(capsys, "plot", "unet", "-o", str(tmp_path / "unet.doc"))
    assert status == 2 and "must end in one of" in error
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["new", "unet.svg"]


def test_retrofit(capsys, tmp_path):
    k = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), k.Conv2D(2, 3, name="conv"), k.Flatten(name="flat"), k.Dense(2)]
    )
    model.save(tmp_path / "mine.keras")
    old, new, out = (str(tmp_path / f"{name}.keras") for name in ("mine", "new", "out"))
    status, text, _ = run(capsys, "retrofit", old, "--dropout", "after:Conv2D=0.25", "-o", new)
    assert status == 0 and re.search(r"conv +dropout:0.25 +0.25 +0.2", text)
    status, text, _ = run(capsys, "sites", new, "--dropout", "flat=0.5", "--dropout", "conv=none")
    assert status == 0 and "dropout:0.5" in text and "dropout:0.25" not in text
    status, _, error = run(capsys, "retrofit", new, "--strip", "-o", old)
    assert status == 2 and "exists" in error
    status, _, _ = run(capsys, "retrofit", new, "--strip", "-o", out)
    assert status == 0 and not any(site.spec for site in models.list_sites(keras.models.load_model(out)))
    for wrong, message in ((["--dropout", "convv=0.1"], "Did you mean"), ([], "Pass either --dropout")):
        status, _, error = run(capsys, "retrofit", old, *wrong, "-o", str(tmp_path / "wrong.keras"))
        assert status == 2 and message in error
    assert {p.name for p in tmp_path.iterdir()} == {"mine.keras", "new.keras", "out.keras"}


@pytest.mark.parametrize("kind", ["models", "layers", "plans", "data"])
def test_list(kind, capsys):
    status, out, _ = run(capsys, "list", kind)
    names = {"models": models.list_models(), "layers": layers.list_layers(), "plans": models.list_plans()}
    assert status == 0 and all(name in out for name in names.get(kind, ["digits", "digit_scenes"]))


def test_sites(capsys, cnn_run):
    status, out, _ = run(capsys, "sites", "unet", "--dropout", "skip*=0.2", "--option", "depth=1")
    assert status == 0 and re.search(r"skip1 .* dropout:0.2", out) and "encoder2" not in out
    status, out, _ = run(capsys, "sites", str(cnn_run / "model.keras"))
    assert status == 0 and re.search(r"head .* dropout:0.3", out)


def test_a_run_holds_what_it_says(cnn_run):
    assert {p.name for p in cnn_run.iterdir()} == {
        "run.json",
        "checkpoints",
        "history.csv",
        "model.keras",
        "results.json",
    }
    results = json.loads((cnn_run / "results.json").read_text())
    assert 0 <= results["accuracy"] <= 1 and results["count"] == 355
    assert json.loads((cnn_run / "run.json").read_text())["config"]["dropout"] == {"head": 0.3}


def test_a_finished_run_is_not_trained_again_and_another_is_refused(cnn_run, capsys):
    before = (cnn_run / "model.keras").stat().st_mtime_ns
    same = ["train", "simple_cnn", "--data", "digits", "--out", str(cnn_run), *TINY]
    status, out, _ = run(capsys, *same, "--dropout", "head=0.3")
    assert status == 0 and "finished" in out
    status, _, err = run(capsys, *same, "--dropout", "head=0.4", "--epochs", "99")  # more epochs are allowed
    assert status == 2 and "holds another run" in err and "0.4" in err and "epochs: " not in err
    assert (cnn_run / "model.keras").stat().st_mtime_ns == before


def test_a_setting_that_a_runs_file_lacks_has_its_default(cnn_run, tmp_path, capsys):
    """A version that adds a setting goes on with the runs of one that did not know it."""
    older = shutil.copytree(cnn_run, tmp_path / "run")
    saved = json.loads((older / "run.json").read_text())
    del saved["config"]["label_smoothing"]
    (older / "run.json").write_text(json.dumps(saved))
    same = ["train", "simple_cnn", "--data", "digits", "--out", str(older), *TINY, "--dropout", "head=0.3"]
    status, out, _ = run(capsys, *same)
    assert status == 0 and "finished" in out
    status, _, err = run(capsys, *same, "--label-smoothing", "0.1")
    assert status == 2 and "label_smoothing" in err


@pytest.mark.costly(keep=0)
def test_rates_on_a_schedule(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "simple_cnn", "--data", "digits", "--out", str(out), *TINY, "--dropout", "head=0"]
    assert run(capsys, *command, "--rate-schedule", "head=late:0.5,start=0.6")[0] == 0
    assert json.loads((out / "run.json").read_text())["config"]["rate_schedule"] == {"head": "late:0.5,start=0.6"}
    status, shown, _ = run(capsys, "sites", str(out / "model.keras"))
    assert status == 0 and re.search(r"head .* dropout:0.5", shown)
    status, _, err = run(capsys, *command, "--rate-schedule", "head=late:0.5,start=0.7")
    assert status == 2 and "holds another run" in err and "start=0.7" in err


@pytest.mark.costly(keep=0)
def test_a_stopped_run_goes_on(tmp_path, capsys):
    """Stopped after its first epoch, it ends with the weights of the run that was not."""
    import keras

    from dropzoo.runs.config import RunConfig
    from dropzoo.runs.files import read_history
    from dropzoo.runs.run import train_run

    what = {"model": "simple_cnn", "data": "digits", "dropout": 0.2, "options": {"filters": [4], "dense": [8]}}
    config = RunConfig(**what, epochs=3, limit=64, rate_schedule={"*": "linear:0.1,0.4", "dense1": 0.3})
    whole, _ = train_run(config, tmp_path / "whole", verbose=0)

    class Stop(Exception):
        pass

    class StopAtEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Stop

    original = training.Trainer.fit
    training.Trainer.fit = lambda self, *a, callbacks, **k: original(
        self, *a, callbacks=[*callbacks, StopAtEpoch()], **k
    )
    try:
        with pytest.raises(Stop):
            train_run(config, tmp_path / "stopped", verbose=0)
    finally:
        training.Trainer.fit = original
    assert not (tmp_path / "stopped" / "results.json").exists()
    resumed, _ = train_run(config, tmp_path / "stopped", verbose=0)
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    histories = [read_history(tmp_path / name) for name in ("whole", "stopped")]
    assert [len(history["loss"]) for history in histories] == [3, 3]
    rates = [0.1 + 0.3 * done / 6 for done in (1, 3, 5)]  # two steps an epoch
    for history in histories:
        assert history["rate/*"] == pytest.approx(rates) and history["rate/dense1"] == [0.3] * 3


def test_evaluate(cnn_run, capsys):
    status, out, _ = run(capsys, "evaluate", str(cnn_run), "--mc", "3")
    assert (
        status == 0
        and "deterministic" in out
        and "Monte Carlo" in out
        and "3 samples" in out
        and "355 test images" in out
    )


@pytest.mark.costly(keep=0)
def test_evaluate_any_model_on_any_data(cnn_run, unet_run, capsys):
    own = run(capsys, "evaluate", str(cnn_run))
    for model in (cnn_run, cnn_run / "model.keras"):
        assert run(capsys, "evaluate", str(model), "--data", "digits") == own
    status, out, _ = run(capsys, "evaluate", str(unet_run))
    assert status == 0 and "mean IoU" in out and "IoU 1" in out
    folder = str(unet_run.parent)  # with the images that it was trained on
    assert run(capsys, "evaluate", str(unet_run / "model.keras"), "--data", folder)[:2] == (status, out)


@pytest.mark.slow
def test_evaluate_more_closely(cnn_run, unet_run, tmp_path, capsys):
    asked = ["--mc", "2", "--temperature", "--corruptions", "blur", "--plots", str(tmp_path / "plots")]
    asked += ["--ood", "digit_scenes"]
    for folder, score in ((cnn_run, "accuracy"), (unet_run, "mean IoU")):
        status, out, err = run(capsys, "evaluate", str(folder), *asked)
        assert status == 0, err
        said = (
            "OOD AUROC",
            "mutual information, Monte Carlo",
            "T = ",
            "ECE, equal mass",
            "AURC",
            f"{score} by severity",
            "blur",
            "MC, 2",
        )
        assert [text for text in said if text not in out] == []
        assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".svg", ".png", ".html", ".csv"}
        page = (tmp_path / "plots" / "report.html").read_text()
        assert page.count("<img") == 6 and "OOD AUROC against digit_scenes, test images" in page


def test_export_and_predict_from_all_three_kinds_of_model(cnn_run, unet_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(400).reshape(20, 20).astype("uint8")).save(tmp_path / "digit.png")
    export = tmp_path / "cnn" / "1"
    assert run(capsys, "export", str(cnn_run), str(export), "--num-samples", "3")[0] == 0
    lines = []
    for model in (cnn_run, cnn_run / "model.keras", export, export.parent):
        status, out, _ = run(capsys, "predict", "digit.png", "--model", str(model), "--num-samples", "3")
        assert status == 0
        lines.append(next(line for line in out.splitlines() if "digit.png" in line))
    assert lines[2] == lines[3]  # the newest version of the folder
    image = next(Path(unet_run.parent, "images").iterdir())
    status, out, _ = run(capsys, "predict", str(image), "--model", str(unet_run), "--out", str(tmp_path / "p"))
    picture = tmp_path / "p" / f"{image.stem}_prediction.png"
    assert status == 0
    with Image.open(picture) as opened:
        assert opened.width > 400


def test_predict_one_logit_as_two_classes_and_images_of_one_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / folder / "x.png")
    sure = {"kernel_initializer": "zeros", "bias_initializer": keras.initializers.Constant(6.0)}
    inputs = keras.Input((8, 8, 1))
    keras.Sequential([inputs, keras.layers.Flatten(), keras.layers.Dense(1, **sure)]).save("one.keras")
    status, out, _ = run(capsys, "predict", "a/x.png", "--model", "one.keras")
    assert status == 0 and re.search(r"a/x.png \S+ 1 \S+ 0\.998", re.sub(r" +", " ", out))
    keras.Sequential([inputs, keras.layers.Conv2D(1, 1, **sure)]).save("mask.keras")
    assert run(capsys, "predict", "a/x.png", "b/x.png", "--model", "mask.keras")[0] == 0
    pictures = [np.asarray(Image.open(tmp_path / "predictions" / f"x_prediction{n}.png")) for n in ("", "_2")]
    np.testing.assert_array_equal(*pictures)
    half = pictures[0][:, pictures[0].shape[1] // 2 :, :3].astype(int)
    assert (half.max(-1) - half.min(-1)).max() > 50  # the foreground has a colour
