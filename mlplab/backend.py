"""What a training needs of the process it runs in: settings, which are put back after it, and TensorFlow's import.

Importing this package changes nothing in a process. A command has the settings from its beginning to its end.
"""

import contextlib
import ctypes
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

from mlplab.checks import UsageError
from mlplab.folders import program_flags

MEMORY_KEPT, MEMORY_AS_EVER = ((-4, 0), (-1, -1)), ((-4, 65_536), (-1, 131_072))
"""Parameters of mallopt(3) with their values: M_MMAP_MAX and M_TRIM_THRESHOLD; kept, and as the C library has them."""

MLFLOW = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_DISABLE_TELEMETRY": "true"}
# Where tqdm is installed, a download would draw a bar into what a command says.
MLFLOW |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
LOGGERS = {"mlflow": logging.WARNING, "alembic": logging.WARNING}
# It prints what SQLite is asked again anyway.
LOGGERS |= {"mlflow.store.db.utils": logging.CRITICAL}
# TensorFlow's export sets it, and puts another level back than there was.
LOGGERS |= {"absl": logging.WARNING}

_lock = threading.RLock()
_levels: dict[str, int] = {}


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """While it lasts, TensorFlow finds compiled programs again, says little, and memory that was freed is kept.

    A program's buffers are allocated anew at each call. At full batch they are hundreds of MB, and having the system
    map and clear their pages again took a third of an epoch.
    """
    with _for_computing.held():
        yield


def _compute(until: contextlib.ExitStack) -> None:
    usual = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TF_XLA_FLAGS": program_flags()}
    until.enter_context(environment({name: os.environ.get(name) or value for name, value in usual.items()}))
    _mallopt(MEMORY_KEPT)
    until.callback(_mallopt, MEMORY_AS_EVER)
    if "tensorflow" in sys.modules:
        # It reads its flags when it is first used.
        sys.modules["tensorflow"].config.list_logical_devices()


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """While it lasts, the process has all settings that a comparison needs: those of `computing`, and MLflow's.

    MLflow's client would send a request again whose answer was lost, and so create a run twice: what is tried again,
    and how, is decided in `mlplab.stores`. By default a dead server would block each call for minutes.
    """
    with computing(), _for_tracking.held():
        yield


def _track(until: contextlib.ExitStack) -> None:
    wanted = {name: os.environ.get(name) or value for name, value in MLFLOW.items()}
    until.enter_context(environment({**wanted, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}))
    until.callback(_loud_again)
    if "mlflow" in sys.modules:
        _quieten()


def mlflow_imported() -> None:
    """To be called after MLflow's import, which sets its loggers' levels: within `settings` they are ours again."""
    if _for_tracking.blocks:
        _quieten()


def _quieten() -> None:
    for name, level in LOGGERS.items():
        logger = logging.getLogger(name)
        _levels.setdefault(name, logger.level)
        logger.setLevel(level)


def _loud_again() -> None:
    for name, level in _levels.items():
        logging.getLogger(name).setLevel(level)
    _levels.clear()


class Shared:
    """Settings that are made by the first block that wants them, and put back by the last one, whatever its thread.

    Args:
        make: makes them; what puts them back it leaves with the stack.
    """

    def __init__(self, make: Callable[[contextlib.ExitStack], None]) -> None:
        self.blocks = 0
        self._make, self._until = make, contextlib.ExitStack()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While it lasts, the settings are made."""
        with _lock:
            if self.blocks == 0:
                with self._until:  # puts back what was made before it failed
                    self._make(self._until)
                    self._until = self._until.pop_all()
            self.blocks += 1
        try:
            yield
        finally:
            with _lock:
                self.blocks -= 1
                if self.blocks == 0:
                    self._until.close()


_for_computing, _for_tracking = Shared(_compute), Shared(_track)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """While it lasts, the process has these variables of the environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _mallopt(values: tuple[tuple[int, int], ...]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in values:
            libc.mallopt(parameter, value)


def check() -> None:
    """Refuses another backend of Keras than TensorFlow.

    Raises:
        UsageError: `KERAS_BACKEND` names one, or Keras was imported with one, as its keras.json says.
    """
    wanted = os.environ.get("KERAS_BACKEND", "tensorflow")
    if wanted != "tensorflow":
        raise UsageError(
            f"mlplab trains Keras models on TensorFlow, but KERAS_BACKEND is {wanted!r}; legal: 'tensorflow'. Unset "
            "it, or set KERAS_BACKEND=tensorflow."
        )
    if (keras := sys.modules.get("keras")) is not None and keras.config.backend() != "tensorflow":
        raise UsageError(
            f"mlplab trains Keras models on TensorFlow, but Keras was imported with the backend "
            f"{keras.config.backend()!r}; legal: 'tensorflow'. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras sooner than a plain import does, and without their remarks on stderr.

    Where scikit-learn and pyplot are installed Keras imports them, for wrappers and galleries that nothing here uses:
    in this process `keras.wrappers` then says that scikit-learn is missing. Both may be imported after it as ever.

    Raises:
        UsageError: as `check` raises it.
    """
    check()
    unused = {"sklearn", "matplotlib.pyplot"}.difference(sys.modules)
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]  # to import what is None is an ImportError
    try:
        with _without_remarks():
            import tensorflow  # noqa: F401
    finally:
        for name in unused:
            del sys.modules[name]


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keeps what TensorFlow's libraries say at information level, whatever the log level, off stderr; all else stays.

    Before they have set up their logging they write to the file, so that is where it has to be kept from.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            rest = re.sub(rb"(?m)^(WARNING: All log messages before absl|I\d{4} ).*\n?", b"", said.read())
            with contextlib.suppress(OSError):
                os.write(2, rest)
