"""gsign against every recorded case of the classic, and what it does beyond."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gitian.cli import common, main
from tests.unit.golden import Case, cases

NAMES = "names that are unsafe are refused (COMPAT: never '..' or a leading '-', never empty)"
QUOTED = "a signer's name reaches the program as it is; the classic spliced it into a shell command"
DATES = "an unquoted date is the text that it is; Ruby refuses to load it"
TEXTS = "a name that is a list or a symbol is refused"

#: Cases that are deliberately not as recorded: why, exit status, and the program's arguments (None: not called).
DIFFERENT: dict[str, tuple[str, int, list[str] | None]] = {
    "release-12": (NAMES, 1, None),
    "release-13": (NAMES, 1, None),
    "signer-06": (NAMES, 1, None),
    "signer-11": (NAMES, 1, None),
    "name-06": (NAMES, 1, None),
    "name-12": (NAMES, 1, None),
    "name-14": (TEXTS, 1, None),
    "name-dest-04": (TEXTS, 1, None),
    "signer-07": (QUOTED, 0, ["-u", 'a"b', 'out/1.0rc1/a"b/pkg-build.assert']),
    "name-15": (DATES, 0, ["-u", "alice", "<BASE>/sigs/2021-01-01/1.0rc1/alice/2021-01-01-build.assert"]),
    "date-descriptor": (DATES, 0, ["-u", "alice", "<BASE>/sigs/pkg/1.0rc1/alice/pkg-build.assert"]),
}

RECORDER = """#!{python} -IS
import sys
with open({log!r}, "wb") as file:
    file.write(b"\\0".join(word.encode("utf-8", "surrogateescape") for word in sys.argv[1:]))
sys.exit({status})
"""


def program(where: Path, *, status: int = 0, body: str = "") -> Path:
    path = where / "prog"
    text = RECORDER.format(python=sys.executable, log=str(where / "log"), status=status)
    path.write_text(text.replace("sys.exit(", body + "\nsys.exit("))
    path.chmod(0o755)
    return path


def gsign(*words: str) -> int:
    return common.status_of(main.load("gsign"), "gsign", list(words))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "base"
    where.mkdir()
    monkeypatch.chdir(where)
    monkeypatch.delenv("GITIAN_BASE", raising=False)
    return where


def lay(where: Path, inputs: dict[str, str]) -> None:
    for name, text in inputs.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text, "utf-8")


def written(where: Path, inputs: dict[str, str]) -> dict[str, str]:
    files = {str(path.relative_to(where)): path.read_bytes().decode() for path in where.rglob("*") if path.is_file()}
    return {name: text for name, text in files.items() if inputs.get(name) != text}


@pytest.mark.parametrize("case", cases("gsign"), ids=lambda case: case["id"])
def test_as_the_classic(case: Case, base: Path, tmp_path: Path) -> None:
    lay(base, case["inputs"])
    prog = program(tmp_path)
    words = list(case["argv"])
    if case["signing_program"] and "--help" not in words and "-h" not in words:
        words = ["-p", case["signing_program"].replace("PROG", str(prog)), *words]
    status = gsign(*words)
    called = None
    if (tmp_path / "log").exists():
        called = [word.decode("utf-8", "surrogateescape") for word in (tmp_path / "log").read_bytes().split(b"\0")]
    expected_status, expected = case["exit_code"], case["program_argv"]
    if case["id"] in DIFFERENT:
        _, expected_status, expected = DIFFERENT[case["id"]]
        assert (expected_status, expected) != (case["exit_code"], case["program_argv"])
    if case["id"] == "version":
        assert status != 0
        return
    assert status == expected_status
    assert called == (None if expected is None else [word.replace("<BASE>", str(base)) for word in expected])
    files = written(base, case["inputs"])
    if expected is None:
        assert files == {}
    elif case["files_written"]:
        assert files == case["files_written"]
    else:
        assert list(files) == [expected[-1].removeprefix("<BASE>/")]


def one() -> Case:
    return next(case for case in cases("gsign") if case["id"] == "destination")


def test_what_is_signed_is_shown_on_standard_error(base: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    lay(base, one()["inputs"])
    assert gsign("-s", "alice", "-r", "1.0", "-p", str(program(tmp_path)), "pkg.yml") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "'pkg', release '1.0', as 'alice'" in err and "pkg-1.0-linux64.tar.gz" in err
    # The recorded report was not made from the recorded descriptor: its hash is another one.
    assert "another version of the descriptor" in err
    assert "not signed yet: put the detached signature at" in err
    assert gsign("-q", "-s", "alice", "-r", "1.0", "-p", str(program(tmp_path)), "pkg.yml") == 0
    assert "signing 'pkg'" not in capsys.readouterr().err


def test_strict_refuses_and_writes_nothing(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay(base, one()["inputs"])
    assert gsign("--strict", "-s", "alice", "-p", str(program(tmp_path)), "pkg.yml") == 15
    assert "another version of the descriptor" in capsys.readouterr().err
    assert not (tmp_path / "log").exists() and not (base / "sigs").exists()


@pytest.mark.parametrize(("descriptor", "words"), [
    ('files: ["extra.tar"]\nremotes: []\n', "'extra.tar' of the descriptor is not in the report"),
    ('files: []\nremotes: [{url: "u", dir: "other"}]\n', "remote 'other' of the descriptor is not in the report"),
    ('files: []\nremotes: [{url: "u", dir: "pkg", commit: "' + "9" * 40 + '"}]\n', "the descriptor asks for 9999"),
    ("files: []\nremotes: []\narchitectures: [i386, amd64]\n", "no environment for 'bionic-i386'"),
])
def test_promises_that_the_report_does_not_keep(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                descriptor: str, words: str) -> None:
    lay(base, one()["inputs"])
    head = 'name: "pkg"\nsuites: ["bionic"]\nreference_datetime: "2020-01-01 00:00:00"\npackages: []\nscript: ""\n'
    if "architectures" not in descriptor:
        head += 'architectures: ["amd64"]\n'
    (base / "pkg.yml").write_text(head + descriptor)
    assert gsign("-s", "alice", "-p", str(program(tmp_path)), "pkg.yml") == 0
    assert words in capsys.readouterr().err


def test_strict_signs_what_is_as_promised(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    lay(base, one()["inputs"])
    text = ('name: "pkg"\nsuites: ["bionic"]\narchitectures: ["amd64"]\npackages: []\nscript: ""\nfiles: []\n'
            'remotes: [{url: "u", dir: "pkg"}]\n')
    (base / "pkg.yml").write_text(text)
    report = base / "result" / "pkg-res.yml"
    lines = report.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if "pkg-desc.yml" in line)
    lines[at] = f"    {hashlib.sha256(text.encode()).hexdigest()}  pkg-desc.yml"
    report.write_text("\n".join(lines) + "\n")
    assert gsign("--strict", "-s", "alice", "-p", str(program(tmp_path)), "pkg.yml") == 0
    assert "warning" not in capsys.readouterr().err


def test_a_failing_program_leaves_no_half_signature(base: Path, tmp_path: Path) -> None:
    lay(base, one()["inputs"])
    prog = program(tmp_path, status=3, body="open(sys.argv[-1] + '.sig', 'wb').write(b'half')")
    assert gsign("-s", "alice", "-p", str(prog), "pkg.yml") == 15
    found = base / "sigs/pkg/test/alice"
    assert [path.name for path in found.iterdir()] == ["pkg-build.assert"]
    assert gsign("-s", "alice", "-p", str(tmp_path / "none"), "pkg.yml") == 5


def test_an_old_signature_does_not_outlive_its_content(base: Path, tmp_path: Path) -> None:
    lay(base, one()["inputs"])
    found = base / "sigs/pkg/test/alice"
    found.mkdir(parents=True)
    (found / "pkg-build.assert").write_text("other content")
    (found / "pkg-build.assert.sig").write_bytes(b"old")
    assert gsign("-s", "alice", "-p", "true", "pkg.yml") == 0
    assert not (found / "pkg-build.assert.sig").exists()
    # Signed elsewhere and dropped in; the same content again keeps it.
    (found / "pkg-build.assert.sig").write_bytes(b"dropped in")
    assert gsign("-s", "alice", "-p", "true", "pkg.yml") == 0
    assert (found / "pkg-build.assert.sig").read_bytes() == b"dropped in"
    assert gsign("-s", "alice", "-p", "false", "pkg.yml") == 15
    assert (found / "pkg-build.assert.sig").read_bytes() == b"dropped in"


def test_what_a_program_leaves_must_be_a_signature(base: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    lay(base, one()["inputs"])
    prog = program(tmp_path, body="open(sys.argv[-1] + '.sig', 'wb').write(b'hello')")
    assert gsign("-s", "alice", "-p", str(prog), "pkg.yml") == 15
    assert "is not OpenPGP data" in capsys.readouterr().err


@pytest.mark.parametrize(("body", "words"), [
    ("import os; os.mkdir(sys.argv[-1] + '.sig')", "is not a regular file"),
    ("import os; os.mkfifo(sys.argv[-1] + '.sig')", "is not a regular file"),
    ("import os; os.symlink('/etc/passwd', sys.argv[-1] + '.sig')", "leads out"),
    ("import os; os.symlink('nowhere', sys.argv[-1] + '.sig')", "leads nowhere"),
    ("open(sys.argv[-1] + '.sig', 'wb').truncate(2**32)", "at most"),
    ("open(sys.argv[-1], 'ab').write(b'more')", "changed"),
    ("import os; os.remove(sys.argv[-1])", "changed"),
])
def test_programs_that_leave_something_odd(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str,
                                           words: str) -> None:
    lay(base, one()["inputs"])
    assert gsign("-s", "alice", "-p", str(program(tmp_path, body=body)), "pkg.yml") == 15
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("words", [("-p", "true"), ()])
def test_a_directory_in_the_place_of_the_signature(base: Path, capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    from gitian.sigs import gpg

    monkeypatch.setattr(gpg, "sign_detached", lambda content, signer: b"signature")
    lay(base, one()["inputs"])
    (base / "sigs/pkg/test/alice/pkg-build.assert.sig").mkdir(parents=True)
    assert gsign("-s", "alice", *words, "pkg.yml") == 15
    assert "in the way" in capsys.readouterr().err


@pytest.mark.parametrize("signer", ["..", "a/../b", "/a", "a//b", "a/", "-x", "a\nb", "\x7f", "\x9b", "a\u202eb",
                                    "\udcff", ".git", "a/.GIT", "x" * 201])
def test_signers_that_are_refused(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], signer: str) -> None:
    lay(base, one()["inputs"])
    before = sorted(base.rglob("*"))
    assert gsign("-s", signer, "-p", str(program(tmp_path)), "pkg.yml") == 1
    assert sorted(base.rglob("*")) == before and not (tmp_path / "log").exists()
    assert all(char.isprintable() or char == "\n" for char in capsys.readouterr().err)


@pytest.mark.parametrize("signer", ["a b", "a/b", "\xe9", "~", "*", "$(id)", "Ann <ann@example.org>"])
def test_signers_that_are_names(base: Path, tmp_path: Path, signer: str) -> None:
    lay(base, one()["inputs"])
    assert gsign("-s", signer, "-p", str(program(tmp_path)), "pkg.yml") == 0
    assert (base / "sigs/pkg/test" / signer / "pkg-build.assert").is_file()


def test_shell_text_in_options_stays_text(base: Path, tmp_path: Path) -> None:
    lay(base, one()["inputs"])
    signer = "a; touch pwned; $(touch pwned) `touch pwned`"
    assert gsign("-s", signer, "-p", f"{program(tmp_path)} '$(touch pwned)'", "pkg.yml") == 0
    words = (tmp_path / "log").read_bytes().split(b"\0")
    assert words[:3] == [b"$(touch pwned)", b"-u", signer.encode()]
    assert not list(base.rglob("pwned")) and not os.path.exists("pwned")
