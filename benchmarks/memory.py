"""Peak memory of a training on large arrays, mlplab's `fit` over Keras'.

Usage: python benchmarks/memory.py [--quick]

An array in memory, one in a file that is mapped into memory, and the one in memory with `MEMORY_SHARE` set so that it
is copied a chunk at a time. Each in a process of its own; the peak is of what the process held (VmHWM of proc(5)).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

FEATURES = 3_072


def train(who: str, where: str, path: str) -> None:
    """One training of two epochs; prints its peak memory in MB and its seconds."""
    import keras

    from mlplab import arrays, training

    x = np.load(path, mmap_mode="r" if where == "in a file" else None)
    y = np.arange(len(x)) % 10
    if where == "in memory, by chunks":
        arrays.MEMORY_SHARE = 0.0
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    started = time.perf_counter()
    (training.fit if who == "mlplab" else keras.Model.fit)(model, x, y, 128, 2, verbose=0)
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(int(peak) / 1024, time.perf_counter() - started)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the array")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        train(*options.one)
        return
    examples = 40_000 if options.quick else 400_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (examples, FEATURES))
        for start in range(0, examples, 10_000):
            array[start : start + 10_000] = np.random.default_rng(start).integers(0, 256, (10_000, FEATURES), np.uint8)
        array.flush()
        del array
        print(f"uint8 array of {examples * FEATURES / 2**20:,.0f} MB; mlplab over Keras\n")
        print("| array | peak memory | total time |\n|---|---:|---:|")
        for where in ("in memory", "in memory, by chunks", "in a file"):
            found = []
            for who in ("mlplab", "keras"):
                command = [sys.executable, __file__, "--one", who, where, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append([float(number) for number in done.stdout.split()[-2:]])
            (ours, seconds), (theirs, their_seconds) = found
            print(f"| {where} | {ours / theirs:.2f} | {seconds / their_seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
