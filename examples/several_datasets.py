"""Do more units or dropout help a small network, whichever the data? One question on three data sets.

Run:  mlplab compare examples/several_datasets.py
"""

from mlplab import Comparison, Data, Training, call


def toy(name):
    """One of scikit-learn's small data sets, standardized: `load_digits`, `load_wine`, `load_breast_cancer`."""
    from sklearn import datasets, preprocessing

    x, y = getattr(datasets, name)(return_X_y=True)
    return preprocessing.StandardScaler().fit_transform(x), y


def net(data, units=16, dropout=0.0):
    """As many inputs as the data have columns, and as many outputs as they have classes."""
    import keras

    hidden = [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(dropout)]
    outputs = keras.layers.Dense(data.classes, activation="softmax")
    return keras.Sequential([keras.Input(data.input_shape), *hidden, outputs])


COMPARISON = Comparison(
    question="Do more units or dropout help a small network, whichever the data?",
    data=[Data(call(toy, name=f"load_{name}"), name=name) for name in ("digits", "wine", "breast_cancer")],
    base=Training(
        model=net,
        optimizer="adam",
        learning_rate=0.003,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        epochs=10,
    ),
    variants={"16 units": {}, "64 units": {"model.units": 64}, "dropout": {"model.dropout": 0.3}},
    seeds=3,
    targets={"val_accuracy": {"digits": 0.9, "wine": 0.9, "breast_cancer": 0.95}},
)
