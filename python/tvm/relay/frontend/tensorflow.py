"""TensorFlow models to Relax: `from_tensorflow` on sealed bytes, `import_tensorflow` on plain ones."""

from __future__ import annotations

import contextlib
import io
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ._shared import quoted
from .common import Imported, ModelError, Shapes, sealed_import

__all__ = ["from_tensorflow", "import_tensorflow"]

_TAR_MAGIC = slice(257, 262)
_SIGNATURE = "serving_default"


def from_tensorflow(
    graph: Any,
    layout: str = "NHWC",
    shape: Any = None,
    outputs: Sequence[str] | None = None,
    convert_config: Mapping[str, Any] | None = None,
) -> tuple[bytes, bytes]:
    """Turn a sealed TensorFlow model into a sealed Relax module and its sealed weights.

    Parameters
    ----------
    graph
        The sealed model (content type `model/tensorflow`): bytes, or the path of a sealed file. It is a
        frozen GraphDef, or a SavedModel as an uncompressed tar of its directory.
    layout
        "NCHW" or "NHWC", as in Relay. Either gives the same module, whose inputs are laid out as the model's
        own: the compiler chooses the layout that its kernels want.
    shape
        Sealed input shapes (content type `input-shapes`), `{input: [dimension, ...]}`. They take the place of
        the shapes in the model; a dimension given as a string is symbolic. An input is named by its tensor
        in the graph, with or without `:0` (`input/x`, `serving_default_x:0`), and in a SavedModel also by
        its name in the signature.
    outputs
        The outputs wanted, tensors of the graph (`logits`, `split:1`) or outputs of a SavedModel's
        signature. By default a frozen graph's outputs are the nodes that no other node consumes, and a
        SavedModel's are those of its signature `serving_default`, or of its only one.
    convert_config
        Refused unless empty: it steered Relay's operators.

    Returns
    -------
    module, params
        Sealed bytes, for `relay.build`. The function's inputs carry the names of their tensors without `:0`.
        Where the model leaves a dimension open it is symbolic: the first one of every input is `batch`.

    Raises
    ------
    ModelError
        The bytes are no TensorFlow model, an operator is not supported, or a shape, an input's or an output's
        name does not fit.
    """
    from ._tensorflow import check_layout

    check_layout("from_tensorflow", layout)
    if convert_config:
        raise ModelError(
            "from_tensorflow: convert_config steers Relay's operators, and this importer has none"
        )
    return sealed_import(
        "model/tensorflow", graph, shape, lambda plain, shapes: import_tensorflow(plain, shapes, outputs)
    )


def import_tensorflow(
    model: bytes, shape: Shapes | None = None, outputs: Sequence[str] | None = None
) -> Imported:
    """Import the bytes of a TensorFlow model; the arguments and errors are those of `from_tensorflow`."""
    from ._tensorflow import load_tensorflow

    load_tensorflow("tensorflow")
    if model[_TAR_MAGIC] == b"ustar":
        return _import_saved_model(_read_tar(model), shape or {}, outputs)
    return _import_graph(model, shape or {}, outputs)


# A frozen graph


def _import_graph(model: bytes, given: Shapes, outputs: Sequence[str] | None) -> Imported:
    import tensorflow as tf

    from ._tensorflow import convert

    graph = _parse(
        tf.compat.v1.GraphDef(), model, "a TensorFlow model (a frozen GraphDef, or a SavedModel's tar)"
    )
    if not graph.node:
        raise ModelError("this is not a TensorFlow model: it holds no graph")
    tensors = [_without_zero(name) for name in outputs] if outputs else _loose_ends(graph)
    names = [node.name for node in graph.node]
    for tensor in tensors:
        if tensor.partition(":")[0] not in names:
            raise ModelError(
                f"the graph has no node for its output '{tensor}': it ends in {quoted(_loose_ends(graph))}"
            )
    shapes = {_without_zero(name): dimensions for name, dimensions in given.items()}
    inputs = _placeholders(graph, tensors, shapes)
    _check_names(shapes, [entry.name for entry in inputs])
    return convert(graph, inputs, [(name, name) for name in tensors], shapes, {})


def _loose_ends(graph: Any) -> list[str]:
    """The tensors of nodes that nothing consumes."""
    from ._tensorflow import Node

    consumed = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    tensors = []
    for proto in graph.node:
        if proto.name in consumed or proto.op in ("Const", "Placeholder", "PlaceholderWithDefault"):
            continue
        count = Node(proto).output_count()
        tensors += [proto.name, *(f"{proto.name}:{index}" for index in range(1, count))][:count]
    return tensors


def _placeholders(graph: Any, tensors: Sequence[str], shapes: Shapes) -> list[Any]:
    """The inputs that `tensors` depend on. One with a default counts only if a shape is given for it."""
    from ._tensorflow import Input, Node

    nodes = {proto.name: proto for proto in graph.node}
    reached: set[str] = set()
    stack = [tensor.partition(":")[0] for tensor in tensors]
    while stack:
        name = stack.pop()
        if name not in reached and name in nodes:
            reached.add(name)
            stack += [source.partition(":")[0] for source in nodes[name].input if not source.startswith("^")]
    inputs = []
    for proto in graph.node:
        wanted = proto.op == "Placeholder" or (proto.op == "PlaceholderWithDefault" and proto.name in shapes)
        if wanted and proto.name in reached:
            node = Node(proto)
            inputs.append(Input(proto.name, proto.name, node["dtype"], _declared(node["shape"])))
    return inputs


# A SavedModel


def _import_saved_model(
    files: Mapping[str, memoryview], given: Shapes, outputs: Sequence[str] | None
) -> Imported:
    from tensorflow.core.protobuf import saved_model_pb2

    from ._tensorflow import Input, convert, dtype_name

    if "saved_model.pb" not in files:
        raise ModelError("the tar is no SavedModel: 'saved_model.pb' is not at its top")
    saved = _parse(saved_model_pb2.SavedModel(), bytes(files["saved_model.pb"]), "a SavedModel")
    meta = _serving_graph(saved)
    signature = _signature(meta)

    # The order of a protobuf map is not fixed, and inputs are positional.
    inputs = []
    for key, info in sorted(signature.inputs.items()):
        if not info.name:
            raise ModelError(f"input '{key}' of the SavedModel is not a plain tensor, which is not supported")
        inputs.append(
            Input(
                _without_zero(info.name),
                info.name,
                dtype_name(info.dtype),
                _declared(info.tensor_shape),
            )
        )
    aliases = {key: _without_zero(info.name) for key, info in signature.inputs.items()}
    shapes = {aliases.get(name, _without_zero(name)): dimensions for name, dimensions in given.items()}
    _check_names(shapes, [entry.name for entry in inputs])
    results = {key: info.name for key, info in sorted(signature.outputs.items())}
    if outputs:
        tensors = {_without_zero(tensor): tensor for tensor in results.values()}
        wanted = {}
        for name in outputs:
            wanted[name] = results.get(name) or tensors.get(_without_zero(name))
            if wanted[name] is None:
                raise ModelError(f"the SavedModel has no output '{name}': it has {quoted(results)}")
        results = wanted
    with _checkpoint(files) as read:
        variables = _restored(meta, read)
        return convert(meta.graph_def, inputs, list(results.items()), shapes, variables)


def _serving_graph(saved: Any) -> Any:
    """The graph for serving among those of a SavedModel."""
    graphs = [meta for meta in saved.meta_graphs if set(meta.meta_info_def.tags) == {"serve"}]
    if not graphs:
        graphs = list(saved.meta_graphs)
    if len(graphs) != 1:
        tags = ["+".join(meta.meta_info_def.tags) for meta in saved.meta_graphs]
        raise ModelError(f"the SavedModel has no graph tagged 'serve': it has {quoted(tags)}")
    return graphs[0]


def _signature(meta: Any) -> Any:
    signatures = {
        name: value
        for name, value in meta.signature_def.items()
        if value.outputs and name != "__saved_model_init_op"
    }
    if _SIGNATURE in signatures:
        return signatures[_SIGNATURE]
    if len(signatures) != 1:
        raise ModelError(
            f"the SavedModel has no signature '{_SIGNATURE}' and not exactly one other: it has "
            f"{quoted(sorted(signatures))}"
        )
    return next(iter(signatures.values()))


def _read_tar(model: bytes) -> dict[str, memoryview]:
    """The files of a tar, uncopied. Plain files and folders with relative names are all that it may hold."""
    content = memoryview(model)
    files: dict[str, memoryview] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(model), mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ModelError(f"the SavedModel's tar holds '{path}', which lies outside of it")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ModelError(f"the SavedModel's tar holds '{path}', which is not a plain file")
                end = member.offset_data + member.size
                if member.size < 0 or end > len(model):
                    raise ModelError("the SavedModel's tar is cut short")
                files[str(path)] = content[member.offset_data : end]
    except tarfile.TarError:
        raise ModelError("the SavedModel's tar is damaged") from None
    return files


@contextlib.contextmanager
def _checkpoint(files: Mapping[str, memoryview]) -> Iterator[Callable[[str], Callable[[], np.ndarray]]]:
    """Read a SavedModel's variables: `read(key)` is a function that gives the weights.

    TensorFlow reads checkpoints from a file system; its `ram://` one lies in this process's memory.
    """
    import tensorflow as tf

    folder = f"ram://{uuid.uuid4().hex}/variables"
    paths = []
    reader = None
    try:
        for name, content in files.items():
            path = PurePosixPath(name)
            if path.parent.name == "variables" and len(path.parts) == 2:
                paths.append(f"{folder}/{path.name}")
                with tf.io.gfile.GFile(paths[-1], "wb") as file:
                    file.write(bytes(content))

        def read(key: str) -> Callable[[], np.ndarray]:
            def weights() -> np.ndarray:
                nonlocal reader
                try:
                    if reader is None:
                        reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/variables")
                    return reader.get_tensor(key)
                except (tf.errors.OpError, ValueError, RuntimeError):
                    raise ModelError(
                        f"the SavedModel's variables do not hold '{key}', or are damaged"
                    ) from None

            return weights

        yield read
    finally:
        for path in paths:
            tf.io.gfile.remove(path)


def _restored(meta: Any, read: Callable[[str], Callable[[], np.ndarray]]) -> dict[str, Any]:
    """The variables of the graph by their nodes.

    The graph's own restore operation says which tensor of the checkpoint is whose. It is walked, not run:
    nothing else that it may contain takes place.
    """
    from ._tensorflow import restore

    operation = meta.saver_def.restore_op_name
    if not operation:
        return {}
    filename = _without_zero(meta.saver_def.filename_tensor_name)
    return restore(meta.graph_def, operation, filename, read)


# Both


def _parse(message: Any, content: bytes, what: str) -> Any:
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(content)
    except DecodeError:
        raise ModelError(f"this is not {what}: its bytes do not decode") from None
    return message


def _without_zero(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _declared(shape: Any) -> list[int | None] | None:
    """A TensorShapeProto's dimensions, the open ones None."""
    if shape.unknown_rank:
        return None
    return [None if dimension.size < 0 else dimension.size for dimension in shape.dim]


def _check_names(shapes: Shapes, inputs: Sequence[str]) -> None:
    for name in shapes.keys() - set(inputs):
        raise ModelError(f"the model has no input '{name}': it has {quoted(inputs)}")
