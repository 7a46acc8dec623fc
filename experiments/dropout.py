"""Which dropout rate suits the CIFAR-10 MLP: 0.2, 0.3 or 0.5?

The report's figures 21 and 22: 0.2 reached 0.4978 (validation 0.4780), 0.3 reached 0.4890 (0.4829). It does not give
the epochs: 70 are trained, since of 30, 40, ... 100 that is where our four accuracies come closest to its four.

Run:   mlflow run . -e dropout
Time:  about three minutes on 2 cores.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="Which dropout rate is best for the CIFAR-10 MLP: 0.2, 0.3 or 0.5?",
    data="cifar10",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=70,
    ),
    variants={
        "dropout 0.2": {"model.dropout": 0.2},
        "dropout 0.3": {"model.dropout": 0.3},
        "dropout 0.5": {"model.dropout": 0.5},
    },
    margin=0.01,
)
