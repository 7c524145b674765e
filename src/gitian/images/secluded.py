"""A place where strangers' programs may run: no network, nothing of this machine but its programs, nobody's ids.

What a package runs while it is installed is root in its chroot, and a chroot does not hold root. So the whole of it
lives in a user namespace with subordinate ids, has no network but its own, and a root directory in which only the
system's programs and one working directory are to be seen: no home, no other image, no socket of a service.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gitian.host.subids import SubIds
from gitian.images.lxc import give, in_namespace

#: Where the working directory is seen, and the part of it that can be written to.
WORK = Path("/work")
BOX = WORK / "box"

#: Run as root of the new namespaces, the working directory being the current one, which is reached through /proc: the
#: directories above it need not be open to the subordinate ids. /tmp is no more than a place to mount at.
_WORLD = """\
set -eu
world=/tmp
mount -t tmpfs -o mode=755,size=16m tmpfs "$world"
for place in /bin /etc /lib /lib32 /lib64 /libx32 /opt /sbin /usr; do
  if [ -L "$place" ]; then
    ln -s "$(readlink "$place")" "$world$place"
  elif [ -d "$place" ]; then
    mkdir "$world$place"
    mount --rbind "$place" "$world$place"
  fi
done
for place in work proc dev/shm dev/pts tmp run var/tmp sys root old; do
  mkdir -p "$world/$place"
done
mount -c --bind /proc/self/cwd "$world/work"
mount -t proc proc "$world/proc"
for device in null zero full random urandom tty; do
  : > "$world/dev/$device"
  mount --bind "/dev/$device" "$world/dev/$device"
done
ln -s /proc/self/fd "$world/dev/fd"
cd "$world"
pivot_root . old
cd /
umount -l /old
rmdir /old
exec "$@"
"""


def prepare(work: Path) -> Path:
    """Make ``work``, a new directory, and in it the box that only those inside can write to; the box.

    Raises HostError: no subordinate ids.
    """
    box = work / BOX.name
    box.mkdir(parents=True)
    work.chmod(0o755)
    give(box, SubIds.of_current_user())
    return box


def command(argv: Sequence[str]) -> list[str]:
    """The command inside. Start it with a working directory that :func:`prepare` has made. Raises HostError.

    Whatever ends us ends all of it, since its processes have a PID namespace of their own.
    """
    tied = ["setpriv", "--pdeathsig=KILL", "--"]
    inside = [*tied, "unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child",
              "--mount-proc", "sh", "-c", _WORLD, "world", *argv]
    return [*tied, *in_namespace(inside, SubIds.of_current_user())]
