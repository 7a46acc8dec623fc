"""What `mlplab.datasets` promises of ready-made data. No test touches the network or a real cache."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlplab import data, datasets
from mlplab.checks import UnavailableError, UsageError
from mlplab.splits import stratified

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get(datasets.DATA_DIR_VARIABLE) or ROOT.parent / "shared" / "data").absolute()
REAL_KNOWN = dict(datasets.KNOWN)

# ------------------------------------------------------------------------------- a small MNIST and a small CIFAR-10


def fake_arrays(train: int, test: int, shape: tuple[int, ...], seed: int) -> datasets.Arrays:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that compressed files inflate: damage then reaches the compressed stream.
    images = rng.integers(0, 5, (train + test, *shape)).astype(np.uint8) * 60
    labels = rng.integers(0, 10, train + test).astype(np.uint8)
    return dict(
        zip(datasets.ARRAY_NAMES, (images[:train], labels[:train], images[train:], labels[train:]), strict=True)
    )


MNIST = fake_arrays(30, 10, (28, 28), seed=1)
CIFAR = fake_arrays(20, 8, (32, 32, 3), seed=2)


def batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    """One CIFAR-10 batch as Python 2 and an old NumPy pickled it."""
    content = {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), b"labels": labels.tolist()}
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.", b"numpy.core.")


BATCHES = {
    f"data_batch_{i + 1}": batch(CIFAR["x_train"][4 * i : 4 * i + 4], CIFAR["y_train"][4 * i : 4 * i + 4])
    for i in range(5)
}
BATCHES["test_batch"] = batch(CIFAR["x_test"], CIFAR["y_test"])


def tarball(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in [("readme.html", b"hello"), *reversed(files.items())]:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


TARBALL = tarball(BATCHES)


def npz(arrays: Mapping[str, Any], compressed: bool = True) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


MNIST_NPZ = npz(MNIST)
CIFAR_NPZ = npz(CIFAR)


def digests(arrays: datasets.Arrays, head: int) -> dict[str, str]:
    return {key: datasets.digest({key: array[:head] if "test" in key else array}) for key, array in arrays.items()}


def fakes(url: str) -> dict[str, datasets.Known]:
    mnist = dataclasses.replace(
        REAL_KNOWN["mnist"],
        validation_images=10,
        test_images=10,
        head=10,
        digests=digests(MNIST, 10),
        url=f"{url}/mnist.npz",
    )
    cifar10 = dataclasses.replace(
        REAL_KNOWN["cifar10"],
        validation_images=5,
        test_images=8,
        head=3,
        digests=digests(CIFAR, 3),
        url=f"{url}/cifar-10-python.tar.gz",
        batch_md5s={name: hashlib.md5(content).hexdigest() for name, content in BATCHES.items()},
    )
    return {"mnist": mnist, "cifar10": cifar10}


@dataclasses.dataclass
class World:
    """A machine with nothing on it whose downloads are refused: its folders, for tests to put files into."""

    data_dir: Path
    cache: Path
    keras: Path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(datasets, "KNOWN", fakes(f"http://127.0.0.1:{port}"))
    made = World(tmp_path / "data", tmp_path / "cache" / "mlplab", tmp_path / "keras" / "datasets")
    for folder in (made.data_dir, made.cache, made.keras):
        folder.mkdir(parents=True)
    return made


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclasses.dataclass
class Server:
    url: str
    answer: Answer
    requests: int = 0


def sends(content: bytes, status: int = 200, claim: int | None = None) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if claim is None else claim))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real web server on this machine from which `world` downloads."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            state.answer(self)

        def log_message(self, *_: object) -> None: ...

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Handler) as httpd:
        state = Server(f"http://127.0.0.1:{httpd.server_port}", sends(MNIST_NPZ))
        monkeypatch.setattr(datasets, "KNOWN", fakes(state.url))
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield state
        httpd.shutdown()


def same(dataset: data.Dataset, arrays: datasets.Arrays) -> bool:
    """Whether the splits, joined again, are these arrays."""
    train, validation, test = dataset.train, dataset.validation, dataset.test
    return (
        np.array_equal(np.concatenate([train.x, validation.x]), arrays["x_train"].reshape(len(arrays["x_train"]), -1))
        and np.array_equal(np.concatenate([train.y, validation.y]), arrays["y_train"].reshape(-1))
        and np.array_equal(test.x, arrays["x_test"].reshape(len(arrays["x_test"]), -1))
        and np.array_equal(test.y, arrays["y_test"].reshape(-1))
    )


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of the regular files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# ---------------------------------------------------------------------------------------------------------- splits


def test_validation_is_the_last_of_the_published_training_images(world: World) -> None:
    """The splits are the published images in their order, the last training images being the validation set."""
    (world.data_dir / "mnist.npz").write_bytes(MNIST_NPZ)
    dataset = data.load("mnist", data_dir=world.data_dir)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 10, 10)
    assert same(dataset, MNIST)
    assert (dataset.name, dataset.wanted, dataset.label) == ("mnist", "mnist", "MNIST")
    assert (dataset.features, dataset.classes, dataset.image_shape) == (784, 10, (28, 28))
    assert not dataset.is_fallback
    assert dataset.notice is None
    assert dataset.source == str(world.data_dir / "mnist.npz")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "digits"])
def test_arrays_are_flat_contiguous_typed_and_read_only(world: World, name: str) -> None:
    """Every split is C-contiguous uint8 (n, features) with int32 labels, and cannot be changed by accident."""
    (world.data_dir / "mnist.npz").write_bytes(MNIST_NPZ)
    (world.data_dir / "cifar-10-python.tar.gz").write_bytes(TARBALL)
    dataset = data.load(name, data_dir=world.data_dir)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.x.dtype, split.y.dtype, split.x.flags.c_contiguous) == (np.uint8, np.int32, True)
        assert (split.x.shape, split.y.shape) == ((len(split), dataset.features), (len(split),))
        for array in (split.x, split.y):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(npz(MNIST, compressed=False), id="not compressed"),
        pytest.param(npz(dict(reversed(MNIST.items()))), id="other order"),
        pytest.param(npz(MNIST | {"y_train": MNIST["y_train"].astype(">i8")}), id="big-endian int64 labels"),
        pytest.param(npz(MNIST | {"x_train": np.asfortranarray(MNIST["x_train"])}), id="Fortran order"),
    ],
)
def test_content_counts_and_not_the_file(world: World, content: bytes) -> None:
    """The same images and labels give the same digest however they were written."""
    path = world.data_dir / "mnist.npz"
    path.write_bytes(MNIST_NPZ)
    expected = data.load("mnist", data_dir=world.data_dir).digest
    path.write_bytes(content)
    dataset = data.load("mnist", data_dir=world.data_dir)
    assert same(dataset, MNIST)
    assert dataset.digest == expected
    assert len(expected) == 32
    assert int(expected, 16) >= 0


# ---------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_places_are_searched_in_order(world: World, server: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The data folder comes before mlplab's cache, before Keras' cache, before a download."""
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(world.data_dir))
    places = [folder / "mnist.npz" for folder in (world.data_dir, world.cache, world.keras)]
    for path in places:
        path.write_bytes(MNIST_NPZ)
    for path in places:
        assert data.load(name, "mnist").source == str(path)
        path.unlink()
    assert server.requests == 0
    assert data.load(name, "mnist").source == f"{server.url}/mnist.npz"


def test_default_caches_are_below_home(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without their variables (or with a relative XDG_CACHE_HOME) the caches are ~/.cache/mlplab and ~/.keras."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("KERAS_HOME")
    paths = {row.path for row in datasets.status() if row.dataset == "mnist" and row.path}
    home = tmp_path / "home"
    assert paths == {home / ".cache/mlplab/mnist.npz", home / ".keras/datasets/mnist.npz"}


# -------------------------------------------------------------------------------------------------------- fallback


@pytest.mark.parametrize(("wanted", "label"), [("mnist", "MNIST"), ("cifar10", "CIFAR-10")])
def test_auto_falls_back_in_plain_words(world: World, wanted: str, label: str) -> None:
    """Where the data are not to be had `auto` gives digits in their shape, and says so and why."""
    dataset = data.load("auto", wanted)
    assert (dataset.name, dataset.wanted, dataset.is_fallback) == ("digits", wanted, True)
    assert dataset.label == f"digits (stand-in for {label})"
    assert dataset.notice is not None
    for words in (f"{label} was neither found", "Connection refused", "1,797", f"say nothing about {label}"):
        assert words in dataset.notice
    assert dataset.image_shape == datasets.KNOWN[wanted].image_shape


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_explicit_name_never_falls_back(world: World, name: str) -> None:
    """A data set named explicitly and not to be had is an error that names the places and the three remedies."""
    with pytest.raises(UnavailableError) as caught:
        data.load(name)
    text = str(caught.value)
    known = datasets.KNOWN[name]
    for words in (known.label, "not set", str(world.cache), known.url, "Connection refused", "'digits'", "'auto'"):
        assert words in text
    for words in (*known.files, *(str(world.keras / file) for file in known.keras_files)):
        assert words in text
    assert all(f"({number})" in text for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("minst",), "legal: auto, digits, mnist, cifar10. Did you mean 'mnist'?"),
        (("MNIST",), "'MNIST'; legal: auto, digits, mnist, cifar10. Did you mean 'mnist'?"),
        (("imagenet-21k",), "legal: auto, digits, mnist, cifar10."),
        (("",), "unknown data set ''"),
        ((None,), "data is None, a NoneType; legal: a ready-made name"),
        (("auto", "cifar-10"), "legal: digits, mnist, cifar10. Did you mean 'cifar10'?"),
        (("auto",), "Pass wanted="),
    ],
)
def test_unknown_names_are_the_callers_mistake(world: World, arguments: tuple[Any, ...], words: str) -> None:
    """A name that does not exist is refused with the value seen, the legal ones and the closest."""
    with pytest.raises(UsageError) as caught:
        data.load(*arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_a_data_folder_that_is_none_is_refused(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A mistyped MLPLAB_DATA_DIR is an error even where another place has the data."""
    (world.keras / "mnist.npz").write_bytes(MNIST_NPZ)
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(world.data_dir / "typo"))
    with pytest.raises(UsageError, match=r"typo.*is not a folder.*mnist\.npz.*unset MLPLAB_DATA_DIR"):
        data.load(name, "mnist")
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, "")
    assert data.load(name, "mnist").name == "mnist"


# ---------------------------------------------------------------------------------------------------------- damage


class Bomb:
    """Unpickled, it creates the file ``exploded``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("exploded", "w"))


BOMB_TARBALL = tarball(BATCHES | {"data_batch_3": pickle.dumps(Bomb())})


def flipped(content: bytes, at: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


DAMAGES = {
    "empty": (b"", "cannot be read"),
    "not a zip": (b"<html>Please log in to the network</html>", "cannot be read"),
    "truncated": (MNIST_NPZ[: len(MNIST_NPZ) // 2], "cannot be read"),
    "bit flipped": (flipped(MNIST_NPZ, 600), ""),
    "key missing": (npz({key: MNIST[key] for key in datasets.ARRAY_NAMES[:3]}), "y_test is not a file in the archive"),
    "fewer images": (npz(MNIST | {"x_train": MNIST["x_train"][:-1]}), "x_train is not MNIST's"),
    "flat images": (npz(MNIST | {"x_test": MNIST["x_test"].reshape(10, -1)}), "x_test is not MNIST's"),
    "float images": (npz(MNIST | {"x_train": MNIST["x_train"] / 255}), "x_train is not MNIST's"),
    "labels from 1": (npz(MNIST | {"y_train": MNIST["y_train"] + 1}), "y_train is not MNIST's: it has the label 10"),
    "scalar": (npz(MNIST | {"y_test": np.uint8(3)}), "10 test images and 1 labels"),
    "one bit of each pixel": (npz(MNIST | {"x_train": MNIST["x_train"] ^ np.uint8(1)}), "x_train is not MNIST's"),
    "order": (npz(MNIST | {"x_test": MNIST["x_test"][::-1]}), "x_test is not MNIST's"),
    "order of labels": (npz(MNIST | {"y_test": MNIST["y_test"][::-1]}), "y_test is not MNIST's"),
    "objects": (npz(MNIST | {"y_test": np.array([Bomb()] * 10)}), "allow_pickle=False"),
    "pickle": (pickle.dumps(Bomb()), "pickled"),
}


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("place", ["data_dir", "cache", "keras"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_error_in_every_mode_and_place(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, name: str, place: str, damage: str
) -> None:
    """A file that is there but wrong is refused with reason, expectation and remedy, not run, changed or skipped."""
    monkeypatch.chdir(world.data_dir)
    content, reason = DAMAGES[damage]
    path: Path = getattr(world, place) / "mnist.npz"
    path.write_bytes(content)
    before = snapshot(world.data_dir.parent)
    with pytest.raises(UnavailableError) as caught:
        data.load(name, "mnist", data_dir=world.data_dir)
    text = str(caught.value)
    for words in (str(path), "damaged", reason, "left as it is", "replace it", "move it away"):
        assert words in text
    assert len(text) < 1500
    assert snapshot(world.data_dir.parent) == before
    assert server.requests == 0


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "link to itself", "unreadable"])
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_what_is_no_file_is_an_error_at_once(world: World, name: str, kind: str) -> None:
    """A folder, a pipe, a broken link or a forbidden file in the file's place is refused, and a pipe not waited for."""
    path = world.data_dir / "mnist.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.write_bytes(MNIST_NPZ)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read every file")
    else:
        path.symlink_to("nowhere" if kind == "dangling link" else path)
    with pytest.raises(UnavailableError, match=r"mnist\.npz.*is damaged.*(regular file|cannot be read)"):
        data.load(name, "mnist", data_dir=world.data_dir)
    assert os.path.lexists(path)


FILES = {
    "MNIST, compressed": ("mnist", "mnist.npz", MNIST_NPZ, MNIST),
    "MNIST, stored": ("mnist", "mnist.npz", npz(MNIST, compressed=False), MNIST),
    "CIFAR-10, stored": ("cifar10", "cifar10.npz", npz(CIFAR, compressed=False), CIFAR),
    "CIFAR-10, the archive": ("cifar10", "cifar-10-python.tar.gz", TARBALL, CIFAR),
    "CIFAR-10, a batch": ("cifar10", "cifar-10-batches-py/data_batch_3", BATCHES["data_batch_3"], CIFAR),
}
damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "insert", "swap", "end"]),
        st.integers(0, 2**17) | st.integers(-300, -1),  # from the end: there is a zip's directory
        st.integers(1, 255) | st.integers(1, 4000),
    ),
    min_size=1,
    max_size=3,
)


def damaged(content: bytes, done: list[tuple[str, int, int]]) -> bytes:
    """The content, and then what was done to it: each a kind of damage, where, and how much or what."""
    found = bytearray(content)
    for kind, at, size in done:
        if not found:
            break
        at %= len(found)
        if kind == "flip":
            found[at] ^= size % 255 + 1
        elif kind == "cut":
            del found[at : at + size]
        elif kind == "zero":
            found[at : at + size] = bytes(len(found[at : at + size]))
        elif kind == "insert":
            found[at:at] = b"\x5a" * size
        elif kind == "swap":
            found[at:] = found[at + size : at + 2 * size] + found[at : at + size] + found[at + 2 * size :]
        else:
            del found[at:]
    return bytes(found)


@pytest.mark.parametrize("file", FILES)
@given(done=damages)
@example(done=[("flip", 8, 13)])  # the compression method of a zip's first member
@example(done=[("flip", -6, 0)])  # where its directory starts
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dataset_files_with_random_damage(world: World, file: str, done: list[tuple[str, int, int]]) -> None:
    """However a file is damaged, it is refused soon or still gives exactly the right images, and stays as it is."""
    name, place, original, arrays = FILES[file]
    content = damaged(original, done)
    path = (world.keras if "/" in place else world.data_dir) / place
    folder = path.parent if "/" in place else path
    if "/" in place and not folder.is_dir():
        put(folder)
    path.write_bytes(content)
    before = snapshot(world.data_dir.parent)
    try:
        dataset = data.load("auto", name, data_dir=world.data_dir)
    except UnavailableError as error:
        assert str(folder) in str(error)  # noqa: PT017 (either outcome is right)
        assert content != original
    else:
        assert same(dataset, arrays)
        assert dataset.source == str(folder)
    assert snapshot(world.data_dir.parent) == before


@pytest.mark.skipif(not (REAL / "mnist.npz").is_file(), reason=f"needs MNIST in MLPLAB_DATA_DIR or {REAL}")
@pytest.mark.parametrize("at", [5_000, 1_000_003, 7_777_777, -5_000])
def test_one_bit_of_the_real_mnist(world: World, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The real MNIST with one bit of its images changed is refused by every name, and stays as it is."""
    monkeypatch.setattr(datasets, "KNOWN", REAL_KNOWN)
    content = flipped((REAL / "mnist.npz").read_bytes(), at)
    path = world.data_dir / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match=r"mnist\.npz' is damaged"):
        data.load("auto", "mnist", data_dir=world.data_dir)
    assert path.read_bytes() == content


# -------------------------------------------------------------------------------------------------------- CIFAR-10


def put(path: Path, files: Mapping[str, bytes] = BATCHES) -> None:
    """Leave CIFAR-10 at a path the way Keras does: an archive or a folder of batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "cifar-10-batches-py":
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
    else:
        path.write_bytes(TARBALL)


@pytest.mark.parametrize("layout", REAL_KNOWN["cifar10"].keras_files)
def test_every_layout_keras_leaves_is_read(world: World, layout: str) -> None:
    """Keras 2's and 3's folders and archives of CIFAR-10 are found, read channels last, and not changed."""
    put(world.keras / layout)
    before = snapshot(world.keras)
    dataset = data.load("cifar10")
    assert same(dataset, CIFAR)
    assert dataset.source == str(world.keras / layout)
    assert (dataset.label, dataset.class_names[:2], dataset.notice) == ("CIFAR-10", ("airplane", "automobile"), None)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (15, 5, 8)
    assert snapshot(world.keras) == before


def test_npz_and_batches_have_one_digest(world: World) -> None:
    """CIFAR-10 is the same data set with the same digest from an npz, an archive and a folder."""
    found = []
    for path, content in (("cifar10.npz", CIFAR_NPZ), ("cifar-10-python.tar.gz", TARBALL)):
        (world.data_dir / path).write_bytes(content)
        found.append(data.load("cifar10", data_dir=world.data_dir).digest)
        (world.data_dir / path).unlink()
    put(world.keras / "cifar-10-batches-py")
    assert {*found, data.load("cifar10").digest} == {found[0]}


def test_a_partial_test_set_is_accepted_and_said(world: World) -> None:
    """A file with just the first test images is accepted with a notice, and has another digest than the full one."""
    path = world.data_dir / "cifar10.npz"
    path.write_bytes(CIFAR_NPZ)
    full = data.load("cifar10", data_dir=world.data_dir)
    partial = CIFAR | {"x_test": CIFAR["x_test"][:3], "y_test": CIFAR["y_test"][:3]}
    path.write_bytes(npz(partial))
    dataset = data.load("auto", "cifar10", data_dir=world.data_dir)
    assert same(dataset, partial)
    assert dataset.notice == "CIFAR-10's test set here is the first 3 of 8 images."
    assert not dataset.is_fallback
    assert full.notice is None
    assert full.digest != dataset.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_test": CIFAR["x_test"][:4], "y_test": CIFAR["y_test"][:4]}, "4 test images and 4 labels"),
        ({"y_test": CIFAR["y_test"][:3]}, "8 test images and 3 labels"),
        ({"x_test": CIFAR["x_test"][::-1]}, "x_test is not CIFAR-10's"),
        ({"y_test": CIFAR["y_test"] + np.uint8([0] * 7 + [200])}, "y_test is not CIFAR-10's: it has the label 2"),
        ({"x_train": CIFAR["x_train"].transpose(0, 3, 1, 2)}, "x_train is not CIFAR-10's"),
    ],
)
def test_wrong_cifar10_arrays_are_refused(world: World, change: datasets.Arrays, reason: str) -> None:
    """A test set of another length, order or label range, and channels first, are refused."""
    (world.data_dir / "cifar10.npz").write_bytes(npz(CIFAR | change))
    with pytest.raises(UnavailableError) as caught:
        data.load("auto", "cifar10", data_dir=world.data_dir)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "auto"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "No such file or directory"),
        ("flipped", "'data_batch_3'"),
        ("bomb", "has MD5"),
        ("empty folder", "No such file or directory"),
        ("a file", "Not a directory"),
        ("folder in it", "'data_batch_3' is not a regular file"),
        ("archive", "'data_batch_3'"),
    ],
)
def test_wrong_batches_are_refused_before_they_are_unpickled(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, damage: str, reason: str
) -> None:
    """Batches that are missing or not the original ones are an error, and no byte of them is unpickled."""
    monkeypatch.chdir(world.data_dir)
    folder = world.keras / "cifar-10-batches-py"
    target = folder / "data_batch_3"
    if damage in ("a file", "archive"):
        folder = folder if damage == "a file" else world.keras / "cifar-10-batches-py-target_archive"
        folder.write_bytes(BOMB_TARBALL)
    else:
        put(folder, {} if damage == "empty folder" else BATCHES)
        target.unlink(missing_ok=True)
        if damage == "flipped":
            target.write_bytes(flipped(BATCHES["data_batch_3"], 2000))
        elif damage == "bomb":
            target.write_bytes(pickle.dumps(Bomb()))
        elif damage == "folder in it":
            target.mkdir()
    before = snapshot(world.data_dir.parent)
    with pytest.raises(UnavailableError) as caught:
        data.load(name, "cifar10")
    for words in (str(folder), "damaged", reason):
        assert words in str(caught.value)
    assert snapshot(world.data_dir.parent) == before


# -------------------------------------------------------------------------------------------------------- download


@pytest.mark.parametrize(
    ("name", "content", "arrays"), [("mnist", MNIST_NPZ, MNIST), ("cifar10", TARBALL, CIFAR)], ids=["mnist", "cifar10"]
)
def test_a_download_is_verified_kept_and_reported(
    world: World, server: Server, name: str, content: bytes, arrays: datasets.Arrays
) -> None:
    """A download gives the data, reports its bytes, and is asked for once: the cache then holds one good npz."""
    server.answer = sends(content)
    world.cache.rmdir()
    seen: list[tuple[int, int | None]] = []
    first = data.load("auto", name, progress=lambda done, total: seen.append((done, total)))
    assert same(first, arrays)
    assert first.notice is None
    assert seen[-1] == (len(content), len(content))
    assert [path.name for path in world.cache.iterdir()] == [f"{name}.npz"]
    second = data.load(name)
    assert second.source == str(world.cache / f"{name}.npz")
    assert second.digest == first.digest
    assert server.requests == 1


def hangs(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(PATIENCE)


def stalls(handler: http.server.BaseHTTPRequestHandler) -> None:
    sends(MNIST_NPZ[:1000], claim=len(MNIST_NPZ))(handler)
    handler.wfile.flush()
    time.sleep(PATIENCE)


def breaks_chunk(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc")


FAILURES: dict[str, tuple[Answer, str]] = {
    "truncated": (sends(MNIST_NPZ[:-100], claim=len(MNIST_NPZ)), "broke after"),
    "truncated chunk": (breaks_chunk, "IncompleteRead"),
    "a login page": (sends(b"<html>Please log in</html>"), "cannot be read"),
    "other data": (sends(CIFAR_NPZ), "8 test images"),
    "empty": (sends(b""), "cannot be read"),
    "404": (sends(b"no", 404), "404"),
    "407, a proxy's": (sends(b"no", 407), "407"),
    "not HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), "BadStatusLine"),
    "no answer": (lambda handler: None, "Remote end closed"),
    "hangs": (hangs, "no answer within"),
    "stalls": (stalls, "no answer within"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_means_not_available(world: World, server: Server, failure: str) -> None:
    """Whatever goes wrong with a download, `auto` falls back soon, a name is an error, and no file is left."""
    server.answer, reason = FAILURES[failure]
    begin = time.monotonic()
    dataset = data.load("auto", "mnist", timeout=0.5)
    assert dataset.is_fallback
    assert reason in str(dataset.notice)
    with pytest.raises(UnavailableError) as caught:
        data.load("mnist", timeout=0.5)
    assert reason in str(caught.value)
    assert time.monotonic() - begin < PATIENCE
    assert list(world.cache.iterdir()) == []


def test_a_download_without_end_is_cut_off(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends more than any data set has is left alone before memory runs out."""
    monkeypatch.setattr(datasets, "MAX_DOWNLOAD", 10_000)
    server.answer = sends(bytes(2**22))
    with pytest.raises(UnavailableError, match="more than 10,000 bytes"):
        data.load("mnist")


def test_a_full_disk_leaves_no_part(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while the download is being kept costs the file, not the result."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert same(data.load("mnist"), MNIST)
    assert list(world.cache.iterdir()) == []


LOADER = """
import pickle, sys
from mlplab import data, datasets
datasets.KNOWN = pickle.load(sys.stdin.buffer)
dataset = data.load("mnist", timeout=300)
print(dataset.digest, dataset.source)
"""


def start_loader() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(pickle.dumps(datasets.KNOWN))
    process.stdin.close()
    process.stdin = None
    return process


def test_two_processes_may_download_at_once(world: World, server: Server) -> None:
    """Two processes that download at the same time both end well, and one good file remains."""
    both = threading.Barrier(2)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        both.wait(timeout=PATIENCE)
        sends(MNIST_NPZ)(handler)

    server.answer = answer
    processes = [start_loader(), start_loader()]
    outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert server.requests == 2
    assert [path.name for path in world.cache.iterdir()] == ["mnist.npz"]
    assert data.load("mnist").source == str(world.cache / "mnist.npz")


# ---------------------------------------------------------------------------------------------------------- digits


@pytest.mark.parametrize(("wanted", "shape"), [(None, (28, 28)), ("mnist", (28, 28)), ("cifar10", (32, 32, 3))])
def test_digits_take_the_wanted_shape(world: World, wanted: str | None, shape: tuple[int, ...]) -> None:
    """Digits fill the wanted image shape and the full range of values, and are tagged as a stand-in."""
    dataset = data.load("digits", wanted)
    assert (dataset.image_shape, dataset.features) == (shape, int(np.prod(shape)))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1197, 300, 300)
    assert (dataset.train.x.min(), dataset.train.x.max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.is_fallback
    assert "stand-in" in dataset.label
    assert "as asked" in str(dataset.notice)
    if len(shape) == 3:
        images = dataset.train.x.reshape(-1, *shape)
        assert (images == images[..., :1]).all()


@pytest.mark.parametrize(
    ("wanted", "digest"),
    [("mnist", "69117a69edf3d4b69870564554f1363e"), ("cifar10", "35c663fd6b836c5e611456aca08ae673")],
)
def test_digits_are_the_same_bytes_everywhere(world: World, wanted: str, digest: str) -> None:
    """The stand-in is the same in every run and on every machine."""
    assert data.load("digits", wanted).digest == digest


@pytest.mark.parametrize(("rows", "held_out"), [(1797, 300), (1497, 300), (100, 33), (400, 17)])
def test_digits_are_split_as_scikit_learn_splits(rows: int, held_out: int) -> None:
    """The split, which is made without importing scikit-learn, is the one of its `train_test_split`."""
    from sklearn.model_selection import train_test_split

    labels = np.random.default_rng(rows).integers(0, 10, rows)
    expected = train_test_split(np.arange(rows), test_size=held_out, stratify=labels, random_state=0)
    for ours, theirs in zip(stratified(labels, held_out), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("wanted", ["mnist", "cifar10"])
def test_digits_are_resized_bilinearly(world: World, wanted: str) -> None:
    """The integer arithmetic gives what SciPy's bilinear interpolation gives, rounded."""
    from scipy.ndimage import map_coordinates
    from sklearn.datasets import load_digits

    dataset = data.load("digits", wanted)
    size = dataset.image_shape[0]
    grey = dataset.test.x.reshape(300, size, size, -1)[..., 0].astype(float)
    at = np.meshgrid(*[(np.arange(size) + 0.5) * 8 / size - 0.5] * 2, indexing="ij")
    expected = np.array(
        [map_coordinates(image * 255 / 16, at, order=1, mode="nearest") for image in load_digits().images]
    )
    for image in grey[:50]:
        assert np.abs(expected - image).max(axis=(1, 2)).min() < 0.501


# ---------------------------------------------------------------------------------------------------------- status


def test_status_shows_every_place(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey names what is valid, missing and damaged and why, raises nothing and downloads nothing."""
    (world.data_dir / "mnist.npz").write_bytes(MNIST_NPZ[:-30])
    (world.cache / "mnist.npz").write_bytes(MNIST_NPZ)
    (world.cache / "cifar10.npz").write_bytes(npz(CIFAR | {k: CIFAR[k][:3] for k in ("x_test", "y_test")}))
    put(world.keras / "cifar-10-batches-py", {})
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(world.data_dir))
    before = snapshot(world.data_dir.parent)
    rows = datasets.status()
    assert {row.path for row in rows if row.dataset == "cifar10" and row.place == "Keras' cache"} == {
        world.keras / file for file in datasets.KNOWN["cifar10"].keras_files
    }
    seen = {(row.dataset, row.place, row.path and row.path.name): row for row in rows}
    damaged = seen["mnist", "MLPLAB_DATA_DIR", "mnist.npz"]
    assert (damaged.state, damaged.digest, damaged.sizes) == ("damaged", None, None)
    assert "cannot be read" in damaged.detail
    valid = seen["mnist", "mlplab's cache", "mnist.npz"]
    assert (valid.state, valid.sizes, valid.detail) == ("valid", (20, 10, 10), "")
    partial = seen["cifar10", "mlplab's cache", "cifar10.npz"]
    assert (partial.state, partial.sizes) == ("valid", (15, 5, 3))
    assert partial.detail == "CIFAR-10's test set here is the first 3 of 8 images."
    assert partial.digest == data.load("cifar10").digest
    missing = seen["mnist", "Keras' cache", "mnist.npz"]
    assert (missing.state, missing.detail) == ("missing", "no such file")
    assert [row.state for row in rows if row.path == world.keras / "cifar-10-batches-py"] == ["damaged"]
    assert (rows[-1].dataset, rows[-1].state, rows[-1].sizes) == ("digits", "valid", (1197, 300, 300))
    assert server.requests == 0
    assert snapshot(world.data_dir.parent) == before


def test_status_of_a_bare_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no data folder set, or one that does not exist, the survey says so."""
    assert [row.detail for row in datasets.status() if row.place == "MLPLAB_DATA_DIR"] == ["not set", "not set"]
    rows = datasets.status(world.data_dir / "typo")
    assert {row.detail for row in rows if row.place == "MLPLAB_DATA_DIR"} == {f"no folder {world.data_dir / 'typo'}"}
    assert {row.state for row in rows[:-1]} == {"missing"}


# ------------------------------------------------------------------------------------------------- the real things


@pytest.mark.parametrize("then", ["", "; mlplab.data.load('digits')"])
def test_importing_is_light(then: str) -> None:
    """Importing the module, or loading the digits, loads none of TensorFlow, Keras, MLflow and scikit-learn."""
    heavy = "{'tensorflow', 'keras', 'mlflow', 'sklearn', 'scipy', 'ssl'}"
    code = f"import sys, mlplab.data{then}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not (REAL / "mnist.npz").is_file(), reason=f"needs MNIST in MLPLAB_DATA_DIR or {REAL}")
def test_real_mnist_is_the_canonical_one() -> None:
    """The real MNIST passes verification, and its training images are those of the original idx file."""
    dataset = data.load("mnist", data_dir=REAL)
    assert (dataset.train.x.shape, dataset.validation.x.shape) == ((50_000, 784), (10_000, 784))
    assert dataset.test.x.shape == (10_000, 784)
    idx = hashlib.md5(struct.pack(">4i", 2051, 60_000, 28, 28))
    idx.update(dataset.train.x)
    idx.update(dataset.validation.x)
    assert idx.hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert dataset.digest == "5e47a6ee0a2bcc0c83ed8903221115b2"


@pytest.mark.skipif(not (REAL / "cifar10.npz").is_file(), reason=f"needs CIFAR-10 in MLPLAB_DATA_DIR or {REAL}")
def test_real_cifar10_is_the_canonical_one() -> None:
    """The real CIFAR-10 passes verification, and its training pixels have the published means."""
    dataset = data.load("cifar10", data_dir=REAL)
    assert (dataset.train.x.shape, dataset.validation.x.shape) == ((40_000, 3072), (10_000, 3072))
    assert len(dataset.test) in (1_000, 10_000)
    assert (dataset.notice is None) == (len(dataset.test) == 10_000)
    sums = sum(split.x.reshape(-1, 1024, 3).sum(axis=(0, 1)) for split in (dataset.train, dataset.validation))
    np.testing.assert_allclose(sums / (50_000 * 1024 * 255), (0.49139968, 0.48215841, 0.44653091), atol=5e-9)
