"""A comparison in the store: a run for each variant, its seeds below it, and what its own run says of them."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from mlplab import labels, lookup, marks
from mlplab.comparison import Comparison
from mlplab.conclusion import conclude, look, prepare, save_views, verdicts_of
from mlplab.data import Dataset
from mlplab.records import Record, Tuning
from mlplab.results import FAILED
from mlplab.seed_group import SeedGroup, spreading
from mlplab.seeds import Until
from mlplab.spec import Training
from mlplab.store.runs import Run
from mlplab.trial import Device, ProgressListener

Turn = tuple[SeedGroup, int]


def run_comparison(
    comparison: Comparison,
    data: Dataset,
    device: Device,
    programs: Mapping[str, str],
    run: Run,
    watching: Callable[[Sequence[Training]], AbstractContextManager[ProgressListener]],
    jobs: int,
    address: str | None,
    question: str,
    say: Callable[[str], None],
    tuning: Tuning | None = None,
) -> Record:
    """Trains every variant with every seed in `run`, and says there what came of it; what is on record stays.

    Where seeds are added until the verdicts are clear, it is looked at now and then, and only the variants of pairs
    that are open then are trained with more.

    Args:
        programs: name of a variant -> the program that trains it, see `training.fit`.
        watching: begins to show the trainings, and ends it.
        jobs, address: where they are carried out, see `mlplab.cluster.workers`.
        question: fingerprint of the comparison but for its number of seeds: where they are added until the verdicts are
            clear, trainings and looks that are on record under it count.
        say: is told what a look has shown.
        tuning: by which the variants are as they are.
    """
    run.data(data)
    run.text(comparison.to_json(), "comparison.json")
    save_views(run, comparison, labels.title(comparison, [data]))
    earlier = _earlier(comparison, run, question) if comparison.looks else None
    run.tags(marks.fingerprinted(question))
    groups = [
        SeedGroup.open(run, variant, comparison, data, programs[variant.name]) for variant in comparison.resolved()
    ]
    seeds = comparison.each_seed
    looks = comparison.seeds.after(_looks(earlier, seeds)) if isinstance(comparison.seeds, Until) else ()
    wanted = {group.variant.name for group in groups}
    threading.Thread(target=prepare, name="imports").start()
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(watching(comparison.resolved()))
        train = stack.enter_context(_training(comparison, data, device, watch, jobs, address))
        for end in looks or (len(seeds),):
            chosen = [group for group in groups if group.variant.name in wanted]
            _reuse(earlier, chosen, seeds[:end], watch)
            # Seed after seed, each time another variant first: what slows the machine for a while slows all.
            train(
                [
                    (group, seed)
                    for turn, seed in enumerate(seeds[:end])
                    for group in chosen[turn % len(chosen) :] + chosen[: turn % len(chosen)]
                    if seed not in group.seeds
                ]
            )
            found = [result for group in groups for result, _ in group.trained]
            verdicts = verdicts_of(comparison, found, looks)
            if looks and not (wanted := look(run, comparison, verdicts, end, say)):
                break
    for group in groups:
        group.conclude()
    trained = [one for group in groups for one in group.trained]
    made = tuple(end for end in looks if end <= max(len(group.seeds) for group in groups))
    conclude(run, comparison, data, groups, trained, verdicts, tuning)
    return Record.of(comparison, data, results=found, verdicts=verdicts, looks=made, tuning=tuning)


@contextlib.contextmanager
def _training(
    comparison: Comparison, data: Dataset, device: Device, watch: ProgressListener, jobs: int, address: str | None
) -> Iterator[Callable[[Sequence[Turn]], None]]:
    """What trains turns: in this process, or on workers that are ready while the block lasts."""
    if jobs > 1 or address is not None:
        with spreading(comparison, data, watch, jobs, address) as spread:
            yield spread
        return

    def train(turns: Sequence[Turn]) -> None:
        own = {id(group): [seed for other, seed in turns if other is group] for group, _ in turns}
        for group, seed in turns:
            group.train_next(seed, own[id(group)], device, watch)

    yield train


def _earlier(comparison: Comparison, run: Run, question: str) -> Record | None:
    """The record of the same question with other seeds, if there is one."""
    found = run.find(question)
    text = lookup.read_artifact(found.run_id, "record.json") if found else None
    return Record.from_json(text, comparison, found.run_id) if found and text else None


def _looks(earlier: Record | None, seeds: Sequence[int]) -> tuple[int, ...]:
    """The looks that an earlier command has made at the same seeds; of a fixed number of them the one at its end."""
    if earlier is None or list(seeds[: len(earlier.seeds)]) != earlier.seeds:
        return ()
    return earlier.looks or ((len(earlier.seeds),) if len(earlier.seeds) > 1 else ())


def _reuse(earlier: Record | None, groups: Sequence[SeedGroup], seeds: Sequence[int], watch: ProgressListener) -> None:
    """Takes the trainings that are on record."""
    if earlier is None:
        return
    known = {(one.variant.name, one.seed): one for one in earlier.results if one.status != FAILED}
    for group, seed in itertools.product(groups, seeds):
        one = known.get((group.variant.name, seed))
        if one is None or one.variant.canonical != group.variant.canonical:  # tuned otherwise
            continue
        if seed not in group.seeds and not group.recall(seed, watch):
            group.reuse(one, watch)
