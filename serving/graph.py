"""Sees that an ONNX file is mathematics and nothing else, before anything runs it.

ONNX has no operation that reads a file or runs a program in its standard domain; what it has besides (other domains,
functions, tensors kept in files beside it) is refused. What goes on from here is not the file but what of it was looked
at.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from serving.limits import RefusedError

MOST_BYTES, MOST_NODES, DEEPEST = 512 * 2**20, 50_000, 8
"""Of a file; operations; graphs within one another, as a loop has them."""

OPERATIONS = frozenset(
    re.findall(
        r"\w+",
        """ Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitwiseAnd
        BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Compress Concat Constant ConstantOfShape Conv
        ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand
        EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
        GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization
        IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool
        MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu
        Pad Pow QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
        ReverseSequence Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
        Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
        Unsqueeze Where Xor
        """,
    )
)
"""What a graph may do: arithmetic, and arranging numbers. Nothing that draws random numbers, or handles text."""

BODIES = {"If", "Loop"}
"""Operations that have graphs of their own."""

GROWING = {"ConstantOfShape", "Expand", "If", "Loop", "NonZero", "Pad", "Range", "Resize", "Tile", "TopK"}
"""Operations whose work depends on more than how many examples there are."""

SIZES: dict[int, int] = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BOOL: 1,
    TensorProto.INT8: 1, TensorProto.INT16: 2, TensorProto.INT32: 4, TensorProto.INT64: 8,
    TensorProto.UINT8: 1, TensorProto.UINT16: 2, TensorProto.UINT32: 4, TensorProto.UINT64: 8,
}  # fmt: skip
"""Kinds of numbers in a tensor -> bytes of one."""

PLAIN = {
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR,
    AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
}  # fmt: skip
"""Kinds of attributes; a graph besides, where the operation has one."""


def checked(content: bytes) -> bytes:
    """A model of the same graph with nothing that was not looked at.

    Raises:
        RefusedError: it is no ONNX, or it is more than mathematics on numbers.
    """
    if len(content) > MOST_BYTES:
        raise RefusedError(f"its graph has {len(content)} bytes; legal: up to {MOST_BYTES}")
    try:
        model = ModelProto.FromString(content)
    except (DecodeError, RecursionError):
        raise RefusedError("its graph is damaged, nested too deep, or no ONNX") from None
    model.DiscardUnknownFields()
    domains = {one.domain: one.version for one in model.opset_import if one.domain != "ai.onnx.ml"}
    version = domains.pop("", 0) or domains.pop("ai.onnx", 0)
    if domains or not 13 <= version <= 23 or not 7 <= model.ir_version <= 13:
        raise RefusedError(
            f"its graph is of domains or versions other than ONNX's own: {_word(' '.join(domains) or version)}"
        )
    if model.functions or model.training_info:
        raise RefusedError("its graph has functions of its own")
    _check_graph(model.graph, 1, [0])
    clean = helper.make_model(
        model.graph, opset_imports=[helper.make_opsetid("", version)], ir_version=model.ir_version
    )
    try:
        onnx.checker.check_model(clean)
    except Exception as error:
        raise RefusedError(f"its graph is not well formed ({type(error).__name__})") from None
    kept: bytes = clean.SerializeToString(deterministic=True)
    return kept


def operations(content: bytes) -> set[str]:
    """The operations of a graph that is checked."""
    return {node.op_type for node in _nodes(ModelProto.FromString(content).graph)}


def _nodes(graph: GraphProto) -> Iterable[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _word(text: object) -> str:
    """A name out of a file, as a message may have it."""
    return re.sub(r"[^\w./ -]", "?", str(text))[:60]


def _check_graph(graph: GraphProto, depth: int, count: list[int]) -> None:
    if depth > DEEPEST:
        raise RefusedError(f"its graph has graphs nested more than {DEEPEST} deep")
    if graph.sparse_initializer or graph.quantization_annotation:
        raise RefusedError("its graph has sparse tensors")
    for field in ("doc_string", "metadata_props"):
        graph.ClearField(field)
    for one in (*graph.input, *graph.output, *graph.value_info):
        one.ClearField("metadata_props")
        kind = one.type.WhichOneof("value")
        if kind not in (None, "tensor_type") or (kind and one.type.tensor_type.elem_type not in (0, *SIZES)):
            raise RefusedError("its graph has values that are no tensors of numbers")
        if any(size.dim_value < 0 for size in one.type.tensor_type.shape.dim):
            raise RefusedError("its graph has a negative size")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    count[0] += len(graph.node)
    if count[0] > MOST_NODES:
        raise RefusedError(f"its graph has more than {MOST_NODES} operations")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.overload:
            raise RefusedError(f"its graph has the operation {_word(node.op_type)} of the domain {_word(node.domain)}")
        if node.op_type not in OPERATIONS:
            raise RefusedError(f"its graph has the operation {_word(node.op_type)}, which is not of the closed set")
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            _check_attribute(attribute, node, depth, count)


def _check_attribute(attribute: AttributeProto, node: NodeProto, depth: int, count: list[int]) -> None:
    if attribute.ref_attr_name or attribute.sparse_tensor.dims or attribute.HasField("sparse_tensor"):
        raise RefusedError("its graph has sparse tensors, or attributes of functions")
    if (
        attribute.graphs
        or attribute.tensors
        or attribute.sparse_tensors
        or attribute.type_protos
        or attribute.HasField("tp")
    ):
        raise RefusedError(f"its graph has an operation {_word(node.op_type)} with an attribute of another kind")
    if attribute.HasField("g") or attribute.type == AttributeProto.GRAPH:
        if node.op_type not in BODIES or attribute.type != AttributeProto.GRAPH:
            raise RefusedError(f"its graph has an operation {_word(node.op_type)} with a graph of its own")
        _check_graph(attribute.g, depth + 1, count)
    elif attribute.type not in PLAIN:
        raise RefusedError(f"its graph has an operation {_word(node.op_type)} with an attribute of another kind")
    if attribute.HasField("t"):
        _check_tensor(attribute.t)


def _check_tensor(tensor: TensorProto) -> None:
    """Sees that a tensor holds its numbers itself, and as many as it says."""
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data or tensor.HasField("segment"):
        raise RefusedError("its graph keeps a tensor elsewhere")
    if tensor.data_type not in SIZES or tensor.string_data:
        raise RefusedError("its graph has a tensor that holds no numbers")
    if any(size < 0 for size in tensor.dims):
        raise RefusedError("its graph has a negative size")
    held: list[Any] = [tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data]
    numbers = math.prod(tensor.dims)
    given = len(tensor.raw_data) / SIZES[tensor.data_type] if tensor.HasField("raw_data") else sum(map(len, held))
    if given != numbers or (tensor.HasField("raw_data") and any(held)):
        raise RefusedError("its graph has a tensor whose size is not what it says")
    tensor.ClearField("doc_string")
    tensor.ClearField("metadata_props")
