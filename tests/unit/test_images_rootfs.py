"""What a root filesystem says of itself, which its packages' scripts may have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitian.errors import ImageError
from gitian.formats.image_record import InstalledPackage
from gitian.images.rootfs import installed_packages

WHOLE = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
A = InstalledPackage(name="a", version="1", architecture="all", sha256="a" * 64)
HASHES = {("a", "1", "all"): A.sha256}


def test_the_list_of_packages(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(WHOLE + "\nPackage: b\nStatus: deinstall ok config-files\n")
    assert installed_packages(status, HASHES) == (A,)


@pytest.mark.parametrize("field", ["Package", "Architecture", "Version"])
def test_a_list_that_a_script_has_written_is_refused(tmp_path: Path, field: str) -> None:
    status = tmp_path / "status"
    status.write_text("".join(line for line in WHOLE.splitlines(keepends=True) if not line.startswith(field)))
    with pytest.raises(ImageError, match="is in none of the archive's indices"):
        installed_packages(status, HASHES)
