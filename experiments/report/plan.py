"""The report in its order: its parts, their experiments with a name for readers, and the figures of each."""

from dataclasses import dataclass

from mlplab.loading import load_experiment

TITLE = "Keras MLPs on MNIST and CIFAR-10: a student report, run again"


@dataclass(frozen=True)
class Planned:
    """A figure of the report.

    Args:
        number: as the report has it; "" where it has none.
        pictures: of which kinds it consists: `curves` (learning curves, one picture a variant), `accuracy`, `loss`,
            `time`, `rates` (comparisons), `predictions`, `parallel`, `slices`, `budget` (searches), `overview`.
        variant: for learning curves: the one to show; "" for all.
    """

    number: str
    pictures: tuple[str, ...]
    variant: str = ""


@dataclass(frozen=True)
class Section:
    """An experiment of the report.

    Args:
        experiment: its name, which is its file's and its entry point's.
        title: what readers are told it is.
        figures: the report's; a comparison shows differences and times to its targets besides, where it has such.
    """

    experiment: str
    title: str
    figures: tuple[Planned, ...]


@dataclass(frozen=True)
class Part:
    """A part of the report: its title, what all its experiments have in common, and these."""

    title: str
    about: str
    sections: tuple[Section, ...]


PARTS = (
    Part(
        "Part 1: MNIST",
        "An MLP 784-128-64-10.",
        (
            Section(
                "batch_modes",
                "Batch size 1, mini-batches or full batch",
                (
                    Planned("2", ("curves",), "batch size 1"),
                    Planned("3", ("curves",), "mini-batch SGD"),
                    Planned("4", ("curves",), "full batch"),
                    Planned("5", ("time",)),
                ),
            ),
            Section("batch_1000", "1,000 epochs of full batch", (Planned("6", ("curves",)),)),
            Section(
                "decay_momentum",
                "Decay and momentum",
                (Planned("7", ("accuracy",)), Planned("8", ("loss",)), Planned("9", ("time",))),
            ),
            Section(
                "sgd_decay_momentum",
                "Decay and momentum at batch size 1",
                (Planned("10", ("accuracy",)), Planned("11", ("loss",)), Planned("12", ("time",))),
            ),
            Section(
                "optimizers",
                "SGD, Adam or RMSprop",
                (Planned("13", ("accuracy",)), Planned("14", ("loss",)), Planned("15", ("time",))),
            ),
            Section("predict", "Predictions of the saved model", (Planned("16", ("predictions",)),)),
        ),
    ),
    Part(
        "Part 2: CIFAR-10",
        "An MLP 3072-128-64-10.",
        (
            Section("cifar_baseline", "The baseline", (Planned("17", ("curves",)),)),
            Section(
                "l2",
                "L2 regularization",
                # Of its baseline the curves are those of figure 17.
                (Planned("18", ("curves",), "L2"), Planned("19", ("accuracy",)), Planned("20", ("loss",))),
            ),
            Section("dropout", "Dropout", (Planned("21", ("accuracy",)), Planned("22", ("loss",)))),
            Section("early_stopping", "Early stopping", (Planned("23", ("curves",)),)),
            Section("batch_norm", "Batch normalization", (Planned("24", ("accuracy", "loss")),)),
            Section(
                "random_search",
                "Random search",
                (Planned("", ("parallel",)), Planned("", ("slices",)), Planned("", ("budget",))),
            ),
            Section("best_found", "The search's winner in full", (Planned("24b", ("curves",)),)),
            Section("training_times", "Training times", (Planned("25", ("overview",)),)),
        ),
    ),
    Part(
        "Beyond the report",
        "What the student did not ask: no claim stands on it.",
        (Section("lr_sensitivity", "Sensitivity to the learning rate", (Planned("", ("rates",)),)),),
    ),
)

SECTIONS = {section.experiment: section for part in PARTS for section in part.sections}
"""Experiment -> its section, in the report's order."""

BEYOND = frozenset(section.experiment for section in PARTS[-1].sections)
"""The experiments that are not the student's."""


def title_of(experiment: str) -> str:
    """What readers are told an experiment is.

    >>> title_of("decay_momentum")
    'Decay and momentum'
    """
    return SECTIONS[experiment].title if experiment in SECTIONS else experiment.replace("_", " ")


def quoted(experiment: str) -> str:
    """The same within a sentence.

    >>> quoted("optimizers")
    '“SGD, Adam or RMSprop”'
    """
    return f"“{title_of(experiment)}”"


def question_of(experiment: str) -> str:
    """What an experiment asks, whether it has run or not."""
    return load_experiment(experiment).question
