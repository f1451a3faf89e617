"""An imported model between `tvmc.load` and `tvmc.compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from tvm_secret import envelope
from tvm_secret.errors import ModelError

__all__ = ["TVMCModel"]


class TVMCModel:
    """A sealed module and its sealed weights, as an importer returned them: bytes, or paths of sealed files.

    Only the process's own identity opens them.
    """

    def __init__(self, mod: bytes | str | Path, params: bytes | str | Path) -> None:
        if mod is None or params is None:
            raise ModelError("a TVMCModel is a sealed module and its sealed params, which tvmc.load returns")
        self.mod = mod
        self.params = params

    def summary(self, file: TextIO | None = None) -> None:
        """Print what the sealed headers say: content, size and recipients. The graph stays sealed."""
        for part in (self.mod, self.params):
            header = envelope.inspect(part)
            recipients = ", ".join(stanza["key"] for stanza in header.recipients)
            print(f"{header.content_type}: {header.core['size']:,} bytes, sealed to {recipients}", file=file)

    def __repr__(self) -> str:
        return "<TVMCModel, sealed>"
