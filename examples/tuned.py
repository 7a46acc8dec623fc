"""Which of the settings that a search found are worth having? A compiled model, as users of Keras Tuner write it.

Run:  mlplab compare examples/tuned.py
"""

import keras

from mlplab import Comparison, Training


def wine():
    """scikit-learn's 178 wines: 13 measurements, standardized, and which of three growers made each."""
    from sklearn.datasets import load_wine
    from sklearn.preprocessing import StandardScaler

    x, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(x), y


def build(units=32, lr=1e-3, dropout=0.0):
    """The model with its optimizer, loss and metrics: what a tuner was given, with its choices as arguments."""
    model = keras.Sequential()
    model.add(keras.Input((13,)))
    model.add(keras.layers.Dense(units, activation="relu"))
    if dropout:
        model.add(keras.layers.Dropout(dropout))
    model.add(keras.layers.Dense(3, activation="softmax"))
    model.compile(keras.optimizers.Adam(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


COMPARISON = Comparison(
    question="Which of what the tuner found is worth having?",
    data=wine,
    base=Training(model=build, batch_size=16, epochs=10),
    variants={
        "as it was": {},
        "quick": {"model.lr": 0.01},
        "quick, dropout": {"model.lr": 0.01, "model.dropout": 0.3},
    },
    seeds=3,
    margin=0.02,
)
