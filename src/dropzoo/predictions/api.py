"""`predict_files`: the answers to many image files, one after another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import keras

from dropzoo.predictions.answers import Answer, answers
from dropzoo.predictions.paths import find_images
from dropzoo.predictions.run import list_pages
from dropzoo.runs.predictor import Predictor
from dropzoo.runs.predictors import load_predictor


def predict_files(
    paths: Path | str | Sequence[Path | str],
    model: Path | str | keras.Model | Predictor,
    *,
    num_samples: int | None = None,
    batch_size: int | None = None,
    tile: int | None = None,
    overlap: int = 64,
    on_error: Callable[[Path, Exception], None] | None = None,
) -> Iterator[Answer]:
    """Yields the model's answer to each image in files, folders and stacks, and keeps only a few images in memory.

    Use it in a program instead of the command `dropzoo predict`. Files are read ahead, and images of the same size
    are computed together. Predicted masks have the size of the image.

    Args:
        paths: Files, folders (their sub-folders are searched too), and patterns such as `"scans/**/*.tif"`.
        model: A Keras model; path of a run's folder, a `.keras` file or a SavedModel; or a predictor that
            `dropzoo.runs.predictors.load_predictor` returned, with `sampling="fixed"` if you pass `tile`.
        num_samples: Positive int or None, the number of Monte-Carlo samples; None means 30. For an ensemble, it is
            the number for all members together, and None averages the members without dropout. A predictor and a
            calibration have their own number. So does a SavedModel if `tile` is None.
        batch_size: Positive int or None, the number of images, or tiles, in a batch; None for a number that
            depends on their size. Two batches of small images may be computed at a time.
        tile: Positive int or None, the tile size in pixels; larger images are read and computed in tiles of this
            size. None for whole images.
        overlap: Int from 0 to half of `tile`, how many pixels neighbouring tiles share. The default needs tiles of
            at least 128 pixels.
        on_error: Function that is called with the path and the error of an image that cannot be read; the other
            images are then computed. None raises the error.

    Yields:
        An `Answer` for each image, with `answer.page.path`, `answer.size` (height and width) and
        `answer.whole()["mean"]`. Instead of the whole image, `answer.strips` gives the statistics strip by strip;
        each strip can be read only once.

    Raises:
        ValueError: If there are no images, the model cannot be loaded, a file cannot be read, or `num_samples` is
            passed with a predictor.

    Example:
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from dropzoo import models
    >>> from dropzoo.predictions import predict_files
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("L", (20, 30)).save(folder / "a.png")
    >>> unet = models.build_model("unet", num_classes=2, depth=1, filters=2, dropout={"bottleneck*": 0.5})
    >>> unet.save(folder / "unet.keras")
    >>> for answer in predict_files(folder, folder / "unet.keras", num_samples=2):
    ...     print(answer.page.path.name, answer.whole()["predictive_entropy"].shape)
    a.png (30, 20)
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if isinstance(model, Predictor):
        if num_samples is not None:
            raise ValueError(
                f"A predictor has its own number of samples, {model.num_samples}. Received: num_samples="
                f"{num_samples}. Leave it out, or pass it to `load_predictor`"
            )
        predictor = model
    else:
        sampling = "balanced" if tile is None else "fixed"
        predictor = load_predictor(model, num_samples, say=lambda text: None, sampling=sampling)
    pages, failed = list_pages(find_images(given), predictor.input_shape[-1])
    for path, error in failed:
        if on_error is None:
            raise error
        on_error(Path(path), error)
    only = [page for page, _ in pages]
    with closing(answers(predictor, only, batch_size=batch_size, tile=tile, overlap=overlap)) as found:
        for answer in found:
            if answer.error is None:
                yield answer
            elif on_error is None:
                raise answer.error
            else:
                on_error(answer.page.path, answer.error)
