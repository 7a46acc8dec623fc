"""What do a decay of 1e-6 and a momentum of 0.9 do to mini-batch SGD on MNIST?

The report's figures 7 to 9: 97 % without, 87 % with decay, 92 % with decay and momentum. Decay is the old Keras
argument: the learning rate at step t is lr / (1 + decay * t). In 50 epochs of 391 steps it sinks to 0.00981, so it
cannot cost ten points; the runs' `learning_rate` curves show it.

Run:   mlflow run . -e decay_momentum
Time:  about a minute on 2 cores.
"""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Does mini-batch SGD on MNIST learn better with decay, or with decay and momentum?",
    dataset="mnist",
    base=Variant(hidden=(128, 64), optimizer="sgd", learning_rate=0.01, batch_size=128, epochs=50),
    variants={
        "mini-batch SGD": {},
        "with decay": {"decay": 1e-6},
        "with decay and momentum": {"decay": 1e-6, "momentum": 0.9},
    },
    targets={"val_accuracy": 0.97},
)
