"""The trainer stopped, interrupted and resumed, against a run that nothing stops.

Run as a script (`test_resume.py DIRECTORY`) it is the other process of the resume test.
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.python.framework.config import disable_op_determinism

from _trainer_runs import STEPS, StopAt, dataset, linear_model, train_run
from dropzoo.training.trainer import Trainer


@pytest.fixture
def deterministic():
    yield
    disable_op_determinism()


@pytest.fixture(scope="module")
def whole():
    """The model and the history of a run that nothing stops."""
    run = train_run()
    disable_op_determinism()
    return run


def assert_same_run(run, other):
    (model, history), (other_model, other_history) = run, other
    for variable, value in zip(model.variables, other_model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)
    for variable, value in zip(model.optimizer.variables, other_model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy(), err_msg=variable.path)
    assert history.history == other_history.history
    assert history.epoch == other_history.epoch


def test_resumes_at_the_end_of_an_epoch_and_within_one(tmp_path, deterministic, whole):
    train_run(tmp_path / "epoch", epochs=1)
    assert_same_run(whole, train_run(tmp_path / "epoch"))
    assert_same_run(whole, train_run(tmp_path / "epoch"))  # a finished run has nothing left to do

    within = tmp_path / "within"
    train_run(within, [StopAt(STEPS + 2)])
    assert [path.name for path in sorted(within.iterdir())][-1] == "epoch00001_step0000002.npz"
    assert_same_run(whole, train_run(within))


@pytest.mark.slow
def test_resumes_in_another_process(tmp_path, deterministic, whole):
    whole_model, whole_history = whole
    train_run(tmp_path, [StopAt(STEPS + 1)])
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, capture_output=True)
    with np.load(tmp_path / "result.npz") as result:
        assert len(result) == len(whole_model.variables) + 1
        for index, variable in enumerate(whole_model.variables):
            np.testing.assert_array_equal(result[f"arr_{index + 1}"], variable.numpy(), err_msg=variable.path)
        np.testing.assert_array_equal(result["arr_0"], whole_history.history["val_loss"])


@pytest.mark.costly(keep=0)
@pytest.mark.parametrize("where", ["step", "validation", "epoch end"])
def test_interrupt_saves_and_goes_on(tmp_path, deterministic, whole, capsys, where):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    callback = {
        "step": StopAt(STEPS + 3, interrupt=True),
        "validation": keras.callbacks.Callback(),
        "epoch end": keras.callbacks.LambdaCallback(on_epoch_end=interrupt),
    }[where]
    if where == "validation":
        callback.on_test_batch_end = interrupt
    with pytest.raises(KeyboardInterrupt):
        # The history sees the end of the epoch before the interrupt does.
        train_run(tmp_path, [keras.callbacks.History(), callback])
    saved = "epoch00001_step0000003.npz" if where == "step" else "epoch00000_step0000004.npz"
    assert f"Interrupted. Saved to {tmp_path / saved}" in capsys.readouterr().out
    assert_same_run(whole, train_run(tmp_path))


def test_interrupt_without_a_directory_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Trainer(linear_model()).fit(dataset(), callbacks=[StopAt(1, interrupt=True)], verbose=0)
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    trained, log = train_run(target)
    np.savez(target / "result.npz", log.history["val_loss"], *[value.numpy() for value in trained.variables])
