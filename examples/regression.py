"""Do a penalty or weight decay help to predict how a patient's diabetes goes on?

Run:  mlplab compare examples/regression.py
"""

from mlplab import Comparison, Training, call


def diabetes():
    """scikit-learn's 442 patients: ten measurements each, and the disease's progression after a year, standardized."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=True)
    return x / x.std(axis=0), (y - y.mean()) / y.std()


def net(units=32, l2=0.0):
    """A hidden layer and one number out."""
    from keras import Input, Sequential, layers, regularizers

    return Sequential(
        [
            Input((10,)),
            layers.Dense(units, activation="relu", kernel_regularizer=regularizers.L2(l2) if l2 else None),
            layers.Dense(1),
        ]
    )


COMPARISON = Comparison(
    question="Do a penalty or weight decay help to predict how diabetes goes on?",
    data=diabetes,
    base=Training(
        model=net,
        optimizer=call("keras.optimizers.AdamW", learning_rate=0.003, weight_decay=0),
        loss="mse",
        metrics=["r2_score", "mae"],
        epochs=15,
    ),
    variants={"neither": {}, "penalty": {"model.l2": 0.03}, "weight decay": {"optimizer.weight_decay": 1.0}},
    select="val_r2_score",
    measures=["val_loss", "val_mae"],
    seeds=3,
)
