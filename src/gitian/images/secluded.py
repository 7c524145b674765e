"""A place where strangers' programs may run: no network, nothing of this machine but its programs, nobody's ids.

What a package runs while it is installed is root in its chroot, and a chroot does not hold root. So the whole of it
lives in a user namespace with subordinate ids, has no network but its own, and a root directory in which only the
system's programs, which nobody can change there, and one working directory are to be seen: no home, no other image, no
socket of a service. A user's own id means nobody there either, unlike where only programs of ours run.
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
#:
#: What is mounted so can be changed by whoever is root of that namespace: the programs run in a further one, with the
#: same ids, in which the kernel has locked all of it (mount_namespaces(7), "Restrictions on mount namespaces").
_WORLD = """\
set -eu
world=/tmp
readonly=$1
shift
mount -t tmpfs -o mode=755,size=16m tmpfs "$world"
for place in /bin /etc /lib /lib32 /lib64 /libx32 /opt /sbin /usr; do
  if [ -L "$place" ]; then
    ln -s "$(readlink "$place")" "$world$place"
  elif [ -d "$place" ]; then
    mkdir "$world$place"
    mount --rbind "$place" "$world$place"
    perl -e "$readonly" "$world$place"
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
mkfifo /run/mapped
unshare --user sh -c 'read -r _ < /run/mapped; exec "$@"' locked unshare --mount --net --ipc --uts --pid --fork \
  --kill-child --mount-proc "$@" &
until [ "$(readlink "/proc/$!/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do
  kill -0 $!
done
echo 0 0 65536 > "/proc/$!/uid_map"
echo 0 0 65536 > "/proc/$!/gid_map"
echo > /run/mapped
rm /run/mapped
wait $!
"""

#: Makes a place read-only with all that is mounted below it: mount_setattr(2), which mount(8) knows only since 2.39.
#: Where the kernel has none, each mount by itself, with what it forbids already (without, that may not be allowed).
#: mmdebstrap is written in Perl, so that is there.
_READ_ONLY = r"""
my ($top) = @ARGV;
my $attributes = pack("Q4", 1, 0, 0, 0);  # MOUNT_ATTR_RDONLY
exit 0 if syscall(442, -100, $top, 0x8000, $attributes, 32) == 0;  # AT_FDCWD, AT_RECURSIVE
open(my $mounts, "<", "/proc/self/mountinfo") or die "mountinfo: $!";
for my $line (<$mounts>) {
  my ($place, $options) = (split / /, $line)[4, 5];
  $place =~ s/\\([0-7]{3})/chr oct $1/ge;
  next unless $place eq $top or index($place, "$top/") == 0;
  my $kept = join ",", grep { /^(nosuid|nodev|noexec|noatime|nodiratime|relatime|strictatime)$/ } split /,/, $options;
  system("mount", "-c", "-o", "remount,bind,ro" . ($kept && ",$kept"), $place) == 0 or die "$place stays writable";
}
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
    inside = [*tied, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
              _WORLD, "world", _READ_ONLY, *argv]
    return [*tied, *in_namespace(inside, SubIds.of_current_user())]
