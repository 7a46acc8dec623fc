"""Is an LSTM or a GRU better at remembering two numbers of a sequence?

Run:  mlplab compare examples/sequences.py
"""

from mlplab import Comparison, Training


def sums():
    """The adding problem of Hochreiter & Schmidhuber (1997): 1,000 sequences of 12 numbers, two of them marked.

    What is asked for is the sum of those two.
    """
    import numpy as np

    rng = np.random.RandomState(0)
    numbers, marks = rng.uniform(-1, 1, (1_000, 12)), np.zeros((1_000, 12))
    for row in marks:
        row[rng.choice(12, 2, replace=False)] = 1
    return np.stack([numbers, marks], axis=2).astype("float32"), (numbers * marks).sum(axis=1).astype("float32")


def recurrent(cell="LSTM", units=16):
    """One recurrent layer, of Keras' class `cell`, and a number out."""
    import keras

    inputs = keras.Input((12, 2))
    state = getattr(keras.layers, cell)(units)(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(state))


COMPARISON = Comparison(
    question="Does a GRU or a plain recurrent layer add as well as an LSTM?",
    data=sums,
    base=Training(model=recurrent, optimizer="adam", learning_rate=0.01, loss="mse", metrics=["mae"], epochs=6),
    variants={"LSTM": {}, "GRU": {"model.cell": "GRU"}, "plain": {"model.cell": "SimpleRNN"}},
    select="val_loss",
    measures=["val_mae"],
    targets={"val_mae": 0.2},
    seeds=3,
)
