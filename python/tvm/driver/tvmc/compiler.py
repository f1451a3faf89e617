"""From a `TVMCModel` to a `TVMCPackage`, with the compiler's options as upstream's tvmc has them."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm_secret import artefact, retired
from tvm_secret.errors import ModelError, SecretError, TargetError
from tvm_secret.recipients import Recipient
from tvm_secret.runner import TVMCPackage
from tvm_secret.suites import DEFAULT_SUITE

from .model import TVMCModel

__all__ = ["compile_model"]


def compile_model(
    tvmc_model: TVMCModel,
    target: str,
    opt_level: int = 3,
    executor: str | None = None,
    runtime: str | None = None,
    tuning_records: str | None = None,
    package_path: str | Path | None = None,
    cross: str | Callable | None = None,
    cross_options: str | None = None,
    output_format: str = "tar",
    dump_code: Sequence[str] | str | None = None,
    target_host: str | None = None,
    desired_layout: str | None = None,
    disabled_pass: Sequence[str] | str | None = None,
    pass_context_configs: Sequence[str] | None = None,
    additional_target_options: Mapping[str, Mapping[str, Any]] | None = None,
    use_vm: bool = True,
    mod_name: str = "default",
    *,
    exact: bool = False,
    recipients: Iterable[str | Path | Recipient] | None = None,
    suite: str = DEFAULT_SUITE,
    policy: Mapping[str, str] | None = None,
    allow_plaintext_dump: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> TVMCPackage:
    """Compile a sealed model to a sealed artefact.

    Args:
        tvmc_model: what `tvmc.load` returned.
        target: "llvm", with options as in "llvm -mcpu=x86-64-v3"; JSON; or the path of a .json file.
        opt_level: passes above this level (0 to 3) are left out.
        executor, runtime, tuning_records, cross, cross_options, target_host, desired_layout, mod_name: of
            upstream; each is ignored with a warning or refused with a reason (`tvm_secret.retired`).
        package_path: where to write the artefact; None keeps it in memory, sealed.
        output_format: "tar".
        dump_code: of "relax", "ll" and "asm", what to write in clear to `allow_plaintext_dump`; refused
            where that names no file.
        disabled_pass: names of passes to leave out, such as "FuseOps", as a list or separated by commas.
        pass_context_configs: options of TVM's passes, such as "tirx.disable_vectorize=1".
        additional_target_options: {"llvm": {"mcpu": ...}}, added to the target.
        use_vm: code always runs in TVM's virtual machine.
        exact, recipients, suite, policy, progress: as in `relay.build`.

    Raises:
        SecretError: an option is unknown or refused, or the model does not compile.
    """
    from tvm import relay

    if not isinstance(tvmc_model, TVMCModel):
        raise ModelError(
            f"tvmc.compile takes a TVMCModel, which tvmc.load returns, not {type(tvmc_model).__name__}"
        )
    retired.check(
        retired.COMPILE,
        executor=executor,
        runtime=runtime,
        tuning_records=tuning_records,
        cross=cross,
        cross_options=cross_options,
        output_format=output_format,
        target_host=target_host,
        desired_layout=desired_layout,
        mod_name=mod_name,
    )
    config = _pass_config(pass_context_configs or ())
    disabled = _disabled(disabled_pass or ())
    with tvm.transform.PassContext(opt_level=opt_level, config=config, disabled_pass=disabled):
        try:
            parts = relay.build(
                tvmc_model.mod,
                target=_target(target, additional_target_options or {}),
                params=tvmc_model.params,
                exact=exact,
                recipients=recipients,
                suite=suite,
                policy=policy,
                progress=progress,
                dump_code=[dump_code] if isinstance(dump_code, str) else dump_code or (),
                allow_plaintext_dump=allow_plaintext_dump,
            )
        except SecretError:
            raise
        except Exception as error:
            if not (config or disabled):
                raise
            chosen = ", ".join([*config, *disabled])
            raise ModelError(
                f"the compiler fails ({type(error).__name__}) with the options of passes given: {chosen}"
            ) from None
    if package_path is None:
        return TVMCPackage(parts)
    artefact.save(parts, package_path)
    return TVMCPackage(package_path)


def _target(target: str, additional: Mapping[str, Mapping[str, Any]]) -> str:
    """The target as `relay.build` takes it, with `additional` options of its kind."""
    for kind in additional:
        if kind != "llvm":
            raise TargetError(f"the target '{kind}' is unknown: this build compiles for 'llvm'")
    if target.endswith(".json"):
        target = Path(target).read_text()
    options = additional.get("llvm", {})
    if not target.lstrip().startswith("{"):
        return shlex.join([*shlex.split(target), *(f"-{name}={value}" for name, value in options.items())])
    try:
        fields = json.loads(target)
    except ValueError:
        raise TargetError(f"the target is not valid JSON: {target}") from None
    return json.dumps({**fields, **options})


def _pass_config(settings: Iterable[str]) -> dict[str, Any]:
    """The `name=value` of the command line as `PassContext` takes it; the names are TVM's own.

    Raises `SecretError` for a name that TVM does not know, or a value of another type.
    """
    known = {
        str(name): str(about["type"]) for name, about in tvm.transform.PassContext.list_configs().items()
    }
    config = {}
    for setting in settings:
        name, separator, value = (part.strip() for part in setting.partition("="))
        if not separator:
            raise SecretError(f"{setting!r} is not of the form name=value, such as tirx.disable_vectorize=1")
        if name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
            raise SecretError(f"TVM's passes have no option {name!r}; {hint}")
        config[name] = _pass_value(name, value, known[name])
    return config


_WORDS = {"true": True, "1": True, "false": False, "0": False}


def _pass_value(name: str, value: str, kind: str) -> bool | int:
    if kind == "bool" and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if kind in ("int", "ir.IntImm") and value.removeprefix("-").isdecimal():
        return int(value)
    if kind in ("bool", "int", "ir.IntImm"):
        wanted = "true or false" if kind == "bool" else "a whole number"
        raise SecretError(f"the passes' option {name} takes {wanted}, not {value!r}")
    raise SecretError(f"the passes' option {name} is a {kind}, which cannot be given as text")


def _disabled(names: Sequence[str] | str) -> list[str]:
    """The names of passes, each of which exists."""
    names = names.split(",") if isinstance(names, str) else names
    chosen = [name.strip() for name in names if name.strip()]
    for name in chosen:
        stage, _, plain = name.rpartition(".")
        if tvm.get_global_func(f"{stage or 'relax'}.transform.{plain}", allow_missing=True) is None:
            raise SecretError(
                f"TVM has no pass {name!r}; names are those of relax.transform, such as FuseOps, and "
                "tirx.NAME of tirx.transform"
            )
    return chosen
