"""How far does a plain MLP come on CIFAR-10?

The report's figure 17: mini-batch SGD, 50 epochs, nothing against overfitting.

Run:   mlflow run . -e cifar_baseline
Time:  about a minute on 2 cores.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="How far does mini-batch SGD bring a plain MLP on CIFAR-10 in 50 epochs?",
    data="cifar10",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=50,
    ),
    variants={"baseline": {}},
)
