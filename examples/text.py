"""Does the order of the words matter for whether a review is good or bad?

Run:  mlplab compare examples/text.py
"""

from mlplab import Comparison, Training

WORDS, LENGTH = 40, 12


def reviews():
    """1,000 generated sentences as the numbers of their words, and whether each praises: "not" turns what follows."""
    import keras
    import numpy as np

    rng = np.random.RandomState(0)
    things = ["the film", "the plot", "the music", "every actor", "the ending", "my seat"]
    praise, blame = ["fine", "lovely", "clever", "gripping"], ["dull", "awful", "clumsy", "tired"]
    texts, labels = [], []
    for _ in range(1_000):
        good, turned = rng.randint(2), rng.randint(2)
        word = rng.choice(praise if good != turned else blame)
        said = f"{rng.choice(things)} was {'not ' if turned else ''}{word}"
        other = f"{rng.choice(things)} was {'' if turned else 'not '}{rng.choice(['long', 'loud', 'new'])}"
        texts.append(" and ".join(rng.permutation([said, other])))
        labels.append(good)
    encode = keras.layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    encode.adapt(texts)
    return keras.ops.convert_to_numpy(encode(texts)), np.array(labels)


def reader(kind="bag", width=16):
    """An embedding of the words; then their mean, or what short runs of them say."""
    from keras import Input, Sequential, layers

    model = Sequential([Input((LENGTH,), dtype="int32"), layers.Embedding(WORDS, width)])
    if kind == "bag":
        model.add(layers.GlobalAveragePooling1D())
    else:
        model.add(layers.Conv1D(width, 3, activation="relu"))
        model.add(layers.GlobalMaxPooling1D())
    model.add(layers.Dense(1, activation="sigmoid"))
    return model


COMPARISON = Comparison(
    question="Does the order of the words matter?",
    data=reviews,
    base=Training(
        model=reader,
        optimizer="adam",
        learning_rate=0.01,
        loss="binary_crossentropy",
        metrics=["accuracy"],
        epochs=6,
    ),
    variants={"bag of words": {}, "runs of three": {"model.kind": "runs"}},
    seeds=3,
)
