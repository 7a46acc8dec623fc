"""What does the exported RMSprop model answer on images it has not seen?

The report's figure 16: test images with predicted and true label. The model is the one that `optimizers` logged, loaded
again from the tracking store; `optimizers` runs first where it is not on record.

Run:   mlflow run . -e predict
Time:  seconds; about a minute more where optimizers has not run yet.
"""

from mlplab import Prediction

PREDICTION = Prediction(
    question="What does the exported RMSprop model answer on test images of MNIST?", of="optimizers", variant="RMSprop"
)
