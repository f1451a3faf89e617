"""An imported model between `tvmc.load` and `tvmc.compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from tvm_secret import artefact, envelope
from tvm_secret.errors import ModelError

__all__ = ["TVMCModel"]


_MEMBERS = ("model.json", "model.params")


class TVMCModel:
    """A sealed module and its sealed weights, as an importer returned them: bytes, or paths of sealed files.

    Only the identity of the process that imported them opens them. `model_path`, instead of both, is a file
    that `save` wrote.
    """

    def __init__(
        self,
        mod: bytes | str | Path | None = None,
        params: bytes | str | Path | None = None,
        model_path: str | Path | None = None,
    ) -> None:
        if model_path is not None:
            mod, params = artefact.load(model_path, _MEMBERS)
        if mod is None or params is None:
            raise ModelError("a TVMCModel is a sealed module and its sealed params, which tvmc.load returns")
        self.mod = mod
        self.params = params

    def save(self, model_path: str | Path) -> None:
        """Write both, sealed as they are, to a .tar: imported once, the model can be compiled many times."""
        parts = [part if isinstance(part, bytes) else Path(part).read_bytes() for part in self._parts()]
        artefact.save(parts, model_path, _MEMBERS)

    def _parts(self) -> tuple[bytes | str | Path, bytes | str | Path]:
        return self.mod, self.params

    def summary(self, file: TextIO | None = None) -> None:
        """Print what the sealed headers say: content, size and recipients. The graph stays sealed."""
        for part in self._parts():
            header = envelope.inspect(part)
            recipients = ", ".join(stanza["key"] for stanza in header.recipients)
            print(f"{header.content_type}: {header.core['size']:,} bytes, sealed to {recipients}", file=file)

    def __repr__(self) -> str:
        return "<TVMCModel, sealed>"
