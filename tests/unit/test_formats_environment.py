"""Environment files: what they say, how their bytes look, what is refused; the environments that reports record."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.errors import FormatError
from gitian.formats.debversion import order
from gitian.formats.environment import Environment, EnvironmentFile, Kernel, by_file_name, of_report, read_any
from gitian.formats.image_record import InstalledPackage
from gitian.formats.report import Report
from gitian.names import check_package, deb_name, parse_deb_name
from tests.shared import FIXTURES, needs_shared

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "reference" / "environment.schema.json"


def package(name: str, version: str = "1.0-1", architecture: str = "amd64", digit: str = "a") -> InstalledPackage:
    return InstalledPackage(name=name, version=version, architecture=architecture, sha256=digit * 64)


def environment(*packages: InstalledPackage, suite: str = "bookworm", **more: Any) -> Environment:
    return Environment(**{"distro": "debian", "suite": suite, "architecture": "amd64",
                          "packages": packages or (package("bash"),), **more})


FULL = EnvironmentFile(environments=(
    environment(package("bash", "5.2.15-2+b2", digit="1"), package("git", "1:2.39.5-0", digit="2"),
                package("tzdata", "2024a-0+deb12u1", "all", digit="3"), base="b" * 64,
                kernel=Kernel(release="6.12.9+bpo-amd64",
                              packages=(package("linux-image-6.12.9+bpo-amd64", digit="4"),)),
                sources=("deb http://archive.example/debian bookworm main",
                         "deb http://archive.example/security bookworm-security main")),
    environment(package("libc6", architecture="i386", digit="5"), architecture="i386")))

TEXT = """\
{"format": "gitian-environment/1",
 "environments": [
  {"distro": "debian",
   "suite": "bookworm",
   "architecture": "amd64",
   "base": {"sha256": "%(b)s"},
   "kernel": {"release": "6.12.9+bpo-amd64", "packages": [
    {"name": "linux-image-6.12.9+bpo-amd64", "version": "1.0-1", "architecture": "amd64", "sha256": "%(4)s"}]},
   "sources": [
    "deb http://archive.example/debian bookworm main",
    "deb http://archive.example/security bookworm-security main"],
   "packages": [
    {"name": "bash", "version": "5.2.15-2+b2", "architecture": "amd64", "sha256": "%(1)s"},
    {"name": "git", "version": "1:2.39.5-0", "architecture": "amd64", "sha256": "%(2)s"},
    {"name": "tzdata", "version": "2024a-0+deb12u1", "architecture": "all", "sha256": "%(3)s"}]},
  {"distro": "debian",
   "suite": "bookworm",
   "architecture": "i386",
   "base": null,
   "kernel": null,
   "sources": [],
   "packages": [
    {"name": "libc6", "version": "1.0-1", "architecture": "i386", "sha256": "%(5)s"}]}
 ]}
""" % {digit: digit * 64 for digit in "b12345"}


def test_the_bytes_of_a_file() -> None:
    assert FULL.to_json().decode() == TEXT
    assert EnvironmentFile.parse(TEXT.encode(), "x") == FULL


def test_its_manifest_is_the_one_of_a_report() -> None:
    assert FULL.environments[0].manifest() == (
        f"{'1' * 64}  bash_5.2.15-2+b2_amd64.deb\n{'2' * 64}  git_1%3a2.39.5-0_amd64.deb\n"
        f"{'3' * 64}  tzdata_2024a-0+deb12u1_all.deb\n")
    assert FULL.environments[0].label == "bookworm-amd64"


_names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,10}", fullmatch=True)
_versions = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,10}", fullmatch=True)
_sums = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")


@st.composite
def _packages(draw: st.DrawFn, own: str) -> tuple[InstalledPackage, ...]:
    names = draw(st.lists(_names, min_size=1, max_size=6, unique=True))
    sums = draw(st.lists(_sums, min_size=len(names), max_size=len(names), unique=True))
    return by_file_name(InstalledPackage(
        name=name, version=draw(_versions), architecture=draw(st.sampled_from((own, "all"))), sha256=digest)
        for name, digest in zip(names, sums, strict=True))


@st.composite
def _files(draw: st.DrawFn) -> EnvironmentFile:
    found = []
    for suite, own in sorted(draw(st.sets(st.tuples(st.sampled_from(("bionic", "noble", "bookworm")),
                                                    st.sampled_from(("amd64", "i386"))), min_size=1))):
        releases = st.sampled_from(("6.1.0-18-amd64", "6.12.9+bpo-amd64"))
        kernel = st.builds(Kernel, release=releases, packages=_packages(own))
        line = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
        found.append(Environment(
            distro=draw(st.sampled_from(("", "debian"))), suite=suite, architecture=own,
            packages=draw(_packages(own)), base=draw(st.none() | _sums), kernel=draw(st.none() | kernel),
            sources=tuple(draw(st.lists(line, max_size=3)))))
    return EnvironmentFile(environments=tuple(found))


@given(_files(), st.randoms(use_true_random=False))
def test_what_is_written_is_read_again_in_any_layout(file: EnvironmentFile, chance: random.Random) -> None:
    data = file.to_json()
    assert data.isascii() and data.endswith(b"]}\n")
    assert EnvironmentFile.parse(data, "x") == file
    value = _shuffled(json.loads(data), chance)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes())).validate(value)
    for indent in (None, 3):
        again = EnvironmentFile.parse(json.dumps(value, indent=indent).encode(), "x")
        assert again == file and again.to_json() == data


def _shuffled(value: Any, chance: random.Random) -> Any:
    """The same document with its keys, and what has no order, in another order."""
    if isinstance(value, dict):
        pairs = [(key, _shuffled(inner, chance)) for key, inner in value.items()]
        chance.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, list):
        items = [_shuffled(item, chance) for item in value]
        if items and isinstance(items[0], dict):
            chance.shuffle(items)
        return items
    return value


def test_a_line_is_all_that_an_updated_package_changes() -> None:
    old = environment(package("bash"), package("git", digit="b"), package("zlib1g", digit="c"))
    new = environment(package("bash"), package("git", "1.0-2", digit="b"), package("zlib1g", digit="c"))
    one, other = (EnvironmentFile(environments=(item,)).to_json().splitlines() for item in (old, new))
    assert len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1


def changed(path: str, value: object) -> bytes:
    """The full document with the value at a path replaced, or removed where it is ``...``."""
    document = json.loads(TEXT)
    at = document
    *way, last = [int(word) if word.isdigit() else word for word in path.split("/")]
    for word in way:
        at = at[word]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document).encode()


E0 = "environments/0/"
BAD = [
    ("format", ..., "'format' is missing"),
    ("format", "gitian-environment/2", "the format is 'gitian-environment/2'"),
    ("more", 1, "'more' is not known"),
    ("environments", ..., "'environments' is missing"),
    ("environments", [], "there is no environment"),
    ("environments", {}, "should be a list"),
    ("environments/1/architecture", "amd64", "two environments of 'bookworm-amd64'"),
    (E0 + "more", 1, "environments[0]: 'more' is not known"),
    (E0 + "suite", "../etc", "environments[0]: 'suite'"),
    (E0 + "suite", "", "'suite': is empty"),
    (E0 + "suite", ".", "'suite'"),
    (E0 + "suite", 12, "'suite' should be a text"),
    (E0 + "distro", ..., "'distro' is missing"),
    (E0 + "distro", "de/bian", "'distro'"),
    (E0 + "architecture", "AMD64", "'architecture'"),
    (E0 + "base", ..., "'base' is missing"),
    (E0 + "base", "b" * 64, "base should be an object"),
    (E0 + "base/sha256", "B" * 64, "'sha256' should be a SHA-256"),
    (E0 + "base/size", 1, "'size' is not known"),
    (E0 + "kernel/release", "6.1/../x", "no kernel's release"),
    (E0 + "kernel/more", "x", "'more' is not known"),
    (E0 + "kernel/packages", [], "kernel.packages: there are none"),
    (E0 + "sources", None, "'sources' should be a list"),
    (E0 + "sources/0", "deb x y\ndeb z w", "printable ASCII"),
    (E0 + "sources/0", 5, "'sources' should be a list"),
    (E0 + "packages", [], "packages: there are none"),
    (E0 + "packages/0/name", "Bash", "'Bash' is no name of a package"),
    (E0 + "packages/0/name", "ba_sh", "'ba_sh' is no name of a package"),
    (E0 + "packages/0/name", "../x", "is no name of a package"),
    (E0 + "packages/0/name", "x" * 250, "longer than 255"),
    (E0 + "packages/0/version", "1 0", "'1 0' is no version of a package"),
    (E0 + "packages/0/version", "1%3a0", "is no version of a package"),
    (E0 + "packages/0/version", "", "is no version of a package"),
    (E0 + "packages/0/version", 1.5, "'version' should be a text"),
    (E0 + "packages/0/architecture", "amd_64", "is no architecture of a package"),
    (E0 + "packages/0/sha256", "1" * 63, "'sha256' should be a SHA-256"),
    (E0 + "packages/0/size", 1, "'size' is not known"),
    (E0 + "packages/1/name", "bash", "'bash' (amd64) stands there twice"),
    (E0 + "packages/2/name", "bash", "'bash' (all) stands there twice"),
    (E0 + "packages/1/sha256", "1" * 64, "'bash' and 'git' have the same SHA-256"),
]


@pytest.mark.parametrize("path, value, words", BAD, ids=[f"{path}={value!r:.20}" for path, value, _ in BAD])
def test_what_is_refused_is_named_with_its_place(path: str, value: object, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        EnvironmentFile.parse(changed(path, value), "env.json")
    assert str(caught.value).startswith("env.json") and words in str(caught.value)


#: What a schema has no words for: identity among several items, or the length of what several fields make.
_BEYOND_A_SCHEMA = ("stands there twice", "have the same SHA-256", "two environments", "longer than 255")


@pytest.mark.parametrize("path, value, words", BAD, ids=[f"{path}={value!r:.20}" for path, value, _ in BAD])
def test_the_schema_refuses_it_too(path: str, value: object, words: str) -> None:
    good = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes())).is_valid(json.loads(changed(path, value)))
    assert good == any(part in words for part in _BEYOND_A_SCHEMA)


def test_the_schema_is_one_and_takes_the_example() -> None:
    schema = json.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(TEXT))


def test_as_many_as_there_may_be_and_one_more() -> None:
    """Limits are stated in the reference and in the schema; the largest file is still read."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes()))
    for targets, sources, good in ((100, 1000, True), (101, 1, False), (1, 1001, False)):
        document = {"format": "gitian-environment/1", "environments": [
            {"distro": "", "suite": f"s{number}", "architecture": "amd64", "base": None, "kernel": None,
             "sources": ["deb x y z"] * sources,
             "packages": [{"name": "a", "version": "1", "architecture": "all", "sha256": "0" * 64}]}
            for number in range(targets)]}
        assert validator.is_valid(document) == good
        if good:
            assert len(EnvironmentFile.parse(json.dumps(document).encode(), "x").environments) == targets
        else:
            with pytest.raises(FormatError, match=r"more than 100 items|at most 1000"):
                EnvironmentFile.parse(json.dumps(document).encode(), "x")
    one = lines_of_packages(100_000)
    assert len(of_report(report(("x-amd64", one)))[0].packages) == 100_000
    with pytest.raises(FormatError, match="more than 100000 packages"):
        of_report(report(("x-amd64", one + lines("more_1_all.deb"))))
    assert len(of_report(report(*((f"s{number}-amd64", lines("a_1_all.deb")) for number in range(100))))) == 100
    with pytest.raises(FormatError, match="more than 100 environments"):
        of_report(report(*((f"s{number}-amd64", lines("a_1_all.deb")) for number in range(101))))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"format": "gitian-environment/1", "format": "x"}',
                                  b"\xff", b'{"a":' * 100_000, b"{}" + b" " * (16 << 20)])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"env\.json"):
        EnvironmentFile.parse(data, "env.json")


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("format", "environments", "distro", "suite", "packages", "base")), inner, max_size=4)).map(
    lambda value: json.dumps({"format": "gitian-environment/1", "environments": value}).encode()))
def test_nothing_but_a_format_error_comes_of_strangers_bytes(data: bytes) -> None:
    try:
        EnvironmentFile.parse(data, "x")
    except FormatError:
        return
    raise AssertionError("these strategies make no environment with packages")


def test_what_cannot_be_read_again_is_not_written() -> None:
    for bad in (environment(suite="a/b"), environment(sources=("a\nb",)), environment(package("x", "1_2"))):
        with pytest.raises(FormatError):
            EnvironmentFile(environments=(bad,)).to_json()
    with pytest.raises(FormatError, match="two environments"):
        EnvironmentFile(environments=(environment(), environment())).to_json()


# names of packages' files


@given(_names, _versions, st.sampled_from(("amd64", "all", "kfreebsd-amd64")))
def test_the_name_of_a_file_tells_the_package(name: str, version: str, architecture: str) -> None:
    check_package(name, version, architecture)
    file = deb_name(name, version, architecture)
    assert parse_deb_name(file) == (name, version, architecture)
    assert "/" not in file and ":" not in file


@pytest.mark.parametrize("text", [
    "", "bash.deb", "bash_1.deb", "bash_1_amd64", "bash_1_amd64.udeb", "bash_1_amd64.deb\n", "_1_amd64.deb",
    "bash__amd64.deb", "Bash_1_amd64.deb", "a/b_1_amd64.deb", "../b_1_amd64.deb", "b_1:2_amd64.deb", "b_1%2f_amd64.deb",
    "b_1_amd64_x.deb", "b_.._amd64.deb", "-b_1_amd64.deb", "b_1_.deb", "x" * 250 + "_1_all.deb", "b_1_é.deb"])
def test_what_is_no_name_of_a_package_s_file(text: str) -> None:
    assert parse_deb_name(text) is None


# environments of reports


def report(*manifests: tuple[str, str] | None) -> Report:
    return Report(out_manifest="", in_manifest="",
                  base_manifests=None if manifests == (None,) else tuple(item for item in manifests if item))


def lines(*names: str) -> str:
    return "".join(f"{number:064x}  {name}\n" for number, name in enumerate(names))


def lines_of_packages(count: int) -> str:
    return lines(*(f"p{number}_1_all.deb" for number in range(count)))


def test_the_newest_version_that_a_report_lists_is_installed() -> None:
    found = of_report(report(("bionic-linux64", lines(
        "git_1%3a2.17.1-1_amd64.deb", "bash_4.4.18-10_amd64.deb", "bash_4.4.18-9_amd64.deb", "git_9.0-1_amd64.deb",
        "tzdata_2018_amd64.deb", "tzdata_2019_all.deb", "libc6_2.27-3_i386.deb", "libc6_2.27-2_amd64.deb"))),
        distro="ubuntu")
    assert [(one.distro, one.suite, one.architecture, one.base, one.kernel, one.sources) for one in found] == [
        ("ubuntu", "bionic", "amd64", None, None, ())]
    assert [(one.name, one.version, one.architecture, int(one.sha256, 16)) for one in found[0].packages] == [
        ("bash", "4.4.18-10", "amd64", 1), ("git", "1:2.17.1-1", "amd64", 0), ("libc6", "2.27-2", "amd64", 7),
        ("libc6", "2.27-3", "i386", 6), ("tzdata", "2019", "all", 5)]


def test_targets_are_sorted_whatever_the_order_they_were_built_in() -> None:
    one = lines("bash_1_all.deb")
    found = of_report(report(("noble-linux64", one), ("bionic-i386", one), ("a-b-amd64", one)))
    assert [item.label for item in found] == ["a-b-amd64", "bionic-i386", "noble-amd64"]


def test_targets_of_one_guest_have_one_environment() -> None:
    """A guest of linux64 is one of amd64."""
    found = of_report(report(("bionic-linux64", lines("a_1_all.deb")), ("bionic-amd64", lines("a_1_all.deb"))))
    assert [one.label for one in found] == ["bionic-amd64"]


@pytest.mark.parametrize("bad, words", [
    (report(None), "no environment is recorded"),
    (report(), "no environment is recorded"),
    (report(("bionic-amd64", "")), "base_manifests.bionic-amd64.packages: there are none"),
    (report(("bionic", lines("a_1_all.deb"))), "'suite': is empty"),
    (report(("../x-amd64", lines("a_1_all.deb"))), "'suite'"),
    (report(("bionic-linux64", lines("a_1_all.deb")), ("bionic-amd64", lines("a_2_all.deb"))), "two environments"),
    (report(("bionic-amd64", lines("a_1_all.deb", "evil.deb"))), "evil.deb' is no package's"),
    (report(("bionic-amd64", lines("a_1_all.deb") + "what is this\n")), "'what is this' is no package's"),
    (report(("bionic-amd64", lines("a_1_all.deb") + "git:" + "1" * 40 + " x\n")), "x' is no package's"),
    (report(("bionic-amd64", lines("a_1_all.deb", "a_1_all.deb"))), "'a' 1 stands there twice, and differs"),
])
def test_what_cannot_be_told_from_a_report(bad: Report, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        of_report(bad, source="x.yml")
    assert str(caught.value).startswith("x.yml") and words in str(caught.value)


def test_files_and_reports_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "blessed").write_bytes(b"\n " + FULL.to_json())
    made = report(("bookworm-amd64", lines("a_1_all.deb")))
    (tmp_path / "hello-res.yml").write_text(made.to_yaml())
    (tmp_path / "hello.yml").write_text("---\nname: hello\n")
    assert read_any(tmp_path / "blessed") == EnvironmentFile.read(tmp_path / "blessed") == FULL
    assert read_any(tmp_path / "hello-res.yml", distro="debian").environments == of_report(made, distro="debian")
    for name in ("hello.yml", "nothing"):
        with pytest.raises(FormatError, match=name):
            read_any(tmp_path / name)


@needs_shared
def test_every_published_assertion_s_environment_is_read() -> None:
    """Real manifests list several versions; one of each is left, the newest, and all of it is in the manifest."""
    count = 0
    for path in sorted((FIXTURES / "sigs").rglob("*.assert"))[::7]:
        try:
            made = Report.read(path)
        except FormatError:
            continue
        if not made.base_manifests:
            continue
        texts = dict(made.base_manifests)
        for found in read_any(path).environments:
            count += 1
            text = texts[found.label]
            assert set(found.manifest().splitlines()) <= set(text.splitlines())
            versions: dict[str, list[str]] = {}
            for line in text.splitlines():
                name, version, _ = line.split("  ")[1].split("_")
                versions.setdefault(name, []).append(version.replace("%3a", ":"))
            for one in found.packages:
                if len(versions[one.name]) > 1:
                    assert order(one.version) == max(map(order, versions[one.name]))
    assert count > 10
