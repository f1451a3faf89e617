"""What the three scripts of a session share: the command line, and the names of the files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import common
import models

__all__ = ["Session", "common", "parse"]

# A session's names are the frameworks'; PyTorch calls its own package torch.
_FORMATS = {{"pytorch": "torch"}.get(name, name): name for name in models.FORMATS}


@dataclass(frozen=True)
class Session:
    """The files of a session, in the current folder."""

    name: str
    photo: Path | None

    @property
    def form(self) -> models.Format:
        return models.FORMATS[_FORMATS[self.name]]

    @property
    def sealed(self) -> Path:
        return Path(f"{self.name}.sealed")

    @property
    def inputs(self) -> Path:
        return Path(f"{self.name}_in.npz")

    @property
    def outputs(self) -> Path:
        return Path(f"{self.name}_out.npz")

    @property
    def picture(self) -> Path:
        return Path(f"{self.name}.png")

    def model_files(self) -> list[Path]:
        """The owner's plain files."""
        return models.files(_FORMATS[self.name])


def parse(description: str, *, photo: bool = True) -> Session:
    """The session that the command line names, and its photo where the script takes one."""
    chosen = common.options(description, formats=_FORMATS, folder=False, photo=photo)
    return Session(chosen.format, chosen.photo if photo else None)
