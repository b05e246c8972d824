"""What a server takes and what it refuses."""

from dataclasses import dataclass

from dropzoo.common.checks import check_positive


class Refused(Exception):
    """A request that is answered with a status and one sentence.

    Args:
        status: Int, the HTTP status.
        message: The sentence, for whoever sent the request.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Limits:
    """How much a request may ask for, and how much all requests together.

    Args:
        max_body_bytes: Int, bytes of a request.
        max_pixels: Int, height times width of one image, read from its header. Also the total of the images of a
            request, and of those of a batch; there an image counts in its own size or in the size that the model
            resizes it to, whichever is larger.
        max_rows: Int, images of a request. Even a tiny image costs some memory.
        max_batch_size: Int, images that are answered in one batch; a request of more is a batch of its own.
        max_wait_ms: Float, milliseconds that a request may wait for others that are arriving, to share a batch.
        max_queue: Int, requests that may wait for one signature; further ones are refused.
        body_timeout_s: Float, seconds that a client may take to send a request.

    Raises:
        ValueError: If a limit is not positive.
    """

    max_body_bytes: int = 16 * 2**20
    max_pixels: int = 4 * 2**20
    max_rows: int = 4096
    max_batch_size: int = 64
    max_wait_ms: float = 2.0
    max_queue: int = 256
    body_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_positive(value, name)
