"""What a request may take, and how one, or a version, is refused."""

import json
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Args:
        body_bytes: size of a body, as sent and unpacked; above it the answer is 413.
        sender_seconds: from a request's first byte to its last one; above it the answer is 408.
        answer_seconds: for the model's answer; above it the answer is 503.
        reader_seconds: in which an answer is to be taken; then the connection is cut.
        requests: at work and waiting at the same time; above it the answer is 503.
        connections: open at the same time; above it one that is silent, of the peer that has most, makes room.
    """

    body_bytes: int = 4 * 2**20
    sender_seconds: float = 10.0
    answer_seconds: float = 30.0
    reader_seconds: float = 10.0
    requests: int = 128
    connections: int = 1_024

    @property
    def buffered_bytes(self) -> int:
        """Of all bodies together; above it the largest one that is not there yet makes room."""
        return 16 * self.body_bytes


class RefusedError(ValueError):
    """A version that is never loaded; with why."""


class RefusalError(Exception):
    """A request that is refused, and how. The message repeats nothing of what was sent."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or ("BAD_REQUEST" if status == 400 else HTTPStatus(status).name)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.status, str(self), self.code, self.headers)

    @property
    def body(self) -> bytes:
        """What is answered."""
        return json.dumps({"error_code": self.code, "message": str(self)}).encode()


def _again(status: int, message: str, code: str, headers: dict[str, str]) -> RefusalError:
    return RefusalError(status, message, code, **{name.replace("-", "_"): value for name, value in headers.items()})


def invalid(message: str) -> RefusalError:
    """Of what does not fit the model."""
    return RefusalError(400, message, "INVALID_PARAMETER_VALUE")
