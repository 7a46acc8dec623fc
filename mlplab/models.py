"""From a variant to a compiled Keras model."""

import keras
import tensorflow as tf

from mlplab.spec import Variant


def build(variant: Variant, features: int, classes: int, seed: int) -> keras.Model:
    """Builds and compiles the multilayer perceptron that `variant` describes.

    The model takes raw pixels, shape (images, features), 0 to 255, and scales them itself, so that what is trained is
    what is exported. It returns class probabilities, shape (images, classes), float32. Loss: sparse categorical
    cross-entropy; metric: accuracy.

    Args:
        variant: what to build.
        features: pixels of an image, flattened.
        classes: number of classes.
        seed: of the initial weights and the dropout masks. The weights of a layer depend on the seed and the layer's
            place among the dense layers alone, so variants start from equal weights wherever their shapes agree.
    """
    penalty = keras.regularizers.L2(variant.l2) if variant.l2 else None

    def dense(units: int, name: str, place: int, activation: str | None) -> keras.layers.Layer:
        start = keras.initializers.GlorotUniform(seed=_seed(seed, place))
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=start, kernel_regularizer=penalty, name=name
        )

    inputs = keras.Input((features,), dtype="float32", name="pixels")
    x = keras.layers.Rescaling(1 / 255, name="scale")(inputs)
    for place, units in enumerate(variant.hidden, start=1):
        if variant.batch_norm:
            x = dense(units, f"hidden_{place}", place, None)(x)
            x = keras.layers.BatchNormalization(name=f"batch_norm_{place}")(x)
            x = keras.layers.Activation(variant.activation, name=f"activation_{place}")(x)
        else:
            x = dense(units, f"hidden_{place}", place, variant.activation)(x)
        if variant.dropout:
            mask = _seed(seed, place + 1_000)
            x = keras.layers.Dropout(variant.dropout, seed=mask, name=f"dropout_{place}")(x)
    place = len(variant.hidden) + 1
    outputs = dense(classes, "probabilities", place, "softmax")(x)
    model = keras.Model(inputs, outputs, name="mlp")
    model.compile(optimizer=_optimizer(variant), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _seed(seed: int, stream: int) -> int:
    return (seed * 10_007 + stream) % (2**31 - 1)


def _optimizer(variant: Variant) -> keras.optimizers.Optimizer:
    rate = variant.learning_rate
    if variant.decay:
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=variant.decay)
    if variant.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=variant.momentum)
    return {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[variant.optimizer](rate)


class Export(tf.Module):  # type: ignore[misc]
    """A trained model as it is served: raw pixels in, class probabilities out, through one compiled call.

    Call it with a float32 tensor of shape (images, features), values 0 to 255; it returns float32 of shape (images,
    classes). It is saved as a TensorFlow SavedModel, which a server answers from without `Model.predict`'s set-up.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="export")
        self.model = model
        pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
        self.__call__ = tf.function(lambda pixels: model(pixels, training=False), input_signature=[pixels])
