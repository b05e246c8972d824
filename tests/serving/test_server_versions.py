"""The versions that a server finds in a folder: new ones, broken ones, and those that are replaced."""

import concurrent.futures
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from _live import Held, live, until
from _small_cnn import small_cnn
from dropzoo import serving
from dropzoo.serving.server.versions import Versions

CNN = "/v1/models/cnn"


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).random((3, 8, 8, 1), "float32")


@pytest.mark.costly(keep=0)
def test_a_new_version_takes_over_while_a_request_finishes_on_the_old(tmp_path, x):
    folder = tmp_path / "cnn"
    serving.export_model(small_cnn(weights_seed=1), folder, 0)
    with live(folder, poll_seconds=0.05, keep=1) as running:
        body = {"instances": x.tolist()}
        old = running.post(f"{CNN}:predict", body)[1]
        held = Held(running.batcher())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            late = pool.submit(running.post, f"{CNN}:predict", body)
            assert held.begun.wait(30)
            serving.export_model(small_cnn(weights_seed=2), folder, 0)
            until(lambda: list(running.core.versions.available) == [2])
            new = running.post(f"{CNN}:predict", body)
            held.go_on.set()
            assert late.result() == (200, old)
        assert new[0] == 200 and new[1] != old
        status, answer = running.post(f"{CNN}/versions/1:predict", body)
        assert status == 404 and "Specific(cnn, 1). Versions of cnn: 2" in answer["error"]


@pytest.mark.costly(keep=0)
def test_versions_that_cannot_be_served_leave_the_others_alone(tmp_path, plain_export, x):
    folder = tmp_path / "cnn"
    shutil.copytree(plain_export, folder)
    with live(folder, poll_seconds=3600) as running:
        (folder / "2").mkdir()
        (folder / "2" / "saved_model.pb").write_bytes(b"nonsense")
        reader = tf.Module()
        reader.f = tf.function(
            lambda path: {"text": tf.io.read_file(path[0])[None]}, [tf.TensorSpec([None], tf.string)]
        )
        tf.saved_model.save(reader, str(folder / "3"), signatures={"serving_default": reader.f})
        running.core.versions.refresh()
        states = {s["version"]: s for s in running.get(CNN)[1]["model_version_status"]}
        assert {version: s["state"] for version, s in states.items()} == {"1": "AVAILABLE", "2": "END", "3": "END"}
        assert "does not run such a model: ReadFile" in states["3"]["status"]["error_message"]
        assert running.post(f"{CNN}:predict", {"instances": x.tolist()})[0] == 200
        for version in ("2", "3"):
            shutil.rmtree(folder / version)
        shutil.copytree(folder / "1", folder / "5")
        running.core.versions.refresh()
        assert sorted(running.core.versions.available) == [1, 5] and not running.core.versions.failed
        serving.export_model(small_cnn(weights_seed=3), folder / "5", 0, overwrite=True)  # in the place of 5
        before = running.post(f"{CNN}:predict", {"instances": x.tolist()})
        running.core.versions.refresh()
        assert running.post(f"{CNN}:predict", {"instances": x.tolist()}) != before
        shutil.copytree(folder / "1", folder / "7")
        running.core.versions.refresh()
        assert sorted(running.core.versions.available) == [5, 7]  # the newest two
        shutil.rmtree(folder)
        running.core.versions.refresh()
        assert running.get("/healthz") == (503, {"status": "no version is loaded", "versions": []})
        assert running.get(CNN)[0] == 404


def test_a_version_that_is_being_replaced_is_served_on(tmp_path, plain_export, monkeypatch):
    """An export that replaces a folder moves the old one away first, which may be just when the server looks."""
    shutil.copytree(plain_export, tmp_path / "cnn")
    versions = Versions(tmp_path / "cnn")
    versions.refresh()
    old = versions.available[1]
    (tmp_path / "cnn" / "1").rename(tmp_path / "cnn" / ".1-old")
    # The new one is there before the server looks again.
    monkeypatch.setattr(time, "sleep", lambda seconds: shutil.copytree(plain_export / "1", tmp_path / "cnn" / "1"))
    versions.refresh()
    assert list(versions.available) == [1] and versions.available[1] is not old and not versions.failed
    (tmp_path / "cnn" / "1").rename(tmp_path / "cnn" / ".1-older")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    versions.refresh()
    assert not versions.available


def test_a_version_that_is_copied_bit_by_bit_is_served_once_it_is_there(tmp_path, plain_export, x):
    folder = tmp_path / "cnn"
    shutil.copytree(plain_export, folder)
    with live(folder, poll_seconds=3600) as running:
        versions, new = running.core.versions, folder / "2"
        new.mkdir()
        shutil.copy(folder / "1" / "saved_model.pb", new)
        versions.refresh()
        assert list(versions.available) == [1] and list(versions.failed) == [2]
        shutil.copytree(folder / "1" / "variables", new / "variables")
        versions.refresh()
        assert versions.available[2].outputs[0].class_names is None and not versions.failed
        shutil.copytree(folder / "1" / "assets.extra", new / "assets.extra")
        versions.refresh()
        assert versions.available[2].outputs[0].class_names == ("zero", "one", "two", "three")
        known = versions.available
        versions.refresh()
        assert versions.available is known
        assert running.post(f"{CNN}/versions/2:predict", {"instances": x.tolist()})[0] == 200
