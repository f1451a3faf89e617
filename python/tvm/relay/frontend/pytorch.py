"""PyTorch archives to Relax: `from_pytorch` on sealed bytes, `import_pytorch` on plain ones."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._pt2 import read_pt2
from ._shared import bound_indices, identifier, is_constant, one_line, quoted
from .common import Imported, ModelError, Shapes, require, sealed_import

__all__ = ["from_pytorch", "import_pytorch"]

_SAVE_INSTEAD = (
    "save the model with torch.export.save(torch.export.export(model, inputs), file) "
    "or torch.jit.trace(model, inputs).save(file)"
)
# What a TorchScript archive's code must not do: the first runs while the archive is loaded, the others
# reach for files.
_UNSAFE_TORCHSCRIPT = re.compile(rb"\bdef (__setstate__)\b|\b(torch\.save|torch\.from_file)\(")


def from_pytorch(
    script_module: Any,
    input_infos: Any,
    custom_convert_map: Mapping[str, Callable[..., Any]] | None = None,
    default_dtype: str | Mapping[str, str] = "float32",
    use_parser_friendly_name: bool = False,
    keep_quantized_weight: bool = False,
) -> tuple[bytes, bytes]:
    """Turn a sealed PyTorch archive into a sealed Relax module and its sealed weights.

    The archive is what `torch.export.save` writes (PT2) or what `save` of a traced or scripted module writes
    (TorchScript). A pickle, `torch.save` of a module or a state dict, is refused, since loading it runs code.
    A PT2 archive is read without running anything that it holds. TorchScript is a program by nature:
    PyTorch's own loader compiles it and importing traces it, on tensors without data; archives whose code
    would run on loading or touch files are refused. Sign models, and name whose signatures count, to decide
    who may give you one.

    Parameters
    ----------
    script_module
        The sealed archive (content type `model/pytorch`): bytes, or the path of a sealed file.
    input_infos
        Sealed input shapes (content type `input-shapes`), `{name: [dimension, ...]}`, in the order of the
        model's inputs unless the names are the model's own. The inputs get these names. A dimension given as
        a string is symbolic. TorchScript holds no shapes, so it needs them; a PT2 archive does, so they
        may be absent, and only dimensions that it left dynamic can change.
    custom_convert_map
        Converters for operators that Relax does not read, `{"op.overload": function(node, importer)}`, as
        `tvm.relax.frontend.torch.from_exported_program` takes them.
    default_dtype
        The dtype of TorchScript inputs, or `{name: dtype}`. A PT2 archive says its own.
    use_parser_friendly_name
        Replace the dots in the names of weights by underscores.
    keep_quantized_weight
        Refused if set: weights keep the dtype that the archive stores, and PyTorch's packed quantised
        weights are not read.

    Returns
    -------
    module, params
        Sealed bytes, for `relay.build`.

    Raises
    ------
    ModelError
        The bytes are neither archive, shapes are missing or do not fit, or an operator is not supported.
    """
    if keep_quantized_weight:
        raise ModelError(
            "from_pytorch: keep_quantized_weight: PyTorch's packed quantised weights are not read"
        )
    return sealed_import(
        "model/pytorch",
        script_module,
        input_infos,
        lambda plain, shapes: import_pytorch(
            plain, shapes, default_dtype, custom_convert_map, use_parser_friendly_name
        ),
    )


def import_pytorch(
    model: bytes,
    shape: Shapes | None = None,
    default_dtype: str | Mapping[str, str] = "float32",
    custom_convert_map: Mapping[str, Callable[..., Any]] | None = None,
    use_parser_friendly_name: bool = False,
) -> Imported:
    """Import the bytes of a PyTorch archive; the arguments and errors are those of `from_pytorch`."""
    require("torch", "pytorch")
    try:
        archive = zipfile.ZipFile(io.BytesIO(model))
    except (zipfile.BadZipFile, ValueError, OverflowError):
        archive = None
    # Python reads a zip file behind other bytes too, such as one inside a truncated one.
    if archive is None or min((info.header_offset for info in archive.infolist()), default=1) > 0:
        if model[:1] == b"\x80":
            raise ModelError(f"this is a pickle, which could run code when opened: {_SAVE_INSTEAD}")
        raise ModelError(f"this is not a PyTorch archive: {_SAVE_INSTEAD}")
    names = archive.namelist()
    root = names[0].partition("/")[0]
    try:
        if f"{root}/archive_format" in names:
            program = read_pt2(model, archive, root)
        elif f"{root}/constants.pkl" in names:
            program, shape = _read_torchscript(model, archive, shape, default_dtype)
        elif f"{root}/data.pkl" in names:
            raise ModelError(f"this is a pickle, which could run code when opened: {_SAVE_INSTEAD}")
        else:
            raise ModelError(f"this is not a PyTorch archive: {_SAVE_INSTEAD}")
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"PyTorch: the archive cannot be read: {one_line(error)}") from None
    return _to_relax(program, shape, custom_convert_map, use_parser_friendly_name)


def _read_torchscript(
    model: bytes, archive: zipfile.ZipFile, shapes: Shapes | None, default_dtype: str | Mapping[str, str]
) -> tuple[Any, Shapes]:
    """Export a TorchScript archive as a `torch.export.ExportedProgram`; `shapes` come back in its order."""
    import torch
    from torch._export.converter import TS2EPConverter
    from torch.export import Dim

    for name in archive.namelist():
        if name.endswith(".py") and (unsafe := _UNSAFE_TORCHSCRIPT.search(archive.read(name))):
            operator = (unsafe[1] or unsafe[2]).decode()
            raise ModelError(f"PyTorch: the archive's code uses {operator}, which is refused as unsafe")
    module = torch.jit.load(io.BytesIO(model), map_location="cpu")
    own_names = [re.sub(r"\.\d+$", "", value.debugName()) for value in module.forward.graph.inputs()][1:]
    if not shapes:
        raise ModelError(
            f"PyTorch: TorchScript holds no input shapes: give those of its inputs {quoted(own_names)}"
        )
    shapes = _in_order(shapes, own_names)
    dimensions: dict[str, Any] = {}
    examples, dynamic = [], []
    for name, dims in shapes.items():
        dtype = default_dtype if isinstance(default_dtype, str) else default_dtype.get(name, "float32")
        torch_dtype = getattr(torch, dtype, None)
        if not isinstance(torch_dtype, torch.dtype):
            raise ModelError(f"PyTorch: input '{name}': no dtype is called '{dtype}'")
        symbolic = {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        for dim in symbolic.values():
            # The example's size only has to be one that export does not take for a constant, as it does 1.
            dimensions.setdefault(dim, (Dim(identifier(dim)), len(dimensions) + 3))
        examples.append(
            torch.zeros(
                [dimensions[dim][1] if isinstance(dim, str) else dim for dim in dims], dtype=torch_dtype
            )
        )
        dynamic.append({axis: dimensions[dim][0] for axis, dim in symbolic.items()})

    class Converter(TS2EPConverter):
        """Upstream's converter, which makes every dimension dynamic, with exactly the symbolic ones so."""

        def retrace_as_exported_program(self, gm: Any, name_to_constant: dict[str, Any]) -> Any:
            return torch.export.export(gm, self.sample_args, dynamic_shapes=tuple(dynamic), strict=False)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Converter(module, tuple(examples)).convert(), shapes
        except Exception as error:
            raise ModelError(
                f"PyTorch: the model cannot be traced for {_shown(shapes)}: {one_line(error)}"
            ) from None


def _in_order(shapes: Shapes, own_names: list[str]) -> dict[str, Any]:
    """`shapes` in the order of the model's inputs: by its own names, or else as given."""
    if len(shapes) != len(own_names):
        raise ModelError(
            f"PyTorch: {len(shapes)} input shapes for the {len(own_names)} inputs {quoted(own_names)}"
        )
    if shapes.keys() == set(own_names):
        return {name: shapes[name] for name in own_names}
    return dict(shapes)


def _to_relax(
    program: Any,
    shapes: Shapes | None,
    custom_convert_map: Mapping[str, Callable[..., Any]] | None,
    use_parser_friendly_name: bool,
) -> Imported:
    """Translate a `torch.export.ExportedProgram` to Relax, its weights apart."""
    import torch
    from tvm.relax.frontend.torch import from_exported_program

    inputs = _user_inputs(program)
    shapes = _in_order(shapes, inputs) if shapes else None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = program.run_decompositions()
    weights = _weights_as_inputs(program, list(shapes or inputs), use_parser_friendly_name)
    try:
        module = from_exported_program(
            program,
            unwrap_unit_return_tuple=True,
            custom_convert_map=dict(custom_convert_map or {}),
            run_ep_decomposition=False,
        )
    except AssertionError as error:
        operators = re.findall(r"'([^']+)'", str(error)) if "Unsupported function types" in str(error) else []
        if not operators:
            raise
        raise ModelError(f"PyTorch: operators not supported: {', '.join(sorted(operators))}") from None
    module["main"] = module["main"].with_attr("num_input", len(inputs))
    module = bound_indices(module)
    if shapes:
        module = _with_shapes(module, shapes)
    outputs = [f"output_{i}" for i in range(len(program.graph_signature.user_outputs))]
    return Imported(module, weights, outputs)


def _user_inputs(program: Any) -> list[str]:
    """The names of `program`'s inputs; what it took as constants, a flag say, are none."""
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    names = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT or isinstance(spec.arg, ConstantArgument):
            continue
        if not isinstance(spec.arg, TensorArgument):
            raise ModelError(f"PyTorch: input '{spec.arg.name}' is not a tensor")
        names.append(spec.arg.name)
    return names


def _weights_as_inputs(
    program: Any, inputs: list[str], use_parser_friendly_name: bool
) -> dict[str, np.ndarray]:
    """Turn every larger tensor that `program` holds into an input after its own, and name them all.

    Relax's importer would put buffers and constants, a batch norm's statistics say, into the code, and copy
    parameters. The new names are `inputs`, and those of the state dict.
    """
    import torch
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    nodes = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    own, weight_specs, kept_specs = [], [], []
    names = iter(inputs)
    constants = program.constants
    kept, weights = {}, {}
    for spec in program.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        if isinstance(spec.arg, ConstantArgument):
            program.graph.erase_node(node)
            continue
        if spec.kind is InputKind.USER_INPUT:
            name = next(names)
            own.append(spec)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            tensor = program.state_dict.get(spec.target, constants.get(spec.target))
            wide_integer = tensor.dtype in (torch.int64, torch.int32, torch.bool)
            if spec.kind is not InputKind.PARAMETER and is_constant(tensor.numel(), wide_integer):
                kept[spec.target] = tensor
                kept_specs.append(spec)
                continue
            name = spec.target.replace(".", "_") if use_parser_friendly_name else spec.target
            if name in inputs:
                raise ModelError(f"PyTorch: '{name}' is the name of a weight: name the input otherwise")
            weights[name] = _to_numpy(tensor)
            spec.kind, spec.target, spec.persistent = InputKind.USER_INPUT, None, None
            weight_specs.append(spec)
        else:
            raise ModelError(f"PyTorch: '{spec.arg.name}' is not a tensor")
        spec.arg = TensorArgument(name=name)
        node.name = name
    program.graph_signature.input_specs[:] = own + weight_specs + kept_specs
    constants.clear()
    constants.update(kept)
    return weights


def _to_numpy(tensor: Any) -> np.ndarray:
    """`tensor` as an array of the same memory, where its layout allows."""
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _with_shapes(module: Any, shapes: Mapping[str, Any]) -> Any:
    """Give the dimensions that `module` left symbolic the values or names that `shapes` has for them."""
    from tvm import relax, tirx

    symbols: dict[str, Any] = {}
    bindings: dict[Any, Any] = {}
    pairs = list(zip(module["main"].params, shapes.items(), strict=False))
    for param, (name, dims) in pairs:
        own = param.ty.shape.values
        if len(own) != len(dims):
            raise ModelError(f"PyTorch: input '{name}' has {len(own)} dimensions, not {len(dims)}")
        for have, want in zip(own, dims, strict=True):
            if not isinstance(have, tirx.Var):
                continue
            if isinstance(want, str):
                want = symbols.setdefault(want, tirx.Var(identifier(want), "int64"))
            bindings.setdefault(have, want)
    if bindings:
        module = relax.transform.BindSymbolicVars(bindings, "main")(module)
        # The bounds name the variables that are gone.
        main = module["main"].without_attr("tir_var_lower_bound").without_attr("tir_var_upper_bound")
        module["main"] = main
    for param, (name, dims) in zip(module["main"].params, shapes.items(), strict=False):
        for axis, (have, want) in enumerate(zip(param.ty.shape.values, dims, strict=True)):
            fixed = have.value if isinstance(have, tirx.IntImm) else None
            if fixed != (None if isinstance(want, str) else want):
                raise ModelError(
                    f"PyTorch: dimension {axis} of input '{name}' is {fixed or have} in the model, not {want}"
                )
    return module


def _shown(shapes: Shapes) -> str:
    return ", ".join(f"'{name}' of shape [{', '.join(map(str, dims))}]" for name, dims in shapes.items())
