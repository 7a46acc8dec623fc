"""A recorded training, executed again from its own record: is every number the same, and if not, why?"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlplab import evaluations, lookup, origin
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import for_seed
from mlplab.results import PRUNED, Result
from mlplab.spec import Metric

if TYPE_CHECKING:
    from mlplab.trial import ProgressListener

RECORD = "training.json"
"""The artifact of a training's run that holds all it takes to execute it again."""

CAUSES: Mapping[str, str] = {
    "version.": "another version computes otherwise",
    "code": "the code that decides the numbers has changed",
    "cpu": "another processor has other instructions, and sums in another order",
    "cpu.cores": "with another number of threads sums are split otherwise",
    "flags": "flags change what is compiled",
}
"""What may differ between two circumstances (the start of a name), and why that matters."""


def record(result: Result, comparison: Comparison, data: Dataset) -> str:
    """A training as JSON, for `RECORD`."""
    what = {
        "select": vars(comparison.metric),
        "dataset": {"data": comparison.data.to_dict(), "name": data.name, "digest": data.digest, "label": data.label},
        "circumstances": origin.circumstances(),
        "result": result.to_dict(),
    }
    return json.dumps(what, ensure_ascii=False)


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        epochs, metrics: how many epochs and metrics were compared.
        differences: what differs, the first epoch's first; empty where all is equal to the bit.
        causes: what is not as it was then, each with why it matters.
    """

    epochs: int
    metrics: int
    differences: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every number is equal to the bit."""
        return not self.differences

    @property
    def sentence(self) -> str:
        """The outcome for a reader."""
        if self.equal:
            changed = f" although {'; '.join(self.causes)}" if self.causes else ""
            return f"Equal to the bit: {self.metrics} metrics at {self.epochs} epochs and the final weights{changed}."
        cause = "; ".join(self.causes) or (
            "nothing on record differs, so an operation is not deterministic here, or the machine's threads were "
            "limited from outside"
        )
        return f"Not equal. First difference: {self.differences[0]}. Likely cause: {cause}."

    def to_json(self) -> str:
        """The outcome as JSON."""
        return json.dumps({**asdict(self), "equal": self.equal, "sentence": self.sentence}, indent=2)


def read(run_id: str) -> dict[str, Any]:
    """The record of a training's run.

    Raises:
        UsageError: no such run, a deleted one, or one that is no finished training.
        UnavailableError: the store does not answer.
    """
    run = lookup.run_of(run_id)
    text = lookup.read_artifact(run_id, RECORD)
    if text is None:
        raise lookup.no_training(run, RECORD)
    found: dict[str, Any] = json.loads(text)
    return found


def training_of(recorded: Mapping[str, Any]) -> Result:
    """The training as it was recorded."""
    return Result.from_dict(recorded["result"])


def replay(recorded: Mapping[str, Any], data: Dataset, watch: "ProgressListener") -> tuple[Replay, Result]:
    """Trains again what `read` gave, and compares.

    Raises:
        UsageError: `data` are not those of the record.
    """
    from mlplab import trial  # it loads TensorFlow, which a run that is no training is not to be waited for

    wanted = recorded["dataset"]
    if data.digest != wanted["digest"]:
        raise UsageError(
            f"the data set {data.label} has digest {data.digest}, but the run was trained on {wanted['label']} with "
            f"digest {wanted['digest']}; legal: the same examples. Point at them as the run did."
        )
    then = training_of(recorded)
    now = Result(variant=then.variant, seed=then.seed, steps_per_epoch=then.steps_per_epoch)
    watch.started(now)
    data = for_seed(then.variant, data, then.seed)
    metric = Metric(**recorded["select"])

    def report(result: Result) -> None:
        if then.status == PRUNED and result.epochs == then.epochs:
            result.status = PRUNED
        watch.epoch(result)

    trial.train([now], metric, data, trial.Device.of(data), report, program=then.program or None)
    watch.ended(now)
    return compare(then, now, recorded["circumstances"], origin.circumstances()), now


def compare(then: Result, now: Result, before: Mapping[str, str], after: Mapping[str, str]) -> Replay:
    """Compares two trainings of one variant and seed bit by bit, and their circumstances."""
    names = [name for name in then.history if not name.endswith("_seconds")]
    found = [
        f"{what} {'is' if what == 'the batch order' else 'are'} another"
        for what, a, b in (("the initial weights", then.start, now.start), ("the batch order", then.order, now.order))
        if a != b
    ]
    for epoch in range(max(then.epochs, now.epochs)):
        for name in names:
            a, b = (r.history[name][epoch] if epoch < len(r.history.get(name, [])) else None for r in (then, now))
            if a is None or b is None:
                found.append(f"the training has {now.epochs} epochs and had {then.epochs}")
                break
            # Other versions have evaluated the training examples after other epochs.
            both = all(evaluations.measured(name, epoch + 1, value, then.variant.epochs) for value in (a, b))
            if both and not (a == b or (math.isnan(a) and math.isnan(b))):
                found.append(f"{name} at epoch {epoch + 1} is {b!r} and was {a!r}")
        if found:
            break
    if then.test != now.test:
        found.append(f"the test metrics are {now.test} and were {then.test}")
    if then.end != now.end:
        found.append(f"the final weights have the hash {now.end} and had {then.end}")
    causes = [
        f"{name} is {after.get(name, 'missing')} and was {before.get(name, 'missing')}: {why}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
        for start, why in CAUSES.items()
        if (name == start or (start.endswith(".") and name.startswith(start)))
    ]
    return Replay(then.epochs, len(names), tuple(found), tuple(causes))
