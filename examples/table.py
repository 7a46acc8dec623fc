"""Which network predicts best from a table of numbers and categories whether all bicycles of a station are rented?

`bikes.csv` has numbers (hour, temperature, wind) and categories (weather, day). It is made by `rows` below, by
`python examples/table.py`.

Run:  mlplab compare examples/table.py
"""

from mlplab import Comparison, Data, Training


def net(data, units=16, dropout=0.0):
    """Numbers normalized, categories one-hot, then a dense layer; both are adapted to the training split alone."""
    import keras

    from mlplab.data import table_inputs

    inputs, features = table_inputs(data)
    hidden = keras.layers.Dense(units, activation="relu")(features)
    hidden = keras.layers.Dropout(dropout)(hidden)
    return keras.Model(inputs, keras.layers.Dense(data.classes, activation="softmax")(hidden))


def rows(many=800):
    """The rows of bikes.csv: who rents depends on the hour, the weather, the day, and on chance."""
    import numpy as np

    rng = np.random.RandomState(0)
    for _ in range(many):
        hour, temperature, wind = rng.randint(6, 23), rng.normal(14, 8), rng.gamma(2.0, 6.0)
        weather = ["sun", "clouds", "rain", "snow"][rng.choice(4, p=[0.4, 0.35, 0.2, 0.05])]
        day = ["workday", "weekend", "holiday"][rng.choice(3, p=[0.68, 0.28, 0.04])]
        rush = hour in (7, 8, 16, 17, 18) if day == "workday" else 11 <= hour <= 17
        likes = {"sun": 1.5, "clouds": 0.5, "rain": -2.0, "snow": -3.0}[weather]
        score = likes + 2.5 * rush - ((temperature - 20) / 10) ** 2 - wind / 25 + rng.normal(0, 0.7)
        yield hour, round(temperature, 1), round(wind, 1), weather, day, "yes" if score > 0 else "no"


COMPARISON = Comparison(
    question="Does this table need a wider network, or dropout?",
    data=Data("bikes.csv", target="rented_out"),
    base=Training(
        model=net,
        optimizer="adam",
        learning_rate=0.01,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        epochs=6,
    ),
    variants={"16 units": {}, "64 units": {"model.units": 64}, "dropout": {"model.dropout": 0.3}},
    seeds=3,
)

if __name__ == "__main__":
    import csv
    from pathlib import Path

    with Path(__file__).with_name("bikes.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["hour", "temperature", "wind", "weather", "day", "rented_out"])
        lines.writerows(rows())
