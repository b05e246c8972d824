"""The experiments on the claims: the protocol, what a kill leaves, a sample of them, and the page."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "evidence"
sys.path.insert(0, str(FOLDER))

import advice  # noqa: E402
import claims  # noqa: E402
import jobs  # noqa: E402
import page  # noqa: E402
import protocol  # noqa: E402
import quick  # noqa: E402
import run  # noqa: E402
import work  # noqa: E402
from jobs import Job  # noqa: E402
from protocol import Claim, Condition, Setting, Statement  # noqa: E402

SETTING = Setting("digits", "digits", 100, "small CNN", 8, (1e-2, 1e-3), seeds=5)
NONE, ONE = Condition("none", fixed=True), Condition("one", ("dense* 0.5",), fixed=True)
MORE = Statement("More", "score_one", "one", "none", 1)
JOB = Job("digits", 100, "small CNN", "module? drop_block2d:0.2,block_size=3 + dense* 0.5", 8, 1e-2, 0)


def claim(*statements, conditions=(NONE, ONE)):
    return Claim(1, "One is more.", "By counting.", ((SETTING, conditions),), statements)


def rows_of(condition, values, figure="score_one"):
    first = condition.job(SETTING)
    made = [jobs.row_of(first.with_seed(seed), ["columns"], 1.0, {figure: v}) for seed, v in enumerate(values)]
    return {jobs.job_of(row): row for row in made}


def test_a_job_says_what_it_drops_and_survives_the_file(tmp_path):
    assert JOB.dropout == {"module?": "drop_block2d:0.2,block_size=3", "dense*": 0.5}
    others = [
        replace(JOB, plan="none", augment="shift=0.1,rotation=10"),
        replace(JOB, schedule="dense* early:0.3"),
    ]
    made = [jobs.row_of(job, {"columns", "few"}, 1.23, {"nll_one": 1 / 3}) for job in (JOB, *others)]
    jobs.write(tmp_path / "rows.csv", made)
    found = jobs.read(tmp_path / "rows.csv")
    assert set(found) == {JOB, *others} and found[JOB]["nll_one"] == 0.33333
    assert jobs.measures_of(found[JOB]) == {"columns", "few"}
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    "statement, difference, verdict",
    [
        (MORE, 0.1, "holds"),
        (MORE, -0.1, "the opposite"),
        (MORE, 0.0, "not shown"),
        (MORE, 0.011, "not shown"),  # would hold alone, but not among twenty statements
        (replace(MORE, sign=-1), -0.1, "holds"),
        (replace(MORE, against=""), 0.1, "holds"),
    ],
)
def test_a_verdict_is_of_the_differences_seed_by_seed(statement, difference, verdict):
    # Seeds differ by far more than the effect, so only pairs can show it.
    seeds = np.array([0.1, 0.5, 0.9, 0.3, 0.7]) if statement.against else np.zeros(5)
    noise = np.array([0.01, -0.01, 0.005, -0.005, 0.0])
    rows = rows_of(NONE, seeds) | rows_of(ONE, seeds + difference + noise)
    others = [replace(MORE, text=str(n), figure="noise") for n in range(19)] if difference == 0.011 else []
    for job, row in rows.items():
        row["noise"] = float(job.seed % 2) * (1 if job.drops else 0)
    found = protocol.effects(claim(statement, *others), rows)[0]
    assert found.verdict == verdict
    assert found.difference.mean == pytest.approx(difference, abs=1e-4)


@pytest.mark.parametrize(
    "difference, noise, verdict", [(0.002, 1e-4, "too small to matter"), (0.002, 0.01, "not shown")]
)
def test_a_difference_within_its_band_is_too_small_to_matter(difference, noise, verdict):
    spread = noise * np.array([1, -1, 0.5, -0.5, 0])
    rows = rows_of(NONE, np.full(5, 0.5)) | rows_of(ONE, 0.5 + difference + spread)
    assert protocol.effects(claim(MORE), rows)[0].verdict == verdict


def test_each_accuracy_nll_and_ece_has_its_band():
    figures = {
        "score": ("score_one", "train_score", "ordered_score", "blur_score_one", "without_30"),
        "nll": ("nll", "nll_mc5_t", "worse_nll_mc_t"),
        "ece": ("ece_one_t",),
    }
    assert all(protocol.band_of(each) == protocol.BANDS[band] for band, names in figures.items() for each in names)
    others = ("auroc_mc_t", "epochs_to_given_nll", "gap", "strongest_over_half", "correlation")
    assert not any(map(protocol.band_of, others))


def test_one_seed_and_runs_without_figures_show_nothing():
    assert protocol.effects(claim(MORE), rows_of(NONE, [0.5]) | rows_of(ONE, [0.9])) == []
    some = rows_of(NONE, [0.5, float("nan")]) | rows_of(ONE, [0.9, 0.9])
    assert protocol.effects(claim(MORE), some) == []


def test_holm():
    assert protocol.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def nll_of(job):
    """A made-up calibrated NLL: it is lowest at the rate 0.3, the learning rate 0.001 and many epochs."""
    rate = float(job.plan.split()[-1])
    return 1 + abs(rate - 0.3) + 10 * job.learning_rate + 1 / job.epochs**2


def test_a_choice_follows_the_validation_images_axis_by_axis():
    condition = Condition("dropout", ("dense* 0.1", "dense* 0.3", "dense* 0.5"), doubles=True)
    rows, asked = {}, []
    while not (choice := protocol.choose(SETTING, condition, rows)).done:
        asked.append(len(choice.left))
        for job in choice.left:
            assert job.is_tuning
            figures = {"val_nll_mc_t": nll_of(job), "val_nll_se_mc_t": 0.05, "nll_mc_t": 9.0}
            rows[job] = jobs.row_of(job, ["columns"], 1.0, figures)
    assert asked == [6, 2, 2, 2]  # three plans, another learning rate, a quarter of the epochs, twice the epochs
    assert (choice.chosen.plan, choice.chosen.learning_rate, choice.chosen.epochs) == ("dense* 0.3", 1e-3, 8)
    change, error = choice.doubled
    assert -error < change < 0 and len(choice.tried) == 6
    for row in rows.values():
        row["val_nll_se_mc_t"] = 1e-6
    assert protocol.choose(SETTING, condition, rows).chosen.epochs == 16
    five = Condition("five", like=condition, changes=(("members", 5),), share=4)
    assert (
        protocol.choose(SETTING, five, rows).chosen.members,
        protocol.choose(SETTING, five, rows).chosen.epochs,
    ) == (5, 4)


def test_what_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    begun = []

    def fake(job, measures):
        begun.append(job.seed)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return jobs.row_of(job, measures, 1.0, {"score_one": job.seed / 3})

    monkeypatch.setattr(run, "carry_out", fake)
    each, path, said = claim(MORE, conditions=(NONE,)), tmp_path / "rows.csv", []
    with pytest.raises(KeyboardInterrupt):
        run.go_on([each], path, None, said.append)
    assert len(jobs.read(path)) == 2
    run.go_on([each, each], path, None, said.append)
    assert begun == [0, 1, 2, 2, 3, 4] and said[0].startswith("5 trainings left") and "0.0 h of" in said[-1]
    assert work.left([each], jobs.read(path)) == []
    measured = replace(NONE, measures=("few",))  # what has a row is done again if a claim needs more
    assert len(work.left([claim(MORE, conditions=(measured,))], jobs.read(path))) == 5
    run.go_on([claim(MORE, conditions=(measured,))], path, 0.0, said.append)
    assert len(begun) == 6
    for name in ("few", "curve"):  # and keeps what it had
        run.go_on([claim(MORE, conditions=(replace(NONE, measures=(name,)),))], path, None, said.append)
    assert all({"few", "curve"} <= jobs.measures_of(row) for row in jobs.read(path).values())


def test_a_training_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def fake(job, measures):
        if job.seed == 1:
            raise ValueError("no such images")
        return jobs.row_of(job, measures, 1.0, {"score_one": 0.5})

    monkeypatch.setattr(run, "carry_out", fake)
    said = []
    run.go_on([claim(MORE, conditions=(NONE,))], tmp_path / "rows.csv", None, said.append)
    assert len(jobs.read(tmp_path / "rows.csv")) == 4 and sum("no such images" in line for line in said) == 1


@pytest.mark.parametrize("number", claims.ORDER)
def test_statements_are_about_what_is_tried(number, monkeypatch):
    monkeypatch.setattr(work, "has", lambda data: True)
    each = claims.CLAIMS[number]
    for statement in each.statements:
        tried = [{c.name for c in conditions} for _, conditions in each.trials]
        assert any({statement.condition, statement.against} - {""} <= names for names in tried), statement
    assert work.left([each], {}) and work.hours_left([each], {}) > 0
    assert 0 < len(work.left([quick.sample(each)], {})) <= 4
    assert len({setting.name for setting, _ in each.trials}) == len(each.trials)


def test_a_sample_of_the_experiments(tmp_path):
    chosen = [quick.sample(claims.CLAIMS[0])]
    run.go_on(chosen, tmp_path / "rows.csv", None, lambda line: None)
    rows = jobs.read(tmp_path / "rows.csv")
    assert len(rows) == 4 and all(0 <= row["score_one_t"] <= 1 and row["train_nll"] > 0 for row in rows.values())
    assert all(("nll_mc_t" in row) == job.drops for job, row in rows.items())
    assert {effect.setting.name for effect in protocol.effects(chosen[0], rows)} == {chosen[0].trials[0][0].name}


def test_the_page_says_what_is_known_and_what_is_not(tmp_path):
    made = claim(MORE)
    other = Claim(6, "Not tried.", "", ((SETTING, (Condition("none"),)),), (MORE,), "said much.")
    (tmp_path / "images").mkdir()
    rows = rows_of(NONE, [0.1, 0.2]) | rows_of(ONE, [0.4, 0.5])
    page.write([made, other], rows, tmp_path / "evidence.md")
    text = (tmp_path / "evidence.md").read_text()
    assert (
        "| [claim 1](#claim-1) | One is more. | not finished (4 of 10 training runs); so far, holds: 1 |" in text
    )
    assert "| Not tried. | not tested yet |" in text
    assert (
        "(0 of 5 training runs are done). Version 1 of this page, whose training runs were too short, said" in text
    )
    assert "0.450 ± 0.635 | 2 |" in text and "| Version 1 said much" not in text  # 12.706 * 0.05
    assert {each.name for each in tmp_path.iterdir()} == {"images", "evidence.md"}
    assert [each.name for each in (tmp_path / "images").iterdir()] == ["evidence_1.png"]


def test_the_first_paragraph_quotes_the_control():
    rows = {}
    for setting, condition in claims.CLAIMS[0].each():
        for seed in range(2):
            job = condition.job(setting).with_seed(seed)
            names = [f"{f}_{c}" for f in ("score", "nll", "ece") for c in ("one", "one_t", "mc", "mc_t")]
            figures = {name: 0.4 if job.drops or name.endswith("_t") else 0.6 for name in names}
            rows[job] = jobs.row_of(job, ["columns"], 1.0, {**figures, "train_score": 1.0})
    words = " ".join(advice.first_paragraph(rows).split())
    assert "an NLL of 0.60 and" in words and "(2 of 10 seeds so far). Most of this" in words
    assert "2,000 training images" not in advice.first_paragraph({})
