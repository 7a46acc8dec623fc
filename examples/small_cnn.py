"""Do batch normalization or more filters help a small CNN on handwritten digits?

Run:  mlplab compare examples/small_cnn.py
"""

from mlplab import Comparison, Training


def digits():
    """scikit-learn's 1,797 digits: images of 8 x 8 x 1, from 0 to 1, and what each shows."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images[..., None] / 16, found.target


def cnn(filters=8, normalized=False):
    """Two convolutions, a pooling and a dense layer."""
    from keras import Input, Sequential, layers

    model = Sequential([Input((8, 8, 1))])
    for width in (filters, 2 * filters):
        model.add(layers.Conv2D(width, 3, padding="same", use_bias=not normalized))
        if normalized:
            model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    return model


COMPARISON = Comparison(
    question="Do batch normalization or more filters help this CNN?",
    data=digits,
    base=Training(
        model=cnn,
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        batch_size=64,
        epochs=4,
    ),
    variants={"plain": {}, "normalized": {"model.normalized": True}, "wide": {"model.filters": 16}},
    seeds=3,
)
