"""Which samples are for training, validation and test: as the layout says, or the last ones, by whole groups."""

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dropzoo.common.words import count_of
from dropzoo.training.data.files.table import Reading, Sample, Table, some

#: The fraction of test images in a folder without a given split.
TEST_FRACTION = 0.2
_LOOKED_AT = 1000  # names in which groups are looked for
_LIKE_A_GROUP = re.compile(r"(?i)(patient|subject|subj|case|person|animal|mouse|plate|donor|slide|well)[-_ ]?\d+")


def tail_count(count: int, fraction: float) -> int:
    """Returns the number of examples in the last `fraction` of `count`, rounded to the nearest."""
    return int(count * fraction + 0.5)


def with_groups(table: Table, group_by: str | None) -> Table:
    """Returns a table whose samples have groups: what `group_by` finds in their paths, or their own.

    The pages of a stack are one group.

    Raises:
        ValueError: If `group_by` is not a regular expression, or does not match every path.
    """
    samples = table.samples
    if group_by is not None and not any(sample.group for sample in samples):
        try:
            pattern = re.compile(group_by)
        except re.error as error:
            raise ValueError(
                f"`group_by` (--group-by) must be a regular expression: {error}. Received: {group_by!r}"
            ) from None
        places = [pattern.search(_below(sample, table)) for sample in samples]
        lost = [sample.image.name for sample, place in zip(samples, places, strict=True) if place is None]
        if lost:
            raise ValueError(
                "`group_by` (--group-by) must be a pattern that occurs in each path, such as 'patient\\d+', or a "
                f"column of the split file. Received: {group_by!r}, which is not in {some(lost)}"
            )
        groups = [(place[1] if place.re.groups else place[0]) for place in places if place]
        samples = [dataclasses.replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)]
    else:
        samples = [
            dataclasses.replace(sample, group=str(sample.image))
            if sample.page is not None and not sample.group
            else sample
            for sample in samples
        ]
    if not any(sample.group for sample in samples):
        found = [_LIKE_A_GROUP.search(_below(sample, table)) for sample in samples[:_LOOKED_AT]]
        names = {place[0] for place in found if place}
        if all(found) and 1 < len(names) < len(found):
            table.doubts.append(
                f"Names such as {min(names)} may mark groups that should stay in one split: pass `group_by` "
                f"(--group-by), such as '{next(place for place in found if place)[1]}\\d+'"
            )
    return dataclasses.replace(table, samples=samples)


def _below(sample: Sample, table: Table) -> str:
    """The path of an image below the root, with slashes: patterns and splits are the same on every system."""
    root = table.root if table.root.is_dir() else table.root.parent
    path = sample.image.relative_to(root) if sample.image.is_relative_to(root) else sample.image
    return path.as_posix()


def assign(table: Table, reading: Reading) -> Table:
    """Returns a table in which each sample has a split.

    Without a given split, the last fifth of each class, or of all masks, is the test set. Without given validation
    images, the last fraction `validation_split` of the others is the validation set. Groups stay whole.

    Raises:
        ValueError: If a group is in two given splits, or the layout gives a split that `test_split` contradicts.
    """
    given = {sample.split for sample in table.samples} - {""}
    table.is_split = bool(given)
    if reading.test_split == 1:
        return _all(table, "test")
    _refuse_leaks(table)
    if given:
        if reading.test_split is not None:
            raise ValueError(
                f"The data have their own split: {', '.join(sorted(given))}. Received: "
                f"test_split={reading.test_split}. Leave `test_split` out, or pass 1 to test on all images"
            )
        splits = [sample.split or "train" for sample in table.samples]
    else:
        fraction = TEST_FRACTION if reading.test_split is None else reading.test_split
        splits = _cut(table, ["train"] * len(table.samples), fraction, "test")
    if "validation" not in given:
        splits = _cut(table, splits, reading.validation_split, "validation")
    samples = [
        dataclasses.replace(sample, split=split) for sample, split in zip(table.samples, splits, strict=True)
    ]
    return dataclasses.replace(table, samples=samples)


def _all(table: Table, split: str) -> Table:
    return dataclasses.replace(table, samples=[dataclasses.replace(each, split=split) for each in table.samples])


def _refuse_leaks(table: Table) -> None:
    """Raises a ValueError if a group is in several given splits."""
    splits: dict[str, set[str]] = {}
    for sample in table.samples:
        if sample.group and sample.split:
            splits.setdefault(sample.group, set()).add(sample.split)
    leaks = sorted(group for group, names in splits.items() if len(names) > 1)
    if leaks:
        shown = some([f"{group} ({', '.join(sorted(splits[group]))})" for group in leaks])
        raise ValueError(
            "Each group must be in one split. "
            f"Received: {count_of(len(leaks), 'group')} in several splits: {shown}. "
            "Give all images of a group the same split"
        )


def _cut(table: Table, splits: list[str], fraction: float, name: str) -> list[str]:
    """Returns the splits, with the last `fraction` of the training samples of each class moved to `name`."""
    cut, wanted_in_all, forced = list(splits), 0, 0
    for places in _strata(table.samples, [n for n, split in enumerate(splits) if split == "train"]).values():
        units = _units(table.samples, places)
        wanted, taken = tail_count(len(places), fraction), 0
        chosen = []
        for unit in reversed(units):
            if taken >= wanted:
                break
            # The group that comes nearer to the wanted number is still taken; smaller ones may fit.
            if len(unit) - (wanted - taken) <= wanted - taken:
                chosen.append(unit)
                taken += len(unit)
        if wanted and not chosen and len(units) > 1:
            chosen = [min(reversed(units), key=len)]
            forced += len(chosen[0])
            wanted_in_all += wanted
        for place in itertools.chain(*chosen):
            cut[place] = name
    if forced:
        table.doubts.append(
            f"The groups are large and are not divided: {count_of(forced, 'image is', 'images are')} in the "
            f"{name} set instead of {wanted_in_all:,}. For sets of another size, give the split yourself: "
            "`split_file` (--split-file)"
        )
    return cut


def _strata(samples: Sequence[Sample], places: Sequence[int]) -> dict[int, list[int]]:
    """Returns the places of the samples of each class; a group belongs to the class of most of its samples."""
    by_group: dict[str, Counter[int]] = {}
    for place in places:
        if samples[place].group:
            by_group.setdefault(samples[place].group, Counter())[samples[place].label] += 1
    strata: dict[int, list[int]] = {}
    for place in places:
        group = samples[place].group
        label = by_group[group].most_common(1)[0][0] if group else samples[place].label
        strata.setdefault(label, []).append(place)
    return strata


def _units(samples: Sequence[Sample], places: Sequence[int]) -> list[list[int]]:
    """Returns the places of each group, in the order of their first samples; others are on their own."""
    units: dict[str, list[int]] = {}
    for place in places:
        units.setdefault(samples[place].group or f"\0{place}", []).append(place)
    return list(units.values())


def in_turns(samples: Sequence[Sample], split: str) -> list[int]:
    """Returns the samples of a split, one of each class in turn, so that the first few contain all classes."""
    by_label: dict[int, list[int]] = {}
    for number, sample in enumerate(samples):
        if sample.split == split:
            by_label.setdefault(sample.label, []).append(number)
    turns = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [number for turn in turns for number in turn if number is not None]


def fold_of(labels: np.ndarray, groups: Sequence[str], folds: int) -> np.ndarray:
    """Returns the fold of each sample: groups stay whole, and folds have about the same number of each class.

    Args:
        labels: The class of each sample.
        groups: The group of each sample.
        folds: The number of folds.

    Raises:
        ValueError: If there are fewer groups than folds.
    """
    samples = [Sample(Path(), int(label), group=group) for label, group in zip(labels, groups, strict=True)]
    count = len(set(groups) - {""}) + list(groups).count("")  # a sample without a group is its own group
    if count < folds:
        raise ValueError(f"`folds` must be at most the number of groups, {count}. Received: {folds}")
    fold = np.zeros(len(samples), np.int64)
    total = np.zeros(folds, np.int64)
    for places in _strata(samples, range(len(samples))).values():
        here = np.zeros(folds, np.int64)
        units = _units(samples, places)
        order = np.random.RandomState(0).permutation(len(units))
        for unit in sorted((units[n] for n in order), key=len, reverse=True):
            chosen = int(np.lexsort((total, here))[0])
            fold[unit] = chosen
            here[chosen] += len(unit)
            total[chosen] += len(unit)
    return fold


def find_doubles(samples: Sequence[Sample], most: int) -> list[tuple[Sample, Sample]] | None:
    """Returns pairs of samples with the same content: the first is for training and the second is not.

    Only files of equal size are read. The result is None if these have more than `most` bytes.
    """
    sizes: dict[tuple[int, int | None], list[Sample]] = {}
    for sample in samples:
        sizes.setdefault((sample.image.stat().st_size, sample.page), []).append(sample)
    alike = {size: same for size, same in sizes.items() if len({sample.split for sample in same}) > 1}
    if sum(size * len(same) for (size, _), same in alike.items()) > most:
        return None
    found = []
    for same in alike.values():
        seen: dict[bytes, Sample] = {}
        for sample in sorted(same, key=lambda each: each.split != "train"):
            digest = hashlib.blake2b(sample.image.read_bytes()).digest()
            first = seen.setdefault(digest, sample)
            if first.split == "train" and sample.split != "train":
                found.append((first, sample))
    return found
