"""Real releases: real signatures by real keys, some of them twelve years old, weighed by the updater.

The outputs themselves are not at hand, only what people signed of them; so an update gets as far as to miss the files.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import pytest

from gitian.errors import ContentError, GitianError, UntrustedError
from gitian.formats.assertion import Assertion
from gitian.formats.manifest import Manifest
from gitian.update import config, trust, updater
from gitian.update.package import opened
from tests.integration import update_kit as kit
from tests.shared import FIXTURES, needs_shared

pytestmark = needs_shared


Release = tuple[str, str, str]


@functools.cache
def recorded() -> dict[Release, list[str]]:
    """The classic's word on every signer, by directory, release and package."""
    found: dict[Release, list[str]] = {}
    with (FIXTURES / "expected/verdicts.tsv").open(newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            found.setdefault((row["sigs_dir"], row["release"], row["package"]), []).append(row["verdict"])
    return found


def releases() -> list[Release]:
    """Every release and package of which at least two signers are OK."""
    if not FIXTURES.is_dir():
        return []
    return sorted(key for key, verdicts in recorded().items() if verdicts.count("OK") > 1)


def build(top: Path, sigs: str, release: str, package: str) -> Path:
    """A package as a project would publish it, of all signers of that release, good and bad."""
    parts = kit.Parts()
    for signer in sorted((FIXTURES / sigs / release).iterdir()):
        for suffix in ("", ".sig"):
            path = signer / f"{package}-build.assert{suffix}"
            if path.is_file():
                parts.files[f"gitian/{signer.name.replace(' ', '_')}/{path.name}"] = path.read_bytes()
    for key in (FIXTURES / "keys").glob("*.asc"):
        parts.files[f"gitian/{key.name}"] = key.read_bytes()
    return parts.directory(top / "package")


def everybody(minimum: int = 1) -> config.Configuration:
    lines = "".join(f"  '{path.stem}':\n    weight: 1\n" for path in sorted((FIXTURES / "keys").glob("*.asc")))
    return config.parse(f"minimum_weight: {minimum}\nsigners:\n{lines}".encode(), "test")


@pytest.mark.parametrize("sigs, release, package", releases(), ids=lambda value: value.replace("sigs/", ""))
def test_real_signers_are_weighed(sigs: str, release: str, package: str, tmp_path: Path) -> None:
    """Whom the classic calls OK weighs, and where it sees a mismatch there is no agreement.

    Stricter than the classic: a signature that was made after its key had expired does not count.
    """
    source = build(tmp_path, sigs, release, package)
    verdicts = recorded()[sigs, release, package]
    with opened(source) as found:
        if "MISMATCH" in verdicts:
            with pytest.raises(UntrustedError, match="contradict each other"):
                trust.agreement(found, everybody())
            return
        agreed = trust.agreement(found, everybody())
    late = [remark for remark in agreed.remarks if "had expired when it signed" in remark]
    assert agreed.weight == verdicts.count("OK") - len(late) >= 2
    assert agreed.name == package
    listed = [Manifest.parse(Assertion.read(path).out_manifest) for path in source.glob("gitian/*/*.assert")]
    assert any(set(agreed.sums) == {entry.path for entry in manifest.entries} for manifest in listed)
    with pytest.raises(ContentError, match="is missing"):
        updater.update(updater.Request(destination=tmp_path / "app", configuration=everybody(2),
                                       sources=(str(source),)))
    assert not (tmp_path / "app").exists()


def test_more_weight_than_there_is(tmp_path: Path) -> None:
    sigs, release, package = releases()[0]
    source = build(tmp_path, sigs, release, package)
    with pytest.raises(GitianError) as caught:
        updater.update(updater.Request(destination=tmp_path / "app", configuration=everybody(30),
                                       sources=(str(source),)))
    assert caught.value.exit_code == 22
