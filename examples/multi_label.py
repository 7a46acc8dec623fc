"""Which optimizer is best where an example bears several labels at once?

Run:  mlplab compare examples/multi_label.py
"""

from mlplab import Comparison, Training, call


def documents():
    """1,000 generated documents: counts of 20 words, and which of five topics each is about, none to several."""
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(1_000, n_features=20, n_classes=5, n_labels=2, random_state=0)
    return x / 10, y


def net(units=32):
    """A hidden layer, and for each topic how likely the document is about it."""
    import keras

    inputs = keras.Input((20,))
    hidden = keras.layers.Dense(units, activation="gelu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(5, activation="sigmoid")(hidden))


COMPARISON = Comparison(
    question="Is Nadam or Lion better than Adam for documents with several topics?",
    data=documents,
    base=Training(
        model=net,
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["binary_accuracy", call("keras.metrics.F1Score", average="macro", threshold=0.5, name="f1_score")],
        epochs=12,
    ),
    variants={"Adam": {}, "Nadam": {"optimizer": "nadam"}, "Lion": {"optimizer": "lion", "learning_rate": 0.001}},
    select="val_f1_score",
    measures=["val_binary_accuracy", "val_loss"],
    seeds=3,
)
