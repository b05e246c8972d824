"""Tries dropzoo on networks that others publish, and writes the table of docs/surgery.md.

    python benchmarks/published/try_out.py [WORD ...] [--page]

It tries the networks whose names contain one of the words, in the order of the words; all networks by default. It
writes a row for each to benchmarks/results/published.csv, in place of an older row. `--page` only writes the table
again. Packages that are not installed are left out: `make test-published` installs them.
"""

import argparse
import csv
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from trial import Trial, tried
from zoo import ZOO, Published

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "published.csv"
PAGE = ROOT / "docs" / "surgery.md"
MARK, END = "<!-- table: published -->\n", "<!-- end -->"
COLUMNS = [
    *("package", "version", "model", "keras", "tensorflow", "build", *Trial.STEPS),
    *("note_class", "note_share", "note_left", "note_plain", "note_warned"),
]
Row = dict[str, str]


def read() -> dict[str, Row]:
    """The rows of the file of results, by network."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {row["package"] + row["model"]: row for row in csv.DictReader(file)}


def write(rows: dict[str, Row]) -> None:
    """Writes the file of results, in the order of the networks."""
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in map(_key, ZOO) if key in rows)


def table(rows: dict[str, Row]) -> list[str]:
    """The lines of the table in docs/surgery.md."""
    lines = ["| package | network | result | remarks |", "|---|---|---|---|"]
    for row in (rows[key] for key in map(_key, ZOO) if key in rows):
        package = f"{row['package']} {row['version']}"
        lines.append(f"| {package} | {row['model']} | {_result(row)} | {_remarks(row)} |")
    versions = {(row["keras"], row["tensorflow"]) for row in rows.values()}
    return [*lines, "", "; ".join(f"Keras {a}, TensorFlow {b}" for a, b in sorted(versions)) + "."]


def _key(published: Published) -> str:
    return published.package + published.name


def _result(row: Row) -> str:
    if row["build"]:
        return "does not run"
    failed = [step for step in Trial.STEPS if row[step]]
    if failed:
        return "not: " + ", ".join(f"`{step}`" for step in failed)
    return "works, by plain passes" if row["note_plain"] else "works"


def _remarks(row: Row) -> str:
    found = [row["build"], *(row[step] for step in Trial.STEPS)]
    found += [row["note_plain"], row["note_class"], row["note_share"], row["note_left"]]
    short = [_short(each.replace("|", "/")) for each in found if each]
    if row["note_warned"]:
        short.append(f'a warning: "{_short(row["note_warned"].replace("|", "/"))}"')
    return "; ".join(short)


def _short(text: str, longest: int = 160) -> str:
    """A text, cut at a word if it is longer."""
    return text if len(text) <= longest else text[:longest].rpartition(" ")[0] + " ..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of names; all networks by default")
    parser.add_argument("--page", action="store_true", help="try nothing, only write the table again")
    arguments = parser.parse_args()
    chosen = {one.id: one for word in arguments.words or [""] for one in ZOO if word in one.id}
    if not chosen:
        parser.error(
            f"no network has one of {arguments.words} in its name. There are: {', '.join(z.id for z in ZOO)}"
        )
    for published in [] if arguments.page else chosen.values():
        if published.version is None:
            print(f"{published.id}: {published.package} is not installed")
            continue
        found = tried(published, lambda text: print(text, flush=True))
        facts = {"package": published.package, "version": published.version, "model": published.name}
        rows = read()
        rows[_key(published)] = facts | {"keras": keras.__version__, "tensorflow": tf.__version__} | found
        write(rows)
        keras.utils.clear_session()
    before, _, rest = PAGE.read_text().partition(MARK)
    PAGE.write_text(before + MARK + "\n".join(table(read())) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
