"""The theorems behind the guarantees, by simulation: the risk is at most the level, and not far below it."""

import numpy as np
import pytest
from scipy import stats

from dropzoo.serving.calibration import grids
from dropzoo.serving.calibration.fitting import bounds

LEVELS = [0.05, 0.1, 0.2]
SPLITS = 200


def splits(n, share=0.75):
    """Random splits of n images: the held-out ones and those to come."""
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(n)
        yield order[: round(share * n)], order[round(share * n) :]


def holds(risks, level, least=0.8):
    """At most the level plus two standard errors, and at least a share of it."""
    error = np.std(risks, ddof=1) / np.sqrt(len(risks))
    assert np.mean(risks) <= level + 2 * error
    assert np.mean(risks) >= least * level, f"wasteful: {np.mean(risks):.4f} at {level}"


@pytest.fixture(scope="module")
def masks():
    """The loss curves of 400 made-up images of 200 pixels, some of which are far harder than others."""
    random = np.random.default_rng(0)
    grid = grids.probability_grid()
    curves = {"miss": [], "false": [], "true_false": []}
    for _ in range(400):
        truth = random.random(200) < 0.3
        skill = 0.7 + random.gamma(2.0, 1.0)
        p = 1 / (1 + np.exp(-np.where(truth, skill, -skill) - random.normal(size=200)))
        p = p.astype(np.float32)
        curves["miss"].append(grids.missed_share(p, truth, grid))
        curves["false"].append(grids.false_share(p, truth, grid))
        size = grids.count_at_least(p, grid)
        curves["true_false"].append((size - grids.count_at_least(p[truth], grid)) / np.maximum(size, 1))
    return {name: np.array(each) for name, each in curves.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_sets_miss_the_true_class_as_often_as_the_level_says(level):
    scores = np.random.default_rng(1).beta(5, 1, 800)
    risks = [(scores[new] < bounds.conformal_threshold(scores[old], level)).mean() for old, new in splits(800)]
    holds(risks, level, least=0.95)


@pytest.mark.parametrize("level", LEVELS)
def test_outer_masks_miss_at_most_the_level(masks, level):
    risks = []
    for old, new in splits(400):
        place = bounds.risk_control(masks["miss"][old].sum(0), len(old), level)
        risks.append(masks["miss"][new, place].mean())
    holds(risks, level)


@pytest.mark.parametrize("level", LEVELS)
def test_inner_masks_are_wrong_by_at_most_the_level(masks, level):
    """The share of an inner mask that is wrong may rise with the threshold too; its running maximum bounds it."""
    assert (np.diff(masks["true_false"], axis=1) > 0).any() and (np.diff(masks["false"], axis=1) <= 0).all()
    risks = []
    for old, new in splits(400):
        place = bounds.risk_control(masks["false"][old].sum(0)[::-1], len(old), level)
        risks.append(masks["true_false"][new, masks["false"].shape[1] - 1 - place].mean())
    holds(risks, level)


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("binary", [True, False])
def test_what_is_not_deferred_has_at_most_the_error_asked(level, binary):
    """The error of what is kept is known here: 0.3 t**3 if the share t of the surest images is kept."""
    broken, risks = [], []
    for seed in range(60 if binary else 15):
        random = np.random.default_rng(seed)
        doubts = random.random(3000)
        rates = 1.2 * np.minimum(doubts**3, 0.8)
        losses = (
            (random.random(3000) < rates).astype(float) if binary else random.beta(20 * rates, 20 * (1 - rates))
        )
        start = bounds.best_start(doubts[:1000], losses[:1000], level)
        found = bounds.selective_threshold(doubts[1000:], losses[1000:], level, 0.9, binary, start)
        risk = 0.3 * min(found or 0.0, 1.0) ** 3
        risks.append(risk)
        broken.append(risk > level)
    assert stats.binomtest(sum(broken), len(broken), 0.1, alternative="greater").pvalue > 0.01
    assert np.mean(risks) >= 0.75 * level


def test_the_least_level_is_the_least():
    scores = np.arange(19.0)
    assert bounds.least_level(19) == pytest.approx(0.05) and bounds.conformal_threshold(scores, 0.05) == 0.0
    assert bounds.risk_control(np.array([0.0, 0.5]), 19, 0.05) == 0
    assert bounds.risk_control(np.array([0.0, 1.0]), 19, 0.1) == 1
    least = bounds.least_level(45, 0.9)
    assert bounds.binomial_p_value(np.array([0]), np.array([45]), least)[0] == pytest.approx(0.1)


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_a_bet_on_a_loss_above_the_level_rarely_wins(level):
    """The p-value is below 0.1 in at most a tenth of draws whose expected loss is the level."""
    random = np.random.default_rng(0)
    p_values = [
        bounds.betting_p_value(random.beta(2 * level, 2 * (1 - level), 150), level, 0.9) for _ in range(300)
    ]
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 2 * np.sqrt(0.09 / 300)
    assert bounds.betting_p_value(np.full(150, level / 3), level, 0.9) < 0.1
    assert bounds.betting_p_value(np.zeros(0), level, 0.9) == 1.0


def test_ties_are_kept_or_deferred_together():
    doubts, losses = np.repeat([0.1, 0.5], 50), np.repeat([0.0, 1.0], 50)
    found = bounds.selective_threshold(doubts, losses, 0.2, 0.9, True, bounds.best_start(doubts, losses, 0.2))
    assert 0.1 < found <= 0.5
    assert bounds.selective_threshold(doubts, np.ones(100), 0.2, 0.9, True, 0.1) is None
    assert bounds.selective_threshold(doubts, np.zeros(100), 0.2, 0.9, True, 0.3) == np.inf


def test_grids_count_as_a_loop_does():
    random = np.random.default_rng(0)
    grid = grids.probability_grid()
    p = np.concatenate([random.random(50), [0.0, 1.0, 1e-30], grid[[1, 100, -2]]]).astype(np.float32)
    places = random.integers(0, len(grid), 40)
    assert (grids.count_at_least(p, grid)[places] == [(p >= t).sum() for t in grid[places]]).all()
    far = grids.distance_grid()
    d = np.concatenate([random.gamma(1.0, 2.0, 50), [0.0, 1e7], far[[1, 50]]]).astype(np.float32)
    assert (grids.count_above(d, far)[places % len(far)] == [(d > t).sum() for t in far[places % len(far)]]).all()
    assert grid[0] == 0 and grid[-1] == 2 and far[-1] == np.inf and (np.diff(grid) > 0).all()
