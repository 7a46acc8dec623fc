"""Does batch normalization help the CIFAR-10 MLP with dropout 0.3?

The report's figure 24: "pretty much the same". It does not give the epochs: 70, as for the dropout
rates.

Run:   mlflow run . -e batch_norm
Time:  about two minutes on 2 cores.
"""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Does batch normalization help the CIFAR-10 MLP that has dropout 0.3?",
    data="cifar10",
    base=Training(
        model=call("mlp", dropout=0.3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=70,
    ),
    variants={"dropout 0.3": {}, "dropout 0.3, batch norm": {"model.batch_norm": True}},
    margin=0.01,
)
