"""What the report claims and published: data, each claim with the look that decides it."""

from collections.abc import Mapping

from experiments.report import explanations, looks
from experiments.report.judging import GAP_EPOCHS, SEED_POINTS, Claim, Number, as_points

WITHIN = "within 1 point at the last epoch"
LEADS = "the best validation accuracy is the highest"
BY_FAR = f", by at least {as_points(SEED_POINTS)}"
WITHIN_CIFAR = "both within 2 points at the last epoch"


def _reached(name: str, published: float, text: str) -> Number:
    return Number(f"validation accuracy, {name}", "decay_momentum", name, "val_accuracy", published, text)


def _took(experiment: str, variant: str, published: float, text: str) -> Number:
    return Number(f"training time, {variant}", experiment, variant, "train_seconds", published, text)


def _last(
    experiment: str, variant: str, published: Mapping[str, tuple[float, str]], points: float
) -> tuple[Number, ...]:
    words = {
        "loss": "loss",
        "val_loss": "validation loss",
        "accuracy": "accuracy",
        "val_accuracy": "validation accuracy",
    }
    return tuple(
        Number(f"{words[metric]}, {variant}", experiment, variant, metric, value, text, points)
        for metric, (value, text) in published.items()
    )


CLAIMS = (
    Claim(
        key="parameters",
        part=1,
        text="The MLP 784-128-64-10 has 109,386 parameters.",
        rule="exactly",
        look=looks.agreement,
        numbers=(Number("parameters", "batch_modes", "mini-batch SGD", "parameters", 109_386, "109,386"),),
        always=True,
    ),
    Claim(
        key="sgd-oscillates",
        part=1,
        text="SGD (batch size 1) oscillates.",
        rule="the roughness of its validation loss (mean distance of an epoch's from the middle of its neighbours', "
        "second half of the epochs) is at least twice that of each other mode",
        look=looks.rough,
        saying="oscillates",
        trainings=tuple(("batch_modes", mode) for mode in looks.MODES),
        headline="training with batch size 1 oscillates",
    ),
    Claim(
        key="batch-smoothest",
        part=1,
        text="Full-batch gradient descent is smoothest.",
        rule="the roughness of its validation loss is the lowest of the three",
        look=looks.rough,
        saying="smoothest",
        trainings=tuple(("batch_modes", mode) for mode in looks.MODES),
    ),
    Claim(
        key="sgd-time",
        part=1,
        text="SGD (batch size 1) takes 7,830.7 s for 50 epochs.",
        look=looks.times,
        numbers=(_took("batch_modes", "batch size 1", 7830.7, "7,830.7 s"),),
    ),
    Claim(
        key="batch-variance",
        part=1,
        text="Full batch has negligible variance between training and validation after 1,000 epochs.",
        rule="the last accuracies are less than 1 point apart",
        look=looks.negligible,
        saying="negligible variance",
        trainings=(("batch_1000", "full batch"),),
    ),
    Claim(
        key="batch-time",
        part=1,
        text="1,000 epochs of full batch take 594.5 s.",
        look=looks.times,
        numbers=(_took("batch_1000", "full batch", 594.5, "594.5 s"),),
    ),
    Claim(
        key="minibatch-accuracy",
        part=1,
        text="Mini-batch SGD reaches 97 %.",
        rule=WITHIN,
        look=looks.agreement,
        numbers=(_reached(looks.DECAYS[0], 0.97, "97 %"),),
    ),
    Claim(
        key="decay-accuracy",
        part=1,
        text="With a decay of 1e-6 it reaches 87 %.",
        rule=WITHIN,
        look=looks.agreement,
        numbers=(_reached(looks.DECAYS[1], 0.87, "87 %"),),
        trainings=(("decay_momentum", looks.DECAYS[0]),),
        explain=explanations.decay,
        headline="a decay of 1e-6 brings the accuracy down to 87 %",
    ),
    Claim(
        key="momentum-accuracy",
        part=1,
        text="With the decay and a momentum of 0.9 it reaches 92 %.",
        rule=WITHIN,
        look=looks.agreement,
        numbers=(_reached(looks.DECAYS[2], 0.92, "92 %"),),
        explain=explanations.momentum,
        headline="a decay with momentum reaches 92 %",
    ),
    Claim(
        key="decay-times",
        part=1,
        text="The three take 177 s, 297.15 s and 293.73 s.",
        look=looks.times,
        numbers=tuple(
            _took("decay_momentum", variant, value, f"{value:g} s")
            for variant, value in zip(looks.DECAYS, (177.0, 297.15, 293.73), strict=True)
        ),
    ),
    Claim(
        key="decay-costs-time",
        part=1,
        text="Decay costs time: 120 s more, 68 % (66 % with momentum).",
        rule="an epoch with decay takes at least 34 % longer than one without: half of what is claimed",
        look=looks.decay_costs_time,
        saying="+68 % / +66 %",
        trainings=tuple(("decay_momentum", variant) for variant in looks.DECAYS),
    ),
    Claim(
        key="sgd-decay-momentum-accuracy",
        part=1,
        text="SGD (batch size 1) with decay and momentum reaches 20 %.",
        rule="within 10 points at the last epoch: so near to chance, a seed decides much",
        look=looks.agreement,
        numbers=(
            Number(
                f"validation accuracy, {looks.SGD_DECAY_MOMENTUM}",
                "sgd_decay_momentum",
                looks.SGD_DECAY_MOMENTUM,
                "val_accuracy",
                0.2,
                "20 %",
                10.0,
            ),
        ),
        explain=explanations.single,
        headline="with batch size 1, decay and momentum the accuracy ends at 20 %",
    ),
    Claim(
        key="stuck",
        part=1,
        text="It is stuck in a local minimum.",
        rule="refuted if the last training accuracy is 50 % or more; a low one cannot tell a minimum from large steps",
        look=looks.stuck,
        saying="stuck in a local minimum",
        trainings=(("sgd_decay_momentum", looks.SGD_DECAY_MOMENTUM),),
    ),
    Claim(
        key="sgd-decay-momentum-time",
        part=1,
        text="It takes 7,577.7 s.",
        look=looks.times,
        numbers=(_took("sgd_decay_momentum", looks.SGD_DECAY_MOMENTUM, 7577.7, "7,577.7 s"),),
    ),
    Claim(
        key="sgd-losses",
        part=1,
        text="SGD ends at a loss of 0.0503 and a validation loss of 0.0954.",
        rule="both within 20 % at the last epoch",
        look=looks.agreement,
        numbers=_last("optimizers", "SGD", {"loss": (0.0503, "0.0503"), "val_loss": (0.0954, "0.0954")}, 1.0),
    ),
    Claim(
        key="sgd-accuracies",
        part=1,
        text="SGD ends at accuracies of 0.98 (training) and 0.97 (validation).",
        rule="both within 1 point at the last epoch",
        look=looks.agreement,
        numbers=_last("optimizers", "SGD", {"accuracy": (0.98, "98 %"), "val_accuracy": (0.97, "97 %")}, 1.0),
    ),
    Claim(
        key="rmsprop-losses",
        part=1,
        text="RMSprop ends at a loss of about 0 and a validation loss of 0.15.",
        rule="below 0.01 and within 20 % at the last epoch",
        look=looks.agreement,
        numbers=_last("optimizers", "RMSprop", {"loss": (0.0, "≈ 0"), "val_loss": (0.15, "0.15")}, 1.0),
    ),
    Claim(
        key="rmsprop-accuracies",
        part=1,
        text="RMSprop ends at accuracies of 100 % (training) and 98 % (validation).",
        rule="both within 1 point at the last epoch",
        look=looks.agreement,
        numbers=_last("optimizers", "RMSprop", {"accuracy": (1.0, "100 %"), "val_accuracy": (0.98, "98 %")}, 1.0),
    ),
    Claim(
        key="rmsprop-best",
        part=1,
        text="RMSprop is the best.",
        rule=LEADS,
        alone=BY_FAR,
        look=looks.best_variant("optimizers", "RMSprop"),
        saying="RMSprop is the best",
        trainings=tuple(("optimizers", name) for name in ("SGD", "Adam", "RMSprop")),
        headline="RMSprop is the best optimizer",
    ),
    Claim(
        key="prediction",
        part=1,
        text="The RMSprop model, saved and loaded again, labels test images (a picture of samples).",
        rule="at least nine in ten of the images shown are labelled right, and the loaded model's test accuracy is "
        "that of the trained one within 0.1 points",
        look=looks.pictures,
        saying="a picture",
        trainings=(("predict", ""), ("optimizers", "RMSprop")),
    ),
    Claim(
        key="l2-gap",
        part=2,
        text="L2 shrinks the gap between training and validation.",
        rule=f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs, is smaller",
        alone=BY_FAR.removeprefix(","),
        look=looks.gap_shrinks,
        saying="shrinks",
        trainings=(("l2", "baseline"), ("l2", "L2")),
        headline="L2 shrinks the gap between training and validation",
    ),
    Claim(
        key="dropout-0.2",
        part=2,
        text="Dropout 0.2 ends at accuracies of 0.4978 (training) and 0.4780 (validation).",
        rule=WITHIN_CIFAR,
        look=looks.agreement,
        numbers=_last(
            "dropout", "dropout 0.2", {"accuracy": (0.4978, "49.78 %"), "val_accuracy": (0.4780, "47.80 %")}, 2.0
        ),
    ),
    Claim(
        key="dropout-0.3",
        part=2,
        text="Dropout 0.3 ends at accuracies of 0.4890 (training) and 0.4829 (validation).",
        rule=WITHIN_CIFAR,
        look=looks.agreement,
        numbers=_last(
            "dropout", "dropout 0.3", {"accuracy": (0.4890, "48.90 %"), "val_accuracy": (0.4829, "48.29 %")}, 2.0
        ),
    ),
    Claim(
        key="dropout-best",
        part=2,
        text="A dropout rate of 0.3 is best.",
        rule=LEADS,
        alone=BY_FAR,
        look=looks.best_variant("dropout", "dropout 0.3"),
        saying="0.3 is best",
        trainings=tuple(("dropout", f"dropout {rate}") for rate in (0.2, 0.3, 0.5)),
        headline="a dropout rate of 0.3 is best",
    ),
    Claim(
        key="stopped-at",
        part=2,
        text="Early stopping (patience 30, at most 300 epochs) ends the training at epoch 199.",
        rule="within 20 %: epochs 160 to 238",
        look=looks.agreement,
        numbers=(Number("last epoch", "early_stopping", "early stopping", "epochs", 199, "199"),),
        headline="early stopping ends at epoch 199",
    ),
    Claim(
        key="batch-norm",
        part=2,
        text="With batch normalization it is pretty much the same.",
        rule="the best validation accuracies are less than 1 point apart",
        look=looks.same,
        saying="pretty much the same",
        trainings=tuple(("batch_norm", name) for name in looks.BATCH_NORM),
        headline="batch normalization changes little",
    ),
    Claim(
        key="search-best",
        part=2,
        text="Random search finds learning rate 0.01, dropout rate 0.2, batch size 64.",
        rule="the same candidate has the highest mean accuracy",
        alone=BY_FAR,
        look=looks.found,
        saying="learning rate 0.01, dropout 0.2, batch size 64",
        trainings=(("random_search", ""),),
        headline="random search finds learning rate 0.01, dropout 0.2 and batch size 64",
    ),
    Claim(
        key="training-times",
        part=2,
        text="There is no big difference in training time.",
        rule="per epoch, at batch size 128, the slowest takes at most 1.5 times as long as the fastest",
        look=looks.no_big_difference,
        saying="no big difference",
        trainings=(("training_times", ""), *looks.TIMED),
    ),
)
"""The report's claims, in its order."""
