"""The ready-made data sets: MNIST, CIFAR-10, and digits, which need no file; verified before anything is trained.

A data set is identified by SHA-256 over its arrays, never over the file that carries them (zip bytes differ from one
writer to the next). A file that is there but wrong is an error in every mode, and is left exactly as it is. Only the
data set `auto` may fall back, and says so.
"""

import contextlib
import gzip
import hashlib
import importlib.metadata
import io
import os
import pickle
import queue
import tarfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlplab.checks import UnavailableError, UsageError, choose
from mlplab.folders import cache_dir
from mlplab.splits import stratified

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[int, int | None], None]

DATA_DIR_VARIABLE = "MLPLAB_DATA_DIR"
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
MAX_DOWNLOAD = 2**29  # bytes; the largest file wanted has 170 MB


@dataclass(frozen=True)
class Known:
    """What is known of a public data set: its shape, its digests and where it is to be had.

    `files` are the names searched in a data folder, `keras_files` those that Keras leaves in its `datasets`
    folder. `*.npz` is read as Keras' MNIST layout, names ending in `.tar.gz` or `_archive` as the original
    archive, any other name as the folder it extracts to.
    """

    label: str
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    validation_images: int  # the last of the published training images
    test_images: int
    head: int  # how many leading test images the test digests cover; a file with just these is accepted
    digests: Mapping[str, str]  # array name -> SHA-256 (see `digest`), labels as uint8 (n,), images channels last
    files: tuple[str, ...]
    keras_files: tuple[str, ...]
    url: str
    batch_md5s: Mapping[str, str] | None = None  # the archive's files: training batches in order, the test batch last


# MNIST's four arrays were checked against the MD5s of the original idx files (train images
# 6bbc9ace898e44ae57da46a324031adb). CIFAR-10's batch MD5s are those of torchvision.datasets.cifar.
KNOWN: dict[str, Known] = {
    "mnist": Known(
        label="MNIST",
        image_shape=(28, 28),
        class_names=tuple("0123456789"),
        validation_images=10_000,
        test_images=10_000,
        head=10_000,
        digests={
            "x_train": "b896d770eaa932488f03458e72579a2f38fea15ed0089b43517a18fa4263feb6",
            "y_train": "7470b96488e4c3695847e84745808d2e7b838a48a0c43df028cbc2f13888f359",
            "x_test": "c070b93ac070436ce50332ad78e472fc91360eebd1d65b92fdc8e19fec8cb458",
            "y_test": "919e2385e6db88858f992f15d2eb164ed56fbd5305d9f20f1b1250680e54a077",
        },
        files=("mnist.npz",),
        keras_files=("mnist.npz",),
        url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
    "cifar10": Known(
        label="CIFAR-10",
        image_shape=(32, 32, 3),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        validation_images=10_000,
        test_images=10_000,
        head=1_000,
        digests={
            "x_train": "599e4ca8201241746e3751a0b9ac3bdcf2d5f5fdc6f53521f8afec5b6be48601",
            "y_train": "aa13f51374c6d6499e3613be10170a9f02ed477c98b8295839615c86c97f3da1",
            "x_test": "ffa5102900c09f19d2fd4cdb947d59559f056c8028326bc066d08baa7cdcf71f",
            "y_test": "b97e431ef1387fbd29af7f4d53ff06c147ade1bef63a534196d27866bce71d9d",
        },
        files=("cifar10.npz", "cifar-10-python.tar.gz"),
        keras_files=(
            "cifar-10-batches-py-target/cifar-10-batches-py",  # Keras 3
            "cifar-10-batches-py",  # Keras 2
            "cifar-10-batches-py-target_archive",
            "cifar-10-batches-py.tar.gz",
        ),
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        batch_md5s={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
}


@dataclass(frozen=True, eq=False)
class Found:
    """A ready-made data set as it was found: `name` in place of `wanted`, which differ only where digits stand in.

    Images are uint8 (n, pixels), labels int32 (n,). The notice is what a reader of a result must know.
    """

    name: str
    wanted: str
    splits: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    source: str
    notice: str | None

    @property
    def digest(self) -> str:
        """SHA-256 over all arrays: 32 hex digits, since MLflow permits 36 characters."""
        return digest({f"{'xy'[i]}_{name}": pair[i] for name, pair in self.splits.items() for i in (0, 1)})[:32]


@dataclass(frozen=True)
class Finding:
    """What one place holds of one data set; digest and sizes of the splits are None unless it is valid."""

    dataset: str
    place: str
    path: Path | None
    state: Literal["missing", "valid", "damaged"]
    detail: str
    digest: str | None = None
    sizes: tuple[int, ...] | None = None


class _DamagedError(Exception):
    """Content that is not what it should be; the text says how."""


def find(
    name: str,
    wanted: str | None = None,
    *,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 6.0,
) -> Found:
    """Finds a ready-made data set, verified, in the first place that has it.

    The places, in order: `data_dir`, mlplab's download cache ($XDG_CACHE_HOME or ~/.cache, mlplab/), Keras' cache
    ($KERAS_HOME or ~/.keras, datasets/; never written), a download, kept in mlplab's cache. Every array is verified
    against a known SHA-256, except that of CIFAR-10's test set only the first 1,000 of 10,000 images have one. A file
    with just those is accepted, with a notice.

    Args:
        name: "mnist" (50,000 training, 10,000 validation, 10,000 test images), "cifar10" (40,000, 10,000, 10,000),
            "digits" (1,197, 300, 300), or "auto": what `wanted` names, or, where that is not to be had, digits with a
            notice. Only "auto" falls back, and only for missing data: a damaged file is an error.
        wanted: the data set the experiment was written for. Needed by "auto"; sets the image shape of "digits" (None:
            that of MNIST, which they then stand in for); for a data set named explicitly it plays no part.
        data_dir: folder to search first. None: the environment's MLPLAB_DATA_DIR, if set.
        progress: called during a download with the bytes received and the bytes expected (None if unknown).
        timeout: seconds until a download answers, and between two pieces of it, before it counts as not available.

    Raises:
        UsageError: an unknown name, "auto" without `wanted`, or a data folder that is no folder.
        UnavailableError: data named explicitly are not to be had, or a file found is damaged.
    """
    choose("data set", name, ("auto", "digits", *KNOWN))
    if wanted is not None:
        choose("data set", wanted, ("digits", *KNOWN))
    if name == "digits" or (name, wanted) == ("auto", "digits"):
        wanted = wanted or "mnist"
        asked = f"This ran on {_DIGITS}, as asked, in place of {KNOWN[wanted].label}." if wanted in KNOWN else None
        return _digits(wanted, asked)
    if name != "auto":
        wanted = name
    elif wanted is None:
        raise UsageError(
            f"The data set 'auto' needs to be told which one is wanted; legal: {', '.join(KNOWN)}. Pass wanted=, or "
            "name the data set itself."
        )
    known = KNOWN[wanted]
    folder = _data_dir(data_dir)
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"The data folder {str(folder)!r} (from {DATA_DIR_VARIABLE} or data_dir) is not a folder. "
            f"Name a folder that holds {' or '.join(known.files)}, or unset {DATA_DIR_VARIABLE}."
        )
    places = _places(known, folder)
    for _, path in places:
        if os.path.lexists(path):
            try:
                return _read(wanted, path)
            except _DamagedError as error:
                raise UnavailableError(
                    f"{known.label} in {str(path)!r} is damaged: {error}. The file is left as it is: replace it with "
                    f"a good one, or move it away so that the other places are searched ({known.url} is the original)."
                ) from error
    try:
        return _download(wanted, progress, timeout)
    except (OSError, _DamagedError) as error:
        reason = f"{known.url}: {error or type(error).__name__}"
        if name == "auto":
            return _digits(
                wanted,
                f"{known.label} was neither found on this machine nor could it be downloaded ({reason}), so this ran "
                f"on {_DIGITS}. The numbers say nothing about {known.label}.",
            )
        searched = "; ".join(f"{place}: {path}" for place, path in places)
        searched = searched if folder else f"{DATA_DIR_VARIABLE}: not set; {searched}"
        raise UnavailableError(
            f"{known.label} was not found. Searched: {searched}; download: {reason}. Remedies: "
            f"(1) set {DATA_DIR_VARIABLE} to a folder that holds {' or '.join(known.files)}; (2) put the data into "
            "Keras' cache, or run once where the network reaches the address; (3) use the data set 'digits', or "
            "'auto', which falls back on it."
        ) from error


def status(data_dir: Path | None = None) -> list[Finding]:
    """What is in every path that `find` would look at, and the digits; nothing is downloaded, changed or raised."""
    folder = _data_dir(data_dir)
    findings = []
    for name, known in KNOWN.items():
        if folder is None:
            findings.append(Finding(name, DATA_DIR_VARIABLE, None, "missing", "not set"))
        for place, path in _places(known, folder):
            if not os.path.lexists(path):
                detail = "no such file" if path.parent.is_dir() else f"no folder {path.parent}"
                findings.append(Finding(name, place, path, "missing", detail))
                continue
            try:
                findings.append(_valid(_read(name, path), place, path))
            except _DamagedError as error:
                findings.append(Finding(name, place, path, "damaged", str(error)))
    return [*findings, _valid(_digits("digits", None), "scikit-learn", None)]


def digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 (64 hex digits) over each array's name, dtype, shape and C-ordered bytes or texts, in the order given."""
    hasher = hashlib.sha256()
    for name, array in arrays.items():
        if array.dtype.kind == "U":  # its own bytes depend on the longest text of all
            texts = [text.encode(errors="surrogatepass") for text in array.ravel().tolist()]
            hasher.update(f"{name}:text:{array.shape}:{[len(text) for text in texts]};".encode())
            hasher.update(b"".join(texts))
        else:
            hasher.update(f"{name}:{array.dtype.name}:{array.shape};".encode())
            hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def _data_dir(data_dir: Path | None) -> Path | None:
    value = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(value).expanduser().absolute() if value else None


def _places(known: Known, folder: Path | None) -> list[tuple[str, Path]]:
    keras = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser().absolute() / "datasets"
    places = [(DATA_DIR_VARIABLE, folder / file) for file in known.files] if folder else []
    places.append(("mlplab's cache", cache_dir() / known.files[0]))
    return places + [("Keras' cache", keras / file) for file in known.keras_files]


def _valid(found: Found, place: str, path: Path | None) -> Finding:
    sizes = tuple(len(labels) for _, labels in found.splits.values())
    return Finding(found.name, place, path, "valid", found.notice or "", found.digest, sizes)


def _read(name: str, path: Path) -> Found:
    def content(part: str) -> bytes:
        file = path / part
        if file.exists() and not file.is_file():  # to open a pipe would wait for its writer
            raise _DamagedError(f"{file.name!r} is not a regular file")
        return file.read_bytes()

    return _found(name, _verified(name, path.name, content), str(path))


def _verified(name: str, file: str, read: Callable[[str], bytes]) -> Arrays:
    """The arrays of `file`, right, labels as uint8 (n,), or a _DamagedError; `read` gives the bytes of a part."""
    known = KNOWN[name]
    try:
        arrays = _arrays(known, file, read)
        for key in ("y_train", "y_test"):
            arrays[key] = arrays[key].reshape(-1).astype(np.uint8)  # Keras gives CIFAR-10's labels as a column
            if arrays[key].max() >= len(known.class_names):
                raise _DamagedError(f"{key} is not {known.label}'s: it has the label {arrays[key].max()}")
        tests = len(arrays["x_test"])
        if tests not in (known.head, known.test_images) or tests != len(arrays["y_test"]):
            raise _DamagedError(f"it has {tests} test images and {len(arrays['y_test'])} labels of such")
        for key, expected in known.digests.items():
            seen = digest({key: arrays[key][: known.head] if key.endswith("test") else arrays[key]})
            if seen != expected:
                raise _DamagedError(f"{key} is not {known.label}'s: its SHA-256 is {seen}; expected {expected}")
        return arrays
    except _DamagedError:
        raise
    except Exception as error:  # damage surfaces as almost anything: BadZipFile, zlib.error, KeyError, EOFError, ...
        raise _DamagedError(
            f"it cannot be read ({type(error).__name__}: {error}); expected {known.label}'s {', '.join(ARRAY_NAMES)}"
        ) from error


def _arrays(known: Known, file: str, read: Callable[[str], bytes]) -> Arrays:
    """What is in a file or folder; nothing is unpickled but batches whose MD5 is right."""
    if file.endswith(".npz"):
        with np.load(io.BytesIO(read("")), allow_pickle=False) as found:
            return {name: found[name] for name in ARRAY_NAMES}
    if file.endswith((".tar.gz", "_archive")):
        members = {}
        with tarfile.open(fileobj=io.BytesIO(read(""))) as archive:
            for member in archive:  # in the archive's own order: each step back would inflate it anew from its start
                if opened := archive.extractfile(member):
                    members[Path(member.name).name] = opened.read()
        read = members.__getitem__
    images, labels = [], []
    for name, md5 in (known.batch_md5s or {}).items():
        content = read(name)
        seen = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if seen != md5:
            raise _DamagedError(f"{name!r} ({len(content):,} bytes) has MD5 {seen}; expected {md5}")
        batch = pickle.loads(content, encoding="bytes")
        height, width, channels = known.image_shape
        images.append(batch[b"data"].reshape(-1, channels, height, width).transpose(0, 2, 3, 1))
        labels.append(np.array(batch[b"labels"], np.uint8))
    every = np.concatenate(images[:-1]), np.concatenate(labels[:-1]), np.ascontiguousarray(images[-1]), labels[-1]
    return dict(zip(ARRAY_NAMES, every, strict=True))


def _found(name: str, arrays: Arrays, source: str) -> Found:
    known, tests = KNOWN[name], len(arrays["x_test"])
    partial = f"{known.label}'s test set here is the first {tests:,} of {known.test_images:,} images."
    x, y, cut = arrays["x_train"], arrays["y_train"], -known.validation_images
    splits = _flat((x[:cut], y[:cut]), (x[cut:], y[cut:]), (arrays["x_test"], arrays["y_test"]))
    shared = known.image_shape, known.class_names
    return Found(name, name, splits, *shared, source, partial if tests < known.test_images else None)


def _flat(*pairs: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> dict[str, tuple[Any, Any]]:
    splits = ((np.ascontiguousarray(x.reshape(len(x), -1)), y.astype(np.int32)) for x, y in pairs)
    return dict(zip(("train", "validation", "test"), splits, strict=True))


def _download(name: str, progress: Progress | None, timeout: float) -> Found:
    """Downloads, verifies and keeps a data set; raises OSError or _DamagedError, and then nothing is kept."""
    known = KNOWN[name]
    content = fetch(known.url, progress, timeout)  # in memory: whatever ends this process leaves no part of it
    arrays = _verified(name, known.url, lambda _: content)
    path = cache_dir() / known.files[0]
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with contextlib.suppress(OSError):  # a read-only or full disk costs the next download, not this result
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                # Not compressed: read many times, and CIFAR-10 would shrink by a tenth only.
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return _found(name, arrays, known.url)


def fetch(url: str, progress: Progress | None, timeout: float) -> bytes:
    """What is at an address, as bytes; raises an OSError where it cannot be had, soon."""
    from urllib.request import urlopen

    # urlopen's own timeout counts for each of a host's addresses anew and not for the look-up of its name: behind a
    # firewall that drops packets it would take minutes. A thread can be left behind, waiting for room in the queue.
    pieces: queue.Queue[Any] = queue.Queue(maxsize=4)

    def download() -> None:
        try:
            with urlopen(url, timeout=timeout) as response:
                length = response.headers.get("Content-Length")
                pieces.put(int(length) if length else None)
                while piece := response.read(2**18):
                    pieces.put(piece)
            pieces.put(b"")
        except Exception as error:
            pieces.put(error)

    def taken() -> Any:
        try:
            piece = pieces.get(timeout=timeout)
        except queue.Empty as error:
            piece = TimeoutError(str(error))
        # Both clocks are as long, and either may be the first: a socket's timeout says the same as our own.
        if isinstance(piece, TimeoutError) or isinstance(getattr(piece, "reason", None), TimeoutError):
            raise TimeoutError(f"no answer within {timeout:g} seconds") from None
        if isinstance(piece, Exception):
            raise OSError(f"{type(piece).__name__}: {piece}") from piece
        return piece

    threading.Thread(target=download, daemon=True).start()
    total = taken()
    content = bytearray()
    while piece := taken():
        content += piece
        if len(content) > MAX_DOWNLOAD:
            raise OSError(f"more than {MAX_DOWNLOAD:,} bytes were sent")
        if progress:
            progress(len(content), total)
    if total is not None and len(content) != total:
        raise OSError(f"the connection broke after {len(content):,} of {total:,} bytes")
    return bytes(content)


_DIGITS = "scikit-learn's 1,797 embedded 8x8 digits, resized"


def _digits(wanted: str, notice: str | None) -> Found:
    """scikit-learn's digits in the image shape of the wanted data set.

    Values 0-16 become 0-255; 8x8 pixels are resized bilinearly (pixel centres aligned, edges held), in integers so
    that every machine gets the same bytes; colour channels repeat the grey one. 300 validation and 300 test images
    are drawn stratified, with a fixed seed.
    """
    shape = KNOWN["mnist" if wanted == "digits" else wanted].image_shape
    size, small = shape[0], 8
    # Row i of the large image lies at (i + 1/2) * small / size - 1/2 of the small one: here in units of 1 / (2 size).
    position = np.clip((2 * np.arange(size) + 1) * small - size, 0, 2 * size * (small - 1))
    weights = np.maximum(0, 2 * size - np.abs(position[:, None] - 2 * size * np.arange(small)))
    # The file as it is installed: to import scikit-learn takes longer than all that a small command trains.
    package = importlib.metadata.distribution("scikit-learn")
    with gzip.open(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")), "rt") as file:
        table = np.loadtxt(file, np.int64, delimiter=",")
    labels = table[:, -1]
    scaled = weights @ table[:, :-1].reshape(-1, small, small) @ weights.T
    unit = 16 * (2 * size) ** 2
    images = ((255 * scaled + unit // 2) // unit).astype(np.uint8)
    if len(shape) == 3:
        images = np.repeat(images[..., None], shape[2], axis=3)
    rest, test = stratified(labels, 300)
    train, validation = (rest[part] for part in stratified(labels[rest], 300))
    splits = _flat(*((images[rows], labels[rows]) for rows in (train, validation, test)))
    return Found("digits", wanted, splits, shape, tuple("0123456789"), "scikit-learn's embedded digits", notice)
