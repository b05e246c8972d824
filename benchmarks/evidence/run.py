"""Tries the claims that articles and users make about dropout, by the protocol of `protocol.py`.

    python benchmarks/evidence/run.py [--claim N ...] [--budget HOURS] [--list] [--page] [--quick]

Each training is a row of benchmarks/evidence/results/trainings.csv, which is written as the training ends. Work
that was stopped goes on where it was, and claims share trainings. Then docs/evidence.md is made from the rows.
`--list` trains nothing and prints what is left and how long it takes; `--page` only makes the page. `--quick`
trains a sample on digits in less than a minute; it writes to a folder of its own, and no page.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jobs
import networks
import quick
import work
from claims import CLAIMS, ORDER
from protocol import Claim, effects
from training_job import carry_out

RESULTS = Path(__file__).parent / "results" / "trainings.csv"


def go_on(claims: Sequence[Claim], path: Path, hours: float | None, say: Callable[[str], None] = print) -> None:
    """Carries out what the claims need and the file does not have, until all is done or the time is over.

    A training that fails is reported and left for the next call, so that it does not stop the others.

    Args:
        claims: The claims, the most urgent first.
        path: The file of rows.
        hours: Float, after which no further training starts; None for no limit.
        say: Function that prints a line.
    """
    start, rows = time.perf_counter(), jobs.read(path)
    failed: set[jobs.Job] = set()
    while left := [task for task in work.left(claims, rows) if task.job not in failed]:
        if hours is not None and time.perf_counter() - start > 3600 * hours:
            break
        count, remaining = len(left) + work.later(claims, rows), work.hours_left(claims, rows)
        say(f"{count} trainings left, {remaining:.1f} h of processor time: {left[0].job}")
        try:
            # What other claims measured after this training is measured again, since a row is replaced whole.
            known = jobs.measures_of(rows[left[0].job]) if left[0].job in rows else set()
            row = carry_out(left[0].job, left[0].measures | known)
        except Exception as error:  # any error: the others go on
            failed.add(left[0].job)
            say(f"FAILED: {left[0].job}: {type(error).__name__}: {error}")
            continue
        rows = jobs.read(path) | {left[0].job: row}  # another process may have added rows
        jobs.write(path, rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", nargs="+", type=int, metavar="N", help="0 (the control) to 13; all by default")
    parser.add_argument("--budget", type=float, metavar="HOURS", help="start no training after this time")
    parser.add_argument("--list", action="store_true", help="train nothing, print what is left")
    parser.add_argument("--page", action="store_true", help="train nothing, only make the page again")
    parser.add_argument("--quick", action="store_true", help="a sample on digits, to see that it works")
    parser.add_argument("--data", type=Path, help="the folder of the data sets that are not part of the project")
    parser.add_argument("--out", type=Path, help="the file of rows, if it is not the project's own")
    arguments = parser.parse_args()
    networks.SHARED = arguments.data or networks.SHARED
    numbers = arguments.claim or (quick.NUMBERS if arguments.quick else ORDER)
    if unknown := sorted(set(numbers) - set(ORDER)):
        parser.error(f"claims are numbered 0 to {max(ORDER)}. Received: {unknown}")
    chosen = [quick.sample(CLAIMS[number]) if arguments.quick else CLAIMS[number] for number in numbers]
    path = arguments.out or (Path("runs/evidence-quick/trainings.csv") if arguments.quick else RESULTS)
    if arguments.list:
        work.print_left(chosen, jobs.read(path))
        return
    if not arguments.page:
        go_on(chosen, path, arguments.budget, lambda line: print(line, flush=True))
    rows = jobs.read(path)
    for claim in chosen:
        print(f"\n{claim.number}. {claim.text}")
        for effect in effects(claim, rows):
            print(f"   {effect.verdict:<20} {effect.statement.text} ({effect.setting.name}): {effect.words}")
    if not arguments.quick and arguments.out is None:
        import page

        page.write(CLAIMS.values(), rows)


if __name__ == "__main__":
    main()
