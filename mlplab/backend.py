"""TensorFlow's import, as a command needs it."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from mlplab.spec import UsageError


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
            f"{keras.config.backend()!r}; legal: 'tensorflow'. Import mlplab first, or set KERAS_BACKEND=tensorflow."
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
