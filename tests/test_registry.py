"""From a finished run to a version and the champion, on real digits, a real store and fresh processes."""

import threading
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from test_run import perform

from mlplab import __main__ as command_line
from mlplab import registry
from mlplab.spec import Comparison, UsageError, Variant

TRIAL = Comparison(
    name="trial",
    question="Which of these trains best?",
    dataset="mnist",
    base=Variant(hidden=(16,), optimizer="rmsprop", learning_rate=0.003),
    variants={
        "long": {"epochs": 6},
        "short": {"epochs": 1},
        "Adam": {"optimizer": "adam", "epochs": 1},
    },
)


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
        yield {run.info.run_name: run for run in mlflow.MlflowClient().search_runs(["0"])}
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def registered(trained, dataset):
    """The worse run registered first, then the best by default: both registrations, the second by a fresh process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_answers", _in_process)
        short = registry.register(dataset, run_id=trained["short"].info.run_id)
    return short, registry.register(dataset)


def _in_process(uri, pixels):
    answers = mlflow.pyfunc.load_model(uri).predict(pixels.astype(np.float32))
    return np.array([answer["probabilities"] for answer in answers], np.float32)


@pytest.fixture
def here(monkeypatch):
    """Has versions answer in this process: another one takes seconds, and `registered` has been through it."""
    monkeypatch.setattr(registry, "_answers", _in_process)


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
    assert best.test_accuracy == pytest.approx(run.data.metrics["test_accuracy"])
    assert accuracy == pytest.approx(best.test_accuracy)


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
    assert worse.test_accuracy < better.test_accuracy
    assert (worse.version, worse.champion) == (2, 1)
    forced = registry.register(dataset, name="forced", run_id=trained["short"].info.run_id, force=True)
    assert (forced.version, forced.created, forced.champion) == (2, False, 2)
    assert mlflow.MlflowClient().get_model_version("forced", "2").tags["mlplab.forced"] == "true"


def test_a_version_that_answers_otherwise_is_no_champion(trained, dataset, monkeypatch):
    """Where the fresh process does not answer as the run's model does, the version is tagged so and gets no alias."""
    monkeypatch.setattr(registry, "_answers", lambda uri, pixels: _in_process(uri, pixels) + np.float32(1e-3))
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
    versions = registry._versions(mlflow.MlflowClient(), "race")
    expected = registry._champion(versions)
    assert int(alias("race")["champion"]) == int(expected.version)
    best = max(done, key=lambda registration: registration.test_accuracy)
    assert int(expected.version) == best.version


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


@pytest.mark.parametrize("name", ["", "  ", "a/b:c", "a/b", "a?b", "it's", "..", "x" * 257, "a\nb"])
def test_an_illegal_name_is_refused_before_anything_is_loaded(monkeypatch, capsys, name):
    """The command exits with 2 and one sentence of what is legal, and no data set is looked for."""
    monkeypatch.setattr("mlplab.data.load", lambda *_, **__: pytest.fail("loaded"))
    assert command_line.main(["register", "--name", name]) == 2
    said = capsys.readouterr().err
    assert f"name is {name!r}; legal" in said
    assert "--name mnist-mlp" in said


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "latest", "Latest", "v2", "V10", "x" * 256])
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
    with pytest.raises(UsageError, match="the comparison 'trial'; legal: the id of a finished training"):
        registry.register(dataset, run_id=trained["trial"].info.run_id)
    with pytest.raises(UsageError, match="Name the data set it was trained on"):
        registry.register(replace(dataset, digest="0" * 32), run_id=trained["long"].info.run_id)


def test_the_command_refuses_the_stand_in_unless_told(trained, tmp_path, monkeypatch, capsys, here):
    """`register` on auto, where only the digits are to be had, exits with 2; with -P dataset=digits it registers."""
    monkeypatch.setenv("MLPLAB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("mlplab.data._fetch", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    assert command_line.main(["register", "--name", "told"]) == 2
    assert "-P dataset=digits" in capsys.readouterr().err
    assert command_line.main(["register", "--name", "told", "--dataset", "digits"]) == 0
    assert "told@champion is version 1" in capsys.readouterr().out
