"""`dropzoo sites` shows what `models.list_sites` knows: edges on request, and what draws inside of layers."""

import keras
from keras import layers as kl

from _cli import run


def test_edges_and_what_is_inside(capsys, tmp_path, monkeypatch):
    inputs = keras.Input((6, 3))
    x = kl.LSTM(4, dropout=0.3, return_sequences=True, name="memory")(inputs)
    y = kl.Dense(4, name="end")(x)
    keras.Model(inputs, kl.Dense(2)(kl.Add(name="join")([x, y]))).save(tmp_path / "model.keras")
    status, text, _ = run(capsys, "sites", str(tmp_path))  # the folder of a run
    assert status == 0 and "inside" in text and "0.3" in text and "->" not in text
    status, text, _ = run(capsys, "sites", str(tmp_path / "model.keras"), "--edges")
    assert status == 0 and "memory->join" in text and "edge" in text
    (tmp_path / "model.keras").unlink()
    (tmp_path / "lenet5").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "sites", "lenet5")[0] == 0  # the name of a model, not the folder
    status, _, error = run(capsys, "sites", str(tmp_path))
    assert status == 2 and "a run's folder with a model.keras in it" in error


def test_no_column_without_need(capsys):
    status, text, _ = run(capsys, "sites", "lenet5")
    assert status == 0 and "dense1" in text and "inside" not in text
