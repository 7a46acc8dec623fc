"""What trains nothing and is made of records: a recorded model's predictions, an overview of training times."""

from collections.abc import Sequence

from mlplab import figures, labels, lookup, tables
from mlplab.checks import UsageError, choose
from mlplab.data import Dataset
from mlplab.loading import Overview, Prediction
from mlplab.records import Predictions, Record
from mlplab.store.runs import Run


def predict(spec: Prediction, of: Record, data: Dataset, run: Run) -> Predictions:
    """Shows test images to the model that a record's training left.

    Raises:
        UsageError: the data are no images with a class each.
    """
    if data.image_shape is None or not data.classes:
        raise UsageError(
            f"{spec.of} is about {data.label}, which are no images of classes: no predictions can be shown; legal: a "
            "comparison on images with one label each."
        )
    run.data(data)
    names = [result.variant.name for result in of.results]
    result = of.result(choose(f"variant of {spec.of}", spec.variant, names))
    run.flush()
    uri, model = lookup.load_model(run.resolved(result.run_id))
    probabilities = model(data.test.x)
    predicted = probabilities.argmax(axis=1)
    shown = slice(0, spec.images)
    found = Predictions(
        images=data.test.x[shown],
        image_shape=data.image_shape,
        labels=data.test.y.reshape(-1)[shown].tolist(),
        predicted=predicted[shown].tolist(),
        probability=probabilities.max(axis=1)[shown].tolist(),
        class_names=data.class_names,
        test_accuracy=float((predicted == data.test.y.reshape(-1)).mean()),
        model_uri=uri,
    )
    run.figure(figures.predictions(found, data.label), "predictions.png")
    run.metrics({"test_accuracy": found.test_accuracy})
    run.tags({**labels.of_data(data), "model_uri": uri})
    return found


def overview(spec: Overview, needed: Sequence[Record], run: Run) -> None:
    """Lists the times of records' trainings."""
    run.figure(figures.overview_times(needed), "training_time.png")
    table = tables.markdown(tables.time_cells(needed))
    run.text(table, "training_times.md")
    run.tags({"mlflow.note.content": f"**{spec.question}**\n\n{table}\nData: {needed[0].data}."})
