"""Graphs that would do more than mathematics, or have no end: refused before they run, or ended."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from serving import probe
from serving.graph import MOST_NODES, checked
from serving.limits import RefusedError
from serving.model import ARENA_BYTES, VALUES, Contract, Graph, Input, Output

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
X = helper.make_tensor_value_info("input_0", FLOAT, [None, 2])
Y = helper.make_tensor_value_info("y", FLOAT, [None, 2])
CONTRACT = Contract((Input("", "float32", (2,)),), (Output("", (2,)),), VALUES)


def model(nodes: list[Any], tensors: tuple[Any, ...] = (), **more: Any) -> ModelProto:
    graph = helper.make_graph(nodes, "g", [X], [Y], list(tensors))
    return helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 18)], "ir_version": 9} | more)


def relu(**attributes: Any) -> Any:
    return helper.make_node("Relu", ["input_0"], ["y"], **attributes)


def body(*nodes: Any, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ("v",)) -> GraphProto:
    known = {"i": (INT64, []), "c": (BOOL, []), "co": (BOOL, [])}

    def info(name: str) -> Any:
        return helper.make_tensor_value_info(name, *known.get(name, (FLOAT, None)))

    return helper.make_graph(list(nodes), "body", [info(n) for n in inputs], [info(n) for n in outputs])


def loop(*inside: Any, trips: int = 2) -> ModelProto:
    """A loop around operations that make `vo` of `v`."""
    nodes = [helper.make_node("Identity", ["c"], ["co"]), *inside]
    inner = body(*nodes, inputs=("i", "c", "v"), outputs=("co", "vo"))
    tensors = (number("n", trips), numpy_helper.from_array(np.array(True), "t"))
    return model([helper.make_node("Loop", ["n", "t", "input_0"], ["y"], body=inner)], tensors)


def number(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values if len(values) > 1 else values[0], np.int64), name)


def external(path: str) -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=path)
    return model([helper.make_node("Add", ["input_0", "w"], ["y"])], (tensor,))


def in_attribute(tensor: TensorProto) -> ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    return model([constant, helper.make_node("Add", ["input_0", "w"], ["y"])])


def with_tensor(**fields: Any) -> ModelProto:
    tensor = TensorProto(**{"name": "w", "data_type": FLOAT, "dims": [2], "raw_data": bytes(8)} | fields)
    return model([helper.make_node("Add", ["input_0", "w"], ["y"])], (tensor,))


def with_function() -> ModelProto:
    """A function that is called as an operation of the closed set."""
    inside = helper.make_node("ReadFile", ["a"], ["b"], domain="com.example")
    function = helper.make_function("", "Relu", ["a"], ["b"], [inside], [helper.make_opsetid("", 18)])
    return model([relu()], functions=[function])


def sparse_initializer() -> ModelProto:
    made = model([relu()])
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made.graph.sparse_initializer.append(SparseTensorProto(values=values, indices=number("at", 0, 1), dims=[2**40]))
    return made


def sparse_attribute() -> ModelProto:
    node = helper.make_node("Constant", [], ["w"])
    attribute = node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.dims.append(2**40)
    return model([node, helper.make_node("Add", ["input_0", "w"], ["y"])])


def with_attribute(change: Callable[[Any], object]) -> ModelProto:
    node = relu()
    change(node.attribute.add(name="alpha"))
    return model([node])


def hidden_graph(attribute: Any) -> None:
    """A graph in an attribute that says that it is a number."""
    attribute.type, attribute.i = AttributeProto.INT, 1
    attribute.g.CopyFrom(body(helper.make_node("ReadFile", [], ["v"], domain="com.example")))


def nested(depth: int) -> ModelProto:
    inner = flat = body(helper.make_node("Identity", ["input_0"], ["v"]))
    for _ in range(depth):
        inner = body(helper.make_node("If", ["t"], ["v"], then_branch=inner, else_branch=flat))
    node = helper.make_node("If", ["t"], ["y"], then_branch=inner, else_branch=flat)
    return model([node], (numpy_helper.from_array(np.array(True), "t"),))


def training() -> ModelProto:
    made = model([relu()])
    made.training_info.add().algorithm.name = "t"
    return made


def sequence() -> ModelProto:
    made = model([relu()])
    made.graph.value_info.add(name="s").type.sequence_type.elem_type.tensor_type.elem_type = FLOAT
    return made


def text() -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])


def reading(*names: str, domain: str = "") -> list[Any]:
    return [helper.make_node(names[0], ["input_0"], ["y"], domain=domain)]


ATTACKS: dict[str, tuple[Callable[[], Any], str]] = {
    "an operation that is none of ONNX": (lambda: model(reading("ReadFile")), "ReadFile"),
    "an operation of another domain": (lambda: model(reading("Relu", domain="com.microsoft")), "com.microsoft"),
    "an engine's own context": (lambda: model(reading("EPContext", domain="com.microsoft")), "EPContext"),
    "a domain that is imported alone": (
        lambda: model([relu()], opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]),
        "com.example",
    ),
    "texts": (lambda: model(reading("StringNormalizer")), "StringNormalizer"),
    "a picture's decoder": (lambda: model(reading("ImageDecoder")), "ImageDecoder"),
    "random numbers": (lambda: model(reading("RandomNormalLike")), "RandomNormalLike"),
    "sequences": (lambda: model(reading("SequenceConstruct")), "SequenceConstruct"),
    "a function with the name of an operation": (with_function, "functions of its own"),
    "an operation's overload": (lambda: model([relu(overload="evil")]), "Relu"),
    "a training": (training, "functions of its own"),
    "in the body of a loop": (lambda: loop(helper.make_node("ReadFile", ["v"], ["vo"], domain="c")), "ReadFile"),
    "in a branch of an if": (
        lambda: model(
            [helper.make_node("If", ["t"], ["y"], then_branch=body(*reading2()), else_branch=body(*reading2()))],
            (numpy_helper.from_array(np.array(True), "t"),),
        ),
        "ReadFile",
    ),
    "a scan": (lambda: model([helper.make_node("Scan", ["input_0"], ["y"], body=body(), num_scan_inputs=1)]), "Scan"),
    "a graph where none belongs": (lambda: model([relu(body=body(*reading2()))]), "a graph of its own"),
    "a graph behind a number": (lambda: with_attribute(hidden_graph), "a graph of its own"),
    "several graphs": (
        lambda: with_attribute(lambda a: (setattr(a, "type", AttributeProto.GRAPHS), a.graphs.append(body()))),
        "attribute of another kind",
    ),
    "several tensors": (
        lambda: with_attribute(lambda a: (setattr(a, "type", AttributeProto.TENSORS), a.tensors.append(text()))),
        "attribute of another kind",
    ),
    "an attribute of a function": (lambda: with_attribute(lambda a: setattr(a, "ref_attr_name", "b")), "of functions"),
    "a tensor in a file": (lambda: external("/etc/passwd"), "elsewhere"),
    "a tensor in a file above": (lambda: external("../../../etc/passwd"), "elsewhere"),
    "a tensor in a file, in an attribute": (lambda: in_attribute(external("x").graph.initializer[0]), "elsewhere"),
    "a file's name beside a tensor's numbers": (
        lambda: with_tensor(external_data=[{"key": "location", "value": "/etc/passwd"}]),
        "elsewhere",
    ),
    "a part of a tensor": (lambda: with_tensor(segment=TensorProto.Segment(begin=0, end=2**40)), "elsewhere"),
    "a tensor of a terabyte in eight bytes": (lambda: with_tensor(dims=[2**40]), "size is not what it says"),
    "sizes whose product is none": (lambda: with_tensor(dims=[2**62, 2**62, 0]), "size is not what it says"),
    "a negative size": (lambda: with_tensor(dims=[-1]), "negative size"),
    "numbers in two places": (lambda: with_tensor(float_data=[1.0, 1.0]), "size is not what it says"),
    "a tensor of texts": (lambda: in_attribute(text()), "holds no numbers"),
    "a tensor of an unknown kind": (lambda: with_tensor(data_type=77), "holds no numbers"),
    "a sparse tensor": (sparse_initializer, "sparse"),
    "a sparse tensor in an attribute": (sparse_attribute, "sparse"),
    "a value that is a sequence": (sequence, "no tensors of numbers"),
    "graphs within graphs": (lambda: nested(20), "nested"),
    "messages within messages": (lambda: nested_bytes(5_000), "damaged, nested too deep"),
    "very many operations": (lambda: model([relu() for _ in range(MOST_NODES + 1)]), "more than"),
    "an old version": (lambda: model([relu()], opset_imports=[helper.make_opsetid("", 1)]), "versions"),
    "random bytes": (lambda: np.random.default_rng(0).bytes(5_000), "damaged"),
    "nothing": (lambda: b"", "versions"),
    "a flatbuffer of ONNX Runtime": (lambda: b"\x18\x00\x00\x00ORTM" + bytes(400), "damaged"),
    "a pickle": (lambda: b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94", "damaged"),
    "a ZIP": (lambda: b"PK\x03\x04" + bytes(100), "damaged|versions"),
}


def reading2() -> list[Any]:
    return [helper.make_node("ReadFile", ["input_0"], ["v"], domain="com.example")]


def nested_bytes(depth: int) -> bytes:
    """`depth` graphs within an attribute within a node within a graph, as bytes alone; no library would write it."""

    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length % 128 + 128]), length // 128
        return bytes([number * 8 + 2]) + size + bytes([length]) + content

    content = b""
    for _ in range(depth):
        content = field(1, field(5, field(6, content)))  # graph.node.attribute.g
    return field(7, content)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_graph_that_is_more_than_mathematics_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever hides it: it is refused before anything runs it, in few words."""
    make, says = ATTACKS[name]
    made = make()
    with pytest.raises(RefusedError, match=says) as raised:
        checked(made if isinstance(made, bytes) else made.SerializeToString())
    assert len(str(raised.value)) < 200


def test_what_goes_on_is_what_was_looked_at() -> None:
    """Unknown fields, texts for people, metadata and imports that nothing uses are not in the graph that is run."""
    made = model([relu(doc_string="SECRET")], producer_name="SECRET", doc_string="SECRET")
    made.metadata_props.add(key="ort_config", value='{"session_options": "SECRET"}')
    made.graph.doc_string = "SECRET"
    content = made.SerializeToString() + b"\xfa\x3f\x06SECRET"  # a field that ONNX does not have
    clean = checked(content)
    assert b"SECRET" not in clean
    assert Graph(clean, CONTRACT).outputs([np.array([[-1, 2]], np.float32)])[0].tolist() == [[0, 2]]


def test_a_loop_of_mathematics_is_run() -> None:
    """As a recurrent layer with a mask needs it."""
    doubled = loop(helper.make_node("Add", ["v", "v"], ["vo"]), trips=3)
    found = Graph(checked(doubled.SerializeToString()), CONTRACT).outputs([np.ones((2, 2), np.float32)])
    assert found[0].tolist() == [[8, 8]] * 2


def huge(operation: str) -> ModelProto:
    """A graph that makes terabytes of one number."""
    size, add = number("size", 2**20, 2**20), helper.make_node("Add", ["input_0", "sum"], ["y"])
    add_up = helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0)
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    if operation == "ConstantOfShape":
        return model([helper.make_node(operation, ["size"], ["big"]), add_up, add], (size,))
    if operation == "Range":
        tensors = [
            numpy_helper.from_array(np.float32(value), name) for name, value in (("a", 0), ("b", 1e12), ("d", 1))
        ]
        return model([helper.make_node(operation, ["a", "b", "d"], ["big"]), add_up, add], tuple(tensors))
    if operation == "Pad":
        pads = number("size", 0, 0, 2**20, 2**20)
        return model([helper.make_node(operation, ["one", "size"], ["big"]), add_up, add], (pads, one))
    return model([helper.make_node(operation, ["one", "size"], ["big"]), add_up, add], (size, one))


@pytest.mark.parametrize("operation", ["ConstantOfShape", "Expand", "Tile", "Pad", "Range"])
def test_a_graph_that_takes_terabytes_fails_and_leaves_the_process(operation: str) -> None:
    """The tensors of all graphs together have a limit; whoever asks is told, and the process has no more memory."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096

    graph = Graph(checked(huge(operation).SerializeToString()), CONTRACT)
    before = resident()
    with pytest.raises(ValueError, match="cannot answer"):
        graph.outputs([np.ones((1, 2), np.float32)])
    assert resident() - before < ARENA_BYTES


def test_a_loop_without_end_ends_when_it_is_told() -> None:
    """2^62 turns of a loop end within a moment of the deadline."""
    endless = loop(helper.make_node("Add", ["v", "v"], ["vo"]), trips=2**62)
    graph = Graph(checked(endless.SerializeToString()), CONTRACT)
    options = graph.options()
    threading.Timer(0.3, lambda: setattr(options, "terminate", True)).start()
    started = time.monotonic()
    with pytest.raises(ValueError, match="cannot answer"):
        graph.outputs([np.ones((1, 2), np.float32)], options)
    assert time.monotonic() - started < 20


WRONG: dict[str, tuple[Callable[[], ModelProto], Contract, str]] = {
    "answers for other examples": (
        lambda: model(
            [helper.make_node("Expand", ["input_0", "s"], ["big"]), helper.make_node("Relu", ["big"], ["y"])],
            (number("s", 4, 2),),
        ),
        CONTRACT,
        "shape",
    ),
    "other inputs": (
        lambda: model([relu()]),
        Contract((Input("", "int64", (2,)),), CONTRACT.outputs, VALUES),
        "inputs",
    ),
    "other shapes": (
        lambda: model([relu()]),
        Contract((Input("", "float32", (3,)),), CONTRACT.outputs, VALUES),
        "shapes",
    ),
    "more outputs": (lambda: model([relu()]), Contract(CONTRACT.inputs, CONTRACT.outputs * 2, VALUES), "outputs"),
    "no finite number": (lambda: model([helper.make_node("Log", ["input_0"], ["y"])]), CONTRACT, "no finite number"),
    "an endless loop": (lambda: loop(helper.make_node("Add", ["v", "v"], ["vo"]), trips=2**62), CONTRACT, "3 seconds"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_version_is_tried_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    """What does not do as its contract says, or does not end, is found there, and said."""
    make, contract, says = WRONG[name]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    (tmp_path / "contract.json").write_text(contract.to_json())
    with pytest.raises((ValueError, TimeoutError), match=says):
        probe.probe(tmp_path, seconds=3 if "endless" in name else 60)


def test_the_process_that_tries_a_version_has_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment it has what programs need to start, and nothing else."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setattr(probe, "__file__", str(tmp_path / "tells.py"))
    (tmp_path / "tells.py").write_text("import json, os; print(json.dumps({'why': ' '.join(os.environ)}))")
    with pytest.raises(ValueError, match="PATH") as raised:
        probe.probe(tmp_path)
    assert set(str(raised.value).split()) <= {"PATH", "LANG", "LC_CTYPE", "LD_LIBRARY_PATH", *THREADS}


THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")

GOOD_CONTRACT = json.loads(CONTRACT.to_json())
INPUT = GOOD_CONTRACT["inputs"][0]
WIDE = [{"name": "", "shape": [2, 2]}]
BAD_CONTRACTS = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "deep": "[" * 100_000,
    "another version": json.dumps(GOOD_CONTRACT | {"version": 2}),
    "something more": json.dumps(GOOD_CONTRACT | {"code": "import os"}),
    "no inputs": json.dumps(GOOD_CONTRACT | {"inputs": []}),
    "a form of its own": json.dumps(GOOD_CONTRACT | {"form": "eval"}),
    "an input of no kind": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"dtype": "object"}]}),
    "a negative size": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"shape": [-1]}]}),
    "a huge size": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"shape": [2**24, 2**24]}]}),
    "a size that is a text": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"shape": ["2"]}]}),
    "no range": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"low": "0"}]}),
    "two of one name": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"name": "a"}] * 2}),
    "other columns": json.dumps(GOOD_CONTRACT | {"inputs": [INPUT | {"columns": ["a"]}]}),
    "probabilities of two outputs": json.dumps(GOOD_CONTRACT | {"form": "classes", "outputs": WIDE}),
    "names that are numbers": json.dumps(GOOD_CONTRACT | {"class_names": [1]}),
    "a very long name": json.dumps(GOOD_CONTRACT | {"data": "x" * 20_000}),
    "too large": " " * (5 * 2**20),
}


@pytest.mark.parametrize("name", BAD_CONTRACTS)
def test_a_contract_that_is_none_is_refused(name: str) -> None:
    """It comes from the registry as the graph does."""
    assert Contract.read(CONTRACT.to_json()) == CONTRACT
    with pytest.raises(ValueError, match="contract is"):
        Contract.read(BAD_CONTRACTS[name])
