"""How good is the random search's winner when it is trained in full?

The report's figure 24b. Beside it the choice that the report's own search found, so that the two can be compared. The
search runs first where it is not on record.

Run:   mlflow run . -e best_found
Time:  about two minutes on 2 cores; the search's time more where it has not run yet.
"""

from mlplab import Comparison, Training, WinnerOf

COMPARISON = Comparison(
    question="Is the random search's winner better than the report's choice when both are trained in full?",
    data="cifar10",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        learning_rate=0.01,
        optimizer="sgd",
        epochs=70,
    ),
    variants={
        "best found": WinnerOf("random_search"),
        "report's choice": {"learning_rate": 0.01, "model.dropout": 0.2, "batch_size": 64},
    },
    margin=0.01,
)
