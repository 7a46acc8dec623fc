"""The command line: `python -m mlplab --help`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlplab import command_line, evaluations
from mlplab.checks import UsageError, check_registered, choose
from mlplab.command_line import (
    DATASET_CHOICES,
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_UNDELIVERED,
    Parser,
    add_training_options,
    changes_of,
    exit_code,
    lead,
    open_lab,
)
from mlplab.comparison import Comparison
from mlplab.loading import Experiment, experiment_names, load_experiment
from mlplab.sources import Data
from mlplab.spec import Metric

TEMPLATE = Path(__file__).parent / "template" / "mine.py"
"""What `mlplab init` writes; README.md shows it without its comments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    return command_line.run(parser(), arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of every command, each with what carries it out as its `command`."""
    parser = Parser(
        prog="mlplab",
        description="Find out which training choice is better for a Keras network, on the record.",
        epilog=EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    start = commands.add_parser(
        "init",
        help="write a comparison to start from: a commented file that runs as it is",
        description="Write a commented comparison that runs as it is, on scikit-learn's digits, in about a minute: "
        "`mlplab compare FILE`. Then put your own data, model and variants in the place of its own.",
    )
    start.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("mine.py"),
        metavar="FILE",
        help="the file to write, which must not be there yet (default: %(default)s)",
    )
    start.set_defaults(command=_init)
    run = commands.add_parser("run", help="run an experiment that comes with the project")
    run.add_argument("name", help="its name; `python -m mlplab list` shows them")
    run.set_defaults(command=lambda options: _run(options, options.name))
    own = commands.add_parser("compare", help="run a comparison from a file of your own")
    own.add_argument("file", nargs="?", help="path of a Python file with a COMPARISON, or a SEARCH")
    own.add_argument("--spec", metavar="FILE", help="the same, as `mlflow run . -e compare -P spec=FILE` gives it")
    own.set_defaults(command=_compare)
    for command in (run, own):
        add_training_options(command)
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
    register.add_argument(
        "of", nargs="?", metavar="COMPARISON", help="whose winner: a comparison's name, or its file (default: none)"
    )
    register.add_argument("--comparison", help="the same, as `mlflow run . -e register -P comparison=NAME` gives it")
    register.add_argument("--variant", help="of the comparison: this one in place of its winner")
    register.add_argument("--name", help="of the registered model (default: the comparison's, or mnist-mlp)")
    register.add_argument("--alias", default="champion", help="that a served version bears (default: %(default)s)")
    register.add_argument(
        "--optimizer",
        default="rmsprop",
        help="without a comparison: of the runs to choose from, such as sgd or adam (default: %(default)s)",
    )
    register.add_argument(
        "--metric", help="a validation metric to choose by (default: the comparison's, or val_accuracy)"
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
    deliver.add_argument(
        "--discard",
        metavar="SESSION",
        help="give up what a session has not delivered, where no server will take it; `sync` names the sessions that "
        "wait",
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


def _init(options: argparse.Namespace) -> int:
    path: Path = options.file
    if path.suffix != ".py":
        raise UsageError(f"file is {str(path)!r}; legal: a name that ends in .py, such as mine.py.")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(
            f"{path} is there already, and is left as it is; legal: a new file. Name another: mlplab init other.py"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; legal: a file in a folder that exists and takes it."
        ) from None
    print(f"{path} is written. Run it as it is, about a minute:\n\n    mlplab compare {shlex.quote(str(path))}\n")
    print("Then put your own data, model and variants in the place of its own: its comments say how.")
    return 0


def _run(options: argparse.Namespace, name_or_path: str) -> int:
    changes = changes_of(options)
    experiment = changes.adapt(_only(load_experiment(name_or_path), options.variant))
    mine, out = open_lab(options, changes, [experiment])
    record, command, page = mine.run(experiment)
    lead(out, command, page)
    return exit_code([record])


def _compare(options: argparse.Namespace) -> int:
    if (options.file is None) == (options.spec is None):
        raise UsageError(
            "the file with the COMPARISON is "
            + ("not named" if options.file is None else f"named twice, {options.file!r} and {options.spec!r}")
            + "; legal: mlplab compare mine.py"
        )
    path = options.file or options.spec
    # A bare word would be the name of an experiment of the project.
    return _run(options, path if path.endswith(".py") or "/" in path else f"./{path}")


def _register(options: argparse.Namespace) -> int:
    choose("data set", options.dataset, DATASET_CHOICES)
    if options.metric:
        Metric(options.metric)
    if options.of and options.comparison:
        raise UsageError(f"the comparison is named twice, {options.of!r} and {options.comparison!r}; legal: once.")
    named = options.of or options.comparison
    # A file's comparison has the file's name.
    comparison = Path(named).stem if named and named.endswith(".py") else named
    check_registered(options.name or comparison or "mnist-mlp", options.alias)

    from mlplab import terminal
    from mlplab.data import load
    from mlplab.lookup import run_of
    from mlplab.store.command import check, parent_run
    from mlplab.store.pages import address

    out = terminal.console()
    wanted = None
    if comparison or options.run_id:
        check()
        if options.run_id:
            run_of(options.run_id)
        from mlplab.choosing import data_of

        wanted = data_of(options.run_id, comparison)
    with terminal.Download(out) as download:
        if wanted is None:
            data = load(options.dataset, wanted="mnist", progress=download)
        else:
            data = load(wanted, dataset=options.dataset, progress=download)
    if data.is_fallback and options.dataset == "auto":
        raise UsageError(
            f"dataset is 'auto', and only {data.label} is to be had: a model for {data.wanted} trained on it is not "
            "registered unless told. Get the data (`python -m mlplab data` shows the places), or say -P dataset=digits."
        )
    check()
    from mlplab.registry import register

    of = f"version of {options.name or comparison or 'mnist-mlp'}"
    with parent_run(f"register · {of}", {"mlplab.kind": "registration"}, say=out.print) as run:
        done = register(
            data,
            name=options.name,
            alias=options.alias,
            run_id=options.run_id,
            comparison=comparison,
            variant=options.variant,
            optimizer=options.optimizer,
            metric=options.metric,
            force=options.force == "true",
            say=out.print,
        )
        run.tags({"mlflow.note.content": "\n\n".join(done.said), "registered.version": done.version})
        run.metrics({done.metric: done.value})
        run.finish()
    lead(out, *address(run))
    return 0


def _replay(options: argparse.Namespace) -> int:
    from mlplab import replay, terminal
    from mlplab.backend import import_tensorflow
    from mlplab.data import load
    from mlplab.progress import Progress
    from mlplab.store.command import check, parent_run
    from mlplab.store.pages import address
    from mlplab.workload import Phase, Work

    check()
    recorded = replay.read(options.run_id)
    out = terminal.console()
    with terminal.Download(out) as download:
        wanted = Data.from_dict(recorded["dataset"]["data"])
        stands_in = wanted.kind == "ready" and recorded["dataset"]["name"] != wanted.source
        data = load(wanted, dataset=recorded["dataset"]["name"] if stands_in else "auto", progress=download)
    import_tensorflow()
    trained = replay.training_of(recorded)
    variant, of = trained.variant, f"{trained.variant.name}, seed {trained.seed}"
    work = Work(variant.name, 1, variant.epochs)
    tags = {"mlplab.kind": "replay", "replay.of": options.run_id}
    with parent_run(f"replay · {of}", tags, data, say=out.print) as run:
        with Progress(out).phase(Phase("replay", "seeds", {variant.name: work})) as progress:
            outcome, result = replay.replay(recorded, data, progress)
        for epoch in range(1, result.epochs + 1):
            run.metrics(evaluations.at(result.history, epoch, variant.epochs), step=epoch)
        run.text(outcome.to_json(), "replay.json")
        run.tags({"replay.equal": str(outcome.equal).lower(), "mlflow.note.content": outcome.sentence})
        run.finish("FINISHED" if outcome.equal else "FAILED")
        out.print(outcome.sentence, soft_wrap=True)
    lead(out, *address(run))
    return 0 if outcome.equal else EXIT_FAILED


def _sync(options: argparse.Namespace) -> int:
    from mlplab.upkeep import discard, sync

    if options.discard:
        discard(options.discard, print)
        return 0
    return 0 if sync(print) else EXIT_UNDELIVERED


def _reap(options: argparse.Namespace) -> int:
    if not options.after > 0:
        raise UsageError(f"after is {options.after:g}; legal: seconds above 0.")
    from mlplab.upkeep import reap

    if not reap(options.after, print):
        print("No run is RUNNING without a process behind it.")
    return 0


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
    if not experiments:
        print("No experiments: they are in the project's clone, not in the installed package.")
        return 0
    width = max(len(experiment.name) for experiment in experiments)
    for experiment in experiments:
        print(f"{experiment.name:<{width}}  {experiment.question}")
    print("\nRun one with: mlflow run . -e NAME   or   python -m mlplab run NAME")
    return 0


def _data(options: argparse.Namespace) -> int:
    from mlplab import terminal
    from mlplab.datasets import status

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
    terminal.console().print(terminal.table(cells, texts=len(cells[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
