"""Log lines on their way out: never in the way of a decision, whatever happens to the stream that they go to."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TextIO

LINES_MAX = 10_000

# How long the end of the process waits for the last lines.
CLOSE_SECONDS = 1.0


class LineWriter:
    """A text stream that neither blocks nor fails.

    A thread of its own writes to the real stream. Lines that it cannot take (a reader that stalls, a full disk, a
    closed pipe) are dropped, and their number is written as soon as something can be.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take a text that ends its line."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: every line is flushed when it is written."""

    def close(self) -> None:
        """Write what is left, for at most CLOSE_SECONDS."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            try:
                if self._dropped:
                    lost, self._dropped = self._dropped, 0
                    text = f'{{"event": "log lines were lost", "count": {lost}}}\n{text}'
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._dropped += 1
