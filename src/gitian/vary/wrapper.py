"""The script that root runs in a guest around a varied build: it changes things, runs, and puts everything back. Pure.

Mounts and the machine's name are changed in namespaces of the build's own (unshare(1)). The pieces stand in one fixed
order, whatever the order of the names that ask for them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from gitian.guest.protocol import HOSTNAME, UMASK, USER_ID, contract_environment
from gitian.host.workspace import data_directory

#: What stands in place of the contract's values. The names are ones that nobody would write by chance.
USER = "rebuilder"
UID, GID = 23456, 23457
HOST = "elsewhere"
DOMAIN = "vary.example"
HOME = "/srv/another/home"
PLACE = "/srv/another/place/to/build"
LOCALE = "fr_FR.UTF-8"
ZONE, ZONE_FILE = "<-0930>9:30", "/usr/share/zoneinfo/Pacific/Marquesas"
#: Linux's numbers of processes in a fresh guest have two or three digits.
_PIDS = 20000
#: Where numbers begin when they are not varied, so that they do not hang on how many programs the wrapper has run.
_USUAL_PIDS = 2000
_STATE = "/var/lib/gitian-vary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """What the pieces depend on. ``offset`` (seconds) leads from the real time to the other one; ``memory`` is the
    other amount in MiB; ``single``: whether the build is to have one processor only; ``room`` (MiB) is what a file
    system in memory may hold."""

    distro: str
    backend: str
    sudo: bool = False
    seed: int = 0
    offset: int = 0
    memory: int | None = None
    single: bool = False
    room: int = 1000


def wrapper(names: frozenset[str], about: Circumstance) -> bytes:
    """The script for these variations: 'bash WRAPPER PROBE SEEN SCRIPT setarch WORD...', run by root.

    Its status is the build script's. When something cannot be changed, it says so and ends, before the file SEEN
    begins with the line 'ready'; it then says at which variations' step it was: 'step NAME...'.
    """
    steps = [(_step(name) + do, undo) for name, do, undo in _steps(names, about)]
    first = _PIDS + about.seed % 9000 if "pids" in names else _USUAL_PIDS
    words = {"home": f"/home/{about.distro}", "user": about.distro, "state": _STATE}
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in words.items())
    undo = "".join(back for _, back in reversed(steps))
    return "\n".join([
        _BEGIN, head, _PUT_BACK.replace("@UNDO@\n", undo), _as_user(names, about),
        *(do for do, _ in steps), _step("pids" if "pids" in names else ""), _END.replace("@PID@", str(first))]).encode()


_BEGIN = r"""#!/bin/bash
# Made by 'gitian vary': docs/reference/variations.md
set -e -o pipefail
if [ "$1" != inside ]; then
    exec unshare --mount --uts -- bash "$0" inside "$@"
fi
shift
probe=$1 seen=$2 script=$3
shift 3
umask 022
: >"$seen"

replaced() {  # FILE COMMAND...: what the command makes of the file stands in its place, for this build
    local file=$1 new
    shift
    [ -e "$file" ] || return 0
    mkdir -p "$state/etc"
    new=$(mktemp "$state/etc/XXXXXXXX")
    "$@" "$file" >"$new"
    chmod --reference="$file" "$new"
    chown --reference="$file" "$new"
    mount --bind "$new" "$file"
    replacements=("$file" "${replacements[@]}")
}
replacements=()

numbered() {  # NUMBER: the next process gets the one after it; where that cannot be said, numbers are used up
    local file i
    for file in "$state/proc/sys/kernel/ns_last_pid" /proc/sys/kernel/ns_last_pid; do
        if { echo "$1" >"$file"; } 2>/dev/null; then return 0; fi
    done
    for ((i = 0; i < 40000; i++)); do
        (exit 0) &
        [ $! -lt "$1" ] || break
        wait $!
    done
    wait
}
"""

_PUT_BACK = """put_back() {
    set +e
@UNDO@
    for file in "${replacements[@]}"; do umount -l "$file"; done
    rm -rf "$state"
}
"""

_END = r"""
numbered @PID@
as_user "$@" bash "$probe" 2>&1 | head -c 200000 >"$state/probed" || :
{ echo ready; cat "$state/probed"; } >"$seen"
status=0
numbered $((@PID@ + 500))
as_user "$@" bash -x "$script" || status=$?
if [ "$status" != 0 ] && [ -d "$state/build" ]; then
    stat -f -c '%T %b %f' "$state/build" |
        awk '$1 == "tmpfs" && $3 * 20 < $2 { print "unfit filesystem" }' >>"$seen" || :
fi
as_user "$@" bash "$probe" end 2>&1 | head -c 1000 >>"$seen" || :
exit "$status"
"""


def _as_user(names: frozenset[str], about: Circumstance) -> str:
    """The function that runs a command as the guest contract has it, but for what is varied."""
    uid, gid = (UID, GID) if "uid" in names else (USER_ID, USER_ID)
    # Once nobody in the guest gets more rights than its user has, no program does here either.
    narrow = [] if about.sudo else ["setpriv", "--no-new-privs", "--"]
    before = " ".join([*narrow, "chroot", f"--userspec={uid}:{gid}", "/"])
    place = shlex.quote(PLACE) if "path" in names else '"$home"'
    frame = shlex.quote(f'umask {UMASK:03o}; cd -- "$0" || exit 126; exec env -i "$@"')
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment(names, about.distro))
    pinned = "taskset --cpu-list \"$processor\" " if "cores" in names and about.single else ""
    return (f"as_user() {{\n    {pinned}{before} /bin/sh -c {frame} {place} \\\n        {variables} \"$@\"\n}}\n"
            'mkdir -p "$state"\ntrap put_back EXIT\n')


def environment(names: frozenset[str], distro: str) -> list[tuple[str, str]]:
    """The environment of the build script, in order."""
    found = contract_environment(distro)
    if "user" in names:
        found |= {"USER": USER, "LOGNAME": USER}
    if "home" in names:
        found["HOME"] = HOME
    if "locale" in names:
        found |= {"LANG": LOCALE, "LC_ALL": LOCALE}
    if "timezone" in names:
        found["TZ"] = ZONE
    if "environment" in names:
        found |= {"TERM": "xterm-256color", "PATH": f"{found['PATH']}:/usr/games:/opt/elsewhere/bin"}
        found |= {"VARIED_BY_GITIAN": "a value that is in no other environment", "PAGER": "cat",
                  "XDG_SESSION_ID": "47"}
        return list(reversed(found.items()))
    return list(found.items())


def _step(names: str) -> str:
    """From here on what fails is the fault of these variations."""
    return f'echo {shlex.quote("step " + names)} >"$seen"\n'


def _steps(names: frozenset[str], about: Circumstance) -> Iterator[tuple[str, str, str]]:
    """For which variations something is done, what, and how it is undone (in the reverse order, errors passed over)."""
    shim = [f"-DORDER={about.seed % 2**31 + 1}u"] if "file-order" in names else []
    shown = "clock" in names and about.backend == "lxc"
    if shown:
        shim += [f"-DOFFSET={about.offset}LL", '-DSTART="$(($(date +%s) + 1))LL"']
    if "upgrade" in names:
        yield "upgrade", _UPGRADE, ""
    if "usrmerge" in names:
        yield "usrmerge", _USRMERGE, ""
    yield ("", 'mkdir -p "$state/proc"\nmount -t proc proc "$state/proc" || :\n',
           '    umount -l "$state/proc" 2>/dev/null\n')
    if shim:
        source = (data_directory("target-bin") / "vary-shim.c").read_text(encoding="utf-8")
        yield (" ".join(sorted(names & {"file-order", *(["clock"] if shown else [])})),
               _SHIM.replace("@SOURCE@", source).replace("@DEFINES@", " ".join(shim)), "")
    if "user" in names:
        yield "user", _USER.replace("@USER@", USER), "    rm -f /etc/sudoers.d/gitian-vary\n"
    if "uid" in names:
        yield ("uid", _UID.replace("@UID@", str(UID)).replace("@GID@", str(GID)).replace("@OLD@", str(USER_ID)),
               f'    chown -hR --from={UID} {USER_ID}:{USER_ID} "$home"\n')
    if "home" in names:
        yield "home", _HOME.replace("@HOME@", HOME), _HOME_BACK.replace("@HOME@", HOME)
    if "path" in names:
        yield "path", _PATH.replace("@PLACE@", PLACE), _PATH_BACK.replace("@PLACE@", PLACE)
    build = shlex.quote(f"{PLACE}/build") if "path" in names else '"$home/build"'
    if names & {"filesystem", "inputs"}:
        yield ("filesystem" if "filesystem" in names else "inputs", *_refill(names, about, build))
    if names & {"hostname", "domain"}:
        yield "hostname" if "hostname" in names else "domain", _host(names), ""
    if "shell" in names:
        yield "shell", _SHELL, '    if [ -e "$state/sh" ]; then ln -sfn "$(cat "$state/sh")" /bin/sh; fi\n'
    if "locale" in names:
        yield "locale", _LOCALE.replace("@LOCALE@", LOCALE), \
            '    if [ -e "$state/locale" ]; then rm -rf "$(cat "$state/locale")"; fi\n'
    if "timezone" in names:
        yield "timezone", _ZONE.replace("@FILE@", ZONE_FILE), \
            '    if [ -e "$state/zone" ]; then ln -sfn "$(cat "$state/zone")" /etc/localtime; fi\n'
    if "cores" in names and about.single:
        yield "cores", _CORES, ""
    if "memory" in names and about.backend == "lxc":
        yield "memory", _MEMORY.replace("@MEMORY@", str((about.memory or 0) * 1024)), ""
    if "clock" in names and about.backend != "lxc":
        move = 'date -u -s "@$(($(date +%s) {sign} {offset}))" >/dev/null\n'
        yield "clock", move.format(sign="+", offset=about.offset), "    " + move.format(sign="-", offset=about.offset)
    if shim:
        # What was written until now keeps its time, to the second.
        wait = "sleep 1.1\n" if shown else ""
        yield "", wait + 'echo "$state/\\$LIB/libvary.so" >/etc/ld.so.preload\n', "    rm -f /etc/ld.so.preload\n"


_UPGRADE = """DEBIAN_FRONTEND=noninteractive apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 dist-upgrade
"""
_USRMERGE = """if [ -L /bin ]; then
    echo "/bin is a link into /usr already, and cannot be taken apart."
    exit 1
fi
DEBIAN_FRONTEND=noninteractive apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install usrmerge
"""

#: $LIB is the dynamic linker's word for the directory of a program's architecture, so that programs of 32 bits get
#: one too, be it empty: otherwise the linker complains on each of them.
_SHIM = r"""cat >"$state/shim.c" <<'END OF SHIM'
@SOURCE@
END OF SHIM
shim() {  # DIRECTORY OPTION...
    mkdir -p "$state/lib/$1"
    gcc -w -O1 -shared -fPIC -fno-delete-null-pointer-checks "${@:2}" -o "$state/lib/$1/libvary.so"
}
defines=(@DEFINES@)
shim "$(gcc -print-multiarch)" "${defines[@]}" "$state/shim.c" -ldl -pthread
if [ "$(gcc -print-multiarch)" = x86_64-linux-gnu ]; then
    shim i386-linux-gnu -m32 "${defines[@]}" "$state/shim.c" -ldl -pthread 2>/dev/null ||
        shim i386-linux-gnu -m32 -nostdlib -x c /dev/null 2>/dev/null || :
    # That of a C library which is a package of this architecture (libc6-i386) says 'lib32'.
    mkdir "$state/lib32" && cp "$state/lib/i386-linux-gnu/libvary.so" "$state/lib32" 2>/dev/null || :
fi
"""

_USER = r"""
for file in passwd shadow group gshadow subuid subgid; do
    replaced "/etc/$file" awk -F: -v OFS=: -v old="$user" -v new=@USER@ '
        { if ($1 == old) $1 = new
          if (FILENAME ~ /group|gshadow/ && NF == 4) {
              n = split($4, members, ","); $4 = ""
              for (i = 1; i <= n; i++) $4 = $4 (i > 1 ? "," : "") (members[i] == old ? new : members[i])
          }
          print }'
done
if [ -e /etc/sudoers.d/gitian ]; then
    echo '@USER@ ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/gitian-vary
    chmod 0440 /etc/sudoers.d/gitian-vary
fi
"""

_UID = r"""
replaced /etc/passwd awk -F: -v OFS=: -v old=@OLD@ '$3 == old { $3 = @UID@; $4 = @GID@ } { print }'
replaced /etc/group awk -F: -v OFS=: -v old=@OLD@ '$3 == old { $3 = @GID@ } { print }'
chown -hR --from=@OLD@ @UID@:@GID@ "$home"
"""

#: What lies there is moved, not copied, so that it stays one file system; links lead from the old places.
_HOME = r"""
mkdir -p @HOME@
cp -a "$home"/.[!.]* @HOME@/ 2>/dev/null || :
for name in out install cache; do
    if [ -e "$home/$name" ]; then
        mv "$home/$name" "@HOME@/$name"
        ln -s "@HOME@/$name" "$home/$name"
        chown -h --reference="$home" "$home/$name"
    fi
done
ln -s "$home/build" @HOME@/build
chown -h --reference="$home" @HOME@ @HOME@/build
replaced /etc/passwd awk -F: -v OFS=: -v old="$home" '$6 == old { $6 = "@HOME@" } { print }'
"""
_HOME_BACK = r"""    for name in out install cache; do
        if [ -L "$home/$name" ]; then
            rm -f "$home/$name"
            mv "@HOME@/$name" "$home/$name"
        fi
    done
    rm -rf @HOME@
    rmdir /srv/another 2>/dev/null
"""

_PATH = r"""
mkdir -p @PLACE@
mv "$home/build" @PLACE@/build
ln -s @PLACE@/build "$home/build"
for name in out install cache; do
    ln -s "$home/$name" "@PLACE@/$name"
done
chown -h --reference="$home" @PLACE@ @PLACE@/* "$home/build"
"""
_PATH_BACK = r"""    if [ -L "$home/build" ]; then
        rm -f "$home/build"
        mv @PLACE@/build "$home/build"
        rm -rf @PLACE@
        rmdir -p /srv/another/place/to 2>/dev/null
    fi
"""


def _refill(names: frozenset[str], about: Circumstance, build: str) -> tuple[str, str]:
    """The build directory's contents written again: on another file system, or in another order with other times."""
    do = f'build={build}\nmkdir -p "$state/build"\n'
    if "filesystem" in names:
        do += 'mount -t tmpfs -o ' \
              f'mode=0755,nosuid,nodev,size={about.room}m tmpfs "$state/build"\n'
    order = f"| shuf -z --random-source=<(yes {about.seed})" if "inputs" in names else ""
    do += (f'(cd "$build" && find . -mindepth 1 -print0 {order} | tar -c --null --no-recursion -T - -f -) |\n'
           '    tar -x -p -f - -C "$state/build"\n'
           'chown --reference="$build" "$state/build"\nchmod --reference="$build" "$state/build"\n')
    if "inputs" in names:
        # One time for all that one input holds: what is made from what goes by the order of times.
        do += _step("inputs") + _TIMES.replace("@TIME@", str(1000000000 + about.seed % 10**8))
    if "filesystem" not in names:  # no mount: it stays one file system with where the output goes
        return do + 'rm -rf "$build"\nmv "$state/build" "$build"\n', ""
    return do + 'mount --bind "$state/build" "$build"\n', \
        f'    umount -l {build} "$state/build" 2>/dev/null\n'


#: The header of the build script resets each clone, which leaves a file alone whose time git knows.
_TIMES = r"""moment=@TIME@
for input in "$state"/build/*; do
    [ -e "$input" ] || continue
    moment=$((moment + 86461))
    find "$input" -name .git -prune -o -exec touch -h -d "@$moment" {} +
    if [ -d "$input/.git" ]; then
        chroot --userspec="$(stat -c %u:%g "$build")" / env -i HOME="$home" PATH="$PATH" \
            git -C "$input" update-index -q --refresh || :
    fi
done
"""


def _host(names: frozenset[str]) -> str:
    name = HOST if "hostname" in names else HOSTNAME
    full = f"{name}.{DOMAIN} {name}" if "domain" in names else name
    text = f"replaced /etc/hosts awk -v new={shlex.quote(full)} " \
           "'$1 != \"127.0.1.1\" { print } END { print \"127.0.1.1 \" new }'\n"
    if "hostname" in names:
        text += f"hostname {HOST}\nreplaced /etc/hostname awk '{{ print \"{HOST}\" }}'\n"
    if "domain" in names:
        text += _step("domain") + (f"domainname {DOMAIN} 2>/dev/null || :\n"
                 f"replaced /etc/resolv.conf awk '{{ print }} END {{ print \"search {DOMAIN}\" }}'\n")
    return text


_SHELL = r"""
readlink /bin/sh >"$state/sh"
case "$(readlink -f /bin/sh)" in
    */bash) ln -sfn dash /bin/sh ;;
    *) ln -sfn bash /bin/sh ;;
esac
"""

#: French, but sorted by code point; where that cannot be made, what there is in French; else what every C library has.
_LOCALE = r"""
before=$(ls /usr/lib/locale)
if [ -e /usr/share/i18n/locales/fr_FR ]; then
    sed -e '/^LC_COLLATE/,/^END LC_COLLATE/c LC_COLLATE\ncopy "C"\nEND LC_COLLATE' \
        /usr/share/i18n/locales/fr_FR >"$state/locale-source"
    localedef --no-archive -c -i "$state/locale-source" -f UTF-8 @LOCALE@ >/dev/null 2>&1 || :
fi
made=/usr/lib/locale/fr_FR.utf8
if ! [ -d "$made" ]; then
    made=/usr/lib/locale/@LOCALE@
    for other in /usr/lib/locale/C.utf8 /usr/lib/locale/C.UTF-8; do
        if [ -d "$other" ]; then cp -a "$other" "$made"; break; fi
    done
fi
case "$before" in
    *fr_FR*) ;;
    *) echo "$made" >"$state/locale" ;;
esac
"""

_ZONE = r"""
if [ -e @FILE@ ] && [ -L /etc/localtime ]; then
    readlink /etc/localtime >"$state/zone"
    ln -sfn @FILE@ /etc/localtime
fi
"""

#: Some count the lines of /proc/cpuinfo, or ask the C library, which reads /sys, instead of the scheduler.
_CORES = r"""
processor=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*\([0-9]*\).*/\1/p' /proc/self/status)
awk 'NF == 0 { exit } { print } END { print "" }' /proc/cpuinfo >"$state/cpuinfo"
mount --bind "$state/cpuinfo" /proc/cpuinfo
replacements+=(/proc/cpuinfo)
echo "$processor" >"$state/online"
mount --bind "$state/online" /sys/devices/system/cpu/online && replacements+=(/sys/devices/system/cpu/online) || :
"""

_MEMORY = r"""
awk -v total=@MEMORY@ '$1 == "MemTotal:" { $0 = sprintf("MemTotal:       %8d kB", total) } { print }' \
    /proc/meminfo >"$state/meminfo"
mount --bind "$state/meminfo" /proc/meminfo
replacements+=(/proc/meminfo)
"""
