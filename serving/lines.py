"""The log: JSON lines that never keep a request waiting, whoever reads them, or nobody."""

import json
import logging
import os
import threading
import time
from collections import deque
from typing import Any

MOST_WAITING, MOST_A_SECOND = 10_000, 1_000


class Lines(threading.Thread):
    """Writes lines to a file descriptor, some at a time. What is too much is left out, and counted."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name=f"lines {descriptor}", daemon=True)
        self._descriptor = descriptor
        self._waiting: deque[str] = deque()
        self._left_out = 0
        self.start()

    def put(self, line: dict[str, Any]) -> None:
        """Takes a line and returns at once."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(json.dumps(line))
        else:
            self._left_out += 1

    def run(self) -> None:
        """Writes for ever."""
        pause = 0.1
        while True:
            time.sleep(pause)
            self.write(int(MOST_A_SECOND * pause))

    def write(self, most: int = MOST_WAITING) -> None:
        """Writes what waits."""
        lines = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if self._left_out and lines:
            left, self._left_out = self._left_out, 0
            lines.append(json.dumps({"time": round(time.time(), 3), "left_out": left}))
        content = "".join(f"{line}\n" for line in lines).encode()
        while content:
            try:
                content = content[os.write(self._descriptor, content) :]
            except OSError:  # nobody reads it any more, or the disk is full
                return


class Handler(logging.Handler):
    """Gives log records to lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """As logging calls it."""
        line: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = logging.Formatter().formatException(record.exc_info)
        self._lines.put(line)
