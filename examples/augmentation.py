"""Which augmentation helps a CNN that has seen few digits?

Run:  mlplab compare examples/augmentation.py
"""

from mlplab import Comparison, Data, Training, call


def digits():
    """scikit-learn's 1,797 digits: images of 8 x 8 x 1, from 0 to 1, and what each shows."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images[..., None] / 16, found.target


def cnn(augment=None, filters=8):
    """A convolution after a layer that changes the images in training alone."""
    from keras import Input, Sequential, layers

    changed = [] if augment is None else [augment]
    return Sequential(
        [
            Input((8, 8, 1)),
            *changed,
            layers.Conv2D(filters, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


COMPARISON = Comparison(
    question="Does it help to shift the images, to mirror them, or to add noise?",
    data=Data(digits, validation=0.3, test=0.3),
    base=Training(model=cnn, optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"], epochs=5),
    variants={
        "none": {},
        "shifted": {"model.augment": call("keras.layers.RandomTranslation", height_factor=0.1, width_factor=0.1)},
        "mirrored": {"model.augment": call("keras.layers.RandomFlip", mode="horizontal")},
        "noise": {"model.augment": call("keras.layers.GaussianNoise", stddev=0.2)},
    },
    seeds=3,
)
