"""How much does each optimizer depend on its learning rate?

A comparison of optimizers at one learning rate each is a comparison of those rates. Here each takes nine, half a
magnitude apart, from where it is too low to learn much to where trainings break down.

Run:   mlflow run . -e lr_sensitivity
Time:  about two minutes on 2 cores; -P seeds=3 takes three times as long and draws bands.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="How much does the accuracy that SGD, Adam and RMSprop reach in 10 epochs depend on the learning rate?",
    data="mnist",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=10,
    ),
    variants={
        f"{optimizer}, {rate:g}": {"optimizer": optimizer, "learning_rate": rate}
        for optimizer in ("sgd", "adam", "rmsprop")
        for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    },
)
