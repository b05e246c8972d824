"""Tries the ten claims that articles on dropout repeat.

    python benchmarks/evidence/run.py [CLAIM ...] [--seeds 5] [--quick] [--page]

Each claim has a file under benchmarks/evidence/results with a row for each training. Rows are written as trainings
end, so a run that was killed continues where it was. Then docs/evidence.md is made from all files. `--quick`
trains on digits with two seeds, which takes minutes; it writes to a folder of its own, and not to the page.
`--page` only makes the page again.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import inference
import page
import placement
from harness import RESULTS, carry_out, effects

CLAIMS = [*placement.CLAIMS, *inference.CLAIMS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", type=int, metavar="CLAIM", help="1 to 10; all of them by default")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds of each condition (5)")
    parser.add_argument("--quick", action="store_true", help="two seeds of the digits, to see that it works")
    parser.add_argument("--page", action="store_true", help="train nothing, only make the page again")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-quick"), help="where --quick writes")
    arguments = parser.parse_args()
    numbers = [claim.number for claim in CLAIMS]
    if unknown := sorted(set(arguments.claims) - set(numbers)):
        parser.error(f"claims are numbered 1 to {max(numbers)}. Received: {unknown}")
    folder = arguments.out if arguments.quick else RESULTS
    seeds = range(2 if arguments.quick else arguments.seeds)
    for claim in CLAIMS:
        if not arguments.page and claim.number in (arguments.claims or numbers):
            rows = carry_out(claim, seeds, arguments.quick, folder)
            print(f"\n{claim.number}. {claim.text}")
            for statement in claim.statements:
                for effect in effects(statement, rows):
                    print(
                        f"   {effect.verdict:<12} {statement.text} ({effect.setting}): {page.difference(effect)}"
                    )
    if not arguments.quick:
        page.write(CLAIMS)


if __name__ == "__main__":
    main()
