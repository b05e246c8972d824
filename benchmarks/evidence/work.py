"""Lists the jobs that claims still need, because the file has no row for them, and how long these jobs take."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jobs import BASE, Job, measures_of
from networks import MASKS, has
from protocol import Claim, Condition, Rows, Setting, choose


@dataclass(frozen=True)
class Task:
    """A job with all that is to be measured after it.

    Attributes:
        job: The job.
        measures: Frozen set of the names of measures.
    """

    job: Job
    measures: frozenset[str]

    def done(self, rows: Rows) -> bool:
        """Whether there is a row with all measures."""
        return self.job in rows and self.measures <= measures_of(rows[self.job])


# Seconds that a thousand images, forward and back, take on one core, where there is no row to tell.
_GUESSED = {"CNN": 0.75, "small CNN": 0.25, "ResNet-20": 3.5, "U-Net": 16.0, "small U-Net": 14.0}
# Images of training that take as long as an evaluation with samples.
_EVALUATION = {"classification": 40_000, "segmentation": 1_500}


def left(claims: Sequence[Claim], rows: Rows) -> list[Task]:
    """Returns the tasks that can be done next, claim by claim: choices first, then all conditions seed by seed."""
    found: dict[Job, set[str]] = {}
    for claim in claims:
        tuning, tests = [], []
        for setting, condition in _possible(claim):
            choice = choose(setting, condition, rows)
            tuning += [(job, set()) for job in choice.left]
            if choice.done:
                seeds = range(setting.seeds)
                tests += [(seed, choice.chosen.with_seed(seed), set(condition.measures)) for seed in seeds]
        for job, measures in [*tuning, *((job, names) for _, job, names in sorted(tests, key=lambda t: t[0]))]:
            found.setdefault(job, {BASE}).update(measures)
    tasks = [Task(job, frozenset(measures)) for job, measures in found.items()]
    return [task for task in tasks if not task.done(rows)]


def _possible(claim: Claim) -> Iterator[tuple[Setting, Condition]]:
    """Iterates over the conditions of the settings whose data are there."""
    return ((setting, condition) for setting, condition in claim.each() if has(setting.data))


def later(claims: Iterable[Claim], rows: Rows) -> int:
    """Returns how many trainings come after those of `left`, since they depend on a choice."""
    return sum(count for _, count in _later(claims, rows))


def _later(claims: Iterable[Claim], rows: Rows) -> Iterator[tuple[Job, int]]:
    """Iterates over the conditions whose choice is not made: a typical job, and how many follow the next step."""
    seen = set()
    for claim in claims:
        for setting, condition in _possible(claim):
            choice = choose(setting, condition, rows)
            if not choice.done and (setting, condition.plans, condition.changes) not in seen:
                seen.add((setting, condition.plans, condition.changes))
                yield choice.chosen, choice.later + setting.seeds


def seconds(job: Job, rows: Rows) -> float:
    """Returns how long a job takes: as long as others of its kind, by the number of images that it sees."""
    alike = [
        row["seconds"] / _size(other)
        for other, row in rows.items()
        if (other.data, other.network, other.drops) == (job.data, job.network, job.drops)
    ]
    rate = statistics.median(alike) if alike else _GUESSED.get(job.network, 0.5) / 1000
    return rate * _size(job)


def _size(job: Job) -> float:
    evaluation = _EVALUATION["segmentation" if job.data in MASKS else "classification"]
    return job.members * job.images * job.epochs + evaluation * (1 if job.drops or job.members > 1 else 0.2)


def hours_left(claims: Sequence[Claim], rows: Rows) -> float:
    """Returns how long all that is left takes, in hours of one processor."""
    total = sum(seconds(task.job, rows) for task in left(claims, rows))
    return (total + sum(count * seconds(job, rows) for job, count in _later(claims, rows))) / 3600


def print_left(claims: Sequence[Claim], rows: Rows) -> None:
    """Prints for each claim what is left, in trainings and hours of one processor, if it is the only one."""
    for claim in claims:
        count = len(left([claim], rows)) + later([claim], rows)
        print(
            f"claim {claim.number:2}: {count:4} trainings left, {hours_left([claim], rows):5.1f} h   {claim.text}"
        )
    count = len(left(claims, rows)) + later(claims, rows)
    print(f"together: {count:4} trainings left, {hours_left(claims, rows):5.1f} h (claims share trainings)")
