"""SGD, Adam or RMSprop for a small MLP on MNIST, each at the learning rate Keras gives it?

Run:   mlflow run . -e optimizers
Time:  about a minute on 2 cores, 50 epochs of each variant.
"""

from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="Which optimizer trains the MNIST MLP best at its default learning rate: SGD, Adam or RMSprop?",
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
        "SGD": {"optimizer": "sgd", "learning_rate": 0.01},
        "Adam": {"optimizer": "adam", "learning_rate": 0.001},
        "RMSprop": {"optimizer": "rmsprop", "learning_rate": 0.001},
    },
    targets={"val_accuracy": 0.97},
)
