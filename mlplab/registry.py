"""The model registry: a run's export becomes a version, and the version the champion if it has earned it.

Who is champion is read off the versions' tags, so that registrations at the same time agree on it: going through the
checked versions in their order, each takes over that is not worse on the test set than the champion before it, or was
forced.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from mlplab import judging, logged_model, lookup, served, stores
from mlplab.checks import UnavailableError, UsageError, check_registered
from mlplab.choosing import OPTIMIZER, chosen
from mlplab.data import Dataset
from mlplab.spec import Metric
from mlplab.store.errors import brief
from serving.model import CONTRACT, PIXELS, VALUES, Contract, answers, arguments, as_sent, named
from serving.versions import ARTIFACTS, CHECKED, CONTENT, content_tag

NAME = "mnist-mlp"
"""What is registered where nothing is said."""


@dataclass(frozen=True)
class Trained:
    """What a run's training left to be served.

    Attributes:
        folder: of its graph and its contract.
        digest: of the test examples that `expected` are the answers to, as the model gave them that was trained.
    """

    folder: Path
    contract: Contract
    digest: str
    expected: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What registering did.

    Attributes:
        created: whether the version is new.
        champion: the version that bears the alias now, None if none does.
        metric: the metric of the test set that decides, such as `test_accuracy`, and its `value`.
        said: for a person, a sentence a step.
    """

    name: str
    version: int
    run_id: str
    created: bool
    champion: int | None
    metric: str
    value: float
    said: list[str]


def register(
    data: Dataset,
    *,
    name: str | None = None,
    alias: str = "champion",
    run_id: str | None = None,
    comparison: str | None = None,
    variant: str | None = None,
    optimizer: str = OPTIMIZER,
    metric: str | Metric | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Registration:
    """Registers a run's model, checks it, and moves the alias if the model has earned it.

    The registered model's description names the data of the champion. One that somebody wrote by hand stays: only what
    has the form of ours, or is empty, is replaced.

    Args:
        data: the data set that the run was trained on, by its digest, and whose test set decides.
        name: of the registered model; None: the comparison's, or `NAME`.
        run_id: of a finished training. Else
        comparison: the name of one, the latest that is finished: its winner, or its `variant`. Else
        optimizer, metric: of the finished runs with this optimizer the one with the best value of this validation
            metric; any optimizer where it is "".
        metric: None: the selection metric of the run's comparison, or `METRIC`. On the test set it decides who is
            champion; in its place, or in that of the loss, the accuracy where there are classes.
        force: moves the alias whatever the test set says, which is recorded as a tag.

    Raises:
        UsageError: there is no such run, it was trained on other data, or MLflow takes no such name or alias.
        UnavailableError: the store or the registry are not to be reached.
    """
    name = name or comparison or NAME
    check_registered(name, alias)
    client = stores.Client()
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        say(line)

    try:
        with tempfile.TemporaryDirectory() as folder:
            run, by = chosen(client, data, run_id, comparison, variant, optimizer, metric)
            whole, data = data, judging.as_tested(run.data.params, data)
            tell(
                f"Run {run.info.run_id}, {run.data.tags.get('mlplab.experiment', '?')}: {run.info.run_name}, "
                f"{by.name} {run.data.metrics[f'best_{by.name}']:.4f} on {data.label}"
            )
            trained = _trained(run, Path(folder))
            version = _version_of(client, name, run.info.run_id)
            created = False
            if version is None:
                version, created = _add_version(client, name, run, data, by, trained)
            if created:
                tell(f"Registered as version {version.version} of {name}")
            else:
                tell(f"That run is version {version.version} of {name} already")
            number = int(version.version)
            value = _check(client, name, number, data, whole, trained, tell)
        if force:
            client.set_model_version_tag(name, str(number), "mlplab.forced", "true")
        _evaluate_champion(client, name, data, number, judging.decisive(version.tags)[0], tell)
        champion = _settle(client, name, alias)
    except mlflow.MlflowException as error:
        raise UnavailableError(
            f"the registry {mlflow.get_registry_uri()} refused: {error.message}. Check MLFLOW_TRACKING_URI and what "
            "this user may do."
        ) from error
    except OSError as error:  # of a disk, or of a server that went away
        raise UnavailableError(
            f"registering {name} was cut off: {error}. See that the disk has room, that this user may write there and "
            "that the store answers, and run the command again."
        ) from error
    decides = f"test_{judging.decisive(version.tags)[0]}"
    if champion == number:
        share = decides == "test_accuracy"
        worth = f"{value:.2%} of the test {judging.examples_of(data)} right" if share else f"{decides} {value:.4g}"
        tell(f"{name}@{alias} is version {number}, with {worth}")
    else:
        tell(f"{name}@{alias} stays version {champion}" if champion else f"{name}@{alias} is not set")
    return Registration(
        name=name, version=number, run_id=run.info.run_id, created=created,
        champion=champion, metric=decides, value=value, said=said,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- model and version


def _trained(run: Run, folder: Path) -> Trained:
    """What a run's training left to be served. Of all that is logged with it, it is read alone: none of it is a
    program.

    Raises:
        UsageError: ONNX could not say the model, or none is logged.
    """
    run_id = run.info.run_id
    try:
        model = lookup.model_address(run_id)
        found = Path(mlflow.artifacts.download_artifacts(model, dst_path=str(folder))) / served.FOLDER
        if (found / served.REFUSED).is_file():
            why = (found / served.REFUSED).read_text()[:300]
            raise UsageError(
                f"the model of run {run_id} cannot be registered: {why}. A version is a graph of ONNX's operations. "
                f"Who trusts the model can have MLflow run it as it is: mlflow models serve -m {model}"
            )
        contract = Contract.read((found / CONTRACT).read_bytes())
        with np.load(found / served.REFERENCE, allow_pickle=False) as stored:
            digest, *expected = (stored[f"arr_{place}"] for place in range(len(stored.files)))
        return Trained(found, contract, str(digest), expected)
    except (OSError, KeyError, ValueError, mlflow.MlflowException) as error:
        raise UsageError(
            f"the model of run {run_id} cannot be registered: none is logged in it that can be read "
            f"({brief(error)}). A comparison logs that of one seed of each variant; train the variant again."
        ) from None


def _create(client: stores.Client, name: str) -> None:
    try:
        stores.once(lambda: client.create_registered_model(name), lambda: None)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was quicker
            raise


def _versions(client: stores.Client, name: str) -> list[ModelVersion]:
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def _version_of(client: stores.Client, name: str, run_id: str) -> ModelVersion | None:
    found = [v for v in _versions(client, name) if v.tags.get("mlplab.run_id") == run_id]
    return found[0] if found else None


def _add_version(
    client: stores.Client, name: str, run: Run, data: Dataset, by: Metric, trained: Trained
) -> tuple[ModelVersion, bool]:
    """The one version of a run, and whether it is ours: of several that were made at the same time the first one stays,
    and each command takes its own away that is a later one."""
    from mlflow.models import Model

    tags, contract = run.data.tags, trained.contract
    metric, best = judging.deciding(contract.form, by, run.data.metrics)
    if not client.search_registered_models(f"name = '{name}'"):
        _create(client, name)
    origin = {
        "mlplab.run_id": run.info.run_id,
        "mlplab.experiment": tags.get("mlplab.experiment", ""),
        "mlplab.variant": tags.get("mlplab.variant", run.info.run_name),
        "mlplab.model": run.data.params.get("model", ""),
        "mlplab.form": contract.form,
        "mlplab.decides": f"{metric} {best}",
        **{key: tags[key] for key in ("dataset", "dataset.digest", "git.commit", "git.dirty") if key in tags},
        **{key: f"{value:.6g}" for key, value in run.data.metrics.items() if key.startswith(("best_", "test_"))},
    }
    if metric != "accuracy" or contract.form == VALUES:  # of another the answers tell it
        origin[judging.tag_of(metric, data.digest)] = repr(run.data.metrics[f"test_{metric}"])
    example = named(as_sent(served.first_test_rows(data, 1)), "input")
    given = arguments(trained.folder, example, answers(contract, [array[:1] for array in trained.expected]))
    with stores.inner_retries(), logged_model.model_code:
        logged = Model.log(
            artifact_path=None, name="served", flavor=mlflow.pyfunc, run_id=run.info.run_id, metadata=origin, **given
        )

    content = content_of(logged.model_uri, trained.folder)

    def create() -> ModelVersion:
        return client.create_model_version(
            name,
            source=logged.model_uri,
            model_id=logged.model_id,
            run_id=run.info.run_id,
            tags=origin | {CONTENT: content},
            description=f"{run.info.run_name} of {tags.get('mlplab.experiment', '?')}, run {run.info.run_id}.",
        )

    made: ModelVersion = stores.once(create, lambda: _version_of(client, name, run.info.run_id))
    first = _version_of(client, name, run.info.run_id) or made
    if int(first.version) < int(made.version):
        client.delete_model_version(name, made.version)
        client.delete_logged_model(logged.model_id)
        return first, False
    return made, True


def content_of(uri: str, folder: Path) -> str:
    """The content of what was logged, as its version's tag; its graph and contract are those of `folder`."""
    with tempfile.TemporaryDirectory() as name:
        found = Path(mlflow.artifacts.download_artifacts(uri, dst_path=name))
        files = {
            str(path.relative_to(found)): path.read_bytes()
            for path in sorted(found.rglob("*"))
            if path.is_file() and path.name != WRITTEN_BY_DOWNLOADS
        }
    for file, path in ARTIFACTS.items():
        if files.get(path) != (folder / file).read_bytes():
            raise UnavailableError(f"{path} of {uri} is not what was stored there; see that the store works.")
    return content_tag(files)


WRITTEN_BY_DOWNLOADS = "registered_model_meta"
"""What MLflow adds to a version that it downloads."""


# ------------------------------------------------------------------------------------------------- check and champion


def _fetched(name: str, version: ModelVersion, folder: Path) -> Path:
    """A version's graph and contract in a folder of their own.

    Raises:
        ValueError: they are not what was registered, or not to be had.
    """
    try:
        found = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=str(folder)))
        expected = json.loads(version.tags.get(CONTENT, "{}"))
        files = {path: (found / path).read_bytes() for path in {*expected, *ARTIFACTS.values()}}
    except (OSError, ValueError, AttributeError, mlflow.MlflowException) as error:
        raise ValueError(f"its files cannot be read: {brief(error)}") from None
    if json.loads(content_tag(files)) != expected:
        raise ValueError("its files are not what was registered")
    (folder / "alone").mkdir()
    for file, path in ARTIFACTS.items():
        (folder / "alone" / file).write_bytes(files[path])
    return folder / "alone"


def _check(
    client: stores.Client,
    name: str,
    number: int,
    data: Dataset,
    whole: Dataset,
    trained: Trained,
    tell: Callable[[str], None],
) -> float:
    """Has a version answer in a bare process, beside what the trained model answered; tags it with what came out.

    Args:
        data: as the run's test split has it.
        whole: as it was when the run's model was logged.
    """
    version = client.get_model_version(name, str(number))
    tag = judging.tag_of(metric := judging.decisive(version.tags)[0], data.digest)
    if version.tags.get(CHECKED) == "passed" and tag in version.tags:
        return float(version.tags[tag])
    value, form = float(version.tags.get(tag, 0.0)), trained.contract.form
    rows = served.first_test_rows(whole, len(trained.expected[0]))
    try:
        if served.digest_of(rows) != trained.digest:
            raise ValueError("the test examples are others than those that its model answered where it was trained")
        with tempfile.TemporaryDirectory() as folder:
            fetched = _fetched(name, version, Path(folder))
            found = judging.answers_of(fetched, rows)
            if form != VALUES and metric == "accuracy":
                value = judging.accuracy_of(judging.answers_of(fetched, data.test.x)[0], data)
        apart = judging.apart(found, trained.expected)
        equal = form == VALUES or bool(np.all(judging.labels_of(found[0]) == judging.labels_of(trained.expected[0])))
        verdict = f"failed: its answers are {apart:.2g} away from the run's model" + (
            "" if equal else ", labels differ"
        )
        verdict = "passed" if apart <= judging.TOLERANCE and equal else verdict
    except (ValueError, OSError) as error:
        verdict = f"failed: it does not answer in a bare process: {error}"[:500]
    client.set_model_version_tag(name, str(number), tag, repr(value))
    client.set_model_version_tag(name, str(number), CHECKED, verdict)
    count = f"{len(trained.expected[0]):,} test {judging.examples_of(data)}"
    tell(f"Run in a bare process and compared on {count}: {verdict}")
    return value


def _evaluate_champion(
    client: stores.Client, name: str, data: Dataset, number: int, metric: str, tell: Callable[[str], None]
) -> None:
    """Sees that the champion before this version has been evaluated on the same test set, by the same metric."""
    before = judging.champion_of([v for v in _versions(client, name) if int(v.version) < number])
    if before is None or (tag := judging.tag_of(metric, data.digest)) in before.tags:
        return
    tags: Mapping[str, str] = before.tags
    try:
        if metric == "accuracy" and tags.get("mlplab.form", PIXELS) != VALUES:
            with tempfile.TemporaryDirectory() as folder:
                found = judging.answers_of(_fetched(name, before, Path(folder)), data.test.x)
            value = repr(judging.accuracy_of(found[0], data))
        elif tags.get("dataset.digest") == data.digest and f"test_{metric}" in tags:
            value = tags[f"test_{metric}"]
        else:
            raise ValueError(f"it has no test_{metric} on these data")
    except (ValueError, OSError) as error:
        tell(
            f"The champion, version {before.version}, does not answer on {data.label}: {error}. It stays champion "
            "unless a new one is forced (-P force=true)"
        )
        return
    client.set_model_version_tag(name, before.version, tag, value)


def _settle(client: stores.Client, name: str, alias: str) -> int | None:
    """Sets alias and description to the champion's, again until nobody has changed anything; returns its version."""
    while True:
        champion = judging.champion_of(_versions(client, name))
        model = client.get_registered_model(name)
        if champion is None:
            return int(model.aliases[alias]) if alias in model.aliases else None
        bears = str(model.aliases.get(alias)) == str(champion.version)
        says = judging.description_of(champion.tags)
        described = model.description == says or (model.description and not judging.OURS.fullmatch(model.description))
        if bears and described:
            return int(champion.version)
        if not bears:
            client.set_registered_model_alias(name, alias, champion.version)
        if not described:
            client.update_registered_model(name, says)
