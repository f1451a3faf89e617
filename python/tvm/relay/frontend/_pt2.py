"""PT2 archives (`torch.export.save`) read without running anything that they hold.

`torch.export.load` unpickles sample inputs and odd weights, resolves operator names to any attribute of
`torch`, evaluates shape expressions as Python and compiles guards from source text. So the archive is read
here: its JSON is checked and stripped to the graph, its weights are views of the archive's own bytes, and
no pickle is opened.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import warnings
import zipfile
from typing import Any

from .common import ModelError

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|higher_order|prims|torchvision)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.sym_(not|int|float|ite|max|min|sqrt)|math\.(ceil|floor|trunc)"
)
# The functions of sympy and of torch.utils._sympy that torch.export writes shape expressions with.
_SHAPE_FUNCTIONS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|PythonMod|CleanDiv|CeilDiv|CeilToInt"
    "|FloorToInt|TruncToInt|TruncToFloat|RoundToInt|ToFloat|IntTrueDiv|FloatTrueDiv|PowByNatural|FloatPow"
    "|LShift|RShift|Where|ModularIndexing|Identity|Eq|Ne|Equality|Unequality|StrictLessThan|LessThan"
    "|StrictGreaterThan|GreaterThan|Lt|Le|Gt|Ge|And|Or|Not"
)
_SYMBOL = re.compile(r"[A-Za-z]+\d+")
_SHAPE_SYNTAX = (
    ast.Expression, ast.Load, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_LOCAL_HEADER = struct.Struct("<26xHH")


def read_pt2(model: bytes, archive: zipfile.ZipFile, root: str) -> Any:
    """Build the `torch.export.ExportedProgram` of a PT2 archive.

    Parameters
    ----------
    model
        The archive's bytes. The program's weights are read-only views of them.
    archive
        The same bytes, opened.
    root
        The folder of the archive that everything lies in.

    Returns
    -------
    torch.export.ExportedProgram
        With the flat list of inputs and outputs for its call signature, and without metadata.

    Raises
    ------
    ModelError
        The archive holds no program or several, or a value that only a pickle, custom code or compiled
        code could give.
    """
    from torch._export.serde import schema, serialize

    members = {info.filename: info for info in archive.infolist()}
    programs = [name for name in members if re.fullmatch(rf"{re.escape(root)}/models/[^/]+\.json", name)]
    if any(name.startswith(f"{root}/data/aotinductor/") for name in members):
        raise ModelError(
            "PyTorch: the archive holds code compiled by AOTInductor: save it with torch.export.save"
        )
    if len(programs) != 1:
        raise ModelError(f"PyTorch: the archive holds {len(programs)} programs where one is wanted")
    name = programs[0].rpartition("/")[2].removesuffix(".json")
    program = _flat_calls(_checked(json.loads(archive.read(programs[0]))))

    tensors = []
    for folder in ("weights", "constants"):
        config = members.get(f"{root}/data/{folder}/{name}_{folder}_config.json")
        if config is None:
            raise ModelError(
                f"PyTorch: an older torch wrote this archive's {folder}: load and save it with torch 2.13"
            )
        entries = json.loads(archive.read(config))["config"]
        tensors.append(
            {
                key: _tensor(model, members.get(f"{root}/data/{folder}/{entry['path_name']}"), key, entry)
                for key, entry in entries.items()
            }
        )
    state, constants = tensors
    return serialize.ExportedProgramDeserializer().deserialize(
        serialize._dict_to_dataclass(schema.ExportedProgram, program), state, constants
    )


def _tensor(model: bytes, member: zipfile.ZipInfo | None, name: str, entry: dict[str, Any]) -> Any:
    """The tensor that `entry` describes, as a view of the archive's bytes."""
    import torch
    from torch._export.serde import schema, serialize

    meta = entry["tensor_meta"]
    if entry["use_pickle"] or meta is None:
        raise ModelError(
            f"PyTorch: '{name}' is stored as a pickle, which could run code: make it a plain tensor"
        )
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        raise ModelError(f"PyTorch: the archive does not hold the bytes of '{name}'")
    meta = serialize._dict_to_dataclass(schema.TensorMeta, _checked(meta))
    dtype = serialize.deserialize_scalar_type(meta.dtype)
    if member.file_size == 0:
        tensor = torch.empty(serialize.deserialize_size(meta.sizes), dtype=dtype)
        return torch.nn.Parameter(tensor, requires_grad=False) if entry["is_param"] else tensor
    name_length, extra_length = _LOCAL_HEADER.unpack_from(model, member.header_offset)
    offset = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    with warnings.catch_warnings():
        # PyTorch warns that the bytes are read-only; nothing here writes to a weight.
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.frombuffer(model, dtype=torch.uint8, count=member.file_size, offset=offset)
    tensor = flat.view(dtype).as_strided(
        serialize.deserialize_size(meta.sizes),
        serialize.deserialize_stride(meta.strides),
        serialize.deserialize_storage_offset(meta.storage_offset),
    )
    return torch.nn.Parameter(tensor, requires_grad=False) if entry["is_param"] else tensor


def _checked(value: Any) -> Any:
    """A copy of the program's JSON on the CPU, without metadata, every name and expression in it checked."""
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"type", "index"}:
        return {"type": "cpu", "index": None}
    node = isinstance(value.get("target"), str)
    checked = {}
    for key, item in value.items():
        if key in ("target", "as_operator") and isinstance(item, str):
            _check_operator(item)
        elif key == "expr_str":
            _check_expression(item)
        elif key in ("custom_obj_values", "as_custom_obj", "custom_obj") and item:
            raise ModelError("PyTorch: the archive holds a custom object, which only its own code could load")
        checked[key] = {} if node and key == "metadata" else _checked(item)
    return checked


def _check_operator(name: str) -> None:
    # These two reach for files when they run.
    if not _OPERATOR.fullmatch(name) or name.startswith(("torch.ops.aten.save", "torch.ops.aten.from_file")):
        raise ModelError(f"PyTorch: operator '{name}' is not supported")


def _check_expression(text: Any) -> None:
    """Refuse a shape expression that is more than arithmetic on symbols: sympy evaluates it as Python."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise ModelError("PyTorch: the archive holds a shape that is not an expression") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name) and bool(_SHAPE_FUNCTIONS.fullmatch(node.func.id))
        elif isinstance(node, ast.Name):
            fine = bool(_SHAPE_FUNCTIONS.fullmatch(node.id) or _SYMBOL.fullmatch(node.id))
        elif isinstance(node, ast.Constant):
            fine = isinstance(node.value, int | float) or bool(_SYMBOL.fullmatch(str(node.value)))
        else:
            fine = isinstance(node, _SHAPE_SYNTAX)
        if not fine:
            raise ModelError("PyTorch: the archive holds a shape that is more than arithmetic")


def _flat_calls(program: dict[str, Any]) -> dict[str, Any]:
    """Make the program take a flat list of inputs and give a flat list of outputs.

    Nested containers may be classes of packages that are not installed, and a compiled model has flat inputs
    and outputs anyway.
    """

    def container(kind: str, children: list[Any]) -> dict[str, Any]:
        return {
            "type": f"builtins.{kind}",
            "context": "[]" if kind == "dict" else "null",
            "children_spec": children,
        }

    leaf = {"type": None, "context": None, "children_spec": []}
    module = program["graph_module"]
    specs = module["signature"]
    inputs = [spec for spec in specs["input_specs"] if spec.keys() & {"user_input", "constant_input"}]
    outputs = [spec for spec in specs["output_specs"] if spec.keys() & {"user_output", "loss_output"}]
    arguments = container("tuple", [leaf] * len(inputs))
    root = next(entry for entry in module["module_call_graph"] if entry["fqn"] == "")
    signature = root["signature"]
    signature["in_spec"] = json.dumps([1, container("tuple", [arguments, container("dict", [])])])
    signature["out_spec"] = json.dumps([1, container("tuple", [leaf] * len(outputs))])
    signature["forward_arg_names"] = None
    module["module_call_graph"] = [root]
    module["metadata"] = {}
    module["treespec_namedtuple_fields"] = {}
    # Guards are Python source that torch would compile.
    program["guards_code"] = []
    return program
