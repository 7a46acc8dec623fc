"""Which learning rate, dropout rate and batch size suit the CIFAR-10 MLP best?

The report's random search found {learning_rate 0.01, dropout_rate 0.2, batch_size 64} and does not give its ranges.
These lists hold its answer and its neighbours on either side; 10 of the 27 choices are drawn, each trained for 10
epochs on every of 3 folds.

Run:   mlflow run . -e random_search
Time:  about five minutes on 2 cores.
"""

from mlplab import Search, Training

SEARCH = Search(
    question="Which learning rate, dropout rate and batch size train the CIFAR-10 MLP best in 10 epochs?",
    data="cifar10",
    base=Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        epochs=10,
    ),
    space={"learning_rate": [0.001, 0.01, 0.1], "model.dropout": [0.2, 0.3, 0.5], "batch_size": [32, 64, 128]},
    candidates=10,
    folds=3,
)
