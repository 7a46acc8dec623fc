"""SGD, momentum or Adam for a small MLP on MNIST, once each is tuned by as many trials?

SGD is momentum with a momentum of 0, and momentum is about Adam with a large epsilon: so, tuned well enough, none
should be worse than one before it (Choi et al. 2019, On Empirical Comparisons of Optimizers for Deep Learning). The
learning rates that are tried are the same for all.

Run:   mlflow run . -e optimizers_tuned
Time:  about a quarter of an hour on 2 cores, 48 trials and 15 trainings of 20 epochs.
"""

from mlplab import Comparison, LogUniform, Training, Tune

COMPARISON = Comparison(
    question="Tuned by 16 trials each, is Adam as good as momentum, and momentum as good as SGD, for the MNIST MLP?",
    data="mnist",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        batch_size=128,
        epochs=20,
    ),
    variants={"SGD": {"optimizer.momentum": 0.0}, "momentum": {}, "Adam": {"optimizer": "adam"}},
    tune=Tune(
        {
            "learning_rate": LogUniform(1e-4, 1),
            "optimizer.momentum": [0.0, 0.5, 0.9],
            "optimizer.beta_1": [0.0, 0.5, 0.9],
            "optimizer.epsilon": [1e-8, 1e-4, 1e-1],
        },
        trials=16,
    ),
    seeds=5,
)
