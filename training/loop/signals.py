"""Signals that ask a run to stop, met where it can be saved."""

import signal
import threading
from types import FrameType
from typing import Any

import keras

# Only these are taken over; a handler of the user's own stays.
_DEFAULTS: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class StopSignals(keras.callbacks.Callback):
    """A context in which SIGTERM and Ctrl-C only set `received`; the second one acts as it would without.

    Python takes signals in its main thread alone: in others this does nothing. As a callback it stops evaluation.

    Args:
        alone: no other process takes part, so that this one may stop by itself.
    """

    received = 0
    async_safe = True

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self._alone = alone

    def __enter__(self) -> "StopSignals":
        self._taken: list[int] = []
        if threading.current_thread() is threading.main_thread():
            self._taken = [s for s, default in _DEFAULTS.items() if signal.getsignal(s) == default]
            for number in self._taken:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        while self._taken:
            signal.signal(number := self._taken.pop(), _DEFAULTS[number])

    def check(self, asked: Any) -> None:
        """Ends the run, if this process alone got a signal, or all have agreed on one (`asked`).

        Raises:
            KeyboardInterrupt: for Ctrl-C here.
            SystemExit: for SIGTERM, or a signal elsewhere.
        """
        asked = asked or (self._alone and self.received)
        if asked and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if asked:  # by a signal here, or in another process
            raise SystemExit(128 + signal.SIGTERM)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.check(False)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
        print(f"\n{signal.Signals(number).name}: stopping after the steps that run; once more to stop at once")
