"""Does a second input help, where one network answers two questions?

Run:  mlplab compare examples/two_inputs.py
"""

from mlplab import Comparison, Training


def digits():
    """Digits with a noisy image and how much ink each took; asked for are the digit and whether it has a loop."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    noisy = found.images[..., None] / 16 + np.random.RandomState(0).normal(0, 0.4, (len(found.target), 8, 8, 1))
    ink = found.images.sum(axis=(1, 2), keepdims=False)[:, None] / 1_000
    loop = np.isin(found.target, [0, 6, 8, 9])
    return {"image": noisy, "ink": ink}, {"digit": found.target, "loop": loop.astype("float32")}


def net(ink=True, units=32):
    """The image flattened, with the ink beside it where that is used; an output for each question."""
    import keras
    from keras import layers

    inputs = {"image": keras.Input((8, 8, 1), name="image"), "ink": keras.Input((1,), name="ink")}
    seen = layers.Flatten()(inputs["image"])
    known = layers.Concatenate()([seen, inputs["ink"]]) if ink else seen
    hidden = layers.Dense(units, activation="relu")(known)
    digit = layers.Dense(10, activation="softmax", name="digit")(hidden)
    loop = layers.Dense(1, activation="sigmoid", name="loop")(hidden)
    return keras.Model(inputs, {"digit": digit, "loop": loop})


COMPARISON = Comparison(
    question="Does it help to know the ink, or to have a wider layer?",
    data=digits,
    base=Training(
        model=net,
        optimizer="adam",
        loss={"digit": "sparse_categorical_crossentropy", "loop": "binary_crossentropy"},
        metrics={"digit": ["accuracy"], "loop": ["auc"]},
        epochs=5,
    ),
    variants={"both": {}, "image alone": {"model.ink": False}, "wider": {"model.units": 64}},
    select="val_digit_accuracy",
    measures=["val_loop_auc"],
    seeds=3,
)
