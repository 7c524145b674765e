"""What the build script sees of its circumstances: asked in the guest, right before it runs and right after. Pure.

Each probe is a few words of bash whose output hangs on its own variation alone. It runs as the build script does: as
the same user, with its header, in its directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gitian.vary.circumstances import Circumstances

#: A probe's answer is cut here (bytes).
_ANSWER = 4096

#: Variables that other variations change too.
_OTHERS = "HOME|LANG|LC_ALL|LOGNAME|OLDPWD|OUTDIR|PWD|SHLVL|TZ|USER|_"

PROBES: Mapping[str, str] = MappingProxyType({
    "clock": 'date -u +%Y; file=$(mktemp); stat -c %y "$file" | cut -c 1-4; rm -f "$file"',
    "timezone": 'echo "${TZ-}"; date -d @0 +%z; unset TZ; date -d @0 +%z',
    "locale": 'echo "${LC_ALL-}"; printf "B\\na\\n" | sort | tr "\\n" " "; date -u -d 2001-08-02 +%B',
    "umask": "umask",
    "user": 'echo "${USER-} ${LOGNAME-}"; id -un; id -gn',
    "uid": "id -u; id -g; stat -c %u:%g .",
    "home": 'echo "$HOME"; echo "${OUTDIR-}"; getent passwd "$(id -u)" | cut -d : -f 6',
    "path": "pwd -P",
    "hostname": "uname -n; cat /etc/hostname",
    "domain": "hostname -d; grep ^search /etc/resolv.conf; echo",
    "environment": f"env | grep -Ev '^({_OTHERS})='",
    "cores": 'nproc; grep -c ^processor /proc/cpuinfo; echo "${NUM_PROCS-} ${MAKEOPTS[*]-}"',
    # By 256 MiB: what is left of the machine's memory hangs on kernel and processor too.
    "memory": "awk '/^MemTotal:/ { print int($2 / 262144 + 1) }' /proc/meminfo; echo \"${NUM_MEM-}\"",
    "file-order": "find /usr/sbin -maxdepth 1 | sha256sum | cut -c 1-16",
    "filesystem": "stat -f -c %T .",
    "inputs": "find . -mindepth 1 -name .git -prune -o -printf '%P %T@\\n' | sed 's/\\.[0-9]*$//' | LC_ALL=C sort | "
              "head -n 20",
    "aslr": "a=$(grep -F '[stack]' /proc/self/maps); b=$(grep -F '[stack]' /proc/self/maps); "
            'if [ "$a" = "$b" ]; then echo fixed; else echo random; fi',
    "pids": "echo $(($$ / 10000))",
    "shell": "readlink -f /bin/sh; sh -c 'echo ${BASH_VERSION:+bash}'",
    # Of the features those that every kernel tells.
    "cpu": "grep -m 1 '^model name' /proc/cpuinfo; grep -m 1 '^flags' /proc/cpuinfo | "
           "grep -owE 'sse4_2|popcnt|aes|avx|avx2|bmi2|fma'",
    "kernel": "uname -r",
    # Made by the kernel when it boots: one that goes on has the time at which its machine was saved.
    "cold": "stat -c %Y /dev/zero",
    "seed": "od -An -N 8 -t x1 /dev/urandom",
    "upgrade": "dpkg-query -W | sha256sum | cut -c 1-16",
    "packages": "dpkg-query -W | sha256sum | cut -c 1-16",
    "usrmerge": "readlink /bin; readlink /lib; echo",
})

#: Facts for hints, one to a line: of these no variation is judged. Mostly by bash itself: a program costs an emulated
#: guest 30 ms.
_FACTS = r"""
fact() { echo "fact $1 ${2//$'\n'/ }"; }
printf 'fact time %(%s)T\n' -1
fact pid "$$"
fact time_zone "${TZ-}"
fact locale "${LC_ALL-}"
fact umask "$(umask)"
fact user "${USER-}"
fact uid "$UID"
fact gid "$(id -g)"
fact home "${HOME-}"
fact path "$(pwd -P)"
fact hostname "$HOSTNAME"
fact domain "$(hostname -d)"
fact cores "$(nproc)"
fact memory "${NUM_MEM-}"
fact kernel "$(</proc/sys/kernel/osrelease)"
fact sh "$(readlink -f /bin/sh)"
fact file_system "$(stat -f -c %T .)"
while IFS=: read -r name value; do
    case "$name" in
        "model name"*) fact cpu "${value# }" ;;
        flags*) fact cpu_features "${value# }"; break ;;
    esac
done </proc/cpuinfo
env | while IFS= read -r line; do fact environment "${line:0:2000}"; done | head -c 20000
exit 0
"""
_END = """set +e
exec 2>/dev/null
if [ "${1-}" = end ]; then printf 'fact end_time %(%s)T\\n' -1; echo "fact end_pid $$"; exit 0; fi
"""
_LINE = re.compile(r"[a-z_-]{1,20}")


def probe_script(names: Iterable[str]) -> bytes:
    """The body of a bash script that prints what these variations could change; with 'end' as argument, when it is.

    It follows the header of the build script.
    """
    lines = [_END]
    for name in names:
        lines += [f"answer=$( {PROBES[name]} )", f"answer=${{answer:0:{_ANSWER}}}",
                  f"echo 'probe {name}'", "echo \" ${answer//$'\\n'/$'\\n' }\""]
    return "\n".join([*lines, _FACTS]).encode()


def parse_probe(data: bytes) -> dict[str, str]:
    """What a guest said, by variation. Untrusted text, '' where it said nothing; unknown names are left out."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in data.decode(errors="replace").split("\n"):
        if line.startswith("probe "):
            name = line.removeprefix("probe ")
            current = found.setdefault(name, []) if name in PROBES and name not in found else None
        elif line.startswith(" ") and current is not None:
            current.append(line[1:])
        elif line:
            current = None
    return {name: "\n".join(lines)[:_ANSWER].strip() for name, lines in found.items()}


def circumstances(data: bytes) -> Circumstances:
    """What a guest said of one build's circumstances, as far as it can be understood. Untrusted text."""
    facts: dict[str, str] = {}
    environment: list[tuple[str, str]] = []
    for line in data.decode(errors="replace").split("\n"):
        word, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if word != "fact" or not _LINE.fullmatch(name):
            continue
        if name == "environment":
            variable, equals, content = text.partition("=")
            if equals and len(environment) < 500:
                environment.append((variable, content))
        else:
            facts.setdefault(name, text.strip())
    answers = parse_probe(data)
    begin, end = _number(facts.get("time")), _number(facts.get("end_time"))
    first, last = _number(facts.get("pid")), _number(facts.get("end_pid"))
    features = facts.get("cpu_features", "")
    aslr = answers.get("aslr")
    return Circumstances(
        time=(begin, max(begin, end if end is not None else begin)) if begin is not None else None,
        pids=(first, last) if first is not None and last is not None and first <= last else None,
        umask=_number(facts.get("umask"), 8), uid=_number(facts.get("uid")), gid=_number(facts.get("gid")),
        cores=_number(facts.get("cores")), memory=_number(facts.get("memory")),
        paths=(facts["path"],) if facts.get("path") else (),
        cpu_features=tuple(features.split()) if features else None,
        environment=tuple(environment), aslr={"random": True, "fixed": False}.get(aslr) if aslr else None,
        directory_order=answers.get("file-order") or None,
        **{name: facts.get(name) or None for name in (
            "time_zone", "locale", "user", "home", "hostname", "domain", "kernel", "cpu", "sh", "file_system")})


def _number(text: str | None, base: int = 10) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None
