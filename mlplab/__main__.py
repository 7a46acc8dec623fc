"""The command line: `python -m mlplab --help`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from mlplab.spec import Comparison, UnavailableError, UsageError, choose, experiment_names, load_experiment

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 2, 3, 130
DATASET_CHOICES = ("auto", "mnist", "cifar10", "digits")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = options.command(options)
    except UsageError as error:
        print(f"mlplab: {error}", file=sys.stderr)
        return EXIT_USAGE
    except UnavailableError as error:
        print(f"mlplab: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except KeyboardInterrupt:
        print("mlplab: interrupted; the runs that were open are marked KILLED", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlplab",
        description="Find out which training choice is better for a Keras network, on the record.",
        epilog=f"Exit codes: 0 done, {EXIT_FAILED} a variant failed, {EXIT_USAGE} wrong usage, {EXIT_UNAVAILABLE} data "
        f"or tracking store not to be had, {EXIT_INTERRUPTED} interrupted. The tracking store is MLflow's: set "
        "MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME as for any MLflow program.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment that comes with the project")
    run.add_argument("name", help="its name; `python -m mlplab list` shows them")
    run.set_defaults(command=lambda options: _run(options, options.name))
    own = commands.add_parser("compare", help="run a comparison from a file of your own")
    own.add_argument("--spec", required=True, help="path of a Python file with a COMPARISON")
    own.set_defaults(command=lambda options: _run(options, options.spec))
    for command in (run, own):
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
            "--variant",
            action="append",
            default=[],
            metavar="NAME[,NAME]",
            help="only these variants; may be given several times (default: all)",
        )

    listing = commands.add_parser("list", help="show the experiments and the questions they answer")
    listing.set_defaults(command=_list)
    data = commands.add_parser("data", help="show which data sets are found where")
    data.set_defaults(command=_data)
    return parser


def _run(options: argparse.Namespace, name_or_path: str) -> int:
    comparison = _adapted(load_experiment(name_or_path), options)
    choose("data set", options.dataset, DATASET_CHOICES)

    # Not before the spec and the options are known to be right: TensorFlow takes seconds to load.
    from mlplab import results, terminal
    from mlplab.data import load

    out = terminal.console()
    out.print(comparison.question, style="bold")
    with terminal.Download(out) as download:
        data = load(options.dataset, wanted=comparison.dataset, progress=download)
    out.print(
        f"Data: {data.label}, {len(data.train):,} training, {len(data.validation):,} validation and "
        f"{len(data.test):,} test images, from {data.source}"
    )
    if data.notice:
        out.print(f"Note: {data.notice}", style="bold yellow")
    from mlplab.run import compare

    with terminal.Progress(out, comparison.resolved()) as progress:
        outcome = compare(comparison, data, progress)
    cells = results.to_cells(comparison, outcome.results)
    out.print(terminal.table(cells, f"{comparison.name} on {data.label}, best by {comparison.select} first"))
    if outcome.ui_command:
        out.print(f"Open the UI:  {outcome.ui_command}", soft_wrap=True)
    out.print(f"This run:     {outcome.page}", soft_wrap=True)
    return EXIT_FAILED if any(result.status == results.FAILED for result in outcome.results) else 0


def _adapted(comparison: Comparison, options: argparse.Namespace) -> Comparison:
    names = [
        name for given in options.variant for name in ([given] if given in comparison.variants else given.split(","))
    ]
    if names:
        comparison = comparison.only(name.strip() for name in names)
    if options.epochs is not None:
        comparison = comparison.with_base(epochs=options.epochs)
    return comparison if options.seed is None else comparison.with_seed(options.seed)


def _list(options: argparse.Namespace) -> int:
    comparisons = [load_experiment(name) for name in experiment_names()]
    width = max(len(comparison.name) for comparison in comparisons)
    for comparison in comparisons:
        print(f"{comparison.name:<{width}}  {comparison.question}")
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
    sys.exit(main())
