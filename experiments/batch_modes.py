"""One image, 128 images or the whole training set a step: what does the batch size do to SGD on MNIST?

The report's figures 2 to 5: curves of each, and their training times for 50 epochs.

Run:   mlflow run . -e batch_modes
Time:  about two minutes on 2 cores, most of it at batch size 1.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="SGD on MNIST by one image, by mini-batches of 128 or by the full batch: which learns best in 50 epochs?",
    data="mnist",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        epochs=50,
    ),
    variants={
        "batch size 1": {"batch_size": 1},
        "mini-batch SGD": {"batch_size": 128},
        "full batch": {"batch_size": "full"},
    },
    targets={"val_accuracy": 0.97},
)
