"""Ready-made models: functions that return a `keras.Model` from keyword arguments, as one's own are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from mlplab.data import Dataset


def mlp(
    data: "Dataset",
    hidden: tuple[int, ...] = (128, 64),
    activation: str = "relu",
    dropout: float = 0.0,
    l2: float = 0.0,
    batch_norm: bool = False,
) -> "keras.Model":
    """A multilayer perceptron for images of 0 to 255.

    It takes raw pixels, shape (images, pixels), and scales them itself, so that what is trained is what is served. It
    returns class probabilities, shape (images, classes), float32.

    Args:
        data: whose pixels and classes it is for.
        hidden: units of each hidden layer, from the input to the output.
        activation: of the hidden layers, a Keras name.
        dropout: share of each hidden layer's outputs dropped in training, 0 to below 1.
        l2: weight of the L2 penalty on every kernel.
        batch_norm: batch normalization before each hidden activation.
    """
    import keras  # here, so that a spec is checked without it

    penalty = keras.regularizers.L2(l2) if l2 else None
    inputs = keras.Input(data.input_shape, dtype="float32", name="pixels")
    x = keras.layers.Rescaling(1 / 255, name="scale")(inputs)
    for place, units in enumerate(hidden, start=1):
        first = None if batch_norm else activation
        x = keras.layers.Dense(units, activation=first, kernel_regularizer=penalty, name=f"hidden_{place}")(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(name=f"batch_norm_{place}")(x)
            x = keras.layers.Activation(activation, name=f"activation_{place}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{place}")(x)
    outputs = keras.layers.Dense(
        data.classes, activation="softmax", kernel_regularizer=penalty, dtype="float32", name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="mlp")
