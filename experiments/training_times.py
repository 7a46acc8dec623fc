"""How long does each way to train the CIFAR-10 MLP take?

The report's figure 25 compares trainings of unequal length; here seconds per epoch stand beside the totals.
Comparisons that are not on record run first.

Run:   mlflow run . -e training_times
Time:  seconds; a quarter of an hour where none of them has run yet.
"""

from mlplab import Overview

OVERVIEW = Overview(
    question="How long does each way to train the CIFAR-10 MLP take, in all and per epoch?",
    of=("cifar_baseline", "l2", "dropout", "early_stopping", "batch_norm", "best_found"),
)
