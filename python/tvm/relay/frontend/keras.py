"""Keras models to Relax: `from_keras` on sealed bytes, `import_keras` on plain ones."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

from ._shared import quoted
from .common import Imported, ModelError, Shapes, require, sealed_import

__all__ = ["from_keras", "import_keras"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_CONFIG = "config.json"
_MEMBERS = {_CONFIG, "metadata.json", "model.weights.h5"}
# Keras stores its members uncompressed: one that declares more than this, and many times the bytes that the
# archive holds of it, is no model.
_MAX_MEMBER = 1 << 26
_MAX_EXPANSION = 8

# Layers that run code of the file or of another framework, or that read files of this machine.
_REFUSED_LAYERS = {
    "FlaxLayer": "it runs another framework's code",
    "IntegerLookup": "it may read files",
    "JaxLayer": "it runs another framework's code",
    "Lambda": "it runs code that the file carries",
    "StringLookup": "it may read files",
    "TFSMLayer": "it reads a SavedModel from a path",
    "TextVectorization": "it may read files",
    "TorchModuleWrapper": "it runs another framework's code",
}
_LITERALS = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}


def from_keras(model: Any, shape: Any = None, layout: str = "NCHW") -> tuple[bytes, bytes]:
    """Turn a sealed Keras model into a sealed Relax module and its sealed weights.

    Parameters
    ----------
    model
        The sealed model (content type `model/keras`): bytes, or the path of a sealed file. It is a `.keras`
        archive or an `.h5` file. One with `Lambda` layers or custom objects is refused: it would run code.
    shape
        Sealed input shapes (content type `input-shapes`), `{input layer: [dimension, ...]}`, with the batch.
        They take the place of the shapes in the model; a dimension given as a string is symbolic.
    layout
        "NCHW" or "NHWC", as in Relay. Either gives the same module, whose inputs are laid out as the model's
        own: the compiler chooses the layout that its kernels want.

    Returns
    -------
    module, params
        Sealed bytes, for `relay.build`. The function's inputs carry the names of the model's input layers.
        Where the model leaves a dimension open it is symbolic: the first one of every input is `batch`.

    Raises
    ------
    ModelError
        The bytes are no Keras model, it would run code, a layer or operator is not supported, or a shape or
        an input's name does not fit.
    """
    from ._tensorflow import check_layout

    check_layout("from_keras", layout)
    return sealed_import("model/keras", model, shape, import_keras)


def import_keras(model: bytes, shape: Shapes | None = None) -> Imported:
    """Import the bytes of a Keras model; the arguments and errors are those of `from_keras`.

    Keras builds the model and TensorFlow traces it for inference; the graph then takes the way of
    TensorFlow's own models.
    """
    from ._tensorflow import load_tensorflow

    load_tensorflow("keras")
    keras = _load_keras()
    loaded = _load_archive(keras, model) if model[:4] == b"PK\x03\x04" else _load_hdf5(keras, model)
    return _trace(keras, loaded, shape or {})


def _load_keras() -> Any:
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    keras = require("keras", "keras")
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise ModelError(f"this process runs Keras on '{backend}': start it with KERAS_BACKEND=tensorflow")
    return keras


# Reading the file


def _load_archive(keras: Any, model: bytes) -> Any:
    from keras.src.saving import saving_lib

    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            _check_members(archive.infolist())
            config = _parse_config(archive.read(_CONFIG))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        raise ModelError("this is not a Keras model: its archive is damaged") from None
    _check_objects(keras, {key: value for key, value in config.items() if key != "compile_config"})
    return _loaded(lambda: saving_lib.load_model(io.BytesIO(model), compile=False, safe_mode=True))


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if _CONFIG not in names or len(set(names)) != len(names):
        raise ModelError(f"this is not a Keras model: its archive does not hold one '{_CONFIG}'")
    for member in members:
        if member.filename not in _MEMBERS:
            # Keras would unpack it to a temporary folder.
            raise ModelError(f"the Keras model's archive holds '{member.filename}', which is not supported")
        if member.file_size > max(_MAX_MEMBER, _MAX_EXPANSION * member.compress_size):
            raise ModelError(f"the Keras model's archive would expand '{member.filename}' beyond measure")


def _load_hdf5(keras: Any, model: bytes) -> Any:
    from keras.src.legacy.saving import legacy_h5_format

    if not model.startswith(_HDF5_MAGIC):
        raise ModelError("this is not a Keras model: it is neither a .keras archive nor an .h5 file")
    h5py = require("h5py", "keras")
    try:
        file = h5py.File(io.BytesIO(model), "r")
    except (OSError, RuntimeError):
        raise ModelError("this is not a Keras model: its HDF5 file is damaged") from None
    with file:
        if "model_config" not in file.attrs:
            raise ModelError("the HDF5 file holds weights alone: save the whole model with model.save(...)")
        _check_objects(keras, _parse_config(file.attrs["model_config"]))
        return _loaded(lambda: legacy_h5_format.load_model_from_hdf5(file, compile=False, safe_mode=True))


def _parse_config(content: bytes | str) -> Any:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError("this is not a Keras model: its configuration is damaged") from None
    if not isinstance(config, dict):
        raise ModelError("this is not a Keras model: its configuration is damaged")
    return config


def _loaded(load: Any) -> Any:
    try:
        return load()
    except Exception:
        # Keras quotes the whole configuration, and h5py can quote what it read.
        raise ModelError(
            "Keras cannot read this model: its file is damaged, or a newer or older version of Keras wrote it"
        ) from None


def _check_objects(keras: Any, config: Any) -> None:
    """Refuse what would run code before Keras sees it: Lambdas, custom objects, other packages' objects."""
    namespaces = [
        keras,
        keras.activations,
        keras.constraints,
        keras.dtype_policies,
        keras.initializers,
        keras.layers,
        keras.models,
        keras.regularizers,
    ]
    for layer, entry in _objects(config, "the model"):
        name = entry["class_name"]
        if name in _LITERALS:
            continue
        if name in _REFUSED_LAYERS:
            raise ModelError(f"{layer} is a {name} layer, which is refused: {_REFUSED_LAYERS[name]}")
        if name in ("__lambda__", "__typespec__"):
            raise ModelError(f"{layer} holds a Python function, which is refused: it runs code of the file")
        module = entry.get("module")
        if name == "function":
            name = entry.get("config")
        known = name == "Functional" or any(hasattr(namespace, str(name)) for namespace in namespaces)
        inside = isinstance(module, str) and (module in ("builtins", "keras") or module.startswith("keras."))
        custom = ">" in str(entry.get("registered_name") or "")
        if custom or not (inside or (known and module is None)):
            raise ModelError(
                f"{layer} uses '{name}', which is not Keras's own: a custom object would run code"
            )


def _objects(config: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object that a configuration describes, with the innermost layer around it, for messages."""
    stack = [(config, layer)]
    while stack:
        entry, around = stack.pop()
        if isinstance(entry, dict):
            if isinstance(entry.get("class_name"), str):
                inner = entry.get("config")
                if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                    around = f"layer '{inner['name']}'"
                yield around, entry
            stack += [(value, around) for value in entry.values()]
        elif isinstance(entry, list):
            stack += [(value, around) for value in entry]


# Tracing


def _trace(keras: Any, model: Any, given: Shapes) -> Imported:
    import tensorflow as tf

    from ._tensorflow import Input, Variable, convert

    tensors = list(model.inputs or [])
    if not tensors:
        raise ModelError("the Keras model does not say its inputs: build it before it is saved")
    names = [tensor.name for tensor in tensors]
    for name in given.keys() - set(names):
        raise ModelError(f"the model has no input '{name}': it has {quoted(names)}")
    specs = []
    for tensor in tensors:
        if tensor.sparse:
            raise ModelError(f"input '{tensor.name}' is sparse, which is not supported")
        shape = given.get(tensor.name, tensor.shape)
        fixed = [size if isinstance(size, int) and size >= 0 else None for size in shape]
        specs.append(tf.TensorSpec(fixed, tensor.dtype))

    structure = tensors[0] if isinstance(model, keras.Sequential) else model.input

    def infer(*arguments: Any) -> list[Any]:
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, arguments), training=False))

    try:
        # Autograph would write the source that it generates to a temporary file.
        traced = tf.function(infer, autograph=False).get_concrete_function(*specs)
    except Exception:
        shapes = ", ".join(f"'{name}' {spec.shape}" for name, spec in zip(names, specs, strict=True))
        raise ModelError(f"Keras cannot run the model on inputs of these shapes: {shapes}") from None
    variables = {id(variable.handle): variable for variable in traced.variables}
    values: dict[str, Any] = {}
    for outside, inside in traced.graph.captures:
        variable = variables.get(id(outside))
        values[inside.op.name] = (
            outside.numpy()
            if variable is None
            else Variable(variable.name.removesuffix(":0"), variable.numpy)
        )
    inputs = [
        Input(name, argument.name, spec.dtype.name, tensor.shape)
        for name, argument, spec, tensor in zip(names, traced.inputs, specs, tensors, strict=False)
    ]
    output_names = getattr(model, "output_names", None) or [tensor.name for tensor in model.outputs]
    outputs = [(name, tensor.name) for name, tensor in zip(output_names, traced.outputs, strict=True)]
    return convert(traced.graph.as_graph_def(), inputs, outputs, given, values)
