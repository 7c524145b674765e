"""Where strangers' programs run: what of this machine is seen there cannot be changed, least of all by a user's own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gitian.host.subids import SubIds
from gitian.images import lxc, secluded

pytestmark = [pytest.mark.lxc, pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")]

#: A user whom every system has, and ids that nobody uses.
USER, GROUP = "nobody", 65534
IDS = SubIds(uid=2_000_000_000, gid=2_000_000_000)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can get into, which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="gitian-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def as_user(place: Path, argv: Sequence[str], prepare: str = "true") -> subprocess.CompletedProcess[str]:
    """Run a command as a user with subordinate ids, in a mount namespace in which ``prepare`` was run as root."""
    for name, user in (("subuid", USER), ("subgid", USER)):
        (place / name).write_text(f"{user}:{IDS.uid}:65536\n")
    script = f"""set -e
mount --bind {place}/subuid /etc/subuid
mount --bind {place}/subgid /etc/subgid
{prepare}
exec setpriv --reuid={USER} --regid={GROUP} --clear-groups -- {shlex.join(argv)}"""
    return subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], cwd=place / "work",
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)


def commands(monkeypatch: pytest.MonkeyPatch, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command inside, and a plain one in the user's namespace, as that user would start them."""
    number = int(subprocess.run(["id", "-u", USER], check=True, stdout=subprocess.PIPE).stdout)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: number)
        patch.setattr(os, "getegid", lambda: GROUP)
        patch.setattr(SubIds, "of_current_user", classmethod(lambda cls: IDS))
        return secluded.command(argv), lxc.in_namespace(["true"], IDS)


#: The user's own files, plain and in a mount of its own, and another mount that forbids something already.
OWN = f"""mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /opt/deeper /opt/'with a space'
mount -t tmpfs -o mode=777,nosuid,nodev,noexec,noatime tmpfs /opt/deeper
mount -t tmpfs -o mode=777 tmpfs /opt/'with a space'
for place in /opt /opt/deeper /opt/'with a space'; do
  echo mine > "$place/mine"
  echo anybody > "$place/anybody"
  chmod 666 "$place/anybody"
  chown {USER}:{GROUP} "$place" "$place/mine"
done"""

WRITES = f"""cd /
for place in opt opt/deeper 'opt/with a space'; do
  cat "$place/mine"
  for name in mine anybody new; do
    if (echo changed > "$place/$name") 2>/dev/null; then echo "written: $place/$name"; fi
  done
  for way in 'mount -o remount,rw,bind' 'mount -o remount,rw' 'umount' 'umount -l'; do
    if $way "/$place" 2>/dev/null; then echo "$way: $place"; fi
  done
done
cut -d ' ' -f 5,6 /proc/self/mountinfo | grep -E '^/(usr|etc|opt)' | grep -v ' ro' || true
echo box > {secluded.BOX}/new && cat {secluded.BOX}/new
stat -c %u opt/mine
ls /proc | grep -c '^[0-9]*$'"""


def test_what_is_seen_cannot_be_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = place / "work"
    (work / "box").mkdir(parents=True)
    shutil.chown(work, USER)
    os.chown(work / "box", IDS.uid, IDS.gid)
    inside, plain = commands(monkeypatch, ["sh", "-c", WRITES])
    if (probe := as_user(place, plain)).returncode:
        pytest.skip(f"no user but root may map subordinate ids here: {probe.stderr}")
    done = as_user(place, inside, OWN)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # The user's own id is nobody's there; its processes are the only ones.
    assert lines[:-1] == ["mine", "mine", "mine", "box", "65534"]
    assert int(lines[-1]) < 6
    assert (work / "box/new").stat().st_uid == IDS.uid
