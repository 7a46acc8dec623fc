"""Does an L2 penalty shrink the gap between training and validation on CIFAR-10?

The report's figures 18 to 20. It does not give the strength: 0.001 is chosen, which costs some training accuracy at 50
epochs and leaves the network able to learn, so that the claim can come out either way.

Run:   mlflow run . -e l2
Time:  about a minute and a half on 2 cores.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="Does an L2 penalty shrink the gap between training and validation accuracy on CIFAR-10?",
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
    variants={"baseline": {}, "L2": {"model.l2": 0.001}},
    margin=0.01,
)
