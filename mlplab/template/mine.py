"""Does dropout help this CNN, and is Lion better than Adam?

Run it as it is with `mlplab compare`, which takes about a minute, then make it yours: data, model, variants.
"""

from mlplab import Comparison, Training


# The data: a function that returns x and y, arrays of any shape. A fifth of the examples is held out for validation and
# a fifth for the test. If your data are a file, write its path in place of the function: an .npz, a folder of images,
# or a table, as `Data("people.csv", target="income")` with `from mlplab import Data`.
def digits():
    """scikit-learn's 1,797 digits: images of 8 x 8 x 1, from 0 to 1, and what each shows."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images[..., None] / 16, found.target


# The model: a function that returns any keras.Model, compiled or not. What you want to vary in it is an argument.
def cnn(dropout=0.0):
    """A convolution and a dense layer, with dropout between them."""
    from keras import Sequential, layers

    hidden = [layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dropout(dropout)]
    return Sequential([*hidden, layers.Dense(10, activation="softmax")])


COMPARISON = Comparison(
    question="Does dropout help this CNN, and is Lion better than Adam?",
    data=digits,
    # What all variants share. `learning_rate=`, `batch_size=`, `callbacks=` and more may be set here, too.
    base=Training(model=cnn, optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"], epochs=10),
    # Each variant has a name and what it changes in `base`: "model.dropout" is the argument `dropout` of the model, and
    # "optimizer.weight_decay" would be one of the optimizer. The other variants are compared with the first.
    variants={"plain": {}, "dropout": {"model.dropout": 0.3}, "Lion": {"optimizer": "lion"}},
    # Each variant is trained ten times, from other initial weights each time: one curve proves nothing. Give
    # `--seeds until:30` to the command, and it adds seeds until the verdicts are clear.
    seeds=10,
)
