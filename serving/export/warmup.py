"""The requests that TensorFlow Serving replays before it lets traffic in: `tf_serving_warmup_requests`.

Each record is a `tensorflow.serving.PredictionLog`, whose protobuf comes only with the tensorflow-serving-api
package. A request needs only a few of its fields, all length-delimited, so this module encodes them itself. The
tests parse the file with the classes of that package if it is installed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

# Field numbers in prediction_log.proto, predict.proto and model.proto.
_PREDICT_LOG, _REQUEST = 6, 1  # PredictionLog.predict_log, PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest
_NAME, _SIGNATURE = 1, 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of an entry of a map


def write_warmup(path: Path, model_name: str, requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """Writes one record for each request, which is the name of a signature and its inputs by name."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(prediction_log(model_name, signature, inputs))


def warmup_requests(
    specs: Mapping[str, Sequence[tf.TensorSpec]], files: Collection[str]
) -> list[tuple[str, dict[str, tf.Tensor]]]:
    """Returns two requests for each signature, with one and with four black images.

    Args:
        specs: Shapes and dtypes of the inputs of each signature. An axis of unknown length gets 64 pixels.
        files: Names of the inputs that are files of images.
    """
    black = tf.io.encode_png(tf.zeros([64, 64, 1], tf.uint16))  # all models take this file
    requests = []
    for signature, inputs in specs.items():
        for batch in (1, 4):
            values = {}
            for spec in inputs:
                shape = [batch, *(64 if n is None else n for n in spec.shape[1:])]
                values[spec.name] = tf.fill(shape, black if spec.name in files else tf.zeros([], spec.dtype))
            requests.append((signature, values))
    return requests


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """Returns a serialised `PredictionLog` of one Predict request."""
    request = _field(_MODEL_SPEC, _field(_NAME, model_name.encode()) + _field(_SIGNATURE, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field: its tag, its length, its bytes."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    """An int as protobuf writes it: seven bits in each byte, the lowest first, and a bit that says "more"."""
    low, high = value & 0x7F, value >> 7
    return bytes([low]) if not high else bytes([low | 0x80]) + _varint(high)
