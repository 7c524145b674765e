"""The environment manifest, from what dpkg and apt say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gitian.environment.manifest import environment_manifest
from gitian.errors import GuestError
from gitian.guest.protocol import Result
from tests.fakes.guest import TableGuest

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
INSTALLED = (b"ii \tlibc6\t2.36-9+deb12u10\tamd64\nii \tadduser\t3.134\tall\nii \tvim\t2:9.0.1378-2\tamd64\n"
             b"rc \tgone\t1.0\tamd64\nhi \theld\t1.0\tamd64\n")


def paragraph(name: str, version: str, architecture: str, digest: str | None) -> str:
    lines = [f"Package: {name}", f"Version: {version}", f"Architecture: {architecture}",
             "Description: a line", " SHA256: " + "f" * 64]
    if digest:
        lines.append(f"SHA256: {digest}")
    return "\n".join(lines)


INDEX = "\n\n".join([
    paragraph("libc6", "2.36-9+deb12u10", "amd64", None),  # dpkg's own record has no hash
    paragraph("libc6", "2.36-9+deb12u9", "amd64", D),
    paragraph("libc6", "2.36-9+deb12u10", "amd64", A),
    paragraph("adduser", "3.134", "all", B),
    paragraph("vim", "2:9.0.1378-2", "amd64", C),
]).encode()


def guest(held: Result, installed: bytes = INSTALLED) -> TableGuest:
    return TableGuest({"dpkg-query": Result(status=0, stdout=installed),
                       "apt-cache": Result(status=100, stdout=INDEX), "sha256sum": held})


def test_lines_are_sorted_and_named_as_apt_names_files() -> None:
    answer = Result(status=0, stdout=f"{D}  held_1.0_amd64.deb\n".encode())
    assert environment_manifest(guest(answer)) == (
        f"{B}  adduser_3.134_all.deb\n{D}  held_1.0_amd64.deb\n{A}  libc6_2.36-9+deb12u10_amd64.deb\n"
        f"{C}  vim_2%3a9.0.1378-2_amd64.deb\n")


def test_a_hash_known_from_the_base_image_is_used() -> None:
    text = environment_manifest(guest(Result(status=1)), {"held_1.0_amd64.deb": D})
    assert f"{D}  held_1.0_amd64.deb\n" in text


def test_a_package_whose_hash_cannot_be_known_is_named_with_what_to_do() -> None:
    with pytest.raises(GuestError, match="'held=1.0'") as caught:
        environment_manifest(guest(Result(status=1)))
    assert "--upgrade" in str(caught.value.hint)


@pytest.mark.parametrize("line", ["ii \t../../etc/passwd\t1\tamd64\n", "ii \tname\t1 2\tamd64\n",
                                  "ii \tname\t1\tam\x1b[31md64\n", "ii \tname\n"])
def test_a_guest_that_lies_about_names_is_refused(line: str) -> None:
    with pytest.raises(GuestError):
        environment_manifest(guest(Result(status=0), line.encode()))


def test_a_hash_that_is_none_is_not_believed() -> None:
    bad = Result(status=0, stdout=b"zz  held_1.0_amd64.deb\n")
    with pytest.raises(GuestError, match="held"):
        environment_manifest(guest(bad))


def test_apt_is_asked_for_names_only_never_for_options() -> None:
    def answer(command: Sequence[str]) -> Result:
        assert command[:4] == ["apt-cache", "--no-generate", "show", "--"]
        assert command[4:] == ["adduser", "held:amd64", "libc6:amd64", "vim:amd64"]
        return Result(status=0, stdout=INDEX)

    table = TableGuest({"dpkg-query": Result(status=0, stdout=INSTALLED), "apt-cache": answer,
                        "sha256sum": Result(status=0, stdout=f"{D}  held_1.0_amd64.deb\n".encode())})
    environment_manifest(table)
    assert [command[0] for command in table.commands] == ["dpkg-query", "apt-cache", "sha256sum"]
