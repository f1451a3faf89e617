"""What a tutorial would take without sealing: the same importer, compiler and runtime on the plain model.

    python tutorials/secret/unsealed.py FORMAT [FOLDER] [--photo FILE]

FORMAT is onnx, keras, pytorch, tensorflow, tflite or mxnet. FOLDER gets a line of seconds in
FORMAT_time.txt, for time_counter.py to compare with those of the tutorial.
"""

from __future__ import annotations

import importlib

import common
import models
import tvm_ffi_orcjit

import tvm
from tvm import relax
from tvm.relay import build_module
from tvm.relay.backend.cpu import pipeline
from tvm.relay.backend.cpu.machine import parse_target
from tvm_secret import formats


def main() -> None:
    options = common.options(__doc__, formats=models.FORMATS)
    known = models.FORMATS[options.format]
    _, pieces = formats.plain_source(models.files(options.format), known.content_type)
    model = b"".join(pieces())
    # `import_*` is what `from_*` calls between opening and sealing.
    importer = importlib.import_module(f"tvm.relay.frontend.{options.format}")
    convert = getattr(importer, f"import_{options.format}")

    clock = common.Clock()
    imported = convert(model, {known.input: known.shape})
    clock.lap("import")
    compiled = pipeline.compile(imported.module, imported.params, parse_target("llvm"))
    objects = build_module._objects(compiled.executable)
    clock.lap("build")
    executable = tvm_ffi_orcjit.default_session().load_module(objects)
    network = relax.VirtualMachine(executable, tvm.cpu())["main"]
    image = tvm.runtime.tensor(known.prepare(common.pixels(options.photo)))
    output = network(image, *map(tvm.runtime.tensor, compiled.weights.values())).numpy()
    clock.lap("run")

    common.print_top_five(options.photo, common.probabilities(output))
    common.append_times(options.folder, options.format, "unsealed", clock.laps)


if __name__ == "__main__":
    main()
