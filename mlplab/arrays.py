"""What a model is trained on or evaluated with, as Keras' own adapter of arrays has it."""

import math
import operator
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays

MEMORY_SHARE = 0.25
"""Arrays that take more than this share of the free memory stay where they are, and are copied a chunk at a time."""

CHUNK_BYTES = 2**26
"""About how much of data that stay where they are is copied at a time."""


class NotCompilableError(Exception):
    """There is no program that could stand in for Keras; the text says why."""


class Arrays:
    """What a model is trained on or evaluated with: x, y and sample weights, each an array, a nest of them or None.

    Attributes:
        nest: the arrays as tensors, or, where `streamed`, as NumPy arrays that stay where they are.
        examples: how many.
        streamed: whether they are copied a chunk at a time, the next one while the program works on the last.
    """

    def __init__(self, nest: Any, streamed: bool = False) -> None:
        self.nest, self.streamed = nest, streamed
        self.leaves = [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]
        self.present = [leaf is not None for leaf in tf.nest.flatten(nest)]
        self.examples = int(self.leaves[0].shape[0])
        self.structure = str(tf.nest.map_structure(lambda leaf: leaf is not None, nest))
        self.specs = [tf.TensorSpec(leaf.shape[1:], tf.as_dtype(self._kept_dtype(leaf))) for leaf in self.leaves]

    @classmethod
    def of(cls, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None) -> "Arrays":
        """What Keras' own adapter of arrays makes of them.

        Raises:
            NotCompilableError: they are no dense arrays.
            ValueError: as Keras raises it, for arrays that do not fit together.
        """
        given = [leaf for leaf in tf.nest.flatten((x, y, sample_weight)) if leaf is not None]
        if not can_convert_arrays((x, y, sample_weight)):
            wrong = [leaf for leaf in given if not can_convert_arrays(leaf)]
            raise NotCompilableError(f"the data are {type(wrong[0]).__name__}, not numeric arrays or tensors")
        if not given or not all(len(leaf.shape) and leaf.shape[0] for leaf in given):
            raise NotCompilableError("there are no examples")
        inputs = ArrayDataAdapter(x, y, sample_weight, class_weight=class_weight)._inputs
        inputs = keras.tree.lists_to_tuples(inputs)  # as Keras' batches have it
        inputs = keras.utils.unpack_x_y_sample_weight(inputs)
        leaves = [leaf for leaf in tf.nest.flatten(inputs) if leaf is not None]
        streamed = _too_large(leaves)
        if not (streamed and all(isinstance(leaf, np.ndarray) for leaf in leaves)):
            inputs = array_slicing.convert_to_sliceable(inputs, target_backend="tensorflow")
            leaves = [leaf for leaf in tf.nest.flatten(inputs) if leaf is not None]
        for leaf in leaves:
            if not isinstance(leaf, np.ndarray | tf.Tensor) or leaf.dtype == object:
                raise NotCompilableError(f"the data are {type(leaf).__name__}, not numeric arrays or tensors")

        def kept(leaf: Any) -> Any:
            return None if leaf is None else np.asarray(leaf) if streamed else tf.convert_to_tensor(leaf)

        return cls(tf.nest.map_structure(kept, inputs), streamed)

    @classmethod
    def of_validation(cls, data: Any) -> "Arrays":
        """The same for `validation_data`: x and y, or x, y and sample weights.

        Raises:
            NotCompilableError: as `of` raises it, and where it is no tuple.
            ValueError: as `of` raises it.
        """
        if not isinstance(data, tuple | list):
            raise NotCompilableError("validation_data is not a tuple of arrays")
        return cls.of(*keras.utils.unpack_x_y_sample_weight(tuple(data)))

    @staticmethod
    def _kept_dtype(leaf: Any) -> Any:
        # As Keras' own adapter does it.
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            return keras.config.floatx()
        return leaf.dtype

    def pack(self, leaves: Sequence[Any]) -> Any:
        """Leaves, one for each array, in the nest that Keras hands to a step."""
        taken = iter(leaves)
        x, y, weight = tf.nest.pack_sequence_as(self.nest, [next(taken) if there else None for there in self.present])
        return data_adapter_utils.pack_x_y_sample_weight(x, y, weight)

    def batch(self, size: int | None) -> int:
        """How many examples a step takes where `size` is asked for: Keras' 32 if none is, and no more than all."""
        return min(operator.index(size or 32), self.examples)

    def rows(self, batch: int) -> int:
        """How many examples a call of a program is given."""
        if not self.streamed:
            return self.examples
        example: int = sum(spec.dtype.size * math.prod(spec.shape) for spec in self.specs)
        return min(self.examples, max(1, CHUNK_BYTES // max(1, example * batch)) * batch)

    def chunks(self, batch: int, order: np.ndarray | None) -> Iterator[tuple[int, list[tf.Tensor]]]:
        """Of an epoch of streamed arrays: how many examples to take, and the tensors that begin with them."""
        size = self.rows(batch)

        def chunk(start: int) -> tuple[int, list[tf.Tensor]]:
            stop = min(start + size, self.examples)
            index = slice(start, stop) if order is None else order[start:stop]
            tensors = []
            for leaf, spec in zip(self.leaves, self.specs, strict=True):
                rows = np.zeros((size, *spec.shape), spec.dtype.as_numpy_dtype)
                rows[: stop - start] = leaf[index]
                tensors.append(tf.convert_to_tensor(rows))
            return stop - start, tensors

        with ThreadPoolExecutor(1) as reader:
            following: Future[Any] | None = reader.submit(chunk, 0)
            start = 0
            while following is not None:
                taken = following.result()
                start += size
                following = reader.submit(chunk, start) if start < self.examples else None
                yield taken


def _too_large(leaves: Sequence[Any]) -> bool:
    """Whether arrays are to stay where they are: on a disk, or in memory that holds no second copy."""
    if any(isinstance(leaf, np.memmap) for leaf in leaves):
        return True
    held = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else float("inf")
    return bool(held > MEMORY_SHARE * free)


def split(data: Any, share: float) -> tuple[Any, Any]:
    """Splits off the last `share` of the examples, as Keras' `validation_split` does."""
    if not 0 < share < 1:
        raise ValueError(f"validation_split is {share!r}; legal: a share between 0 and 1, or 0 for no validation.")
    first, last = array_slicing.train_validation_split(data, validation_split=share)
    return first, last
