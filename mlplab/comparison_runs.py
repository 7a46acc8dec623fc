"""A comparison in the store: a run for each variant, its seeds below it, and what its own run says of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from mlplab import tracking
from mlplab.comparison import Comparison
from mlplab.conclusion import conclude
from mlplab.data import Dataset
from mlplab.records import Tuning
from mlplab.results import Result
from mlplab.seed_group import SeedGroup, spread
from mlplab.spec import Training
from mlplab.trial import Device, ProgressListener
from mlplab.verdicts import Verdict


def run_comparison(
    comparison: Comparison,
    data: Dataset,
    device: Device,
    programs: Mapping[str, str],
    run: tracking.Run,
    watching: Callable[[Sequence[Training]], AbstractContextManager[ProgressListener]],
    jobs: int,
    address: str | None,
    tuning: Tuning | None = None,
) -> tuple[list[Result], list[Verdict]]:
    """Trains every variant with every seed in `run`, and says there what came of it; what is on record stays.

    Args:
        programs: name of a variant -> the program that trains it, see `training.fit`.
        watching: begins to show the trainings, and ends it.
        jobs, address: where they are carried out, see `mlplab.cluster.workers`.
        tuning: by which the variants are as they are.

    Returns:
        The results, variant after variant and seed after seed, and the verdicts on them.
    """
    run.data(data)
    run.text(comparison.to_json(), "comparison.json")
    groups = [
        SeedGroup.open(run, variant, comparison, data, programs[variant.name]) for variant in comparison.resolved()
    ]
    # Seed after seed, each time another variant first: what slows the machine for a while slows all.
    turns = [
        (group, seed)
        for turn, seed in enumerate(comparison.each_seed)
        for group in groups[turn % len(groups) :] + groups[: turn % len(groups)]
    ]
    with watching(comparison.resolved()) as watch:
        if jobs > 1 or address is not None:
            spread(turns, comparison, data, watch, jobs, address)
        else:
            for group, seed in turns:
                group.train_next(seed, device, watch)
    for group in groups:
        group.conclude()
    trained = [one for group in groups for one in group.trained]
    return [result for result, _ in trained], conclude(run, comparison, data, groups, trained, tuning)
