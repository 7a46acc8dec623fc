"""Do class weights help to find the one in twenty?

Run:  mlplab compare examples/imbalance.py
"""

from mlplab import Comparison, Training, call


def cases():
    """2,000 generated cases, 5 % of them of the class that is looked for."""
    from sklearn.datasets import make_classification

    return make_classification(2_000, 12, n_informative=6, weights=[0.95], class_sep=0.8, flip_y=0.01, random_state=0)


def net(units=24):
    """A hidden layer, and how likely a case is of the rare class."""
    from keras import Input, Sequential, layers

    return Sequential([Input((12,)), layers.Dense(units, activation="relu"), layers.Dense(1, activation="sigmoid")])


COMPARISON = Comparison(
    question="Do class weights help to tell rare cases from the others?",
    data=cases,
    base=Training(
        model=net,
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["auc", call("keras.metrics.Recall", name="recall")],
        epochs=10,
    ),
    variants={"none": {}, "balanced": {"class_weight": "balanced"}, "5 to 1": {"class_weight": {0: 1, 1: 5}}},
    select="val_auc",
    measures=["val_recall"],
    seeds=3,
)
