"""When does training with dropout 0.3 stop getting better on CIFAR-10?

The report's figure 23: up to 300 epochs, stopped when the validation loss had not sunk for 30; it stopped at 199.

Run:   mlflow run . -e early_stopping
Time:  two to four minutes on 2 cores.
"""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="At which epoch does early stopping end a training with dropout 0.3 on CIFAR-10?",
    data="cifar10",
    base=Training(
        model=call("mlp", dropout=0.3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=128,
        epochs=300,
    ),
    variants={
        "early stopping": {"callbacks": [call("keras.callbacks.EarlyStopping", monitor="val_loss", patience=30)]}
    },
    select="val_loss",
)
