"""The outputs of a model: one or several, each with a name and an output kind of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import keras

from dropzoo.common.checks import unknown

#: The output kinds, which say what an output means. The public argument for it is `task`.
KINDS = ("multi_class", "binary", "multi_label", "regression")

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """One output of a model.

    Attributes:
        name: Its key in a dict, or the name of the layer that makes it.
        shape: Its shape, with the batch first. For an output `(batch,)` it is `(batch, 1)`.
        kind: One of `KINDS`.
        flat: Bool, whether the model returns `(batch,)`.
    """

    name: str
    shape: tuple[int | None, ...]
    kind: str
    flat: bool = False

    @property
    def classes(self) -> int | None:
        """The size of the last axis."""
        return self.shape[-1]


def names_of_outputs(structure: Any, layer_names: Sequence[str]) -> list[str]:
    """Returns the names of the outputs of a model, in the order of `model.outputs`, each name once.

    Args:
        structure: `model.output`: a tensor, or a list or dict of tensors.
        layer_names: `model.output_names`.
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    by_key = isinstance(structure, dict)
    names = ["/".join(map(str, path)) if by_key else own for path, own in zip(paths, layer_names, strict=True)]
    return [name if names.count(name) == 1 else f"{name}_{i + 1}" for i, name in enumerate(names)]


def by_output(value: Any, names: Sequence[str], argument: str, default: T) -> list[T]:
    """Returns the value of an argument for each output.

    Args:
        value: One value for all outputs, a dict by name, or a list or tuple in order.
        names: The names of the outputs.
        argument: Str, the name of the argument, for errors.
        default: The value for outputs that a dict does not name.

    Raises:
        ValueError: If a dict names an output that does not exist, or a list has another length.
    """
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                raise unknown(f"output in `{argument}`", name, names)
        return [value.get(name, default) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) != len(names):
            raise ValueError(
                f"`{argument}` must have an entry for each output, {', '.join(names)}. "
                f"Received: {argument}={value!r}"
            )
        return list(value)
    return [value] * len(names)


def joined(answers: Sequence[Any], names: Sequence[str]) -> Any:
    """Returns the answers for several outputs as a dict by name; the answer of a single output as it is."""
    return answers[0] if len(answers) == 1 else dict(zip(names, answers, strict=True))
