"""How environments differ, and how show and diff say it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.cli.common import status_of
from gitian.cli.environment import command
from gitian.environment.compare import Subject, compare, compare_targets
from gitian.formats.environment import Environment, EnvironmentFile, Kernel, by_file_name, of_report
from gitian.formats.image_record import InstalledPackage
from gitian.formats.report import Report


def package(name: str, version: str = "1.0-1", architecture: str = "amd64", digit: str = "a") -> InstalledPackage:
    """Each package has a hash of its own; ``digit`` stands for the file's content."""
    digest = hashlib.sha256(f"{name} {architecture} {digit}".encode()).hexdigest()
    return InstalledPackage(name=name, version=version, architecture=architecture, sha256=digest)


def environment(*packages: InstalledPackage, **more: Any) -> Environment:
    return Environment(**{"distro": "debian", "suite": "bookworm", "architecture": "amd64",
                          "packages": by_file_name(packages), **more})


OLD = environment(
    package("bash", "5.2-1"), package("git", "1:2.39.2-1"), package("libc6", "2.36-9", "i386"),
    package("libc6", "2.36-9"), package("tzdata", "2023c", "all"), package("wget"), package("zlib1g"),
    base="1" * 64, kernel=Kernel(release="6.1.0-18-amd64", packages=(package("linux-image-6.1.0-18-amd64"),)),
    sources=("deb http://archive.example/debian bookworm main", "deb http://ppa.example/x bookworm main"))
NEW = environment(
    package("bash", "5.2-1"), package("git", "1:2.39.5-0"), package("jq", "1.6"), package("libc6", "2.36-9", "i386"),
    package("libc6", "2.36-10"), package("tzdata", "2024a", "amd64"), package("zlib1g", digit="b"),
    base="2" * 64, kernel=Kernel(release="6.1.0-20-amd64", packages=(package("linux-image-6.1.0-20-amd64"),)),
    sources=("deb http://archive.example/debian bookworm main", "deb http://archive.example/s bookworm-security main"))

CHANGES = """\
bookworm-amd64: 7 packages
  ~ git                                  1:2.39.2-1 -> 1:2.39.5-0 (amd64)
  + jq                                   1.6 (amd64)
  ~ libc6                                2.36-9 -> 2.36-10 (amd64)
  ~ tzdata                               2023c -> 2024a (all -> amd64)
  - wget                                 1.0-1 (amd64)
  ~ zlib1g                               1.0-1 (amd64): another file, sha256 {} -> {}
  ~ base                                 {} -> {}
  ~ kernel                               6.1.0-18-amd64 -> 6.1.0-20-amd64
  - linux-image-6.1.0-18-amd64 (kernel)  1.0-1 (amd64)
  + linux-image-6.1.0-20-amd64 (kernel)  1.0-1 (amd64)
  - source                               deb http://ppa.example/x bookworm main
  + source                               deb http://archive.example/s bookworm-security main
1 package added, 1 removed, 4 changed; 6 other differences
""".format(package("zlib1g").sha256, package("zlib1g", digit="b").sha256, "1" * 64, "2" * 64)


def test_each_kind_of_change_is_seen_once() -> None:
    found = [(change.sign, change.subject, change.name, change.old, change.new) for change in compare_targets(OLD, NEW)]
    assert found == [
        ("~", Subject.PACKAGE, "git", "1:2.39.2-1", "1:2.39.5-0"),
        ("+", Subject.PACKAGE, "jq", None, "1.6"),
        ("~", Subject.PACKAGE, "libc6", "2.36-9", "2.36-10"),
        ("~", Subject.PACKAGE, "tzdata", "2023c", "2024a"),
        ("-", Subject.PACKAGE, "wget", "1.0-1", None),
        ("~", Subject.PACKAGE, "zlib1g", "1.0-1", "1.0-1"),
        ("~", Subject.BASE, "", "1" * 64, "2" * 64),
        ("~", Subject.KERNEL, "", "6.1.0-18-amd64", "6.1.0-20-amd64"),
        ("-", Subject.KERNEL_PACKAGE, "linux-image-6.1.0-18-amd64", "1.0-1", None),
        ("+", Subject.KERNEL_PACKAGE, "linux-image-6.1.0-20-amd64", None, "1.0-1"),
        ("-", Subject.SOURCE, "", "deb http://ppa.example/x bookworm main", None),
        ("+", Subject.SOURCE, "", None, "deb http://archive.example/s bookworm-security main")]


def test_what_one_side_leaves_open_is_no_difference() -> None:
    """A report states packages, suite and architecture only."""
    bare = Environment(distro="", suite="bookworm", architecture="amd64", packages=OLD.packages)
    assert compare_targets(OLD, bare) == compare_targets(bare, OLD) == ()
    assert [change.subject for change in compare_targets(OLD, replace(OLD, distro="ubuntu"))] == [Subject.DISTRO]
    assert compare_targets(OLD, replace(OLD, sources=OLD.sources[::-1])) == ()


def test_a_target_that_one_side_lacks_is_a_difference() -> None:
    other = replace(OLD, suite="trixie")
    found = compare(EnvironmentFile(environments=(OLD,)), EnvironmentFile(environments=(OLD, other)))
    assert [(target.label, target.old is None, target.equal) for target in found.targets] == [
        ("bookworm-amd64", False, True), ("trixie-amd64", True, False)]
    assert not found.equal and found.changes == ()


_some = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.sampled_from(("1", "2")), st.sampled_from("ab")),
                        min_size=1)


@given(_some, _some)
def test_packages_by_the_definition(one: dict[str, tuple[str, str]], other: dict[str, tuple[str, str]]) -> None:
    old, new = (environment(*(package(name, version, digit=digit) for name, (version, digit) in side.items()))
                for side in (one, other))
    by_sign: dict[str, set[str]] = {"+": set(), "-": set(), "~": set()}
    for change in compare_targets(old, new):
        by_sign[change.sign].add(change.name)
    assert by_sign == {"+": set(other) - set(one), "-": set(one) - set(other),
                       "~": {name for name in set(one) & set(other) if one[name] != other[name]}}
    assert (compare_targets(old, new) == ()) == (one == other)


# the commands


def written(path: Path, *environments: Environment) -> Path:
    path.write_bytes(EnvironmentFile(environments=environments).to_json())
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = status_of(command, "gitian environment", [str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_diff_says_everything_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = written(tmp_path / "old", OLD), written(tmp_path / "new", NEW)
    assert run(capsys, "diff", old, new) == (1, CHANGES, "")
    assert run(capsys, "diff", old, old) == (0, "No difference in 1 environment.\n", "")


def test_diff_names_targets_of_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = written(tmp_path / "old", OLD)
    new = written(tmp_path / "new", replace(OLD, suite="trixie"), replace(OLD, packages=(*OLD.packages, package("zz"))))
    status, out, _ = run(capsys, "diff", old, new)
    assert status == 1
    assert out.splitlines() == ["bookworm-amd64: 7 packages -> 8 packages", "  + zz  1.0-1 (amd64)",
                                "trixie-amd64: only in NEW (7 packages)",
                                "1 package added, 0 removed, 0 changed; 1 one-sided target"]


def test_diff_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = written(tmp_path / "old", OLD), written(tmp_path / "new", NEW, replace(NEW, suite="trixie"))
    status, out, _ = run(capsys, "diff", old, new, "--json")
    document = json.loads(out)
    assert status == 1
    assert {key: document[key] for key in ("equal", "old", "new")} == {"equal": False, "old": str(old), "new": str(new)}
    assert [(target["target"], target["in"], len(target["changes"])) for target in document["targets"]] == [
        ("bookworm-amd64", "both", 12), ("trixie-amd64", "new", 0)]
    changes = document["targets"][0]["changes"]
    assert changes[1] == {"subject": "package", "name": "jq", "old": None, "new": "1.6", "old_architecture": None,
                          "old_sha256": None, "new_architecture": "amd64", "new_sha256": package("jq").sha256}
    assert changes[6] == {"subject": "base", "name": "", "old": "1" * 64, "new": "2" * 64}
    status, out, _ = run(capsys, "diff", old, old, "--json")
    assert (status, json.loads(out)["equal"]) == (0, True)


def report_of(one: Environment) -> Report:
    return Report(out_manifest="", in_manifest="", base_manifests=((one.label, one.manifest()),))


def test_a_report_is_compared_with_a_blessed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = written(tmp_path / "old", OLD)
    (tmp_path / "hello-res.yml").write_text(report_of(OLD).to_yaml())
    assert run(capsys, "diff", old, tmp_path / "hello-res.yml")[0] == 0
    swapped = replace(OLD, packages=(replace(OLD.packages[0], sha256="c" * 64), *OLD.packages[1:]))
    (tmp_path / "hello-res.yml").write_text(report_of(swapped).to_yaml())
    status, out, _ = run(capsys, "diff", old, tmp_path / "hello-res.yml")
    assert status == 1
    assert out.splitlines()[1:] == [f"  ~ bash  5.2-1 (amd64): another file, sha256 {package('bash').sha256} -> "
                                    + "c" * 64,
                                    "0 packages added, 0 removed, 1 changed"]


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = replace(OLD, packages=(package("bash", "5.2-1"), package("tzdata", "2023c", "all", "b")))
    path = written(tmp_path / "small", small)
    assert run(capsys, "show", path) == (0, "\n".join([
        "bookworm amd64 (debian): 2 packages",
        f"base    {'1' * 64}",
        "kernel  6.1.0-18-amd64 (linux-image-6.1.0-18-amd64_1.0-1_amd64.deb)",
        "source  deb http://archive.example/debian bookworm main",
        "source  deb http://ppa.example/x bookworm main",
        f"  bash    5.2-1  amd64  {package('bash').sha256}",
        f"  tzdata  2023c  all    {package('tzdata', '2023c', 'all', 'b').sha256}", ""]), "")
    assert run(capsys, "show", path, "--json") == (0, path.read_text(), "")
    (tmp_path / "hello-res.yml").write_text(report_of(small).to_yaml())
    status, out, _ = run(capsys, "show", tmp_path / "hello-res.yml", "--json")
    assert status == 0
    assert EnvironmentFile.parse(out.encode(), "x").environments == of_report(report_of(small))


@pytest.mark.parametrize("words, status, said", [
    (("show", "nothing"), 16, "'nothing' does not exist"),
    (("show", "/dev/null"), 16, "no regular file"),
    (("diff", "old"), 2, "Neither NEW nor --archive"),
    (("diff", "old", "old", "--archive"), 2, "Both NEW and --archive"),
    (("diff", "old", "old", "--mirror", "http://archive.example"), 2, "go with --archive"),
    (("diff", "old", "odd"), 16, "odd"),
    (("diff", "named", "--archive"), 2, "'gentoo' is not known"),
    (("diff", "unknown", "--archive"), 2, "which distribution has the suite 'ascii'"),
    (("diff", "old", "--archive", "--mirror", "nonsense"), 2, "cannot be a mirror's address"),
    (("diff", "old", "--archive", "--without", "main"), 2, "no pocket 'main'"),
])
def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int,
                                     said: str) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "old", OLD)
    written(tmp_path / "named", replace(OLD, distro="gentoo"))
    written(tmp_path / "unknown", replace(OLD, distro="", suite="ascii"))
    (tmp_path / "odd").write_bytes(b"{\"format\": \"\x1b[31m\"}")
    found = run(capsys, *words)
    assert (found[0], found[1]) == (status, "") and said in found[2] and "\x1b" not in found[2]


def test_nothing_in_a_file_drives_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report's label is a stranger's, and so is the name of a file."""
    made = Report(out_manifest="", in_manifest="", base_manifests=(("\x1b[31m-amd64", OLD.manifest()),))
    (tmp_path / "x-res.yml").write_text(made.to_yaml())
    status, out, err = run(capsys, "show", tmp_path / "x-res.yml")
    assert status == 16 and "\x1b" not in out + err
