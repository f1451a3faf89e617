"""The tar of an MXNet model gives two views within its bytes, or `ModelError` is raised."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from tvm.relay.frontend._mxnet.model import unpack
from tvm_secret.errors import ModelError


def seeds() -> Iterator[bytes]:
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name in ("symbol.json", "params"):
                info = tarfile.TarInfo(name)
                info.size = 3
                if kind == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "c"}
                tar.addfile(info, io.BytesIO(b"abc"))
        yield file.getvalue()


def check(data: bytes) -> None:
    try:
        symbol, params = unpack(data)
    except ModelError:
        return
    assert len(symbol) + len(params) <= len(data)
