"""Does SGD at batch size 1 get stuck on MNIST when it has decay and momentum?

The report's figures 10 to 12: the last variant reached 20 %, "stuck in a local minimum". At batch size 1 a momentum of
0.9 makes steps of ten times the learning rate: 0.1 for every single image.

Run:   mlflow run . -e sgd_decay_momentum
Time:  about two minutes on 2 cores, most of it at batch size 1.
"""

from mlplab import Comparison, Training, call

DECAYED = call(
    "keras.optimizers.schedules.InverseTimeDecay", initial_learning_rate=0.01, decay_steps=1, decay_rate=1e-6
)

COMPARISON = Comparison(
    question="How does SGD by one image with decay and momentum compare with mini-batches on MNIST?",
    data="mnist",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=50,
    ),
    variants={
        "mini-batch SGD": {},
        "with decay": {"learning_rate": DECAYED},
        "batch size 1, decay, momentum": {"batch_size": 1, "learning_rate": DECAYED, "optimizer.momentum": 0.9},
    },
    targets={"val_accuracy": 0.97},
)
