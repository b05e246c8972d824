"""`Calibration`: what held-out images say about a predictor, kept as JSON and applied to its answers."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from dropzoo.common.archives import read_member, write_member
from dropzoo.common.files import whole_file
from dropzoo.serving.calibration.answers import (
    WholeImage,
    by_size,
    class_probabilities,
    deviation,
    reaches,
    within,
)
from dropzoo.serving.calibration.facts import Facts, differences
from dropzoo.serving.calibration.guarantee import Guarantee
from dropzoo.serving.calibration.temperature import temper

SCHEMA = 1
_MEMBER = "assets/dropzoo_calibration.json"  # in a `.keras` file; Keras ignores assets that it does not know


@dataclass(frozen=True)
class Calibration:
    """A temperature, the sites that drop, and guarantees, which `calibrate` fitted on held-out images.

    Attributes:
        temperature: Float above 0 that divides the logits of each sample, or a tuple with one for each class. At 1
            nothing changes.
        sites: Dict from the sites that drop at inference to their rates (True for a layer whose rate cannot be
            set). Empty for one pass without dropout.
        guarantees: Dict of `Guarantee` by name.
        facts: `Facts` of the predictor that the calibration was made for.
        figures: Dict of the figures (NLL, ECE and accuracy) on the images to which the temperature and the sites
            were fitted: `"one_pass"` and `"samples"` without the temperature, and `"one_pass_temperature"` and
            `"samples_temperature"` with it; those that do not exist are left out. Each is a dict of `"nll"`,
            `"ece"` and `"accuracy"`.
        n: Int, the number of held-out images.
        data: Str, the name of the held-out data.
        date: Str, when it was fitted, in UTC.
        versions: Dict of the versions of the libraries.

    Example:
    >>> import tempfile, numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", input_shape=(8, 8, 1), filters=(4,), num_classes=3)
    >>> images = np.random.default_rng(0).random((60, 8, 8, 1), "float32")
    >>> labels = np.arange(60) % 3
    >>> cal = serving.calibrate(model, images, labels, guarantee={"set": 0.1}, verbose=0)
    >>> print(cal.guarantees["set"])
    set: the true class is missing from the set in at most 10 % of images (40 held-out images)
    >>> cal.apply({"mean": np.float32([[1.0, 0.0, 0.0]])})["set"].shape
    TensorShape([1, 3])
    >>> path = f"{tempfile.mkdtemp()}/calibration.json"
    >>> cal.save(path)
    >>> serving.Calibration.load(path) == cal
    True
    """

    temperature: float | tuple[float, ...]
    sites: Mapping[str, float | bool]
    guarantees: Mapping[str, Guarantee]
    facts: Facts
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    n: int = 0
    data: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def temper(self, p: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of samples at the temperature; values of a regression are unchanged.

        Args:
            p: Float32 tensor `(..., classes)`.
        """
        return temper(p, self.temperature, self.facts.task)

    def apply(self, out: Mapping[str, Any], image: WholeImage | None = None) -> dict[str, tf.Tensor]:
        """Returns the statistics, with the answers of the guarantees added.

        It uses pure TensorFlow operations, so a traced function can call it.

        Args:
            out: The statistics of samples after `temper`, as tensors or arrays by name: `mean` and, for intervals,
                `variance`.
            image: A `WholeImage`, which describes the whole image, if `out` covers only a part of it. None if
                `out` covers all of it.

        Returns:
            `out` with more entries. `set`: bool `(batch, classes)`, the classes that may be true. `outer` and
            `inner`: bool, of the shape of `mean`, a mask for each class, which is empty for a class without a
            guarantee. `defer`: bool `(batch,)`, whether to ask a human. `lower` and `upper`: float32, of the shape
            of `mean`.
        """
        mean = plain = tf.convert_to_tensor(out["mean"], tf.float32)
        if mean.shape.rank == 1 and self.facts.task != "regression":
            mean = mean[:, None]  # of a model that returns `(batch,)`
        if image is None and self.needs_image:
            image = WholeImage.of(mean, self.facts.task)
        more: dict[str, tf.Tensor] = {}
        for name, guarantee in self.guarantees.items():
            thresholds = guarantee.thresholds
            if name == "set":
                more["set"] = reaches(class_probabilities(mean), thresholds)
            elif image is not None and name == "miss":
                more["outer"] = reaches(by_size(mean, guarantee.floors, image.share), thresholds)
            elif image is not None and name == "false":
                more["inner"] = reaches(mean, thresholds) & image.seen
            elif image is not None and name == "error":
                more["defer"] = image.doubt >= tf.constant(thresholds[0], tf.float32)
            else:
                reach = deviation(tf.convert_to_tensor(out["variance"], tf.float32), guarantee.floors)
                reach *= tf.constant(thresholds, tf.float32)
                more["lower"], more["upper"] = plain - reach, plain + reach
        if image is not None and {"inner", "outer"} <= more.keys():
            miss = self.guarantees["miss"]
            more["inner"] &= within(mean, miss.floors, miss.thresholds, image.share)
        return {**out, **more}

    @property
    def needs_image(self) -> bool:
        """Whether an answer for a part of an image depends on the whole image."""
        return bool({"miss", "false", "error"} & self.guarantees.keys())

    def check(self, found: Facts) -> None:
        """Raises a ValueError if the predictor is not the calibrated one, and warns if its weights have changed.

        Args:
            found: The facts of the predictor that is to use the calibration.
        """
        if different := differences(self.facts, found):
            raise ValueError(
                f"The calibration was made for another predictor ({'; '.join(different)}). Calibrate this one, or "
                "create it with the settings of the calibration"
            )
        if found.weights != self.facts.weights:
            warnings.warn(
                "The weights have changed since the calibration was made, so its temperature and guarantees may "
                "not hold. Calibrate again",
                stacklevel=3,
            )

    def save(self, path: str | os.PathLike) -> None:
        """Writes the calibration to a JSON file, or into the `.keras` file of its model.

        If writing fails, the file is unchanged. A `.keras` file with a calibration still loads as usual, even
        without this package.

        Args:
            path: Path of the file, such as `"calibration.json"`, or of a `.keras` file that exists.
        """
        text = json.dumps(self.content(), indent=2, allow_nan=False) + "\n"
        if Path(path).suffix == ".keras":
            write_member(Path(path), _MEMBER, text)
            return
        with whole_file(Path(path)) as unfinished:
            unfinished.write_text(text, encoding="utf-8")

    def content(self) -> dict[str, Any]:
        """Returns the content that `save` writes, as a dict."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Calibration":
        """Returns the calibration that a file holds.

        Args:
            path: Path of a file that `save` wrote, or of a `.keras` file that holds a calibration.

        Raises:
            ValueError: If the file holds no calibration, or one of another schema.
        """
        try:
            content = json.loads(_text_of(Path(path)))
            schema = content.pop("schema")
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            raise ValueError(f"Expected a file that Calibration.save wrote. Received: {path}") from None
        if schema != SCHEMA:
            raise ValueError(
                f"This version of dropzoo reads calibrations of schema {SCHEMA}; calibrate again, or use the "
                f"version that wrote {path}. Received: schema={schema!r}"
            )
        try:
            content["facts"] = Facts(**_tuples(content["facts"]))
            content["guarantees"] = {n: Guarantee(**_tuples(g)) for n, g in content["guarantees"].items()}
            return cls(**_tuples(content))
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"Expected a complete file that Calibration.save wrote. Received: {path}") from None

    def __str__(self) -> str:
        number = self.temperature
        shown = f"{number:.3g}" if isinstance(number, float) else ", ".join(f"{t:.3g}" for t in number)
        sites = ", ".join(f"{name} {rate if rate is True else f'{rate:.3g}'}" for name, rate in self.sites.items())
        lines = [f"temperature: {shown}", f"sites that drop: {sites or 'none, one pass'}"]
        for name, figures in self.figures.items():
            lines.append(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
        return "\n".join([*lines, *map(str, self.guarantees.values())])


def holds_calibration(path: Path) -> bool:
    """Returns whether a `.keras` file holds a calibration."""
    return read_member(path, _MEMBER) is not None


def _text_of(path: Path) -> str:
    """The text of a JSON file, or of the calibration in a `.keras` file."""
    if path.suffix != ".keras":
        return path.read_text(encoding="utf-8")
    text = read_member(path, _MEMBER)
    if text is None:
        raise ValueError(
            f"The file holds no calibration. To make one, run: dropzoo calibrate {path} --data "
            f"DATA. Received: {path}"
        )
    return text


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON object, with tuples for lists."""

    def tuple_of(value: Any) -> Any:
        return tuple(map(tuple_of, value)) if isinstance(value, list) else value

    return {name: tuple_of(value) for name, value in content.items()}
