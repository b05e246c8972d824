"""A covering part of a table: nothing that the whole table tries is untried."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from _covering import covering, targets

TABLES = {
    "one dimension": {"row": "abcd"},
    "more rows than values": {"row": range(25), "size": "abcde", "rate": (0.1, 0.6)},
    "more values than rows": {"row": "ab", "size": range(7), "rate": (0.1, 0.6, 0.9)},
    "four dimensions": {"row": range(5), "size": range(4), "rate": (0.1, 0.6), "dtype": "xyz"},
}


def product(table):
    return [dict(zip(table, values, strict=True)) for values in itertools.product(*table.values())]


@pytest.mark.parametrize("holes", [0, 3], ids=["all combinations", "some are missing"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_value_and_pair_that_is_in_the_table_is_covered(table, holes):
    cases = [case for i, case in enumerate(product(table)) if not holes or i % holes]
    chosen = [cases[i] for i in covering(cases, "row")]
    for name in table:
        assert {case[name] for case in chosen} == {case[name] for case in cases}
    for a, b in itertools.combinations([name for name in table if name != "row"], 2):
        assert {(case[a], case[b]) for case in chosen} == {(case[a], case[b]) for case in cases}


def test_no_more_cases_than_rows_where_that_is_enough_and_values_spread_over_them():
    cases = product(TABLES["more rows than values"])
    chosen = [cases[i] for i in covering(cases, "row")]
    assert [case["row"] for case in chosen] == list(range(25))
    for name, values in (("size", 5), ("rate", 2)):
        counts = [sum(case[name] == value for case in chosen) for value in TABLES["more rows than values"][name]]
        assert max(counts) - min(counts) <= 25 / values / 2, (name, counts)


def test_pairs_are_of_the_values_beside_the_rows():
    assert targets({"row": "a", "x": 1, "y": 2}, "row") == {("row", "a"), ("x", 1), ("y", 2), ("x", 1, "y", 2)}


FILE = """
import pytest

class Row:
    pass

@pytest.fixture(params=["plain", "compiled"])
def path(request):
    pass

@pytest.mark.covering("row", "dtype", "path")
@pytest.mark.parametrize("row", [Row() for _ in range(3)])
@pytest.mark.parametrize("dtype", ["float16", 1, {"a": None}])
def test_table(row, path, dtype):
    pass

@pytest.mark.covering("row", "plan")
@pytest.mark.parametrize(("row", "plan"), [("a", None), ("a", 0.3), ("b", "paper"), ("b", None), ("b", 0.3)])
def test_in_one(row, plan):
    pass

@pytest.mark.parametrize("x", range(4))
@pytest.mark.parametrize("y", range(2))
def test_plain(x, y):
    pass

@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("x", range(10))
def test_costly(x):
    pass

@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("x", range(10))
def test_costly_too(x):
    pass

@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("x", range(2))
def test_costly_short(x):
    pass

@pytest.mark.costly(keep=0)
def test_journey():
    pass
"""


def test_the_option_and_the_marks(tmp_path):
    """The same cases whatever Python's hash seed is, or a process of xdist would have others."""
    (tmp_path / "test_it.py").write_text(FILE)
    conftest = Path(__file__).with_name("conftest.py").read_text().partition("def pytest_configure")[0]
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {Path(__file__).parent}\n"
        "markers =\n    covering(rows, *others): x\n    costly(keep): x\n"
    )

    def collected(seed: str, *options: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *options]
        environment = {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]

    def counts(found: list[str]) -> list[int]:
        tests = ("table", "in_one", "plain", "costly", "costly_too", "costly_short", "journey")
        return [sum(line.partition("[")[0] == f"test_{test}" for line in found) for test in tests]

    found = collected("1")
    assert found == collected("2")
    assert counts(found) == [6, 3, 8, 10, 10, 2, 1]
    everything = collected("1", "--cases", "all")
    assert counts(everything) == [18, 5, 8, 10, 10, 2, 1] and set(found) < set(everything)
    main = collected("1", "--cases", "main")
    assert main == collected("2", "--cases", "main")
    assert counts(main) == [6, 3, 8, 3, 3, 2, 0] and set(main) < set(found)
    rows = [
        {line[-2] for line in main if line.startswith(f"{test}[")} for test in ("test_costly", "test_costly_too")
    ]
    assert rows[0] != rows[1], "each test keeps other rows"
    assert counts(collected("1", "--cases", "few")) == [3, 3, 3, 3, 3, 2, 0]
    assert collected("1", "-k", "test_in_one and a-0.3") == ["test_in_one[a-0.3]"]
