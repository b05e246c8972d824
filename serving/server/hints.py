"""Hints: a line that works in place of a request that was refused."""

from collections.abc import Collection, Sequence

import tensorflow as tf

#: Stands for the address of the request, which is known where the answer is written.
URL = "{url}"


def send_file(kind: str = "image/png") -> str:
    """Returns the line that sends a file, of an image or of arrays."""
    names = {"image/jpeg": "image.jpg", "image/tiff": "image.tif"}
    names |= {"application/x-npy": "image.npy", "application/x-npz": "inputs.npz"}
    name = names.get(kind, "image.png")
    return f"Send it as: curl {URL} -H 'Content-Type: {kind}' --data-binary @{name}"


def about_shape(name: str, shape: Sequence[int], spec: tf.TensorSpec) -> str:
    """Returns what may be wrong with an array whose shape a signature does not take; perhaps empty.

    Args:
        name: Name of the input.
        shape: The shape that came.
        spec: The shape and dtype that the signature takes.
    """
    wanted = spec.shape.as_list()
    if len(shape) == len(wanted) - 1:
        if spec.shape.is_compatible_with([1, *shape]):
            return "Put the image into a list, for the batch: [image]"
        if wanted[-1] == 1 and spec.shape.is_compatible_with([*shape, 1]):
            return f"Add the axis of the channel: {name}[..., None]"
    if len(shape) == len(wanted) - 2 and wanted[-1] == 1 and spec.shape.is_compatible_with([1, *shape, 1]):
        return f"Add the axes of the batch and of the channel: {name}[None, ..., None]"
    if len(shape) == len(wanted) == 4 and shape[-1] != wanted[-1]:
        if spec.shape.is_compatible_with([shape[0], shape[2], shape[3], shape[1]]):
            return f"Move the channels to the end: np.moveaxis({name}, 1, -1)"
        return "Or send the image as a file, which is converted to the channels of the model"
    return ""


def about_files(signatures: Collection[str], signature: str) -> str:
    """Returns how to send a file, for a client that sent base64 to a signature that takes numbers."""
    if "predict_bytes" in signatures and signature == "serving_default":
        line = '{"signature_name": "predict_bytes", "instances": [{"b64": "..."}]}'
        return f"For files: {line}, or send one as the body"
    return f"Send the file itself as the body. {send_file()}"
