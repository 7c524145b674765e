"""The one root filesystem that every backend adopts: a tarball, the same bit for bit from the same indices.

mmdebstrap makes it (deterministic with SOURCE_DATE_EPOCH). Nothing of this machine and nothing personal is in it: no
SSH host keys, no machine id, no user's keys, no rule for sudo. What the guest contract says of files is set here.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gitian.errors import EnvironmentUnavailableError, ImageError
from gitian.formats.image_record import InstalledPackage
from gitian.guest.protocol import DNS_ADDRESS, HOSTNAME, LOCALE, USER_ID
from gitian.host import process, progress
from gitian.host.hashing import sha256_file
from gitian.host.space import require_room
from gitian.host.streams import Tail
from gitian.images import archive, pool, secluded
from gitian.images.archive import Indices
from gitian.images.distros import PACKAGES, Distro
from gitian.images.pool import Seed
from gitian.images.repository import KEYRING, Repository

#: What making a root filesystem takes while it lasts: the tree, the packages, the tarball (bytes).
ROOM = 3 * 2**30
#: dpkg's status of 600 packages is half a megabyte (bytes).
_STATUS_LIMIT = 64 * 2**20

APT_CONFIGURATION = """\
// Written by make-base-vm.
APT::Install-Recommends "false";
APT::Periodic::Enable "0";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "3";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dpkg::Use-Pty "0";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRequest:
    """What root filesystem to make. ``keyring`` is the user's own, which the guest then trusts too.

    From a ``Repository`` it is made of all of that one's packages and no others; these may be anybody's, so what they
    run while they are installed is kept away from this machine. Then ``packages`` and ``keyring`` do not matter.
    """

    distro: Distro
    suite: str
    arch: str
    source: Indices | Repository
    keyring: Path | None = None
    packages: tuple[str, ...] = PACKAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFilesystem:
    """A finished tarball and what is installed in it."""

    tarball: Path
    sha256: str
    size: int
    packages: tuple[InstalledPackage, ...]


def make_root_filesystem(request: RootRequest, tarball: Path, scratch: Path) -> RootFilesystem:
    """Make the tarball at ``tarball``, working in ``scratch`` (private, swept by the caller).

    Raises FetchError, ImageError, MissingToolError, HostError (no room).
    """
    require_room(scratch, ROOM, "make a root filesystem")
    if isinstance(request.source, Repository):
        return _make_secluded(request, request.source, tarball, scratch)
    _date_lists(request.source)
    with pool.seeded(request.source, request.packages) as seed:
        made = _make(request, request.source, tarball, scratch, seed)
        seed.collect(made.packages)
    return made


def _make(request: RootRequest, indices: Indices, tarball: Path, scratch: Path, seed: Seed) -> RootFilesystem:
    status = scratch / "status"
    for attempt in range(2):
        tail = _mmdebstrap(request, indices, tarball, status, scratch, seed)
        if tail is None:
            break
        said = "\n".join(tail)
        tarball.unlink(missing_ok=True)
        if archive.transient(said) and attempt == 0:
            progress.say("Fetching packages failed; trying once more ...")
            continue
        if "Failed to fetch" in said:
            raise archive.failure(said, indices.sources)
        if "Unable to locate package" in said:
            raise ImageError(f"The suite '{request.suite}' lacks a package that base images hold: "
                             f"{_first(tail, 'Unable to locate package')}.")
        raise _failed(tail)
    if not tarball.is_file() or not status.is_file():
        raise ImageError("'mmdebstrap' ended well but has left no root filesystem.")
    return _made(tarball, status, indices.package_hashes())


def _failed(tail: Sequence[str]) -> ImageError:
    errors = [line for line in tail if line.startswith(("E:", "dpkg: error"))] or tail[-3:]
    return ImageError(f"'mmdebstrap' could not make the root filesystem: {' / '.join(errors[:4])}",
                      hint="The last lines it said:\n  " + "\n  ".join(tail[-12:]))


def _made(tarball: Path, status: Path, hashes: Mapping[tuple[str, str, str], str]) -> RootFilesystem:
    return RootFilesystem(tarball=tarball, sha256=sha256_file(tarball), size=tarball.stat().st_size,
                          packages=installed_packages(status, hashes))


#: No daemon is started by being installed, neither now nor in a guest (invoke-rc.d(8)): a build gets what its script
#: starts.
_POLICY = """mkdir -p "$1/usr/sbin" && printf '#!/bin/sh\\nexit 101\\n' > "$1/usr/sbin/policy-rc.d" && \
chmod 755 "$1/usr/sbin/policy-rc.d" """


def _mmdebstrap(request: RootRequest, indices: Indices, tarball: Path, status: Path, scratch: Path,
                seed: Seed) -> list[str] | None:
    """Run mmdebstrap; None when it ended well, else the last lines of what it said."""
    root = os.geteuid() == 0
    work = scratch / "work"
    work.mkdir(exist_ok=True)
    # In a user namespace the chroot's root is a subordinate id, which must get through to it.
    for place in (scratch.parent, scratch, work):
        place.chmod(0o755)
    trust = []
    if request.keyring is not None:
        copy = archive.copy_keyring(request.keyring, scratch, "gitian-archive")
        trust = [f"--customize-hook=copy-in {shlex.quote(str(copy))} /etc/apt/trusted.gpg.d"]
    argv = ["mmdebstrap", f"--mode={'root' if root else 'unshare'}", f"--architectures={request.arch}",
            f"--include={','.join(request.packages)}", *_COMMON, "--skip=update",
            *(f"--aptopt={name} \"{value}\"" for name, value in archive.proxies().items()),
            '--aptopt=Acquire::Retries "5"',
            f"--setup-hook=sync-in {shlex.quote(str(indices.lists))} /var/lib/apt/lists",
            *seed.options, *trust, *_hooks(request, status), request.suite, str(tarball),
            *(source.host_line(request.arch, indices.keyrings) for source in indices.sources)]
    if root:
        # Whatever ends us ends it too, with all it has started: nothing goes on filling a disk behind our back.
        argv = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *argv]
    else:
        argv = ["setpriv", "--pdeathsig=KILL", *argv]
    tail = Tail(65536)
    with process.start(argv, stdout=process.PIPE, stderr=process.STDOUT,
                       env=_environment(indices.epoch, work)) as running:
        assert running.stdout is not None
        _listen(running, running.stdout, tail)
    return None if running.returncode == 0 else tail.lines(200)


def _make_secluded(request: RootRequest, repository: Repository, tarball: Path, scratch: Path) -> RootFilesystem:
    """Make it of a repository, which lies in a directory that :func:`secluded.prepare` has made.

    Raises EnvironmentUnavailableError: these packages do not make a system.
    """
    work = repository.directory.parent
    box = work / secluded.BOX.name
    inside = secluded.WORK / repository.directory.name
    options = f"arch={','.join(repository.architectures)} signed-by={inside / KEYRING} check-date=no"
    names = [package.name if package.architecture == "all" else f"{package.name}:{package.architecture}"
             for package in repository.packages]
    argv = ["mmdebstrap", "--mode=unshare", f"--architectures={','.join(repository.architectures)}",
            f"--include={','.join(names)}", *_COMMON, *_hooks(request, secluded.BOX / "status"), request.suite, "-",
            f"deb [{options}] copy:{inside} {request.suite} main"]
    tail = Tail(65536)
    with tarball.open("xb") as file:
        with process.start(secluded.command(argv), stdout=file, stderr=process.PIPE, cwd=work,
                           env=_environment(repository.epoch, secluded.BOX)) as running:
            assert running.stderr is not None
            _listen(running, running.stderr, tail)
    if running.returncode != 0:
        failure = _failed(tail.lines(200))
        raise EnvironmentUnavailableError(f"These packages do not make a system. {failure}", hint=failure.hint)
    return _made(tarball, _taken_out(box / "status", scratch / "status"), repository.hashes())


def _taken_out(theirs: Path, ours: Path) -> Path:
    """A copy of a file that the packages' scripts may have put there: a plain one, of bounded size."""
    try:
        number = os.open(theirs, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            data = file.read(_STATUS_LIMIT + 1) if stat.S_ISREG(os.fstat(number).st_mode) else b""
    except OSError as error:
        raise ImageError(f"'mmdebstrap' ended well but its list of packages cannot be read: "
                         f"{error.strerror}.") from error
    if not data or len(data) > _STATUS_LIMIT:
        raise ImageError("'mmdebstrap' ended well but its list of packages is no list.")
    ours.write_bytes(data)
    return ours


#: What every root filesystem is made with.
_COMMON = (
    "--variant=minbase", "--format=tar", "--skip=cleanup/apt", '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
    # Ours stays: mmdebstrap would remove it as its own in the end.
    "--skip=chroot/policy-rc.d", f"--setup-hook={_POLICY}")


def _hooks(request: RootRequest, status: Path) -> tuple[str, str]:
    return (f"--customize-hook={customize_script(request)}",
            f"--customize-hook=download /var/lib/dpkg/status {shlex.quote(str(status))}")


def _environment(epoch: int, work: Path) -> dict[str, str]:
    return {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(work), "TZ": "UTC"}


def _listen(running: process.Popen[bytes], stream: IO[bytes], tail: Tail) -> None:
    try:
        while piece := os.read(stream.fileno(), 65536):
            tail(piece)
    except BaseException:
        # It would take seconds to tidy up what we sweep anyway.
        process.kill_group(running)
        raise


def customize_script(request: RootRequest) -> str:
    """The shell script that mmdebstrap runs outside the new root, which is ``$1``, once all packages are in."""
    user = request.distro.name
    # Packages that somebody recorded may be without it.
    locales = 'chroot "$root" locale-gen >&2'
    if isinstance(request.source, Repository):
        locales = f'if [ -x "$root/usr/sbin/locale-gen" ]; then {locales}; fi'
    home = f"/home/{user}"
    sources = request.source.sources if isinstance(request.source, Indices) else ()
    lines = "".join(source.guest_line + "\n" for source in sources)
    return f"""set -eu
root="$1"
put() {{ rm -f "$root$1"; cat > "$root$1"; chmod "${{2:-644}}" "$root$1"; }}
put /etc/hostname <<'EOF'
{HOSTNAME}
EOF
put /etc/hosts <<'EOF'
127.0.0.1 localhost
127.0.1.1 {HOSTNAME}
::1 localhost ip6-localhost ip6-loopback
EOF
put /etc/resolv.conf <<'EOF'
nameserver {DNS_ADDRESS}
EOF
put /etc/default/locale <<'EOF'
LANG={LOCALE}
EOF
put /etc/locale.gen <<'EOF'
{LOCALE} UTF-8
EOF
{locales}
put /etc/timezone <<'EOF'
Etc/UTC
EOF
rm -f "$root/etc/localtime"
ln -s /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"
put /etc/apt/apt.conf.d/90gitian <<'EOF'
{APT_CONFIGURATION}EOF
put /etc/dpkg/dpkg.cfg.d/90gitian <<'EOF'
# A guest is thrown away: there is nothing to save from a power cut.
force-unsafe-io
EOF
rm -f "$root"/etc/apt/sources.list.d/*
put /etc/apt/sources.list <<'EOF'
{lines}EOF
if chroot "$root" getent passwd {USER_ID} > /dev/null; then
  chroot "$root" userdel -r "$(chroot "$root" getent passwd {USER_ID} | cut -d: -f1)" >&2 2>/dev/null || true
fi
chroot "$root" groupadd -g {USER_ID} {user}
chroot "$root" useradd -u {USER_ID} -g {USER_ID} -m -d {home} -s /bin/bash {user}
chmod 755 "$root{home}"
rm -f "$root"/etc/ssh/ssh_host_*
# A chroot that never booted has none; a guest whose init makes one gets its own.
rm -f "$root/var/lib/dbus/machine-id"
put /etc/machine-id < /dev/null
{_list_moves(request.source)}cd "$root/var/lib/apt/lists"
rm -rf auxfiles lock "$root/var/cache/apt/archives"
cd - > /dev/null
# apt gives these to its own user, or not, as that user could reach this place while the root filesystem was made.
for place in /var/lib/apt/lists/partial /var/cache/apt/archives/partial; do
  rm -rf "$root$place"
  mkdir -p "$root$place"
  chown 0:0 "$root$place"
  chmod 700 "$root$place"
done
# What was copied in belongs to whoever runs this.
chown -R 0:0 "$root/var/lib/apt/lists" "$root/etc/apt"
chmod 755 "$root/var/lib/apt/lists"
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- \\
  "$root"/etc/subgid- "$root"/var/log/bootstrap.log "$root"/var/log/faillog "$root"/var/log/lastlog
find "$root/var/log" -type f -exec rm -f {{}} +
"""


def _list_moves(source: Indices | Repository) -> str:
    """Lists are named by where they came from: named anew where the guest knows the place by another address.

    A guest made of given packages knows of none.
    """
    if isinstance(source, Repository):
        return 'rm -rf "$root/var/lib/apt/lists"\nmkdir "$root/var/lib/apt/lists"\n'
    moves, indices = "", source
    for before, after in sorted({(archive.list_prefix(source.host_uri), archive.list_prefix(source.guest_uri))
                                 for source in indices.sources if source.host_uri != source.guest_uri}):
        moves += (f'for path in "$root"/var/lib/apt/lists/{shlex.quote(before)}_dists_*; do\n'
                  '  [ -e "$path" ] || continue\n'
                  f'  mv "$path" "$root/var/lib/apt/lists/"{shlex.quote(after)}"${{path#*/lists/{before}}}"\n'
                  "done\n")
    return moves


def _date_lists(indices: Indices) -> None:
    """Give each list the date of its signed index: what a server says a file's date is differs between mirrors."""
    for source, release in zip(indices.sources, indices.releases, strict=True):
        when = int(archive.parse_date(release.date))
        stem = archive.release_file(indices.lists, source).name.removesuffix("InRelease").removesuffix("Release")
        for path in indices.lists.iterdir():
            if path.name.startswith(stem):
                os.utime(path, (when, when))
                path.chmod(0o644)


def installed_packages(status: Path, hashes: Mapping[tuple[str, str, str], str]) -> tuple[InstalledPackage, ...]:
    """The packages that dpkg's status file calls installed, each with its .deb's hash as (package, version,
    architecture) has it in ``hashes``. Raises ImageError.
    """
    found = []
    for entry in archive.stanzas(status):
        if entry.get("Status") != "install ok installed":
            continue
        key = (entry.get("Package", ""), entry.get("Version", ""), entry.get("Architecture", ""))
        if key not in hashes:
            raise ImageError(f"The installed package '{progress.plain(' '.join(key))}' is in none of the archive's "
                             "indices.")
        found.append(InstalledPackage(name=key[0], version=key[1], architecture=key[2], sha256=hashes[key]))
    return tuple(sorted(found))


def _first(lines: Sequence[str], text: str) -> str:
    found = next((line for line in lines if text in line), "")
    return re.sub(r"^E:\s*", "", found)

