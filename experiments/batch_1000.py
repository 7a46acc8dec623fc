"""Does full-batch gradient descent get there on MNIST if it is given 1,000 epochs?

The report's figure 6, and its words of "negligible variance between training and validation".

Run:   mlflow run . -e batch_1000
Time:  about four minutes on 2 cores.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="How far does full-batch gradient descent come on MNIST in 1,000 epochs?",
    data="mnist",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size="full",
        epochs=1_000,
    ),
    variants={"full batch": {}},
)
