"""canon as one file for guests: Python's modules in a zip that python3 runs (PEP 441), the same bytes everywhere."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import gitian
from gitian.canon.model import DEFAULT_DATE, Settings
from gitian.canon.zips import write_canonical_zip
from gitian.host.workspace import data_directory

#: What needs no more than Python 3.7 and its standard library.
MODULES = ("errors", "canon/model", "canon/zips", "canon/tars", "canon/tarwrite", "canon/ars", "canon/compression",
           "canon/archive", "canon/classic")


def script() -> bytes:
    """The file: its parts uncompressed, one date, sorted. Raises HostError when gitian's own files are not there."""
    package = Path(gitian.__path__[0])
    packed, target = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in MODULES:
            archive.writestr(f"gitian/{name}.py", (package / f"{name}.py").read_bytes())
        for name in ("gitian/__init__.py", "gitian/canon/__init__.py"):
            archive.writestr(name, b"")
        archive.writestr("__main__.py", (data_directory("target-bin") / "canon.py").read_bytes())
    target.write(b"#!/usr/bin/env python3\n")
    write_canonical_zip(packed, target, Settings(date=DEFAULT_DATE))
    return target.getvalue()
