"""Runs every experiment that is not on record, and writes the report: `python -m experiments.report --help`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplab import command_line
from mlplab.checks import UsageError
from mlplab.command_line import EXIT_FAILED, Parser, add_training_options, changes_of, exit_code, lead, open_lab
from mlplab.loading import experiment_names, load_experiment
from mlplab.seeds import Until

if TYPE_CHECKING:
    from mlplab.records import Record
    from mlplab.run import Lab


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = Parser(prog="python -m experiments.report", description=__doc__, epilog=command_line.EXIT_CODES)
    parser.add_argument(
        "--folder", default="report", help="where report.html, report.md and the figures go (default: %(default)s)"
    )
    add_training_options(parser)
    parser.set_defaults(command=_report)
    return command_line.run(parser, arguments)


def report(lab: "Lab", folder: Path, names: Sequence[str]) -> "tuple[dict[str, Record], str, str]":
    """Runs those of the experiments that are not on record, and writes the report of all into `folder`.

    Returns:
        The records by name, the command that opens the UI and the page of the report's run there.

    Raises:
        UsageError, UnavailableError: as `Lab.every` raises them.
    """
    from experiments.report import page
    from mlplab import origin

    def write(records: "Mapping[str, Record]", seconds: float) -> None:
        page.write(records, folder, origin.circumstances(), seconds)

    return lab.every("report", names, folder, write)


def reported() -> list[str]:
    """The experiments that the report is of: all of the project's, but for those that are about tuning."""
    return [name for name in experiment_names() if not name.startswith("optimizers_tuned")]


def _report(options: argparse.Namespace) -> int:
    changes, names, folder = changes_of(options), reported(), Path(options.folder)
    if isinstance(changes.seeds, Until):
        raise UsageError(
            f"seeds is {changes.seeds}, but the report's claims are judged by seeds that all variants share; legal: a "
            "number of seeds, such as 10."
        )
    lab, out = open_lab(options, changes, [changes.adapt(load_experiment(name)) for name in names])
    records, command, address = report(lab, folder, names)
    from mlplab import terminal

    parts = sorted(records.values(), key=lambda record: record.seconds, reverse=True)
    cells = [["part", "wall time (s)", ""]]
    cells += [[r.experiment.name, f"{r.seconds:.1f}", "on record already" if r.reused else ""] for r in parts]
    out.print(terminal.table(cells, "Time of each part"))
    out.print(f"The report:   {(folder / 'report.html').resolve()}", soft_wrap=True)
    lead(out, command, address)
    return exit_code(list(records.values())) if len(records) == len(names) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
