"""What several test files share."""

import contextlib
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The programs of tests run for milliseconds: what takes time is to compile them. They are compiled without optimizing
# and kept from one session to the next, apart from the user's own, which are optimized. Sessions at the same time may
# share them: TensorFlow moves each into its place when it is whole.
PROGRAMS = Path(tempfile.gettempdir()) / f"mlplab-tests-{os.getuid()}"
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(PROGRAMS))
    from mlplab import backend

    SETTINGS = contextlib.ExitStack()
    SETTINGS.enter_context(backend.settings())  # as a command has them, to the end of the session
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

ROOT = Path(__file__).resolve().parent.parent


PATIENCE = 300.0
"""Seconds after which a test gives up what it waits for: long enough on a machine that is busy with other things."""

LONGEST = (
    *("test_experiments.py", "test_examples.py", "test_services.py", "test_tuning.py", "test_search.py"),
    *("test_serving.py", "test_faults.py", "test_ui.py", "test_training.py", "test_readme.py"),
)
"""Files that take minutes. Few processes share the tests, so these begin: at the end one would be alone with them."""

# The same examples each time. `-m random` draws new ones, and more where a test does not say how many.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "random", deadline=None, database=None, max_examples=1_000, suppress_health_check=[HealthCheck.too_slow]
)


def pytest_configure(config: pytest.Config) -> None:
    """Chooses how Hypothesis draws."""
    settings.load_profile("random" if config.option.markexpr == "random" else "same")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what draws examples."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker(pytest.mark.random)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has the longest files run first."""
    place = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Has Python look less often for garbage, as a command does, and never again among what was imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file together that makes something once; every other test goes to whoever has nothing to do.

    (pytest-xdist's own groups are marks, which it hands on by what pytest 9.2 does not read any more.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if _makes_once(path) else nodeid

    return Scheduling(config, log)


@cache
def _makes_once(path: str) -> bool:
    """Whether a test file has a fixture for all of its tests."""
    return 'scope="module"' in (ROOT / path).read_text()


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
"""What is written for users."""


def blocks(language: str, *pages: Path) -> list[str]:
    """The code blocks of a language in pages, in order."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [block for page in pages for block in fence.findall(page.read_text())]


def wait_until(
    true: Callable[[], Any], seconds: float = PATIENCE, said: Callable[[], str] = lambda: "", pause: float = 0.05
) -> Any:
    """Waits until something is true, and returns it; `said` tells why it may not be."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {said()}"
        time.sleep(pause)
    return found


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def plain_name(run: Any) -> str:
    """The name of a run without what follows in it of an experiment: on which data, and how much."""
    return str(run.info.run_name).partition(" · ")[0]


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever else would be cached goes to a folder that is thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # Tests look for runs in MLflow's Default; test_tracking.py and test_ui.py have what holds where nobody says so.
        patch.setenv("MLFLOW_EXPERIMENT_ID", "0")
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)  # which the Makefile sets
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _patient_with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes may take long to start on a machine that is busy with other things."""
    from mlplab import cluster

    monkeypatch.setattr(cluster, "CONNECT_SECONDS", PATIENCE)


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
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
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


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The project's files as git has them, in a path with spaces, with an empty store."""
    folder = tmp_path_factory.mktemp("my projects") / "mlplab copy"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """What a user has in a shell where the commands of the README and the docs are typed."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return variables | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_EXPERIMENT_ID": "0"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, else the test is skipped."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium on the path; on Debian: apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()
