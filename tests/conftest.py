"""Set-up shared by all tests: a quiet TensorFlow, two logical devices, one seed a test."""

import gc
import os
from collections import Counter
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

QUICK_CASES = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help=f"the first {QUICK_CASES} cases of each test only")


@pytest.hookimpl(trylast=True)  # when the slow ones are out already
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out all but the first cases of each test, if asked to."""
    if not config.getoption("quick"):
        return
    seen: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        seen[test] += 1
        (kept if seen[test] <= QUICK_CASES else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("quick"):
        terminalreporter.write_line(
            f"Left out: more than {QUICK_CASES} cases of a test, and the files on training, sampling, export, "
            "servers, sweeps and the command line. `make test` runs them."
        )


def pytest_configure(config: pytest.Config) -> None:
    """Sets TensorFlow up; the process that only hands tests out to others does not pay for its import."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import tensorflow as tf

    # Test processes that run side by side share the cores: with a thread a core each, they wait for each other.
    share = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    tf.config.threading.set_intra_op_parallelism_threads(max(1, share))
    # Two logical devices, so that every machine can run MirroredStrategy; must happen before TensorFlow starts.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_collection_finish() -> None:
    """Leaves what is imported, most of what a collection would look through, out of all garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
