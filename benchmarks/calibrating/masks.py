"""The loss curves of masks, over all thresholds."""

import numpy as np
import tensorflow as tf

from dropzoo.serving.calibration import grids
from dropzoo.serving.calibration.answers import by_size
from dropzoo.training.data.digits import digits_by_split, draw_scene


def usual_size(name: str, masks: np.ndarray, k: int) -> float:
    """A quarter of the median share that a class takes up of the images that hold it.

    For scenes, the share is that of new scenes of training digits. For nuclei, there are no further masks, so it
    is that of all 160 masks. It does not depend on how they are split, so old and new images stay exchangeable,
    and a guarantee holds as it does with a share that is fixed beforehand.
    """
    if name == "digit_scenes":
        digits, labels = digits_by_split()["train"]
        masks = np.stack([draw_scene(digits, labels, seed=[0, index])[1] for index in range(200)])
    shares = (masks == k).mean((1, 2))
    return 0.25 * float(np.median(shares[shares > 0]))


def mask_curves(p: np.ndarray, labels: np.ndarray, k: int, floor: float) -> dict[str, np.ndarray]:
    """The loss curves of one class, for images that hold the class and for images in which the model sees it."""
    grid = grids.probability_grid()
    curves: dict[str, list[np.ndarray]] = {"miss": [], "area": [], "elsewhere": [], "bound": [], "false": []}
    scores = np.concatenate(
        [by_size(tf.constant(some), [floor]).numpy() for some in np.array_split(p[..., k : k + 1], 20)]
    )
    for values, score, mask, likeliest in zip(p[..., k], scores, labels == k, p.argmax(-1) == k, strict=True):
        flat, truth = values.ravel(), mask.ravel()
        size = grids.count_at_least(flat, grid)
        area = (grids.count_at_least(score.ravel(), grid) / len(flat)).astype("float32")
        curves["area" if truth.any() else "elsewhere"].append(area)
        if truth.any():
            curves["miss"].append(grids.missed_share(score.ravel(), truth, grid).astype("float32"))
        if likeliest.any():
            false = (size - grids.count_at_least(flat[truth], grid)) / np.maximum(size, 1)
            curves["false"].append(false.astype("float32"))
            curves["bound"].append(grids.false_share(flat, truth, grid).astype("float32"))
    return {name: np.array(each) for name, each in curves.items()}
