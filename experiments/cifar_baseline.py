"""How far does a plain MLP come on CIFAR-10?

The report's figure 17: mini-batch SGD, 50 epochs, nothing against overfitting.

Run:   mlflow run . -e cifar_baseline
Time:  about a minute on 2 cores.
"""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="How far does mini-batch SGD bring a plain MLP on CIFAR-10 in 50 epochs?",
    dataset="cifar10",
    base=Variant(hidden=(128, 64), optimizer="sgd", learning_rate=0.01, batch_size=128, epochs=50),
    variants={"baseline": {}},
)
