"""MNIST, CIFAR-10 and a stand-in that needs no file: ``load(name)`` gives verified, split, flattened uint8 images.

A data set is identified by SHA-256 over its arrays, never over the file that carries them (zip bytes differ from one
writer to the next), and every file found is verified before anything is trained on it. A file that is there but wrong
is an error in every mode, and is left exactly as it is. Only the data set ``auto`` may fall back, and says so.
"""

import gzip
import hashlib
import importlib.metadata
import io
import os
import pickle
import queue
import stat
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from mlplab import cache_dir
from mlplab.spec import UnavailableError, UsageError, choose

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[int, int | None], None]

DATA_DIR_VARIABLE = "MLPLAB_DATA_DIR"
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
_BATCH_FOLDER = "cifar-10-batches-py"
_MAX_DOWNLOAD = 2**29  # bytes; the largest file wanted has 170 MB


@dataclass(frozen=True)
class Known:
    """What is known of a public data set: its shape, its digests and where it is to be had.

    ``files`` are the names searched in a data folder, ``keras_files`` those that Keras leaves in its ``datasets``
    folder. ``*.npz`` is read as Keras' MNIST layout, names ending in ``.tar.gz`` or ``_archive`` as the original
    archive, any other name as the folder it extracts to.
    """

    label: str
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    train_images: int  # as published: training and validation together
    validation_images: int  # the last of them
    test_images: int
    head: int  # how many leading test images the test digests cover; a file with just these is accepted
    digests: Mapping[str, str]  # array name -> SHA-256 (see `digest`), labels as uint8 (n,), images channels last
    files: tuple[str, ...]
    keras_files: tuple[str, ...]
    url: str
    archive_sha256: str = ""
    batch_md5s: Mapping[str, str] | None = None  # the archive's files: training batches in order, the test batch last


# MNIST's four arrays were checked against the MD5s of the original idx files (train images
# 6bbc9ace898e44ae57da46a324031adb). CIFAR-10's batch MD5s are those of torchvision.datasets.cifar, the archive's
# SHA-256 that of keras.datasets.cifar10.
KNOWN: dict[str, Known] = {
    "mnist": Known(
        label="MNIST",
        image_shape=(28, 28),
        class_names=tuple("0123456789"),
        train_images=60_000,
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
        train_images=50_000,
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
            f"{_BATCH_FOLDER}-target/{_BATCH_FOLDER}",  # Keras 3
            _BATCH_FOLDER,  # Keras 2
            f"{_BATCH_FOLDER}-target_archive",
            f"{_BATCH_FOLDER}.tar.gz",
        ),
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
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
class Split:
    """Images ``x``, uint8 (n, features), C-contiguous, rows flattened; labels ``y``, int32 (n,). Both read-only."""

    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and what a result must say of them.

    Attributes:
        name: "mnist", "cifar10" or "digits": what the arrays are.
        wanted: "mnist" or "cifar10": what they are used for; differs from ``name`` only for the stand-in, digits.
        train, validation, test: the splits.
        image_shape: one image's shape: (28, 28) or (32, 32, 3), values 0-255.
        classes, class_names: how many labels there are, and their names in order.
        digest: SHA-256 over the arrays of all splits (names, dtypes, shapes, bytes): the first 32 hex digits, since
            MLflow permits 36 characters.
        source: the file or address the data came from.
        notice: in plain words what a reader of a result must know (stand-in data, a partial test set), else None.
    """

    name: str
    wanted: str
    train: Split
    validation: Split
    test: Split
    image_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    digest: str
    source: str
    notice: str | None

    @property
    def features(self) -> int:
        """Values in one flattened image: 784 or 3072."""
        return int(np.prod(self.image_shape))

    @property
    def is_fallback(self) -> bool:
        """Whether the data stand in for those of the experiment."""
        return self.name != self.wanted

    @property
    def label(self) -> str:
        """The name to show wherever a number is shown, such as "MNIST" or "digits (stand-in for MNIST)"."""
        wanted = KNOWN[self.wanted].label
        return f"{self.name} (stand-in for {wanted})" if self.is_fallback else wanted


@dataclass(frozen=True)
class Finding:
    """What one place holds of one data set; one row of ``python -m mlplab data``.

    ``path`` is None where the place is no file. ``detail`` says why it is missing or damaged, or a valid data set's
    notice. ``digest`` and ``sizes`` (train, validation, test images) are those of ``load`` and None unless valid.
    """

    dataset: str
    place: str
    path: Path | None
    state: Literal["missing", "valid", "damaged"]
    detail: str
    digest: str | None = None
    sizes: tuple[int, int, int] | None = None


class _DamagedError(Exception):
    """Content that is not what it should be; the text says how, and what was expected."""


def load(
    name: str,
    wanted: str | None = None,
    *,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 6.0,
) -> Dataset:
    """Load a data set from the first place that has it, verified.

    The places, in order: ``data_dir``, mlplab's download cache ($XDG_CACHE_HOME or ~/.cache, mlplab/), Keras' cache
    ($KERAS_HOME or ~/.keras, datasets/; never written), a download, kept in mlplab's cache.

    MNIST splits into 50,000 training, 10,000 validation (the last of the published training images) and 10,000 test
    images; CIFAR-10 into 40,000, 10,000 (likewise) and its test set; digits into 1,197, 300 and 300, stratified.

    What is verified: every array against a known SHA-256, except that of CIFAR-10's test set only the first 1,000 of
    10,000 images have one. A file with just those is accepted, with a notice. Where all 10,000 come from the original
    batches, those batches are verified by their MD5s (before they are unpickled); where they come from an ``.npz``,
    images 1,001 to 10,000 are checked for shape, dtype and range of labels only.

    Args:
        name: "mnist", "cifar10", "digits", or "auto": what ``wanted`` names, or, where that is not to be had, digits
            with a notice. Only "auto" falls back, and only for missing data: a damaged file is an error.
        wanted: the data set the experiment was written for, "mnist" or "cifar10". Needed by "auto"; sets the image
            shape of "digits" (None: "mnist"); for a data set named explicitly it plays no part.
        data_dir: folder to search first. None: the environment's MLPLAB_DATA_DIR, if set.
        progress: called during a download with the bytes received and the bytes expected (None if unknown).
        timeout: seconds until a download answers, and between two pieces of it, before it counts as not available.

    Raises:
        UsageError: an unknown name, "auto" without ``wanted``, or a data folder that is no folder.
        UnavailableError: data named explicitly are not to be had, or a file found is damaged.
    """
    choose("data set", name, ("auto", "digits", *KNOWN))
    if wanted is not None:
        choose("data set", wanted, KNOWN)
    if name == "digits":
        wanted = wanted or "mnist"
        return _digits(wanted, f"This ran on {_DIGITS}, as asked, in place of {KNOWN[wanted].label}.")
    if name != "auto":
        wanted = name
    elif wanted is None:
        raise UsageError(
            f"The data set 'auto' needs to be told which one is wanted, but wanted=None; legal: {', '.join(KNOWN)}. "
            "Pass wanted=, or name the data set itself."
        )

    known = KNOWN[wanted]
    folder = _data_dir(data_dir)
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"The data folder {str(folder)!r} (from {DATA_DIR_VARIABLE} or data_dir) is not a folder. "
            f"Name a folder that holds {' or '.join(known.files)}, or unset {DATA_DIR_VARIABLE}."
        )
    candidates = _candidates(known, folder)
    for _, path in candidates:
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
        searched = "; ".join(f"{place}: {path}" for place, path in candidates)
        unset = "" if folder else f"{DATA_DIR_VARIABLE}: not set; "
        raise UnavailableError(
            f"{known.label} was not found. Searched: {unset}{searched}; download: {reason}. Remedies: "
            f"(1) set {DATA_DIR_VARIABLE} to a folder that holds {' or '.join(known.files)}; (2) put the data into "
            "Keras' cache, or run once where the network reaches the address; (3) use the data set 'digits', or "
            "'auto', which falls back on it."
        ) from error


def status(data_dir: Path | None = None) -> list[Finding]:
    """Look at every place for every data set, verifying what is there; nothing is downloaded, changed or raised.

    Args:
        data_dir: as for ``load``.

    Returns:
        One row for each path that ``load`` would look at, in its order, and one for the embedded digits.
    """
    folder = _data_dir(data_dir)
    findings = []
    for name, known in KNOWN.items():
        if folder is None:
            findings.append(Finding(name, DATA_DIR_VARIABLE, None, "missing", "not set"))
        for place, path in _candidates(known, folder):
            if not os.path.lexists(path):
                detail = "no such file" if path.parent.is_dir() else f"no folder {path.parent}"
                findings.append(Finding(name, place, path, "missing", detail))
                continue
            try:
                findings.append(_found(_read(name, path), place, path))
            except _DamagedError as error:
                findings.append(Finding(name, place, path, "damaged", str(error)))
    return [*findings, _found(_digits("mnist", ""), "scikit-learn", None)]


def digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 (64 hex digits) over each array's name, dtype, shape and C-ordered bytes, in the order given."""
    hasher = hashlib.sha256()
    for name, array in arrays.items():
        hasher.update(f"{name}:{array.dtype.name}:{array.shape};".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


# ---------------------------------------------------------------------------------------------------------- places


def _data_dir(data_dir: Path | None) -> Path | None:
    value = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(value).expanduser().absolute() if value else None


def _candidates(known: Known, folder: Path | None) -> list[tuple[str, Path]]:
    keras = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser().absolute() / "datasets"
    places = [(DATA_DIR_VARIABLE, folder / file) for file in known.files] if folder else []
    places.append(("mlplab's cache", cache_dir() / known.files[0]))
    return places + [("Keras' cache", keras / file) for file in known.keras_files]


# --------------------------------------------------------------------------------------------------------- reading


def _read(name: str, path: Path) -> Dataset:
    """The data set in a file or folder; raises _DamagedError for all that can be wrong with it."""
    known = KNOWN[name]
    try:
        if path.name.endswith(".npz"):
            with _regular(path).open("rb") as file:
                arrays = _read_npz(file, known)
        elif path.name.endswith((".tar.gz", "_archive")):
            arrays = _read_archive(_regular(path).read_bytes(), known)
        else:
            arrays = _read_batches(lambda batch: _regular(path / batch).read_bytes(), known)
        return _dataset(name, arrays, str(path))
    except OSError as error:
        raise _DamagedError(f"it cannot be read ({error.strerror or error})") from error


def _regular(path: Path) -> Path:
    # Opening a pipe would wait for its writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise _DamagedError(f"{path.name!r} is not a regular file; expected a file")
    return path


def _read_npz(file: IO[bytes], known: Known) -> Arrays:
    """The raw arrays of Keras' MNIST layout. Nothing is unpickled, and no more is inflated than is expected."""
    expected = f"expected an .npz with {_layout(known)}"
    try:
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            members = sorted(member.removesuffix(".npy") for member in archive.namelist())
            if members != sorted(ARRAY_NAMES):
                raise _DamagedError(f"it holds {', '.join(members) or 'nothing'}; {expected}")
            for name in ARRAY_NAMES:
                with archive.open(f"{name}.npy") as stream:
                    version = np.lib.format.read_magic(stream)
                    if version not in ((1, 0), (2, 0)):
                        raise _DamagedError(f"{name} has .npy version {version}; {expected}")
                    header = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
                    shape, fortran, dtype = getattr(np.lib.format, header)(stream)
                    _check_layout(name, shape, dtype, known)
                    size = int(np.prod(shape)) * dtype.itemsize
                    # One byte more than there should be: only at the end of a member does zipfile check its CRC.
                    content = stream.read(size + 1)
                if len(content) != size:
                    raise _DamagedError(f"{name} has {len(content):,} bytes; expected {size:,}")
                arrays[name] = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
        return arrays
    except (_DamagedError, OSError):
        raise
    except Exception as error:  # damage surfaces as almost anything: BadZipFile, zlib.error, KeyError, EOFError, ...
        raise _DamagedError(f"{str(error) or type(error).__name__}; {expected}") from error


def _read_archive(content: bytes, known: Known) -> Arrays:
    """The raw arrays of the original archive, opened only once its SHA-256 is right."""
    seen = hashlib.sha256(content).hexdigest()
    if seen != known.archive_sha256:
        raise _DamagedError(
            f"its {len(content):,} bytes have SHA-256 {seen}; expected {known.archive_sha256}, the original archive"
        )
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:  # in the archive's own order: each step back would inflate it anew from its start
            file = archive.extractfile(member)
            if file is not None:
                batches[Path(member.name).name] = file.read()
    return _read_batches(batches.__getitem__, known)


def _read_batches(read: Callable[[str], bytes], known: Known) -> Arrays:
    """The raw arrays of the original batches, each unpickled only once its MD5 is right."""
    images, labels = [], []
    for name, md5 in (known.batch_md5s or {}).items():
        try:
            content = read(name)
        except FileNotFoundError as error:
            raise _DamagedError(f"{name!r} is missing; expected {', '.join(known.batch_md5s or {})}") from error
        seen = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if seen != md5:
            raise _DamagedError(f"{name!r} ({len(content):,} bytes) has MD5 {seen}; expected {md5}")
        batch = pickle.loads(content, encoding="bytes")
        height, width, channels = known.image_shape
        channels_first = batch[b"data"].reshape(-1, channels, height, width)
        images.append(np.ascontiguousarray(channels_first.transpose(0, 2, 3, 1)))
        labels.append(np.array(batch[b"labels"], np.uint8))
    return {
        "x_train": np.concatenate(images[:-1]),
        "y_train": np.concatenate(labels[:-1]),
        "x_test": images[-1],
        "y_test": labels[-1],
    }


def _layout(known: Known) -> str:
    images = ", ".join(str(size) for size in known.image_shape)
    tests = f"{known.test_images}" if known.head == known.test_images else f"{known.head} or {known.test_images}"
    return (
        f"x_train uint8 ({known.train_images}, {images}), y_train integer ({known.train_images},), "
        f"x_test uint8 ({tests}, {images}), y_test integer ({tests},)"
    )


def _check_layout(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], known: Known) -> None:
    counts = {known.train_images} if name.endswith("train") else {known.head, known.test_images}
    if name.startswith("x"):
        good = dtype == np.uint8 and shape[1:] == known.image_shape
    else:
        good = dtype.kind in "iu" and shape[1:] in ((), (1,))  # Keras gives CIFAR-10's labels as a column
    if not (good and shape and shape[0] in counts):
        raise _DamagedError(f"{name} is {dtype} {shape}; expected {_layout(known)}")


def _dataset(name: str, arrays: Arrays, source: str) -> Dataset:
    """Verify raw arrays (labels become uint8 (n,) in place) and split them; raises _DamagedError if they are wrong."""
    known = KNOWN[name]
    for key in ARRAY_NAMES:
        _check_layout(key, arrays[key].shape, arrays[key].dtype, known)
    tests = len(arrays["x_test"])
    if tests != len(arrays["y_test"]):
        raise _DamagedError(f"it has {tests} test images but {len(arrays['y_test'])} test labels; expected as many")
    for key in ("y_train", "y_test"):
        labels = arrays[key].reshape(-1)
        if labels.min() < 0 or labels.max() >= len(known.class_names):
            raise _DamagedError(
                f"{key} has labels from {labels.min()} to {labels.max()}; expected 0 to {len(known.class_names) - 1}"
            )
        arrays[key] = labels.astype(np.uint8)
    for key, expected in known.digests.items():
        seen = digest({key: arrays[key][: known.head] if key.endswith("test") else arrays[key]})
        if seen != expected:
            raise _DamagedError(f"{key} is not {known.label}'s: its content has SHA-256 {seen}; expected {expected}")

    cut = known.train_images - known.validation_images
    notice = None
    if tests < known.test_images:
        notice = f"{known.label}'s test set here is the first {tests:,} of {known.test_images:,} images."
    return _assemble(
        name,
        name,
        (arrays["x_train"][:cut], arrays["y_train"][:cut]),
        (arrays["x_train"][cut:], arrays["y_train"][cut:]),
        (arrays["x_test"], arrays["y_test"]),
        class_names=known.class_names,
        source=source,
        notice=notice,
    )


def _assemble(
    name: str,
    wanted: str,
    *pairs: tuple[npt.NDArray[Any], ...],
    class_names: tuple[str, ...],
    source: str,
    notice: str | None,
) -> Dataset:
    splits = []
    for images, labels in pairs:
        x = np.ascontiguousarray(images.reshape(len(images), -1))
        y = labels.astype(np.int32)
        x.flags.writeable = y.flags.writeable = False  # the digest stays true
        splits.append(Split(x, y))
    train, validation, test = splits
    named = {
        f"{part}_{key}": array
        for key, split in (("train", train), ("validation", validation), ("test", test))
        for part, array in (("x", split.x), ("y", split.y))
    }
    return Dataset(
        name=name,
        wanted=wanted,
        train=train,
        validation=validation,
        test=test,
        image_shape=KNOWN[wanted].image_shape,
        classes=len(class_names),
        class_names=class_names,
        digest=digest(named)[:32],
        source=source,
        notice=notice,
    )


def _found(dataset: Dataset, place: str, path: Path | None) -> Finding:
    sizes = (len(dataset.train), len(dataset.validation), len(dataset.test))
    return Finding(dataset.name, place, path, "valid", dataset.notice or "", dataset.digest, sizes)


# -------------------------------------------------------------------------------------------------------- download


def _download(name: str, progress: Progress | None, timeout: float) -> Dataset:
    """Download, verify and keep a data set; raises OSError or _DamagedError, and then nothing is kept.

    The download stays in memory, so that whatever ends this process leaves no part of it behind.
    """
    known = KNOWN[name]
    content = _fetch(known.url, progress, timeout)
    arrays = _read_npz(io.BytesIO(content), known) if known.url.endswith(".npz") else _read_archive(content, known)
    dataset = _dataset(name, arrays, known.url)
    path = cache_dir() / known.files[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                # Not compressed: read many times, and CIFAR-10 would shrink by a tenth only.
                np.savez(file, **{key: arrays[key] for key in ARRAY_NAMES})  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError:
        pass  # a read-only or full disk costs the next download, not this result
    return dataset


def _fetch(url: str, progress: Progress | None, timeout: float) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    late = TimeoutError(f"no answer within {timeout:g} seconds")

    def connect() -> None:
        try:
            answers.put(urlopen(url, timeout=timeout))
        except HTTPError as error:
            error.close()  # it is the server's answer, too, and holds the connection
            answers.put(error)
        except URLError as error:
            answers.put(late if isinstance(error.reason, TimeoutError) else OSError(str(error.reason)))
        except TimeoutError:
            answers.put(late)
        except Exception as error:
            answers.put(OSError(f"{type(error).__name__}: {error}"))

    # urlopen's own timeout counts for each of a host's addresses anew and not for the look-up of its name: behind a
    # firewall that drops packets it would take minutes. A thread can be left behind.
    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise late from None
    if isinstance(answer, OSError):
        raise answer
    with answer as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        content = bytearray()
        try:
            while piece := response.read(2**18):
                content += piece
                if len(content) > _MAX_DOWNLOAD:
                    raise OSError(f"more than {_MAX_DOWNLOAD:,} bytes were sent")
                if progress:
                    progress(len(content), total)
        except HTTPException as error:
            raise OSError(f"the connection broke after {len(content):,} bytes ({error})") from error
    if total is not None and len(content) != total:
        raise OSError(f"the connection broke after {len(content):,} of {total:,} bytes")
    return bytes(content)


# ---------------------------------------------------------------------------------------------------------- digits

_DIGITS = "scikit-learn's 1,797 embedded 8x8 digits, resized"


def _digits(wanted: str, notice: str) -> Dataset:
    """scikit-learn's digits in the image shape of the wanted data set.

    Values 0-16 become 0-255; 8x8 pixels are resized bilinearly (pixel centres aligned, edges held), in integers so
    that every machine gets the same bytes; colour channels repeat the grey one. 300 validation and 300 test images
    are drawn stratified, with a fixed seed.
    """
    shape = KNOWN[wanted].image_shape
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
    rest, test = _stratified(labels, 300)
    train, validation = (rest[part] for part in _stratified(labels[rest], 300))
    return _assemble(
        "digits",
        wanted,
        *((images[part], labels[part]) for part in (train, validation, test)),
        class_names=tuple("0123456789"),
        source="scikit-learn's embedded digits",
        notice=notice,
    )


def _stratified(labels: np.ndarray, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a stratified split: scikit-learn's `train_test_split(stratify=labels, random_state=0)`."""
    rng = np.random.RandomState(0)
    left = counts = np.bincount(labels)
    shares = []
    for wanted in (len(labels) - held_out, held_out):
        exact = left / left.sum() * wanted
        share = np.floor(exact)
        remainder = exact - share
        # What rounding down leaves goes to the largest remainders, by lot among equal ones.
        for value in np.unique(remainder)[::-1]:
            if missing := int(wanted - share.sum()):
                (equal,) = np.nonzero(remainder == value)
                share[rng.choice(equal, min(len(equal), missing), replace=False)] += 1
        shares.append(share.astype(int))
        left = left - shares[0]
    rows: tuple[list[int], list[int]] = ([], [])
    for label, (kept, taken) in enumerate(zip(*shares, strict=True)):
        mixed = np.flatnonzero(labels == label)[rng.permutation(counts[label])]
        rows[0].extend(mixed[:kept])
        rows[1].extend(mixed[kept : kept + taken])
    return rng.permutation(rows[0]), rng.permutation(rows[1])
