"""Does batch normalization help the CIFAR-10 MLP with dropout 0.3?

The report's figure 24: "pretty much the same". It does not give the epochs: 70, as for the dropout
rates.

Run:   mlflow run . -e batch_norm
Time:  about two minutes on 2 cores.
"""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Does batch normalization help the CIFAR-10 MLP that has dropout 0.3?",
    dataset="cifar10",
    base=Variant(hidden=(128, 64), optimizer="sgd", learning_rate=0.01, batch_size=128, dropout=0.3, epochs=70),
    variants={"dropout 0.3": {}, "dropout 0.3, batch norm": {"batch_norm": True}},
    margin=0.01,
)
