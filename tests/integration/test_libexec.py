"""The commands of libexec/, as scripts written for the classic use them: by PATH, in the workspace."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gitian.guest import session
from gitian.host import process
from tests.integration import lxc_kit

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs command lines in a workspace with libexec/ on PATH."""

    workspace: Path
    images: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": f"{ROOT / 'libexec'}:{ROOT / 'bin'}:{Path(sys.executable).parent}:{system}", "LANG": "C.UTF-8",
                "HOME": str(self.workspace), "GITIAN_IMAGES": str(self.images), **self.extra}

    def __call__(self, line: str, *, input: bytes | None = b"", status: int = 0,
                 env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(["sh", "-c", line], cwd=self.workspace, env=self.environment | dict(env or {}),
                              input=input, capture_output=True, timeout=600)
        assert done.returncode == status, (line, done)
        return done


@pytest.fixture(scope="module", params=[pytest.param("lxc", marks=pytest.mark.lxc),
                                        pytest.param("kvm", marks=pytest.mark.kvm)])
def shell(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A workspace with a running target."""
    workspace = tmp_path_factory.mktemp("workspace")
    shell = Shell(workspace=workspace, images=images, extra={"USE_LXC": "1"} if request.param == "lxc" else {})
    shell("make-clean-vm --suite bookworm --arch amd64")
    shell("start-target 64 bookworm-amd64")
    yield shell
    shell("stop-target")
    assert not session.record_path(workspace).exists()


def test_a_command_line_is_read_by_the_targets_shell(shell: Shell) -> None:
    assert shell("on-target id -un").stdout == b"debian\n"
    assert shell("on-target -u root id -un").stdout == b"root\n"
    assert shell("on-target --user debian 'echo $HOME; pwd' '&& echo a  b'").stdout == (
        b"/home/debian\n/home/debian\na b\n")
    assert shell("on-target -e 'A=1 B=\"x y\"' 'echo $A,$B'").stdout == b"1,x y\n"
    done = shell("on-target 'echo out; echo err >&2; exit 7'", status=7)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    # Options after the command's name are the command's.
    assert shell("on-target echo -u root -e --help").stdout == b"-u root -e --help\n"


def test_standard_input_is_passed_on(shell: Shell) -> None:
    data = os.urandom(300_000)
    assert shell("on-target cat", input=data).stdout == data
    assert shell("on-target -u root bash", input=b"id -u\nexit 3\n", status=3).stdout == b"0\n"
    assert shell("on-target", input=b"echo from a script\n").stdout == b"from a script\n"
    # What one command leaves is for the next.
    assert shell("(on-target true; cat) < /dev/null").stdout == b""
    # Neither an endless input nor an output that nobody wants holds us up.
    assert shell("yes | on-target head -n 1").stdout == b"y\n"
    assert shell("on-target yes | head -n 1").stdout == b"y\n"
    # Nor are closed streams any reason to fail.
    assert shell("on-target echo said <&-").stdout == b"said\n"
    shell("on-target echo said <&- >&- 2>&-")


def test_the_terminal_is_not_the_targets_to_steer(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        running = subprocess.Popen(["on-target", r"printf 'a\033]0;title\007b\n'; tty"], cwd=shell.workspace,
                                   env=shell.environment, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                                   executable=ROOT / "libexec" / "on-target", start_new_session=True)
        os.close(theirs)
        said = b""
        while select.select([screen], [], [], 120)[0]:
            try:
                piece = screen.read(4096)
            except OSError:  # how Linux says that the other side is closed
                break
            if not piece:
                break
            said += piece
        running.communicate(timeout=120)
    assert said.replace(b"\r\n", b"\n") == b"a\\x1b]0;title\\x07b\nnot a tty\n"


def test_interrupted_it_ends_the_command_too(shell: Shell) -> None:
    running = subprocess.Popen([ROOT / "libexec" / "on-target", "echo go; exec sleep 7654"], cwd=shell.workspace,
                               env=shell.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None and running.stdout.readline() == b"go\n"
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM
    assert process.wait_until(
        lambda: shell("on-target \"ps ax | grep -c '[s]leep 7654' || true\"").stdout == b"0\n", 60, every=0.5)


def test_copies(shell: Shell) -> None:
    source = shell.workspace / "source"
    source.mkdir()
    (source / "file").write_text("text")
    (source / "file").chmod(0o755)
    shell("copy-to-target source build/")
    assert shell("on-target stat -c %U%a build/source/file").stdout == b"debian755\n"
    shell("copy-to-target -q source/file build/")
    shell("copy-to-target -u root --quiet source/file /root/renamed")
    assert shell("on-target cat build/file && on-target -u root cat renamed").stdout == b"texttext"
    shell("copy-from-target build back")
    assert (shell.workspace / "back" / "build" / "source" / "file").read_text() == "text"
    shell("copy-from-target -u root -q /root/renamed back/new && copy-from-target -q build/file .")
    assert (shell.workspace / "back" / "new").read_text() == "text" == (shell.workspace / "file").read_text()
    assert shell("copy-to-target -q source build/ 2>&1").stdout == b""
    assert b"There is no 'absent'" in shell("copy-to-target absent build/", status=2).stderr
    assert shell("copy-from-target absent .", status=8).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="what sudo tells is believed of root only")
def test_copied_through_sudo_it_is_the_callers(shell: Shell) -> None:
    shell("on-target mkdir -p made/sub; on-target touch made/sub/file; on-target ln -s sub made/link")
    shell("copy-from-target -q made callers", env={"SUDO_UID": "12345", "SUDO_GID": "23456"})
    places = [shell.workspace / "callers", *(shell.workspace / "callers").rglob("*")]
    assert len(places) == 5
    assert {(place.lstat().st_uid, place.lstat().st_gid) for place in places} == {(12345, 23456)}


def test_stopped_and_started_it_is_as_it_was_until_made_clean(shell: Shell) -> None:
    shell("on-target 'echo kept > file'")
    record = session.load(shell.workspace)
    assert record is not None
    shell("stop-target")
    assert all(process.identity(who.pid) != who for who in record.processes.values())
    assert b"No target is running" in shell("on-target true", status=8).stderr
    shell("stop-target")  # there is none: fine
    shell("start-target 64 bookworm-amd64")
    assert shell("on-target cat file").stdout == b"kept\n"
    shell("make-clean-vm -s bookworm -a amd64; start-target 64 bookworm-amd64")
    shell("on-target test -e file", status=1)


def test_what_is_refused(shell: Shell) -> None:
    assert b"32 bits" in shell("start-target 32 bookworm-amd64", status=2).stderr
    assert b"'sparc'" in shell("start-target 64 bookworm-sparc", status=2).stderr
    assert shell("start-target 64 ../x-amd64", status=2).stderr
    assert b"make-base-vm" in shell("start-target 64 forky-amd64", status=7).stderr
    assert b"'nobody'" in shell("on-target -u nobody id", status=2).stderr
    assert b"No command" in subprocess.run(
        ["script", "-qec", "on-target", "/dev/null"], cwd=shell.workspace, env=shell.environment,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120).stdout
    assert b"NAME=VALUE" in shell("on-target -e 'a b' id", status=2).stderr
    assert b"LXC_SUITE asks for 'xenial'" in shell("on-target id", status=8, env={"LXC_SUITE": "xenial"}).stderr
    assert shell("on-target id -un", env={"LXC_SUITE": "bookworm", "LXC_ARCH": "amd64"}).stdout == b"debian\n"


@pytest.mark.parametrize("name", ["on-target", "copy-to-target", "copy-from-target", "start-target", "stop-target",
                                  "make-clean-vm", "gbuild", "gsign", "gverify", "make-base-vm", "gitian"])
def test_every_launcher_helps(name: str, tmp_path: Path) -> None:
    folder = "libexec" if (ROOT / "libexec" / name).exists() else "bin"
    for option in ("-h", "--help"):
        done = subprocess.run([ROOT / folder / name, option], cwd=tmp_path, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=120, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
        assert done.returncode == 0 and f"Usage: {name}".encode() in done.stdout, done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.lxc
def test_a_target_kept_by_gbuild(images: Path, tmp_path: Path) -> None:
    shell = Shell(workspace=tmp_path, images=images, extra={"USE_LXC": "1"})
    (tmp_path / "kept.yml").write_text(
        "---\nname: kept\ndistro: debian\nsuites: [bookworm]\narchitectures: [amd64]\npackages: []\nremotes: []\n"
        "files: []\nreference_datetime: '2020-01-01 00:00:00'\nscript: |\n  echo made > $OUTDIR/file\n")
    shell("gbuild --skip-cleanup kept.yml")
    assert shell("on-target cat out/file").stdout == b"made\n"
    shell("stop-target; make-clean-vm -s bookworm; rm -r target-*")
    assert lxc_kit.left_behind(tmp_path) == []
