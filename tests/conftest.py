"""Set-up shared by all tests: a quiet TensorFlow, two logical devices, one seed a test."""

import functools
import gc
import os
import random
import zlib
from collections.abc import Iterator
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

import _covering

FEW = 3
HELP = (
    "covering (the default): of a test with the mark `covering`, each row and each value and pair of values "
    "beside the rows; of other tests, all. main: of these, as many cases as the mark `costly` keeps. few: of "
    f"these, the first {FEW} cases of each test. all: all cases of all tests."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", choices=("few", "main", "covering", "all"), default="covering", help=HELP)


@pytest.hookimpl(trylast=True)  # when the slow ones are out already
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the cases that `--cases` does not ask for."""
    asked = config.getoption("cases")
    if asked == "all":
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    parts = {"few": lambda cases: main(cases)[:FEW], "main": main, "covering": lambda cases: cases}
    kept = {item for cases in tests.values() for item in parts[asked](covering(cases))}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def covering(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Returns the cases of a test that its mark `covering` asks for."""
    mark = cases[0].get_closest_marker("covering")
    if mark is None:
        return cases
    params = [_covering.case_of(case.callspec.params, mark.args) for case in cases]  # type: ignore[attr-defined]
    return [cases[i] for i in _covering.covering(params, rows=mark.args[0])]


def main(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Returns as many cases of a test as its mark `costly` keeps, spread over the table, others in each test."""
    mark = cases[0].get_closest_marker("costly")
    if mark is None:
        return cases
    keep = min(mark.kwargs["keep"], len(cases))
    first = zlib.crc32(cases[0].nodeid.partition("[")[0].encode())
    chosen = {(first + i * len(cases) // keep) % len(cases) for i in range(keep)}
    return [cases[i] for i in sorted(chosen)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = {
        "few": f"more than {FEW} cases of a test, and the files on training, sampling, export, servers, sweeps "
        "and the command line. `make test` runs them.",
        "main": "tests that take seconds, and most cases of tests with costly cases. `make test-more` runs them.",
    }
    if config.getoption("cases") in left_out:
        terminalreporter.write_line(f"Left out: {left_out[config.getoption('cases')]}")


def pytest_configure(config: pytest.Config) -> None:
    """Sets TensorFlow up; the process that only hands tests out to others does not pay for its import."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import keras
    import tensorflow as tf

    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 11):
        # It warns of each model of one input that was loaded from a file, although the input is right.
        config.addinivalue_line("filterwarnings", "ignore:The structure of `inputs` doesn't match:UserWarning")
    # Test processes that run side by side share the cores: with a thread a core each, they wait for each other.
    share = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    tf.config.threading.set_intra_op_parallelism_threads(max(1, share))
    # Two logical devices, so that every machine can run MirroredStrategy; must happen before TensorFlow starts.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_collection_finish() -> None:
    _keep_what_is_left()


def _keep_what_is_left() -> None:
    """Leaves what is imported and cached, most of what a collection would look through, out of those to come."""
    gc.collect()
    gc.freeze()


#: The file of the last test.
_modules: list[os.PathLike[str]] = []


@pytest.fixture(autouse=True)
def _fresh_state(request: pytest.FixtureRequest) -> Iterator[None]:
    import keras
    import tensorflow as tf

    if _modules != [request.path]:
        _modules[:] = [request.path]
        keras.utils.set_random_seed(0)  # makes TensorFlow forget the kernels, so that they do not fill the memory
        _keep_what_is_left()
    with mock.patch.object(tf.random, "set_seed", functools.partial(_seed, request.node.nodeid)):
        keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def _seed(test: str, seed: int) -> None:
    """Sets TensorFlow's seed for a test, and keeps the kernels of the tests before it in the same file.

    `tf.random.set_seed` makes TensorFlow forget all kernels, because a random operation would otherwise continue
    the stream of an earlier one with the same seed. To make them again takes a fifth of the time of a small test.
    A seed that no other test has does as well.
    """
    from tensorflow.python.eager import context

    state = context.context()
    assert hasattr(state, "_seed")  # or what follows sets nothing
    state._seed, state._rng = zlib.crc32(test.encode()) + seed, random.Random(test)
