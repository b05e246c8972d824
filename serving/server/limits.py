"""The limits of requests, and the exception that refuses a request."""

from dataclasses import dataclass

from dropzoo.common.checks import check_positive


class Refused(Exception):
    """Refuses a request; the answer is a status and one sentence, or two if there is a hint.

    Args:
        status: Int, the HTTP status.
        message: Str, the sentence that the client reads.
        hint: Str, what to send instead, in which `{url}` stands for the address of the request; empty for nothing.
    """

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint

    def text(self, url: str) -> str:
        """Returns the message with its hint.

        Args:
            url: Str, the address of the request.
        """
        return f"{self.message}. {self.hint.replace('{url}', url)}" if self.hint else self.message


@dataclass(frozen=True)
class Limits:
    """Limits of a single request, of a batch, and of the queue.

    Args:
        max_body_bytes: Int, bytes of a request.
        max_pixels: Int, height times width of one image, as its header gives them. The total over the images of a
            request, and over those of a batch, has the same limit. In a total, an image counts with its own size
            or with the size to which the model resizes it, whichever is larger.
        max_rows: Int, images of a request. It is a limit of its own, because even a tiny image costs some memory.
        max_batch_size: Int, images that are answered in one batch. A larger request is a batch of its own.
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
