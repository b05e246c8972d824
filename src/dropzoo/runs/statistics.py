"""The statistics of a sampler, arranged so that every model of a kind has the same."""

import numpy as np
from scipy.special import xlogy

#: The results of `MonteCarlo`, as arrays by name.
Arrays = dict[str, np.ndarray]

_BY_VALUE = ("mean", "variance", "lower", "upper", "samples")


def arranged(answers: Arrays, task: str = "multi_class") -> Arrays:
    """Returns statistics with a last axis for the classes, labels or values, and with votes in place of samples.

    A single probability, that of the second of two classes, becomes both.

    Args:
        answers: The statistics of a batch by name, with `mean`.
        task: The output kind.
    """
    out = dict(answers)
    if out["mean"].ndim == 1:  # of a model that returns one number for an image, without an axis
        out |= {name: out[name][..., None] for name in _BY_VALUE if name in out}
    if task == "regression":
        out.pop("samples", None)
        return out
    if task != "multi_label" and out["mean"].shape[-1] == 1:
        out |= {name: np.concatenate([1 - p, p], -1) for name, p in out.items() if name in ("mean", "samples")}
        if "variance" in out:
            out["variance"] = np.repeat(out["variance"], 2, -1)
    if (samples := out.pop("samples", None)) is not None:
        out["votes"] = _votes(samples, task)
    if "predictive_entropy" not in out:  # one pass has an entropy too, although no samples show its cause
        mean = out["mean"]
        coins = xlogy(1 - mean, 1 - mean) if task == "multi_label" else 0.0
        out["predictive_entropy"] = -(xlogy(mean, mean) + coins).sum(-1)
    return out


def check_finite(mean: np.ndarray) -> None:
    """Raises a ValueError if an answer is not finite: a mask that is made of it would look certain.

    Args:
        mean: Array of any shape, the probabilities or values.
    """
    if broken := int((~np.isfinite(mean)).sum()):
        raise ValueError(
            f"The model's answer is not finite: {broken} of its {mean.size} values are NaN or infinite. Check the "
            "weights of the model, and the values of the image"
        )


def _votes(samples: np.ndarray, task: str) -> np.ndarray:
    """The number of samples, on axis 1, whose likeliest class it is, or that see the label; float32."""
    if task == "multi_label":
        return (samples > 0.5).sum(1).astype(np.float32)
    if samples.shape[-1] == 2:  # a comparison is ten times as fast as `argmax`
        second = (samples[..., 1] > samples[..., 0]).sum(1)
        counts = [samples.shape[1] - second, second]
    else:
        likeliest = samples.argmax(-1)
        counts = [(likeliest == i).sum(1) for i in range(samples.shape[-1])]
    return np.stack(counts, -1).astype(np.float32)
