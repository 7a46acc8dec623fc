"""What every command has in common: options, signals, exit codes, output."""

import argparse
import atexit
import contextlib
import difflib
import gc
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from mlplab import backend
from mlplab.checks import UnavailableError, UndeliveredError, UsageError, choose
from mlplab.loading import Experiment, Options, data_of
from mlplab.seeds import Until
from mlplab.sources import Data

if TYPE_CHECKING:
    from rich.console import Console

    from mlplab.data import Dataset
    from mlplab.records import Record
    from mlplab.run import Lab

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_UNDELIVERED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 4, 130, 143
EXIT_CODES = (
    f"Exit codes: 0 done, {EXIT_FAILED} a variant failed or the store refused a part of the record, "
    f"{EXIT_USAGE} wrong usage, {EXIT_UNAVAILABLE} data or tracking store not to be had, {EXIT_UNDELIVERED} done, "
    f"but the store did not answer to take all of the record (see sync), {EXIT_INTERRUPTED} interrupted, "
    f"{EXIT_TERMINATED} terminated. A command that was interrupted goes on where it was when it is given again. "
    "The tracking store is MLflow's: set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME as for any MLflow program."
)
DATASET_CHOICES = ("auto", "mnist", "cifar10", "digits")

GRACE_SECONDS = 5.0
"""An epoch is not left before its end; one that takes longer than this is given up with the process."""


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name, `options.command`, and returns its exit code."""
    # Imported modules and traced programs are objects that stay. To look through them for garbage again and again, as
    # Python does after every 700 new ones, took a sixth of a small command's time, and once more at the end a fifth.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    with _unfailing_output():
        options = parser.parse_args(arguments)
        try:
            with _watched_signals(), backend.settings():
                code: int = options.command(options)
        except UsageError as error:
            print(f"mlplab: {error}", file=sys.stderr)
            return EXIT_USAGE
        except UndeliveredError as error:
            print(f"mlplab: {error}", file=sys.stderr)
            return EXIT_FAILED if error.refused else EXIT_UNDELIVERED
        except UnavailableError as error:
            print(f"mlplab: {error}", file=sys.stderr)
            return EXIT_UNAVAILABLE
        except KeyboardInterrupt as error:
            state = " ".join(getattr(error, "__notes__", ())) or "No run was open."
            print(f"mlplab: interrupted. {state}", file=sys.stderr)
            return EXIT_TERMINATED if isinstance(error, _TerminatedError) else EXIT_INTERRUPTED
        return code


class _Output:
    """A stream to print to that is never the reason why a command ends: what cannot be written is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written; what the encoding does not have becomes a question mark."""
        if not self._broken:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Hands on what is buffered."""
        if not self._broken:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._broken = True
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            # Python writes what is still buffered when it ends, and fails if that fails.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):  # whoever closes a pipe, as `head` does, has what it wanted
            print(f"mlplab: the output could not be written from here on: {error.strerror}.", file=sys.stderr)


@contextlib.contextmanager
def _unfailing_output() -> Iterator[None]:
    """Has neither the encoding of the output nor its end decide whether a command succeeds."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Output(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
        sys.stdout, sys.stderr = before


class _TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def _watched_signals() -> Iterator[None]:
    """Has SIGTERM end what is open as Ctrl-C does, and both of them within seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def interrupt(number: int, frame: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    def watch() -> None:
        # Python's handlers wait until a compiled epoch returns; this thread is told at once.
        while numbers := received.recv(1):
            if numbers[0] not in before or over.wait(GRACE_SECONDS):
                continue
            if "mlplab.store.command" in sys.modules and (state := sys.modules["mlplab.store.command"].abandon()):
                print(f"mlplab: interrupted. {state}", file=sys.stderr, flush=True)
                os._exit(EXIT_TERMINATED if numbers[0] == signal.SIGTERM else EXIT_INTERRUPTED)

    received, told = socket.socketpair()
    told.setblocking(False)
    before_fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, interrupt)
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before_fd)
        told.close()
        watcher.join()
        received.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class Parser(argparse.ArgumentParser):
    """A parser that takes an option by its whole name alone, and names the one that may have been meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parses, and ends with the usage of the command where something is left over."""
        found, unknown = super().parse_known_args(_given(sys.argv[1:] if args is None else args), namespace)
        if unknown:
            names = [text.partition("=")[0] for text in unknown if text.startswith("-")]
            close = [c for name in names for c in difflib.get_close_matches(name, self._option_string_actions, 1)]
            meant = f"; did you mean {', '.join(close)}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown


def _given(arguments: Sequence[str]) -> list[str]:
    """The arguments without options that are empty: so `mlflow run` hands on what was not given."""
    kept: list[str] = []
    for argument in arguments:
        if argument == "" and kept and kept[-1].startswith("--"):
            kept.pop()
        else:
            kept.append(argument)
    return kept


def add_training_options(command: argparse.ArgumentParser) -> None:
    """What any command takes that trains."""
    command.add_argument(
        "--dataset",
        default="auto",
        help=f"{', '.join(DATASET_CHOICES)}; auto is the experiment's own, or scikit-learn's digits, resized, in place"
        " of MNIST and CIFAR-10 where these are not to be had (default: %(default)s)",
    )
    command.add_argument("--epochs", type=_number, help="epochs of every variant (default: as the spec says)")
    command.add_argument(
        "--seed", type=_number, help="of initial weights, batch order and dropout (default: the spec's)"
    )
    command.add_argument(
        "--seeds",
        type=_seeds,
        help="train every variant with so many seeds, such as 10; or with these: 1,2,3; or add seeds until the verdicts"
        " are clear, 30 at most: until:30, looking every 5: until:30:5 (default: the spec's)",
    )
    command.add_argument(
        "--jobs",
        type=_number,
        default=1,
        help="trainings at a time, each in a process of this machine (default: 1, which alone times them fairly)",
    )
    command.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="have a Dask scheduler's workers train: tcp://HOST:8786, or local:N for N worker processes here",
    )
    command.add_argument(
        "--profile",
        choices=("full", "smoke"),
        default="full",
        help="smoke: few epochs, to see that all of it works (default: %(default)s)",
    )


def changes_of(options: argparse.Namespace) -> Options:
    """The changes to an experiment that the training options ask for."""
    choose("data set", options.dataset, DATASET_CHOICES)
    if options.jobs < 1:
        raise UsageError(f"jobs is {options.jobs}; legal: a whole number from 1.")
    return Options(epochs=options.epochs, seed=options.seed, seeds=options.seeds, smoke=options.profile == "smoke")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; legal: a whole number, such as 20") from None


def _seeds(text: str) -> int | tuple[int, ...] | Until:
    try:
        if text.startswith("until:"):
            most, _, every = text.removeprefix("until:").partition(":")
            return Until(most=int(most), look_every=int(every or Until.look_every))
        return tuple(int(part) for part in text.split(",") if part.strip()) if "," in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; legal: how many, such as 10, which, such as 1,2,3 (one: 7,), or until:30"
        ) from None
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def open_lab(options: argparse.Namespace, changes: Options, experiments: Sequence[Experiment]) -> "tuple[Lab, Console]":
    """What runs the experiments, their data loaded and TensorFlow imported, and where to print.

    Raises:
        UnavailableError: the data or the tracking store are not to be had.
    """
    # Not before the spec and the options are known to be right: TensorFlow takes seconds to load. A person who waits
    # for it reads meanwhile what is asked, and of which data.
    from mlplab import terminal

    out = terminal.console()
    screen = terminal.Screen(out, changes)
    found: dict[Data, Dataset] = {}

    def get(wanted: Data) -> "Dataset":
        from mlplab.data import load  # NumPy takes its time

        if wanted not in found:
            with terminal.Download(out) as download:
                found[wanted] = load(wanted, dataset=options.dataset, progress=download)
        return found[wanted]

    screen.announce(experiments, get)
    for experiment in experiments:
        for wanted in data_of(experiment):
            get(wanted)
    from mlplab.backend import import_tensorflow
    from mlplab.store.command import check

    check(screen.notice)
    with out.status("Loading TensorFlow …") if out.is_terminal else contextlib.nullcontext():
        import_tensorflow()
    from mlplab.run import Lab

    return Lab(get, screen, changes, options.jobs, options.cluster), out


def lead(out: "Console", command: str, page: str) -> None:
    """Says where to look at a run."""
    if command:
        out.print(f"Open the UI:  {command}", soft_wrap=True)
    out.print(f"This run:     {page}", soft_wrap=True)


def exit_code(records: "list[Record]") -> int:
    """The exit code for what came out."""
    return EXIT_FAILED if any(record.failed for record in records) else 0
