"""Signals that ask a run to stop, handled at a point where the run can be saved."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# Only these handlers are replaced; a handler of the user's own stays.
_DEFAULTS: dict[int, Callable[..., Any] | signal.Handlers] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class StopSignals:
    """A context in which the first SIGTERM or Ctrl-C only sets `received`. The second one acts as usual.

    Python handles signals only in its main thread, so the context does nothing in other threads.

    Args:
        alone: Bool. Whether no other process takes part, so that this one may stop by itself.
    """

    def __init__(self, alone: bool) -> None:
        self.received = 0
        self._alone = alone
        self._taken: list[int] = []

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._taken = [s for s, default in _DEFAULTS.items() if signal.getsignal(s) == default]
            for number in self._taken:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._taken:
            signal.signal(number := self._taken.pop(), _DEFAULTS[number])

    def check(self, asked: int = 0) -> None:
        """Ends the run if this process is alone and got a signal, or if all processes know that one got a signal.

        Args:
            asked: Int, how many processes got a signal. The number is the same in all processes.

        Raises:
            KeyboardInterrupt: After Ctrl-C in this process.
            SystemExit: After SIGTERM, or after a signal in another process.
        """
        if not asked and not (self._alone and self.received):
            return
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
        print(f"\n{signal.Signals(number).name}: stopping after the current steps; a second signal stops at once")
