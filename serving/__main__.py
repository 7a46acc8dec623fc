"""`python -m serving`: serves a registered model."""

import argparse
import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving.client import whole
from serving.lines import Handler, Lines


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"it is {text!r}; legal: seconds from 0.01 to 3600")
    return number


def _parser() -> argparse.ArgumentParser:
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
        "--sender-timeout", type=_seconds, default=10.0, help="seconds a request may take to arrive (%(default)s)"
    )
    parser.add_argument(
        "--answer-timeout", type=_seconds, default=30.0, help="seconds an answer may take to make (%(default)s)"
    )
    parser.add_argument(
        "--reader-timeout", type=_seconds, default=10.0, help="seconds an answer may take to be read (%(default)s)"
    )
    parser.add_argument("--max-requests", type=whole(1, 100_000), default=128, help="at work and waiting (%(default)s)")
    parser.add_argument(
        "--max-connections", type=whole(1, 100_000), default=1_024, help="open at the same time (%(default)s)"
    )
    parser.add_argument("--stop-timeout", type=whole(1, 3600), default=30, help="seconds to finish in (%(default)s)")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the token that every request but health checks has to bear",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, as PEM: speak HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def main() -> None:
    """Serves until it is told to stop; requests at work are finished first."""
    parser = _parser()
    options = parser.parse_args()
    if (options.tls_cert is None) != (options.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    out, errors = Lines(1), Lines(2)
    logging.basicConfig(level=logging.WARNING, handlers=[Handler(errors)])
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what it warns of is counted, see /metrics
    logging.getLogger("serving").setLevel(options.log_level.upper())

    import uvicorn

    from serving.app import App, give_back_memory
    from serving.connections import Door, Loop, Peers, protocol
    from serving.limits import Limits
    from serving.registry import Reference, Registry
    from serving.versions import Watcher

    try:
        token = options.token_file.read_text().strip() if options.token_file else ""
        if options.token_file and not token:
            parser.error(f"--token-file {options.token_file} holds no token")
        reference, registry = Reference.parse(options.model), Registry()
    except (ValueError, OSError) as error:
        parser.error(str(error))
    # Each connection is an open file.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.max_connections + 256 if most < 0 else most, most))
    # A look at the registry is Python, too: a request that finds it at work waits this long for its turn, not 5 ms.
    sys.setswitchinterval(0.0005)
    watcher = Watcher(reference, registry, options.poll)
    limits = Limits(
        body_bytes=options.max_body,
        sender_seconds=options.sender_timeout,
        answer_seconds=options.answer_timeout,
        reader_seconds=options.reader_timeout,
        requests=options.max_requests,
        connections=min(options.max_connections, max(16, most - 128) if most > 0 else options.max_connections),
    )
    give_back_memory()
    app = App(watcher, limits, _mlflow(), token, out)
    peers = Peers(limits, app.count)
    try:
        doors = Door.of(options.host, options.port, peers)
    except OSError as error:
        parser.error(f"it cannot listen on {options.host}:{options.port} ({error}); free the port, or give another")
    Loop.handshake_seconds = options.sender_timeout
    watcher.look()
    watcher.start()
    _name_run(options.model)
    threading.Thread(target=app.warm, daemon=True).start()
    # uvicorn stops gracefully and then raises the signal again, for whom it may concern.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        config = uvicorn.Config(
            app,
            loop="serving.connections:Loop",
            http=protocol(peers),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=options.stop_timeout,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=doors)
    finally:
        app.close()
        out.write()
        errors.write()


NAMING = """
import os, sys, mlflow
for tag in {"mlplab.kind": "serving", "mlflow.runName": f"serve · {sys.argv[1]}"}.items():
    mlflow.MlflowClient().set_tag(os.environ["MLFLOW_RUN_ID"], *tag)
"""


def _name_run(model: str) -> None:
    """Says of the run that `mlflow run` made for this server what it is, so that lists of runs can leave it out.

    In a process of its own: MLflow's client takes more memory than the server. It serves all the same where that fails.
    """
    if os.environ.get("MLFLOW_RUN_ID"):
        command = [sys.executable, "-c", NAMING, model]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        threading.Thread(target=subprocess.run, args=(command,), kwargs=quiet, daemon=True).start()


def _mlflow() -> str:
    """The version of MLflow whose protocol this is: the one that is installed, or that was tested."""
    for package in ("mlflow", "mlflow-skinny"):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return "3.17.2"


if __name__ == "__main__":
    main()
