"""Which cases of a large table are enough: each row, each value beside it, and each pair of such values."""

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

Case = Mapping[str, Hashable]


def targets(case: Case, rows: str) -> set[Hashable]:
    """Returns what a case covers: its row, the value of each other dimension, and each pair of these values."""
    others = sorted(name for name in case if name != rows)
    pairs = itertools.combinations(others, 2)
    return {(name, case[name]) for name in case} | {(a, case[a], b, case[b]) for a, b in pairs}


def covering(cases: Sequence[Case], rows: str) -> list[int]:
    """Returns the numbers of cases that cover what all cases do, in order, with few cases.

    Each step takes the case that covers most of what is left. If there are several, it takes the one whose values
    were taken least often, so that the values spread over the rows, and then the first. The choice depends on the
    order of the cases alone.

    Args:
        cases: Sequence of mappings. The value of each dimension, by its name; not all combinations need be there.
        rows: String. The dimension that has a row for each thing under test.

    Returns:
        List of ints. Indices into `cases`, in increasing order.
    """
    covers = [targets(case, rows) for case in cases]
    left: set[Hashable] = set().union(*covers)
    taken: Counter[Hashable] = Counter()
    chosen = []
    while left:
        gains = [
            (len(covered & left), -sum(taken[target] for target in covered), -i)
            for i, covered in enumerate(covers)
        ]
        best = -max(gains)[2]
        chosen.append(best)
        left -= covers[best]
        taken.update(covers[best])
    return sorted(chosen)


def key(value: object) -> Hashable:
    """Returns what tells a value from others: its text if it is of a built-in type, else which object it is."""
    return repr(value) if type(value).__module__ == "builtins" else id(value)


def case_of(params: Mapping[str, object], names: Iterable[str]) -> Case:
    """Returns the dimensions of a case of a test."""
    return {name: key(params[name]) for name in names}
