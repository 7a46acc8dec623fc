"""The command line: `python -m mlplab --help`."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from mlplab.spec import (
    OPTIMIZERS,
    SELECTION_METRICS,
    Comparison,
    Experiment,
    Options,
    UnavailableError,
    UndeliveredError,
    UsageError,
    check_registered,
    choose,
    datasets_of,
    experiment_names,
    load_experiment,
)

if TYPE_CHECKING:
    from rich.console import Console

    from mlplab.results import Record
    from mlplab.run import Lab

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_UNDELIVERED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 4, 130, 143
DATASET_CHOICES = ("auto", "mnist", "cifar10", "digits")

GRACE_SECONDS = 5.0
"""An epoch is not left before its end; one that takes longer than this is given up with the process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    with _unfailing_output():
        options = _parser().parse_args(arguments)
        try:
            with _watched_signals():
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
            if "mlplab.tracking" in sys.modules and (state := sys.modules["mlplab.tracking"].abandon()):
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


class _Parser(argparse.ArgumentParser):
    """A parser that takes an option by its whole name alone, and names the one that may have been meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parses, and ends with the usage of the command where something is left over."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            names = [text.partition("=")[0] for text in unknown if text.startswith("-")]
            close = [c for name in names for c in difflib.get_close_matches(name, self._option_string_actions, 1)]
            meant = f"; did you mean {', '.join(close)}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlplab",
        description="Find out which training choice is better for a Keras network, on the record.",
        epilog=f"Exit codes: 0 done, {EXIT_FAILED} a variant failed or the store refused a part of the record, "
        f"{EXIT_USAGE} wrong usage, {EXIT_UNAVAILABLE} data or tracking store not to be had, {EXIT_UNDELIVERED} done, "
        f"but the store did not answer to take all of the record (see sync), {EXIT_INTERRUPTED} interrupted, "
        f"{EXIT_TERMINATED} terminated. A command that was interrupted goes on where it was when it is given again. "
        "The tracking store is MLflow's: set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME as for any MLflow program.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment that comes with the project")
    run.add_argument("name", help="its name; `python -m mlplab list` shows them")
    run.set_defaults(command=lambda options: _run(options, options.name))
    own = commands.add_parser("compare", help="run a comparison from a file of your own")
    own.add_argument("--spec", required=True, help="path of a Python file with a COMPARISON, or a SEARCH")
    own.set_defaults(command=lambda options: _run(options, options.spec))
    report = commands.add_parser("report", help="run every experiment that is not on record, and write the report")
    report.add_argument(
        "--folder", default="report", help="where report.html, report.md and the figures go (default: %(default)s)"
    )
    report.set_defaults(command=_report)
    for command in (run, own, report):
        command.add_argument(
            "--dataset",
            default="auto",
            help=f"{', '.join(DATASET_CHOICES)}; auto is the experiment's own, or scikit-learn's digits, resized, where"
            " that is not to be had (default: %(default)s)",
        )
        command.add_argument("--epochs", type=int, help="epochs of every variant (default: as the spec says)")
        command.add_argument(
            "--seed", type=int, help="of initial weights, batch order and dropout (default: the spec's)"
        )
        command.add_argument(
            "--seeds",
            type=_seeds,
            help="train every variant with so many seeds, such as 10, or with these: 1,2,3 (default: the spec's)",
        )
        command.add_argument(
            "--jobs",
            type=int,
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
        if command is report:
            continue
        command.add_argument(
            "--variant",
            action="append",
            default=[],
            metavar="NAME[,NAME]",
            help="only these variants; may be given several times (default: all)",
        )

    register = commands.add_parser("register", help="register a run's model, and make it the champion if it earned it")
    register.add_argument(
        "--dataset",
        default="auto",
        help=f"whose runs and test set: {', '.join(DATASET_CHOICES)} (default: %(default)s)",
    )
    register.add_argument("--name", default="mnist-mlp", help="of the registered model (default: %(default)s)")
    register.add_argument("--alias", default="champion", help="that a served version bears (default: %(default)s)")
    register.add_argument(
        "--optimizer", default="rmsprop", help=f"of the runs to choose from: {', '.join(OPTIMIZERS)} (default: rmsprop)"
    )
    register.add_argument(
        "--metric", default="val_accuracy", help=f"{', '.join(SELECTION_METRICS)} (default: %(default)s)"
    )
    register.add_argument("--run-id", "--run_id", help="this run, whatever its optimizer")
    register.add_argument(
        "--force",
        choices=("true", "false"),
        default="false",
        help="move the alias though the test set speaks against it; recorded as a tag (default: %(default)s)",
    )
    register.set_defaults(command=_register)

    again = commands.add_parser(
        "replay", help="execute a recorded training again, and say whether every number is equal"
    )
    again.add_argument("--run-id", "--run_id", required=True, help="of the training: a run that has training.json")
    again.set_defaults(command=_replay)

    deliver = commands.add_parser(
        "sync", help="deliver what a tracking server that did not answer has not taken, and waits on this machine"
    )
    deliver.set_defaults(command=_sync)
    ended = commands.add_parser("reap", help="end, as KILLED, the runs whose process is gone, and say which")
    ended.add_argument(
        "--after",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="silence after which a process of another machine is taken for gone (default: %(default)g)",
    )
    ended.set_defaults(command=_reap)

    listing = commands.add_parser("list", help="show the experiments and the questions they answer")
    listing.set_defaults(command=_list)
    data = commands.add_parser("data", help="show which data sets are found where")
    data.set_defaults(command=_data)
    return parser


def _run(options: argparse.Namespace, name_or_path: str) -> int:
    changes = _options(options)
    experiment = changes.adapt(_only(load_experiment(name_or_path), options.variant))
    lab, out = _lab(options, changes, [experiment])
    record, command, page = lab.run(experiment)
    _lead(out, command, page)
    return _code([record])


def _report(options: argparse.Namespace) -> int:
    changes = _options(options)
    experiments = [changes.adapt(load_experiment(name)) for name in experiment_names()]
    lab, out = _lab(options, changes, experiments)
    html, records, command, page = lab.report(Path(options.folder))
    from mlplab import terminal

    parts = sorted(records.values(), key=lambda record: record.seconds, reverse=True)
    cells = [["part", "wall time (s)", ""]]
    cells += [[r.experiment.name, f"{r.seconds:.1f}", "on record already" if r.reused else ""] for r in parts]
    out.print(terminal.table(cells, "Time of each part"))
    out.print(f"The report:   {html.resolve()}", soft_wrap=True)
    _lead(out, command, page)
    return _code(list(records.values())) if len(records) == len(experiment_names()) else EXIT_FAILED


def _register(options: argparse.Namespace) -> int:
    choose("data set", options.dataset, DATASET_CHOICES)
    choose("optimizer", options.optimizer, OPTIMIZERS)
    choose("metric", options.metric, SELECTION_METRICS)
    check_registered(options.name, options.alias)

    from mlplab import terminal
    from mlplab.data import load

    out = terminal.console()
    with terminal.Download(out) as download:
        data = load(options.dataset, wanted="mnist", progress=download)
    if data.is_fallback and options.dataset == "auto":
        raise UsageError(
            f"dataset is 'auto', and only {data.label} is to be had: a model for MNIST trained on it is not registered "
            "unless told. Get MNIST (`python -m mlplab data` shows the places), or say -P dataset=digits."
        )
    from mlplab.backend import import_tensorflow
    from mlplab.tracking import address, check, parent_run, run_of

    check()
    if options.run_id:
        run_of(options.run_id)
    import_tensorflow()
    from mlplab.registry import register

    with parent_run("register", {"mlplab.kind": "registration"}, say=out.print) as run:
        done = register(
            data,
            name=options.name,
            alias=options.alias,
            optimizer=options.optimizer,
            metric=options.metric,
            run_id=options.run_id,
            force=options.force == "true",
            say=out.print,
        )
        run.tags({"mlflow.note.content": "\n\n".join(done.said), "registered.version": done.version})
        run.metrics({"test_accuracy": done.test_accuracy})
        run.finish()
    _lead(out, *address(run))
    return 0


def _replay(options: argparse.Namespace) -> int:
    from mlplab import replay, terminal
    from mlplab.backend import import_tensorflow
    from mlplab.data import load
    from mlplab.tracking import address, check, parent_run

    check()
    recorded = replay.read(options.run_id)
    out = terminal.console()
    with terminal.Download(out) as download:
        data = load(recorded["dataset"]["name"], wanted=recorded["dataset"]["wanted"], progress=download)
    import_tensorflow()
    variant = replay.training_of(recorded).variant
    tags = {"mlplab.kind": "replay", "replay.of": options.run_id}
    with parent_run("replay", tags, data, say=out.print) as run:
        with terminal.Progress(out, [variant]) as progress:
            outcome, result = replay.replay(recorded, data, progress)
        for epoch in range(result.epochs):
            run.metrics({name: values[epoch] for name, values in result.history.items()}, step=epoch + 1)
        run.text(outcome.to_json(), "replay.json")
        run.tags({"replay.equal": str(outcome.equal).lower(), "mlflow.note.content": outcome.sentence})
        run.finish("FINISHED" if outcome.equal else "FAILED")
        out.print(outcome.sentence, soft_wrap=True)
    _lead(out, *address(run))
    return 0 if outcome.equal else EXIT_FAILED


def _sync(options: argparse.Namespace) -> int:
    from mlplab.tracking import sync

    return 0 if sync(print) else EXIT_UNDELIVERED


def _reap(options: argparse.Namespace) -> int:
    if not options.after > 0:
        raise UsageError(f"after is {options.after:g}; legal: seconds above 0.")
    from mlplab.tracking import reap

    if not reap(options.after, print):
        print("No run is RUNNING without a process behind it.")
    return 0


def _options(options: argparse.Namespace) -> Options:
    choose("data set", options.dataset, DATASET_CHOICES)
    if options.jobs < 1:
        raise UsageError(f"jobs is {options.jobs}; legal: a whole number from 1.")
    return Options(epochs=options.epochs, seed=options.seed, seeds=options.seeds, smoke=options.profile == "smoke")


def _seeds(text: str) -> int | tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip()) if "," in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; legal: how many, such as 10, or which, such as 1,2,3 (one: 7,)"
        ) from None


def _lab(options: argparse.Namespace, changes: Options, experiments: Sequence[Experiment]) -> "tuple[Lab, Console]":
    # Not before the spec and the options are known to be right: TensorFlow takes seconds to load. A person who waits
    # for it reads meanwhile what is asked, and of which data.
    from mlplab import terminal
    from mlplab.data import Dataset, load

    out = terminal.console()
    screen = terminal.Screen(out)
    found: dict[str, Dataset] = {}

    def get(wanted: str) -> Dataset:
        if wanted not in found:
            with terminal.Download(out) as download:
                found[wanted] = load(options.dataset, wanted=wanted, progress=download)
        return found[wanted]

    if len(experiments) == 1:
        screen.announce(experiments[0], get)
    else:
        out.print(f"A report on {len(experiments)} experiments; those on record are not run again.")
    for wanted in sorted(set().union(*map(datasets_of, experiments))):
        get(wanted)
    from mlplab.backend import import_tensorflow
    from mlplab.tracking import check

    check()
    import_tensorflow()
    from mlplab.run import Lab

    return Lab(get, screen, changes, options.jobs, options.cluster), out


def _lead(out: "Console", command: str, page: str) -> None:
    """Says where to look at a run."""
    if command:
        out.print(f"Open the UI:  {command}", soft_wrap=True)
    out.print(f"This run:     {page}", soft_wrap=True)


def _code(records: "list[Record]") -> int:
    return EXIT_FAILED if any(record.failed for record in records) else 0


def _only(experiment: Experiment, given: list[str]) -> Experiment:
    """The experiment with the variants that `--variant` names, if it names any."""
    if not given:
        return experiment
    if not isinstance(experiment, Comparison):
        kind = type(experiment).__name__
        raise UsageError(f"variant is {','.join(given)!r}, but {experiment.name} is a {kind}; legal for comparisons.")
    names = [name for text in given for name in ([text] if text in experiment.variants else text.split(","))]
    return experiment.only(name.strip() for name in names)


def _list(options: argparse.Namespace) -> int:
    experiments = [load_experiment(name) for name in experiment_names()]
    width = max(len(experiment.name) for experiment in experiments)
    for experiment in experiments:
        print(f"{experiment.name:<{width}}  {experiment.question}")
    print("\nRun one with: mlflow run . -e NAME   or   python -m mlplab run NAME")
    return 0


def _data(options: argparse.Namespace) -> int:
    from mlplab import terminal
    from mlplab.data import status

    cells = [["data set", "place", "state", "images", "digest", "path", "remark"]]
    for found in status():
        sizes = " + ".join(f"{size:,}" for size in found.sizes) if found.sizes else ""
        row = [
            found.dataset,
            found.place,
            found.state,
            sizes,
            (found.digest or "")[:12],
            str(found.path or ""),
            found.detail,
        ]
        cells.append(row)
    terminal.console().print(terminal.table(cells, numbers=False))
    return 0


if __name__ == "__main__":
    # Imported modules and traced programs are objects that stay. To look through them for garbage again and again, as
    # Python does after every 700 new ones, took a sixth of a small command's time, and once more at the end a fifth.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    sys.exit(main())
