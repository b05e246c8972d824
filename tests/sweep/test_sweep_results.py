"""What a sweep concludes, on results that are made up and so known: intervals, advice, halving, the page."""

import dataclasses
import html
import io
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from dropzoo.cli import app as cli
from dropzoo.sweep import run as sweep
from dropzoo.sweep import store as sweep_file
from dropzoo.sweep.advice import in_words, recommend, train_command
from dropzoo.sweep.run import Space
from dropzoo.sweep.screen import Screen, trials_and_epochs
from dropzoo.sweep.stats import Candidate, candidates, difference, interval, what_mattered
from dropzoo.sweep.trials import Outcome, Record
from dropzoo.sweep.workbench import versions

SPACE = Space(
    models=["simple_cnn"],
    data="digits",
    sites=["module?", "dense*"],
    rates=[0.1, 0.3, 0.5],
    seeds=range(5),
    options={"filters": (4,), "dense": 8},
    limit=64,
    epochs=4,
)


def record(trial, nll):
    """A trial's record that says so, as read from a file."""
    figures = {"nll": nll, "accuracy": float(np.exp(-nll)), "ece": nll / 10, "brier": nll / 2, "count": 144}
    curve = [nll * 2 ** (trial.config.epochs - i - 1) for i in range(trial.config.epochs)]
    outcome = Outcome(
        seconds=1.0,
        curves={"val_nll": curve, "loss": curve},
        validation=figures,
        train={**figures, "accuracy": figures["accuracy"] + 0.05},
        test=figures,
        seconds_per_epoch=0.2,
        parameters=1234,
        mc_ms=None if trial.is_baseline else 2.5,
    )
    return Record.from_json(Record(trial=trial, versions=versions(), outcome=outcome).to_json())


def failed(record, error):
    """The same trial, which failed."""
    return dataclasses.replace(record, outcome=Outcome(seconds=1.0), error=error)


def noise(trial, scale):
    # Not of the trial's key, nor of the recipe, which a new setting of runs would change.
    name = f"{trial.axes} {trial.config.seed} {trial.config.epochs}".replace(", recipe='own'", "")
    return scale * np.random.default_rng(zlib.crc32(name.encode())).normal()


def swept(truth, scale=0.01, space=SPACE):
    """Records whose NLL is that of `truth`, a function of the axes, plus what the seed brings, and noise."""
    found = []
    for trial in space.trials():
        shared = 0.2 * np.sin(trial.config.seed)  # the same for all plans: what pairing takes out
        found.append(record(trial, truth(trial.axes) + shared + noise(trial, scale)))
    return found


def test_intervals_are_those_of_student_and_wider_over_folds():
    values = [0.9, 1.1, 1.3, 0.8]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    folds = interval(values, folds=4)
    assert folds.half == pytest.approx(found.half * np.sqrt(1 + 4 / 3))
    one = interval([0.5])
    assert (one.mean, one.half, one.low, one.high) == (0.5, None, -np.inf, np.inf)


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    inside = [i.low <= 2 <= i.high for i in (interval(random.normal(2, 0.3, 5)) for _ in range(2000))]
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 2000))


def test_pairing_takes_out_what_the_seeds_share():
    found = candidates(swept(lambda axes: 1.0 if axes.sites == "none" else 0.9))
    best, baseline = found[0], next(c for c in found if c.is_baseline)
    assert difference(best, baseline, "nll").half < 0.05 < best.interval("nll").half


def test_a_clear_effect_is_recommended_with_its_evidence():
    def truth(axes):
        return 0.5 if (axes.sites, axes.rate) == ("dense*", 0.3) else 1.0

    found = recommend(swept(truth))
    assert found.chosen.axes.sites == "dense*" and found.chosen.axes.rate == 0.3
    assert not found.within_noise and found.effect.mean == pytest.approx(-0.5, abs=0.02)
    words = " ".join(in_words(found))
    assert re.search(
        r"Compared with the same configuration without dropout: NLL -0\.\d{4}, 95 % interval .*, from 5 pairs",
        words,
    )
    assert "which played no part in the choice" in words and "among 7 configurations" in words
    assert train_command(found.chosen.config) == (
        "dropzoo train simple_cnn --data digits --dropout 'dense*=0.3' --option 'filters=[4]' --option dense=8 "
        "--epochs 4 --limit 64"
    )


def test_within_noise_no_dropout_is_recommended_and_said_so():
    found = recommend(swept(lambda axes: 1.0, scale=0.05))
    words = " ".join(in_words(found))
    assert found.chosen.is_baseline and found.within_noise
    assert "No plan with dropout is better by more than one standard error" in words
    assert re.search(
        r"Compared with the recommended plan, simple_cnn: .* has NLL [+-]0\.\d{4}, 95 % interval", words
    )


def test_the_simpler_of_two_that_are_as_good_is_recommended():
    space = dataclasses.replace(
        SPACE, sites=("dense*", "dense*,module?"), rates=(0.3,), rate_schedules=("constant", "late")
    )
    found = recommend(swept(lambda axes: 2.0 if axes.sites == "none" else 1.0, 0.05, space))
    assert found.chosen.axes.sites == "dense*" and found.chosen.axes.rate_schedule == "constant"


def test_a_single_seed_is_no_evidence():
    space = dataclasses.replace(SPACE, seeds=(0,))
    words = " ".join(in_words(recommend(swept(lambda axes: -axes.rate + 1, 0.0, space))))
    assert "One run of each says nothing about the spread" in words and "95 %" not in words


def test_a_plan_of_which_most_runs_diverged_is_not_recommended():
    def lucky(record):  # one seed of this plan is far better than all others; four gave NaN
        return (record.trial.axes.sites, record.trial.axes.rate) == ("module?", 0.5)

    records = swept(lambda axes: 0.1 if (axes.sites, axes.rate) == ("module?", 0.5) else 1.0)
    records = [failed(r, "FloatingPointError: NaN") if lucky(r) and r.trial.config.seed else r for r in records]
    found = recommend(records)
    assert found.chosen.axes.rate != 0.5 or found.chosen.axes.sites != "module?"
    assert "some of their trials failed: 1." in " ".join(in_words(found))
    assert candidates(records)[-1].axes.sites == "module?"


def test_a_last_round_that_has_only_begun_recommends_nothing():
    space = dataclasses.replace(SPACE, strategy="halving", epochs=4, eta=2, seeds=(0, 1, 2))
    records = swept(lambda axes: 2.0 if axes.sites == "none" else 1.0, 0.01, space)
    begun = [r for r in records if r.trial.config.epochs < 4 or r.trial.is_baseline]
    assert not recommend(begun).chosen.is_baseline and recommend(begun).chosen.epochs == 2


def test_nothing_is_recommended_from_nothing():
    records = [failed(r, "OOM") for r in swept(lambda axes: 1.0)]
    with pytest.raises(ValueError, match="nothing to recommend: all 35 trials have failed, the first with OOM"):
        recommend(records)
    with pytest.raises(ValueError, match="nothing to recommend: no trial of this sweep has ended yet"):
        recommend([])
    with pytest.raises(ValueError, match="no 'mean_iou'; they have nll, accuracy, brier, ece"):
        recommend(swept(lambda axes: 1.0), "mean_iou")
    with pytest.raises(ValueError, match="Unknown metric 'nl'. Did you mean 'nll'"):
        recommend(swept(lambda axes: 1.0), "nl")


def test_what_mattered_is_what_was_made_to():
    effects = {"none": 0.0, "module?": 0.0, "dense*": 1.0}
    space = dataclasses.replace(SPACE, plans=(), augments=(False, True))
    found = candidates(swept(lambda axes: 3 + effects[axes.sites] + 0.5 * (axes.augment == "yes"), 0.0, space))
    shares = what_mattered([c for c in found if not c.is_baseline], "nll")
    var = {"sites": 0.25, "augment": 0.0625, "seed": 0.04 * np.var(np.sin(range(5)))}
    for name, expected in var.items():
        assert shares[name] == pytest.approx(expected / sum(var.values()), abs=1e-6)
    assert shares["rate"] == pytest.approx(0, abs=1e-6) and list(shares)[0] == "sites"
    assert shares["interactions and noise"] == pytest.approx(0, abs=1e-6)
    assert what_mattered([Candidate(found[0].records[:1])], "nll") == {}


@pytest.fixture
def made_up(monkeypatch):
    """Sweeps whose trials are not trained: the NLL falls with the rate, and with the epochs."""
    ran = []

    def engine(_):
        def run(trials, add):
            for trial in trials:
                ran.append(trial)
                add(record(trial, 2 - (trial.axes.rate or 0) - trial.config.epochs / 100 + noise(trial, 1e-3)))

        return run

    monkeypatch.setattr(sweep, "_local_engine", engine)
    return ran


@pytest.fixture
def no_page(monkeypatch):
    """Leaves out the report, whose pictures take longer than all the rest of a sweep that is made up."""
    monkeypatch.setattr(sweep, "write_report", lambda path, file: path)


@pytest.mark.costly(keep=0)
def test_halving_trains_the_better_ones_longer(tmp_path, made_up, no_page):
    rates = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    space = dataclasses.replace(
        SPACE, sites=("dense*",), rates=rates, strategy="halving", epochs=9, eta=3, seeds=(0, 1)
    )
    said = Console(file=io.StringIO(), width=120)
    sweep.run_sweep(space, tmp_path / "out", console=said)
    by_epochs = {e: sorted({t.axes.rate for t in made_up if t.config.epochs == e}) for e in (1, 3, 9)}
    assert by_epochs == {1: [0.0, *rates], 3: [0.0, 0.7, 0.8, 0.9], 9: [0.0, 0.9]}
    assert len(made_up) == 2 * (10 + 4 + 2) and "32 of 32 trials" in said.file.getvalue()
    assert recommend(sweep_file.read(tmp_path / "out").of_space()).compared == 2
    made_up.clear()
    sweep.run_sweep(space, tmp_path / "out", console=said)
    assert not made_up


@pytest.mark.costly(keep=0)
def test_halving_knows_a_plan_that_another_space_spelt_otherwise(tmp_path, made_up, no_page):
    rates = (0.1, 0.5, 0.9)
    first = dataclasses.replace(SPACE, sites=("module?,dense*",), rates=rates, epochs=1, seeds=(0, 1))
    sweep.run_sweep(first, tmp_path / "out", console=Console(file=io.StringIO()))
    made_up.clear()
    again = dataclasses.replace(first, sites=("module?, dense*",), strategy="halving", epochs=3, eta=3)
    sweep.run_sweep(again, tmp_path / "out", console=Console(file=io.StringIO()))
    assert {(t.axes.rate, t.config.epochs) for t in made_up} == {(0.0, 3), (0.9, 3)}
    found = sweep_file.read(tmp_path / "out").of_space()
    assert recommend(found).chosen.axes.rate == 0.9
    assert {each.trial.axes.sites for each in found} == {"none", "module?, dense*"}


def test_a_terminal_gets_a_live_table_of_the_leaders():
    file = io.StringIO()
    trials = SPACE.trials()
    with Screen(Console(file=file, force_terminal=True, width=100), *trials_and_epochs(trials), []) as screen:
        for trial in trials[:12]:
            screen.add(record(trial, 1.0 + (trial.axes.rate or 0)))
    shown = file.getvalue()
    assert "no dropout" in shown and "module? dropout 0.1" in shown and "1.100 ± 0.000" in shown
    assert re.search(r"12 of 35 trials, about .* left", shown)


def test_the_line_to_paste_says_every_plan_there_is():
    plan = {"module?": {"name": "drop_block2d", "rate": 0.1, "block_size": 3}, "module2": None}
    space = dataclasses.replace(
        SPACE, sites=(), plans=(plan, "paper"), augments=("rotation=9",), label_smoothings=(0.1,)
    )
    found = [train_command(t.config) for t in space.trials() if t.config.seed == 0]
    assert "--dropout 'module?=drop_block2d:0.1,block_size=3' --dropout module2=none" in found[1]
    assert "--dropout paper" in found[2] and all("--augment rotation=9" in line for line in found)
    assert all("--label-smoothing 0.1" in line for line in found)


@pytest.mark.filterwarnings("default:.* is incomplete")
def test_a_file_that_is_not_whole_is_read_as_far_as_it_goes(tmp_path, made_up, no_page, capsys):
    sweep.run_sweep(SPACE, tmp_path / "out", console=Console(file=io.StringIO()))
    file = tmp_path / "out" / "sweep.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:13]) + lines[13][:-40])
    with pytest.raises(SystemExit) as stop:
        cli.main(["recommend", str(file)])
    shown = capsys.readouterr()
    assert stop.value.code == 0 and "The sweep is not done: 12 of 35 trials." in shown.out
    assert shown.err.startswith("Warning: ") and "line 14 is incomplete" in shown.err and ".py" not in shown.err
    file.write_bytes(lines[0].replace(b'"folds"', b'"fields"'))
    with pytest.raises(
        ValueError, match="another version of dropzoo: line 1: Unknown argument of Space 'fields'. Did you mean"
    ):
        sweep_file.read(file)


@pytest.mark.costly(keep=0)
def test_the_page_shows_calibration_and_the_config_behind_each_leader(tmp_path, monkeypatch):
    def engine(mc_samples):
        def run(trials, add):
            for trial in trials:
                bins = {"count": [0.0, 4.0, 6.0], "correct": [0.0, 2.0, 5.0], "confidence": [0.0, 2.0, 5.5]}
                made = record(trial, 2 - trial.axes.rate)
                test = {**made.outcome.test, "accuracy": 0.777}
                outcome = dataclasses.replace(made.outcome, test=test, reliability=bins, mc_samples=mc_samples)
                add(dataclasses.replace(made, outcome=outcome))

        return run

    monkeypatch.setattr(sweep, "_local_engine", engine)
    console = Console(file=io.StringIO())
    page = sweep.run_sweep(SPACE, tmp_path / "out", mc_samples=7, console=console).read_text()
    assert page.count("<img alt=") == 5 and "Accuracy against confidence of the leaders" in page
    leader = page[page.index("<h2>Leaders") :].split("<tr>")[2]
    heads = re.findall("<th.*?>(.*?)</th>", page[page.index("<h2>Leaders") :].split("</tr>")[0])
    cells = dict(zip(heads, re.findall("<td.*?>(.*?)</td>", leader), strict=True))
    assert cells["plan"] == "module? dropout 0.5" and cells["runs"] == "5" and cells["NLL"] == "1.500 ± 0.000"
    assert cells["against no dropout"] == "-0.500 ± 0.000" and cells["accuracy"] == f"{np.exp(-1.5):.3f} ± 0.000"
    assert cells["gap"] == "0.050 ± 0.000" and cells["test accuracy"] == "0.777 ± 0.000"
    calibration = page[page.index("<h2>Calibration") : page.index("<h2>Cost")]
    for head in ("NLL", "ECE", "Brier score", "test NLL", "test ECE"):
        assert f"<th>{head}</th>" in calibration
    assert "<td>0.150 ± 0.000</td>" in calibration  # the ECE of the leader: a tenth of its NLL
    assert "Monte Carlo: 7 samples of one image" in page
    behind = page[page.index("<h2>All trials") :]
    first = behind[behind.index("<h3>1. simple_cnn: module? dropout 0.5, 4 epochs</h3>") : behind.index("<h3>2. ")]
    assert first.count("<details><summary>Seed ") == 5 and html.unescape(first).count('"module?": 0.5') == 5


TITLE = "<script>document.title = [...document.images].every(i => i.naturalWidth > 100) + ' ' + \
(document.documentElement.scrollWidth - document.documentElement.clientWidth)</script></body>"


def test_the_page_needs_no_network_and_fits_a_browser(tmp_path, made_up):
    space = dataclasses.replace(SPACE, plans=("paper",), seeds=(0, 1, 2))
    report = sweep.run_sweep(space, tmp_path / "out", console=Console(file=io.StringIO()))
    page = report.read_text()
    assert page.count("<img alt=") == 4 and page.count("<details>") == 1 + len(made_up)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    assert "dropzoo train simple_cnn --data digits --dropout" in page and "nan" not in page.lower()
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium on the PATH")
    report.write_text(page.replace("</body>", TITLE))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update"]
    command += [
        f"--user-data-dir={tmp_path / 'user'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        report.as_uri(),
    ]
    for width in (1280, 390):
        seen = [*command, f"--window-size={width},900"]
        dom = subprocess.run(seen, capture_output=True, text=True, check=True, timeout=120).stdout
        assert re.search(r"<title>true 0</title>", dom), (width, re.findall("<title>.*</title>", dom))
