"""From a finished run to a version and the champion, on real digits, a real store and fresh processes."""

import contextlib
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import keras
import mlflow
import numpy as np
import pytest
from conftest import free_port, plain_name

from mlplab import __main__ as command_line
from mlplab import choosing, judging, registry, run
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.data import load
from mlplab.loading import Options
from mlplab.sources import Data
from mlplab.spec import Training
from serving.model import Contract, Graph, as_sent

CLASSES = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
TRIAL = Comparison(
    name="trial",
    question="Which of these trains best?",
    data="mnist",
    base=Training(optimizer="rmsprop", learning_rate=0.003, batch_size=128, **CLASSES).but({"model.hidden": (16,)}),
    variants={
        "long": {"epochs": 6},
        "short": {"epochs": 1},
        "Adam": {"optimizer": "adam", "epochs": 1},
    },
)


class Quiet:
    """Shows nothing of an experiment and its trainings."""

    @contextlib.contextmanager
    def experiment(self, experiment, data, variants):
        yield self

    def notice(self, text):
        pass

    started = recalled = epoch = ended = recorded = page = notice


def perform(experiment, dataset):
    """Runs an experiment in a lab of its own and returns its record."""
    return run.Lab(lambda wanted: dataset, Quiet(), Options()).run(experiment)[0]


@pytest.fixture(scope="module")
def trained(empty_store, tmp_path_factory, dataset):
    """A store with three finished runs, by name."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        perform(TRIAL, dataset)
        yield {plain_name(run): run for run in mlflow.MlflowClient().search_runs(["0"])}
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def registered(trained, dataset):
    """The worse run registered first, then the best by default: both registrations, the second by a fresh process."""
    return registry.register(dataset, run_id=trained["short"].info.run_id), registry.register(dataset)


def _in_process(folder, x):
    graph = Graph((folder / "model.onnx").read_bytes(), Contract.read((folder / "contract.json").read_bytes()))
    return graph.outputs([as_sent(x)])


@pytest.fixture
def here(monkeypatch):
    """Has versions answer in this process: another one takes a second, and `registered` has been through it."""
    monkeypatch.setattr(judging, "answers_of", _in_process)


def alias(name="mnist-mlp"):
    return dict(mlflow.MlflowClient().get_registered_model(name).aliases)


def test_the_best_run_by_validation_metric_is_registered(registered, trained):
    """Without a run named, the version is of the RMSprop run with the best validation accuracy on the same digest."""
    short, best = registered
    assert (short.version, short.created, short.champion) == (1, True, 1)
    assert best.run_id == trained["long"].info.run_id
    assert (best.version, best.created, best.champion) == (2, True, 2)
    assert {k: int(v) for k, v in alias().items()} == {"champion": 2}


def test_a_version_leads_back_to_where_it_came_from(registered, trained, dataset):
    """Its tags name run, data digest, commit and metrics; it has a signature, an input example, and answers labels."""
    _, best = registered
    client = mlflow.MlflowClient()
    version = client.get_model_version("mnist-mlp", str(best.version))
    run = trained["long"]
    assert version.run_id == run.info.run_id
    assert version.tags["dataset.digest"] == dataset.digest
    assert version.tags["git.commit"] == run.data.tags["git.commit"]
    assert float(version.tags["best_val_accuracy"]) == pytest.approx(run.data.metrics["best_val_accuracy"], rel=1e-5)
    assert version.tags["mlplab.checked"] == "passed"
    served = mlflow.pyfunc.load_model("models:/mnist-mlp@champion")
    assert served.metadata.signature is not None
    assert served.input_example is not None
    pixels = dataset.test.x[:50].astype(np.float32)
    answers = served.predict(pixels)
    assert [answer["label"] for answer in answers] == [int(np.argmax(a["probabilities"])) for a in answers]
    accuracy = np.mean(
        [answer["label"] for answer in served.predict(dataset.test.x.astype(np.float32))] == dataset.test.y
    )
    assert best.value == pytest.approx(run.data.metrics["test_accuracy"])
    assert accuracy == pytest.approx(best.value)


def test_registering_again_changes_nothing(registered, dataset):
    """A run that is a version already makes no other; the alias stays, and the words say so."""
    again = registry.register(dataset)
    assert (again.version, again.created, again.champion) == (2, False, 2)
    assert any("already" in line for line in again.said)
    assert len(mlflow.MlflowClient().search_model_versions("name = 'mnist-mlp'")) == 2


def test_a_worse_version_does_not_become_champion_unless_forced(trained, dataset, here):
    """After a better one a worse version is registered and checked, but takes the alias by force alone, on record."""
    better = registry.register(dataset, name="forced", run_id=trained["long"].info.run_id)
    worse = registry.register(dataset, name="forced", run_id=trained["short"].info.run_id)
    assert worse.value < better.value
    assert (worse.version, worse.champion) == (2, 1)
    forced = registry.register(dataset, name="forced", run_id=trained["short"].info.run_id, force=True)
    assert (forced.version, forced.created, forced.champion) == (2, False, 2)
    assert mlflow.MlflowClient().get_model_version("forced", "2").tags["mlplab.forced"] == "true"


def test_a_version_that_answers_otherwise_is_no_champion(trained, dataset, monkeypatch):
    """Where the fresh process does not answer as the run's model does, the version is tagged so and gets no alias."""
    monkeypatch.setattr(judging, "answers_of", lambda *given: [_in_process(*given)[0] + np.float32(1e-3)])
    done = registry.register(dataset, name="other")
    assert done.champion is None
    assert alias("other") == {}
    tags = mlflow.MlflowClient().get_model_version("other", "1").tags
    assert tags["mlplab.checked"].startswith("failed: its answers are 0.001")


def test_registrations_at_the_same_time_agree(trained, dataset, here):
    """Three at once leave versions 1 to 3 and the alias where one after the other would leave it."""
    runs = [trained[name].info.run_id for name in ("long", "short", "Adam")]
    done = []
    threads = [
        threading.Thread(target=lambda run=run: done.append(registry.register(dataset, name="race", run_id=run)))
        for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(registration.version for registration in done) == [1, 2, 3]
    found = mlflow.MlflowClient().search_model_versions("name = 'race'")
    versions = sorted(found, key=lambda version: int(version.version))
    expected = judging.champion_of(versions)
    assert int(alias("race")["champion"]) == int(expected.version)
    best = max(done, key=lambda registration: registration.value)
    assert int(expected.version) == best.version


def test_a_run_that_is_registered_twice_at_once_is_one_version(trained, dataset, here, monkeypatch):
    """Both look, find no version of the run, and make one: the first stays, and both commands end with it."""
    both, looked = threading.Barrier(2), threading.local()
    look = registry._version_of

    def late(*given):
        found = look(*given)
        if not getattr(looked, "once", False):
            looked.once = True
            both.wait()
        return found

    monkeypatch.setattr(registry, "_version_of", late)
    done, run = [], trained["short"].info.run_id
    threads = [
        threading.Thread(target=lambda: done.append(registry.register(dataset, name="twice", run_id=run)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.version for one in done] == [1, 1]
    assert sorted(one.created for one in done) == [False, True]
    assert [version.version for version in mlflow.MlflowClient().search_model_versions("name = 'twice'")] == [1]
    assert str(alias("twice")["champion"]) == "1"


def test_a_champion_that_does_not_answer_is_said(trained, dataset, here):
    """Where its files are gone another run is registered all the same, and on other data that it stays is said."""
    registry.register(dataset, name="broken", run_id=trained["long"].info.run_id)
    client = mlflow.MlflowClient()
    place = client.get_model_version_download_uri("broken", "1").removeprefix("file://")
    shutil.rmtree(place)
    assert registry.register(dataset, name="broken", run_id=trained["short"].info.run_id).champion == 1
    said = []
    registry._evaluate_champion(client, "broken", replace(dataset, digest="2" * 32), 2, "accuracy", said.append)
    assert re.search(r"champion, version 1, does not answer on digits.*: its files cannot be read.*force=true", said[0])


def description(name):
    return mlflow.MlflowClient().get_registered_model(name).description


def test_the_description_names_the_data_of_the_champion(trained, dataset, here):
    """From digits to other data and back, as the champion goes, and where it was wrong though the champion stays."""
    other = replace(dataset, name="mnist", digest="1" * 32)
    record = perform(replace(TRIAL, name="elsewhere").only(["long"]), other)
    first = registry.register(dataset, name="moving", run_id=trained["short"].info.run_id)
    assert "MLP for digits (stand-in for MNIST): " in description("moving")
    second = registry.register(other, name="moving", run_id=record.results[0].run_id)
    assert (first.champion, second.champion) == (1, 2)
    assert "MLP for MNIST: " in description("moving")
    wrong = description("moving").replace("MNIST", "CIFAR-10")
    mlflow.MlflowClient().update_registered_model("moving", wrong)
    assert registry.register(other, name="moving", run_id=record.results[0].run_id).champion == 2
    assert "MLP for MNIST: " in description("moving")
    registry.register(dataset, name="moving", run_id=trained["short"].info.run_id)
    assert "MLP for MNIST: " in description("moving")
    registry.register(dataset, name="moving", run_id=trained["Adam"].info.run_id, force=True)
    assert "MLP for digits (stand-in for MNIST): " in description("moving")


def test_a_description_written_by_hand_stays(trained, dataset, here):
    """What a person wrote of the model is not replaced, whoever becomes champion."""
    mlflow.MlflowClient().create_registered_model("ours", description="MLP for the sorting office. Ask Ada.")
    assert registry.register(dataset, name="ours").champion == 1
    assert description("ours") == "MLP for the sorting office. Ask Ada."


@pytest.mark.parametrize("name", ["  ", "a/b:c", "a/b", "a?b", "it's", "..", "x" * 257, "a\nb"])
def test_an_illegal_name_is_refused_before_anything_is_loaded(monkeypatch, capsys, name):
    """The command exits with 2 and one sentence of what is legal, and no data set is looked for."""
    monkeypatch.setattr("mlplab.data.load", lambda *_, **__: pytest.fail("loaded"))
    assert command_line.main(["register", "--name", name]) == 2
    said = capsys.readouterr().err
    assert f"name is {name!r}; legal" in said
    assert "--name mnist-mlp" in said


@pytest.mark.parametrize("alias", ["a b", "a/b", "latest", "Latest", "v2", "V10", "x" * 256])
def test_an_illegal_alias_is_refused_before_anything_is_loaded(monkeypatch, capsys, alias):
    """So is an alias that MLflow does not take, or keeps for itself."""
    monkeypatch.setattr("mlplab.data.load", lambda *_, **__: pytest.fail("loaded"))
    assert command_line.main(["register", "--alias", alias]) == 2
    assert f"alias is {alias!r}; legal" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.b", "mnist mlp", "ζ-größe (2)", "50%", 'a@b#c "d"', "x" * 256])
def test_a_legal_name_is_registered_and_found_again(trained, dataset, here, name):
    """What is called legal MLflow takes, finds by a search, and loads by name and alias."""
    assert registry.register(dataset, name=name, alias="the_best-1", run_id=trained["short"].info.run_id).champion == 1
    assert not registry.register(dataset, name=name, run_id=trained["short"].info.run_id).created
    assert mlflow.pyfunc.load_model(f"models:/{name}@the_best-1").metadata.signature is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"run_id": "nothing"}, "run_id is 'nothing'"),
        ({"optimizer": "sgd"}, "no finished sgd run on digits"),
    ],
)
def test_what_cannot_be_registered_is_refused(trained, dataset, chosen, text):
    """A run that is not there, or of which there is none, is refused with the remedy, and no model is made."""
    with pytest.raises(UsageError, match=text):
        registry.register(dataset, name="refused", **chosen)
    assert mlflow.MlflowClient().search_registered_models("name = 'refused'") == []


def test_a_parent_run_or_other_data_are_refused(trained, dataset, monkeypatch):
    """Only a variant's run on the very data whose test set decides can be registered."""
    with pytest.raises(UsageError, match=r"the comparison 'trial · digits.*'; legal: the id of a finished training"):
        registry.register(dataset, run_id=trained["trial"].info.run_id)
    with pytest.raises(UsageError, match="Name the data set it was trained on"):
        registry.register(replace(dataset, digest="0" * 32), run_id=trained["long"].info.run_id)


def test_the_command_refuses_the_stand_in_unless_told(trained, tmp_path, monkeypatch, capsys, here):
    """`register` on auto, where only the digits are to be had, exits with 2; with -P dataset=digits it registers."""
    monkeypatch.setenv("MLPLAB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")  # nobody answers there
    assert command_line.main(["register", "--name", "told"]) == 2
    assert "-P dataset=digits" in capsys.readouterr().err
    assert command_line.main(["register", "--name", "told", "--dataset", "digits"]) == 0
    assert "told@champion is version 1" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- models of one's own


def photos():
    """Images of 8x8 pixels with a channel, 0 to 255, and the names of their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    kept = found.target < 3
    words = np.array(["zero", "one", "two"])[found.target[kept]]
    return (found.images[kept, :, :, None] * 15.9).astype(np.uint8), words


def patients():
    """Two inputs in a dict, of which one is a code, and a number to predict."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    x = {"blood": found.data[:, 2:].astype(np.float32), "sex": (found.data[:, 1:2] > 0).astype(np.int32)}
    return x, (found.target / 100).astype(np.float32)


def flowers():
    """A table of one array, and labels."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return found.data, found.target


def cnn(filters=4):
    """Somebody's network for images."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(filters, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def two_inputs(units=8):
    """Somebody's regression from numbers and a category."""
    blood, sex = keras.Input((8,), name="blood"), keras.Input((1,), name="sex", dtype="int32")
    known = keras.layers.Flatten()(keras.layers.Embedding(2, 2)(sex))
    hidden = keras.layers.Dense(units, activation="relu")(keras.layers.Concatenate()([blood, known]))
    return keras.Model({"blood": blood, "sex": sex}, keras.layers.Dense(1)(hidden))


class Scaled(keras.layers.Layer):
    """A layer of somebody's that no other process knows."""

    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units, activation="softmax")

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x * self.scale)


class Petals(keras.Model):
    """A model that is a class, of a layer of somebody's own."""

    def __init__(self):
        super().__init__()
        self.scaled = Scaled(3)

    def call(self, x):
        return self.scaled(x)


def petals(rate=0.0):
    """Makes the model; the argument is there to be compared."""
    return Petals()


BASE = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 2, "batch_size": 32}
OWN = {
    "photos": Comparison(
        name="photos",
        question="How many filters?",
        data=photos,
        base=Training(model=cnn, **BASE, **CLASSES),
        variants={"few": {}, "many": {"model.filters": 8, "epochs": 4}},
    ),
    "patients": Comparison(
        name="patients",
        question="How many units?",
        data=patients,
        base=Training(model=two_inputs, loss="mse", metrics=["mae"], **BASE),
        variants={"trained": {"epochs": 20}, "hardly": {"epochs": 1, "learning_rate": 1e-5}},
        select="val_mae",
        seeds=2,
    ),
    "flowers": Comparison(
        name="flowers",
        question="Does training help?",
        data=flowers,
        base=Training(model=petals, **BASE, **CLASSES),
        variants={"long": {"epochs": 20}, "short": {"epochs": 1, "learning_rate": 1e-5}},
    ),
}


@pytest.fixture(scope="module")
def own(empty_store, tmp_path_factory):
    """A store with comparisons of models of one's own: name -> data and record."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        found = {}
        for name, comparison in OWN.items():
            data = load(comparison.data)
            found[name] = data, perform(comparison, data)
        yield found
    mlflow.set_tracking_uri(None)


def expected(own, name):
    """What the winner of a comparison answers on the test set: its function called again, with the trained weights."""
    data, record = own[name]
    winner = best_of(name)
    (result,) = [one for one in record.results if one.run_id == winner.source_run_id]
    model = result.variant.model.make()
    model(keras.tree.map_structure(lambda leaf: leaf[:2], data.test.x))
    model.set_weights(result.weights)
    return keras.ops.convert_to_numpy(model(data.test.x, training=False))


def best_of(name):
    """The logged model of the variant that won a comparison, found among its models, the best ones first."""
    select, client = OWN[name].metric, mlflow.MlflowClient()
    of = f"tags.`mlplab.experiment` = '{name}'"
    order = [{"field_name": f"metrics.best_{select.name}", "ascending": not select.maximizes}]
    found = client.search_logged_models(["0"], f"{of} AND name != 'served'", order_by=order)
    values = [{m.key: m.value for m in model.metrics}[f"best_{select.name}"] for model in found]
    assert len(found) == len(OWN[name].variants)
    assert values == sorted(values, reverse=select.maximizes)
    (parent,) = client.search_runs(["0"], f"{of} and tags.`mlplab.kind` = 'comparison'")
    (winner,) = (model for model in found if model.source_run_id == parent.data.tags["winner.run_id"])
    return winner


AFRESH = """
import pathlib, sys
import mlflow, numpy as np
for folder in map(pathlib.Path, sys.argv[1:]):
    with np.load(folder / "x.npz") as found:
        x = dict(found)
    answers = mlflow.pyfunc.load_model((folder / "uri").read_text()).predict(x.get("x", x))
    np.save(folder / "answers.npy", answers)
"""


@pytest.mark.slow
def test_logged_models_of_ones_own_answer_in_a_fresh_process(own, tmp_path):
    """A CNN, two inputs and a layer of one's own are found by metric, and answer where none of their code is."""
    for name, (data, _) in own.items():
        (tmp_path / name).mkdir()
        x = data.test.x
        np.savez(tmp_path / name / "x.npz", **(x if isinstance(x, dict) else {"x": x}))
        (tmp_path / name / "uri").write_text(f"models:/{best_of(name).model_id}")
    folders = [str(tmp_path / name) for name in own]
    subprocess.run([sys.executable, "-c", AFRESH, *folders], check=True, cwd=tmp_path)
    for name in own:
        np.testing.assert_allclose(np.load(tmp_path / name / "answers.npy"), expected(own, name), atol=1e-6)


@pytest.mark.slow
def test_a_logged_model_has_what_its_run_has_as_a_whole(own):
    """It has the run's params, the metrics that have no step, and leads to its data set; the run has no point twice."""
    client = mlflow.MlflowClient()
    for name, (data, _) in own.items():
        model = best_of(name)
        trained = client.get_run(model.source_run_id)
        assert model.params == trained.data.params
        metrics = {metric.key: metric.value for metric in model.metrics}
        of = {k: v for k, v in trained.data.metrics.items() if k.startswith(("best_", "test_"))}
        assert of
        assert of.items() <= metrics.items()
        assert f"val_{OWN[name].metric.base}" not in metrics  # the last epoch's, which is not the model's
        for metric in of:
            assert len(client.get_metric_history(trained.info.run_id, metric)) == 1
        found = client.search_logged_models(
            ["0"], datasets=[{"dataset_name": data.label, "dataset_digest": data.digest}]
        )
        assert model.model_id in {one.model_id for one in found}


@pytest.mark.slow
def test_the_winner_of_any_comparison_is_registered(own):
    """Under the comparison's name, judged by its own metric, checked in a fresh process, and answering by names."""
    for name, (data, _) in own.items():
        done = registry.register(data, comparison=name)
        assert (done.name, done.version, done.champion) == (name, 1, 1), done.said
        assert done.run_id == best_of(name).source_run_id
        tags = mlflow.MlflowClient().get_model_version(name, "1").tags
        assert tags["mlplab.checked"] == "passed"
        assert done.metric == {"patients": "test_mae"}.get(name, "test_accuracy")
        tested = mlflow.MlflowClient().get_run(done.run_id).data.metrics[done.metric]
        assert done.value == pytest.approx(tested, abs=1e-6)
    served = mlflow.pyfunc.load_model("models:/photos@champion")
    answers = served.predict(own["photos"][0].test.x[:20])
    likely = expected(own, "photos")[:20]
    assert [answer["label"] for answer in answers] == [("one", "two", "zero")[place] for place in likely.argmax(axis=1)]
    np.testing.assert_allclose([answer["probabilities"] for answer in answers], likely, atol=1e-6)
    served = mlflow.pyfunc.load_model("models:/patients@champion")
    x = own["patients"][0].test.x
    answers = [answer["prediction"] for answer in served.predict(x)]
    np.testing.assert_allclose(answers, expected(own, "patients")[:, 0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x: {**x, "blood": x["blood"] * np.nan}, "finite"),
        (lambda x: {"blood": x["blood"], "sex": x["sex"][:1]}, "as many in each"),
        (lambda x: {name: part[:0] for name, part in x.items()}, "empty"),
    ],
)
def test_a_version_refuses_what_is_no_example(own, wrong, says):
    """Numbers that are none and arrays that do not fit together are refused in words that do not repeat them."""
    data = own["patients"][0]
    registry.register(data, comparison="patients", name="refusing")
    with pytest.raises(mlflow.MlflowException, match=says):
        mlflow.pyfunc.load_model("models:/refusing/1").predict(wrong(data.test.x))


@pytest.mark.slow
def test_a_variant_worse_by_the_selection_metric_does_not_become_champion(own):
    """Where less is better, too: the error on the test set decides; the variant is its first seed's training."""
    data, record = own["patients"]
    better = registry.register(data, comparison="patients", name="errors")
    worse = registry.register(data, comparison="patients", variant="hardly", name="errors")
    assert worse.value > better.value
    assert (worse.version, worse.champion) == (2, 1)
    first = next(one for one in record.results if one.variant.name == "hardly" and one.seed == 1234)
    assert worse.run_id == first.run_id
    assert registry.register(data, run_id=worse.run_id, name="errors", force=True).champion == 2


@pytest.mark.slow
def test_what_no_comparison_has_is_refused(own):
    """A comparison, a variant or a metric that is not there."""
    data = own["flowers"][0]
    with pytest.raises(UsageError, match="comparison is 'nothing', of which no finished run"):
        registry.register(data, comparison="nothing")
    with pytest.raises(UsageError, match=r"variant is 'none', .* legal: long, short"):
        registry.register(data, comparison="flowers", variant="none")
    with pytest.raises(UsageError, match=r"the training 'long', without its best_val_auc"):
        registry.register(data, run_id=best_of("flowers").source_run_id, metric="val_auc", name="unknown metric")
    assert "unknown metric" not in {model.name for model in mlflow.MlflowClient().search_registered_models()}


@pytest.mark.slow
def test_every_variant_can_be_registered(own):
    """One with a layer of one's own, too, that did not win: each variant's model is logged."""
    done = registry.register(own["flowers"][0], comparison="flowers", variant="short", name="the other")
    assert (done.version, done.champion) == (1, 1), done.said


@pytest.mark.slow
def test_the_data_of_a_comparison_and_of_its_runs_are_known(own):
    """So a command finds what to load by the comparison's name, or by the id of a training."""
    assert choosing.data_of(comparison="photos") == OWN["photos"].data
    assert choosing.data_of(run_id=best_of("patients").source_run_id) == Data.of(patients)
