"""Does full-batch gradient descent get there on MNIST if it is given 1,000 epochs?

The report's figure 6, and its words of "negligible variance between training and validation".

Run:   mlflow run . -e batch_1000
Time:  about four minutes on 2 cores.
"""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="How far does full-batch gradient descent come on MNIST in 1,000 epochs?",
    dataset="mnist",
    base=Variant(hidden=(128, 64), optimizer="sgd", learning_rate=0.01, batch_size="full", epochs=1_000),
    variants={"full batch": {}},
)
