"""What do a decay of 1e-6 and a momentum of 0.9 do to mini-batch SGD on MNIST?

The report's figures 7 to 9: 97 % without, 87 % with decay, 92 % with decay and momentum. Decay is the old Keras
argument: the learning rate at step t is lr / (1 + decay * t). In 50 epochs of 391 steps it sinks to 0.00981, so it
cannot cost ten points; the runs' `learning_rate` curves show it.

Run:   mlflow run . -e decay_momentum
Time:  about a minute on 2 cores.
"""

from mlplab import Comparison, Training, call

DECAYED = call(
    "keras.optimizers.schedules.InverseTimeDecay", initial_learning_rate=0.01, decay_steps=1, decay_rate=1e-6
)

COMPARISON = Comparison(
    question="Does mini-batch SGD on MNIST learn better with decay, or with decay and momentum?",
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
        "with decay and momentum": {"learning_rate": DECAYED, "optimizer.momentum": 0.9},
    },
    targets={"val_accuracy": 0.97},
)
