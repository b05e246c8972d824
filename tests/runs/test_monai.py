"""Dice, HD95 and the surface Dice against those of MONAI, on the same masks."""

import numpy as np
import pytest
from scipy import ndimage

from dropzoo.runs.details import Details
from dropzoo.runs.objects import boundary_distances, hd95, surface_dice
from dropzoo.training.data.dataset import DataInfo

torch = pytest.importorskip("torch", reason="MONAI needs PyTorch, which is not installed")
metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed: pip install monai")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of MONAI's own


def pair(seed: int, size: tuple[int, int] = (64, 48)) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of smooth shapes: the second is the first, moved and with noise along its border."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=size), 4 + seed % 3)
    moved = np.roll(field, (seed % 4, -(seed % 3)), (0, 1)) + 0.02 * random.normal(size=size)
    return moved > 0.02, field > 0.03


def batch(mask: np.ndarray) -> "torch.Tensor":
    return torch.tensor(np.stack([~mask, mask])[None].astype("float32"))


@pytest.mark.parametrize("seed", range(6))
def test_boundaries_are_those_of_monai(seed):
    predicted, true = pair(seed)
    distances = boundary_distances(predicted, true)
    assert distances is not None
    theirs = metrics.compute_hausdorff_distance(batch(predicted), batch(true), percentile=95)
    assert hd95(distances) == pytest.approx(float(theirs[0, 0]), abs=1e-4)
    for tolerance in (1.0, 2.0):
        theirs = metrics.compute_surface_dice(batch(predicted), batch(true), [tolerance])
        assert surface_dice(distances, tolerance) == pytest.approx(float(theirs[0, 0]), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_dice_and_iou_are_those_of_monai(seed):
    predicted, true = pair(seed)
    info = DataInfo("made", "segmentation", 2, ("ground", "thing"), (64, 48, 1), 0, 0, 1)
    details = Details(info, ("image", "class"))
    log_p = np.log(np.where(predicted[..., None] == np.array([False, True]), 0.9, 0.1)).astype("float32")
    details.add(true[None].astype("int32"), log_p[None])
    dice = metrics.compute_dice(batch(predicted), batch(true)).numpy()[0]
    iou = metrics.compute_iou(batch(predicted), batch(true)).numpy()[0]
    assert [row["dice"] for row in details.classes()] == pytest.approx(list(dice), abs=1e-6)
    assert [row["iou"] for row in details.classes()] == pytest.approx(list(iou), abs=1e-6)
    assert details.images[0]["mean_dice"] == pytest.approx(dice.mean(), abs=1e-6)
    far = metrics.compute_hausdorff_distance(batch(predicted), batch(true), percentile=95)
    assert details.images[0]["hd95"] == pytest.approx(float(far[0, 0]), abs=1e-4)
