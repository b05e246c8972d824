"""The experiments on the ten claims: their statistics, what a kill leaves, and the page."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "evidence"
sys.path.insert(0, str(FOLDER))

import harness  # noqa: E402
import page  # noqa: E402
import run  # noqa: E402
from harness import Claim, Job, Statement  # noqa: E402


def rows(condition, values, setting="digits", figure="score"):
    return [{"setting": setting, "condition": condition, "seed": s, figure: v} for s, v in enumerate(values)]


def claim(jobs, *statements):
    return Claim(
        1, "made_up", "One is more.", "By counting.", lambda seeds, quick: jobs, list(statements), ("score",)
    )


MORE = Statement("More", "score", "one", "none", 1)


@pytest.mark.parametrize(
    "statement, difference, verdict",
    [
        (MORE, 0.1, "holds"),
        (MORE, -0.1, "the opposite"),
        (MORE, 0.0, "not shown"),
        (Statement("Less", "score", "one", "none", -1), -0.1, "holds"),
        (Statement("Above zero", "score", "one", "", 1), 0.1, "holds"),
    ],
)
def test_a_verdict_is_of_the_differences_seed_by_seed(statement, difference, verdict):
    # Seeds differ by far more than the effect, so only pairs can show it.
    seeds = np.array([0.1, 0.5, 0.9, 0.3, 0.7]) if statement.against else np.zeros(5)
    noise = np.array([0.01, -0.01, 0.005, -0.005, 0.0])
    found = harness.effects(statement, rows("none", seeds) + rows("one", seeds + difference + noise))
    assert [effect.verdict for effect in found] == [verdict]
    assert found[0].interval.mean == pytest.approx(difference, abs=1e-9)
    spread = noise.std(ddof=1)
    assert found[0].cohens_d == pytest.approx(difference / spread, abs=1e-6)
    # Student's t of four degrees of freedom.
    assert found[0].interval.half == pytest.approx(2.7764 * spread / np.sqrt(5), rel=1e-3)


def test_a_single_seed_and_runs_that_diverged_show_nothing():
    assert harness.effects(MORE, rows("none", [0.5]) + rows("one", [0.9])) == []
    assert harness.effects(MORE, rows("none", [0.5, float("nan")]) + rows("one", [0.9, 0.9])) == []


def test_settings_stand_in_the_order_of_their_numbers():
    names = ["fashion_mnist, 20,000 images", "digits", "fashion_mnist, 200 images", "fashion_mnist, 1,000 images"]
    assert harness.settings([{"setting": name} for name in names]) == [names[1], names[2], names[3], names[0]]


def test_what_failed_goes_on_where_it_was(tmp_path):
    begun = []

    def work(seed, fails):
        def do(lab):
            begun.append(seed)
            if fails and seed == 2:
                raise KeyboardInterrupt
            return {"score": seed / 3}

        return do

    def jobs(fails):
        return [Job("digits", "one", seed, work(seed, fails)) for seed in range(4)]

    with pytest.raises(KeyboardInterrupt):
        harness.carry_out(claim(jobs(True)), range(4), False, tmp_path)
    assert [row["seed"] for row in harness.read(tmp_path / "01_made_up.csv")] == [0, 1]
    found = harness.carry_out(claim(jobs(False)), range(4), False, tmp_path)
    assert begun == [0, 1, 2, 2, 3] and list(tmp_path.iterdir()) == [tmp_path / "01_made_up.csv"]
    assert found == harness.read(tmp_path / "01_made_up.csv")
    assert [row["score"] for row in found] == [0.0, 0.33333, 0.66667, 1.0]


def test_the_page_gives_verdicts_and_means(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "evidence.md")
    made = claim([], MORE)
    other = Claim(6, "nothing", "Not tried.", "", lambda seeds, quick: [], [MORE], ())
    harness.write(tmp_path / made.file, rows("none", [0.1, 0.2]) + rows("one", [0.4, 0.5]))
    begun = Claim(
        7, "begun", "", "", lambda seeds, quick: [Job("digits", "two", s, lambda lab: {}) for s in seeds], [], ()
    )
    harness.write(tmp_path / begun.file, rows("two", [0.1, 0.2]))
    page.write([made, other, begun])
    text = (tmp_path / "evidence.md").read_text()
    assert "| [1](#claim-1) | One is more. | holds: 1 holds |" in text
    assert "| [6](#claim-6) | Not tried. | not run yet |" in text
    assert "| one | **0.450 ± 0.635** | 2 |" in text  # 12.706 * 0.05
    assert text.count("Not finished") == 1 and "3 of 5 trainings are to come: two (digits)." in text
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("each", run.CLAIMS, ids=lambda each: each.name)
def test_statements_are_about_what_is_tried(each, monkeypatch):
    for module in (harness, run.placement, run.inference):
        monkeypatch.setattr(module, "has", lambda name: True)
    jobs = each.jobs(range(2), False)
    tried = {job.condition for job in jobs}
    if len(tried) > 1:  # of one alone the job itself says what there is
        assert {name for s in each.statements for name in (s.condition, s.against) if name} <= tried
    assert len(jobs) == len({(job.setting, job.condition, job.seed) for job in jobs})
    assert len(each.jobs(range(1), False)) * 2 == len(jobs) >= len(each.jobs(range(2), True)) > 0


@pytest.mark.slow
def test_a_claim_quickly(tmp_path):
    (ninth,) = (each for each in run.CLAIMS if each.number == 9)
    found = harness.carry_out(ninth, range(2), True, tmp_path)
    assert len(found) == 8 and all(0 <= row["ordered_first"] <= 1 for row in found)
    assert {effect.setting for s in ninth.statements for effect in harness.effects(s, found)} == {
        "digits, class after class",
        "ten circles, then ten squares",
    }
