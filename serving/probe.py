"""Looks a version over and tries it, in a process of its own that has nothing to lose: no credentials, little memory.

`python -I probe.py FOLDER`: FOLDER holds the graph and the contract; where it holds `given.npz`, the answers to those
examples are written to `answers.npz`. The graph that was looked at is written to `checked.onnx`. One JSON line says
what came of it.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKED, GIVEN, ANSWERS = "checked.onnx", "given.npz", "answers.npz"
MEMORY, SECONDS = 4 * 2**30, 60


@dataclass(frozen=True)
class Probed:
    """A version that was tried.

    Attributes:
        content: of the graph, as it was checked.
        inline: whether its work depends on nothing but the number of examples, and one takes little.
        seconds: for one example.
    """

    content: bytes
    inline: bool
    seconds: float


def probe(folder: Path, seconds: float = SECONDS) -> Probed:
    """Has the version in a folder looked over and tried.

    Raises:
        ValueError: it must not be, or cannot be run; with why.
    """
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, str(folder)],
            env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it did not answer within {seconds:g} seconds") from None
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise ValueError(f"the process that tried it ended with {done.returncode}") from None
    if "why" in said:
        raise ValueError(said["why"])
    return Probed((folder / CHECKED).read_bytes(), said["inline"], said["seconds"])


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 2**30),
        (resource.RLIMIT_NOFILE, 128),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _try(folder: Path) -> dict[str, Any]:
    import numpy as np

    from serving.graph import GROWING, checked, operations
    from serving.model import CLASSES, CONTRACT, GRAPH, PIXELS, Contract, Graph, answers

    contract = Contract.read((folder / CONTRACT).read_bytes())
    content = checked((folder / GRAPH).read_bytes())
    graph = Graph(content, contract)
    (folder / CHECKED).write_bytes(content)
    quickest = float("inf")
    for rows in (1, 2, 2, 2):
        arrays = []
        for one in contract.inputs:
            low = 0.0 if one.low is None else one.low
            high = float(len(one.vocabulary)) or (low + 1 if one.high is None else one.high)
            spread = np.linspace(low, high, rows * one.size).reshape(rows, *one.shape)
            arrays.append(spread.astype(one.dtype))
        started = time.perf_counter()
        found = graph.outputs(arrays)
        quickest = min(quickest, (time.perf_counter() - started) / rows)
        answers(contract, found)
        if contract.form in (PIXELS, CLASSES):
            sums = found[0].sum(axis=1) if found[0].shape[1] > 1 else found[0][:, 0].clip(0, 1) - found[0][:, 0] + 1
            if (found[0] < -1e-6).any() or not np.allclose(sums, 1, atol=1e-3):
                raise ValueError("what it answers is not a probability for each class")
    if (folder / GIVEN).is_file():
        with np.load(folder / GIVEN, allow_pickle=False) as stored:
            given = [stored[f"arr_{place}"] for place in range(len(stored.files))]
        batches = range(0, len(given[0]), 256)
        parts = [graph.outputs([array[at : at + 256] for array in given]) for at in batches]
        np.savez(folder / ANSWERS, *(np.concatenate(each) for each in zip(*parts, strict=True)))
    quick = not (operations(content) & GROWING) and quickest < 0.002
    return {"inline": quick, "seconds": quickest}


def _main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    _limit()
    try:
        said = _try(Path(sys.argv[1]))
    except (ValueError, OSError) as error:
        said = {"why": str(error)[:300]}
    except MemoryError:
        said = {"why": "it takes too much memory"}
    print(json.dumps(said))


if __name__ == "__main__":
    _main()
