"""What explains a number: sentences that stand beside a claim whatever its verdict."""

import math

from experiments.report.judging import Records, result_of
from experiments.report.looks import DECAYS, SGD_DECAY_MOMENTUM, points_apart
from mlplab.amounts import significant
from mlplab.calls import Call
from mlplab.results import Result


def _rate(result: Result) -> str:
    """What a variant's decay does to its learning rate, by the formula and as recorded."""
    schedule, steps = result.variant.learning_rate, result.epochs * result.steps_per_epoch
    assert isinstance(schedule, Call)
    rate, lowered = schedule.arguments["initial_learning_rate"], schedule.arguments["decay_rate"]
    implied = rate / (1 + lowered * steps)
    recorded = result.last("learning_rate")
    seen = f"recorded: {recorded:.6f}" if math.isfinite(recorded) else "not recorded"
    start, decay = f"{rate:g}", f"{lowered:g}".replace("e-0", "e-")
    return (
        f"A decay of {decay} lowers the learning rate in {result.epochs} epochs of {result.steps_per_epoch:,} steps "
        f"from {start} to {start} / (1 + {decay} · {steps:,}) = {implied:.6f} ({seen}), by "
        f"{100 * (1 - implied / rate):.1f} %"
    )


def decay(records: Records) -> str:
    """What so small a decay can cost."""
    decay = result_of(records, "decay_momentum", DECAYS[1])
    change = points_apart(records["decay_momentum"], lambda result: result.last("val_accuracy"), DECAYS[1], DECAYS[0])
    cost = f"here the last validation accuracy with decay is {change.number} from that without"
    if not change.mean <= -5:
        return f"{_rate(decay)}, which cannot cost ten points: {cost}."
    return f"{_rate(decay)}; {cost}, more than so small a change explains."


def momentum(records: Records) -> str:
    """What momentum and decay make of the steps."""
    return f"{_rate(result_of(records, 'decay_momentum', DECAYS[2]))}. {_step(records, 'decay_momentum', DECAYS[2])}"


def single(records: Records) -> str:
    """What momentum makes of steps of single images."""
    result = result_of(records, "sgd_decay_momentum", SGD_DECAY_MOMENTUM)
    return f"{_step(records, 'sgd_decay_momentum', SGD_DECAY_MOMENTUM)} {_rate(result)}."


def _step(records: Records, experiment: str, name: str) -> str:
    """What a variant's momentum makes of its learning rate."""
    result = result_of(records, experiment, name)
    variant, rate = result.variant, result.variant.learning_rate
    if isinstance(rate, Call):
        rate = rate.arguments["initial_learning_rate"]
    momentum = variant.optimizer.arguments.get("momentum", 0.0)
    if momentum >= 1:
        return "Its momentum never lets a step fade."
    factor = 1 / (1 - momentum)
    size = "every single image" if variant.batch_size == 1 else f"every batch of {variant.batch_size}"
    return (
        f"A momentum of {momentum:g} adds up to {significant(factor)} times the learning rate, "
        f"{significant(factor * rate)} for {size}, {result.steps_per_epoch:,} times an epoch."
    )
