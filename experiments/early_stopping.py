"""When does training with dropout 0.3 stop getting better on CIFAR-10?

The report's figure 23: up to 300 epochs, stopped when the validation loss had not sunk for 30; it stopped at 199.

Run:   mlflow run . -e early_stopping
Time:  two to four minutes on 2 cores.
"""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="At which epoch does early stopping end a training with dropout 0.3 on CIFAR-10?",
    dataset="cifar10",
    base=Variant(hidden=(128, 64), optimizer="sgd", learning_rate=0.01, batch_size=128, dropout=0.3, epochs=300),
    variants={"early stopping": {"patience": 30}},
    select="val_loss",
)
