"""`python -m serving`: serves a registered model."""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from serving.client import whole


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"it is {text!r}; legal: seconds from 0.01 to 3600")
    return number


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def main() -> None:
    """Serves until it is told to stop; requests at work are finished first."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m serving",
        description="Serve a model of the MLflow registry with MLflow's scoring protocol, and follow its alias. The "
        "registry is MLFLOW_REGISTRY_URI, else MLFLOW_TRACKING_URI. One JSON line for each request goes to standard "
        "output, what happens otherwise to standard error.",
    )
    parser.add_argument("--model", default="models:/mnist-mlp@champion", help="(default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=whole(0, 65535), default=5001, help="(default: %(default)s)")
    parser.add_argument("--poll", type=_seconds, default=2.0, help="seconds between looks at the alias (%(default)s)")
    parser.add_argument("--max-body", type=whole(1, 2**30), default=4 * 2**20, help="bytes of a body (%(default)s)")
    parser.add_argument(
        "--sender-timeout", type=_seconds, default=10.0, help="seconds headers or body may take (%(default)s)"
    )
    parser.add_argument("--max-requests", type=whole(1, 100_000), default=128, help="at work and waiting (%(default)s)")
    parser.add_argument("--stop-timeout", type=whole(1, 3600), default=30, help="seconds to finish in (%(default)s)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    options = parser.parse_args()

    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("serving").setLevel(options.log_level.upper())
    # A dead registry would block each look for four minutes; a pickle is never loaded.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    with _without_remarks():
        import tensorflow as tf
    import uvicorn

    from serving.app import App, Limits, protocol
    from serving.versions import Reference, Watcher

    try:
        reference = Reference.parse(options.model)
    except ValueError as error:
        parser.error(str(error))
    # To hand so little work from thread to thread takes longer than the work, even for a batch of 256.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    # A look at the registry is Python, too: a request that finds it at work waits this long for its turn, not 5 ms.
    sys.setswitchinterval(0.0005)
    watcher = Watcher(reference, options.poll)
    watcher.look()
    watcher.start()
    _name_run(options.model)
    limits = Limits(options.max_body, options.sender_timeout, options.max_requests)
    # uvicorn stops gracefully and then raises the signal again, for whom it may concern.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        App(watcher, limits),
        host=options.host,
        port=options.port,
        http=protocol(options.sender_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=options.stop_timeout,
    )


def _name_run(model: str) -> None:
    """Says of the run that `mlflow run` made for this server what it is, so that lists of runs can leave it out."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        import mlflow

        tags = {"mlplab.kind": "serving", "mlflow.runName": f"serve · {model}"}
        with contextlib.suppress(Exception):  # it serves all the same
            for name, value in tags.items():
                mlflow.MlflowClient().set_tag(run_id, name, value)


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keeps what TensorFlow's libraries write to stderr while they are loaded out of the log, whose lines are JSON."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


if __name__ == "__main__":
    main()
