"""What several test files share."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The programs of tests run for milliseconds: what takes time is to compile them. They are compiled without optimizing
# and kept from one session to the next, apart from the user's own, which are optimized.
PROGRAMS = Path(tempfile.gettempdir()) / f"mlplab-tests-{os.environ.get('USER', 'user')}"
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(PROGRAMS))
    import mlplab  # noqa: F401  (it sets what TensorFlow reads when it is first imported)
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

ROOT = Path(__file__).resolve().parent.parent


LONGEST = ("test_experiments.py", "test_search.py", "test_training.py", "test_faults.py", "test_readme.py")
"""Files that take minutes. Two files run at a time, so these begin: at the end one would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has the longest files run first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever else would be cached goes to a folder that is thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 digits in a fixed mixed order: float32 (images, 64) from 0 to 1, int32 labels."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    return (loaded.data[order] / 16).astype("float32"), loaded.target[order].astype("int32")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder that holds the real MNIST, else the test is skipped."""
    folder = Path(os.environ.get("MLPLAB_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not (folder / "mnist.npz").is_file():
        pytest.skip(f"no mnist.npz in {folder}; set MLPLAB_DATA_DIR")
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made, which takes seconds; each test copies it."""
    folder = tmp_path_factory.mktemp("store")
    with contextlib.chdir(folder):
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a new store, which is the one that MLflow uses by default; the working directory is the test's."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def dataset() -> Any:
    """The digits as mlplab loads them in MNIST's place: uint8, 784 pixels."""
    from mlplab import data

    return data.load("digits")
