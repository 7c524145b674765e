"""Well-known causes, and the remedies usual in the field.

The remedies are those of the documentation of reproducible-builds.org and of the tools' own manuals, in short.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_DOCS = "https://reproducible-builds.org/docs/"


class Cause(enum.StrEnum):
    """What made two builds differ, in a word or two."""

    TIME = "embedded time"
    TIME_ZONE = "time zone"
    PATH = "path"
    HOSTNAME = "host name"
    USER = "user name"
    OWNER = "user or group id"
    LOCALE = "locale"
    CORES = "core count"
    MEMORY = "memory size"
    DIRECTORY_ORDER = "directory order"
    UMASK = "umask"
    RANDOM = "random id"
    PID = "process id"
    KERNEL = "kernel"
    CPU = "cpu"
    ADDRESS = "memory address"
    SHELL = "shell"
    ENVIRONMENT = "environment variable"
    BUILD_ID = "build id"
    COMPRESSION = "compression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Why something probably differs, and what is usually done about it.

    ``evidence`` is what one build has and what the other has, in printable text; ``place`` where. ``sure``: these are
    exactly the values that the two builds are known to have had; otherwise it only looks like it. ``also``: in so many
    further places.
    """

    cause: Cause
    evidence: str
    place: str
    remedy: str
    reference: str
    sure: bool
    also: int = 0


#: (cause, where) -> remedy; where is '' for anything that has none of its own.
_REMEDIES: dict[tuple[Cause, str], str] = {
    (Cause.TIME, ""): "Write SOURCE_DATE_EPOCH (gitian's $REFERENCE_DATETIME) instead of the clock, or nothing; "
                      "faketime where the program cannot be changed.",
    (Cause.TIME, "tar"): "tar --mtime=\"$REFERENCE_DATETIME\" (add --clamp-mtime to keep older times), or touch "
                         "everything before; 'gitian canon' afterwards.",
    (Cause.TIME, "zip"): "touch all files to one time, with TZ=UTC, and then zip -X; 'gitian canon' afterwards. For "
                         "jar: --date, or strip-nondeterminism.",
    (Cause.TIME, "gzip"): "gzip -n, which writes neither time nor name; tar -I 'gzip -n' instead of tar -z.",
    (Cause.TIME, "ar"): "ar D (deterministic mode; ARFLAGS=rcD) and ranlib -D; dpkg-deb heeds SOURCE_DATE_EPOCH.",
    (Cause.TIME, "elf"): "Set SOURCE_DATE_EPOCH, which GCC and clang use for __DATE__ and __TIME__; -Werror=date-time "
                         "finds them. Better: take them out.",
    (Cause.TIME, "pe"): "Link with --no-insert-timestamp (binutils) or /Brepro (lld-link, MSVC); mingw's ld heeds "
                        "SOURCE_DATE_EPOCH.",
    (Cause.TIME, "pyc"): "Set SOURCE_DATE_EPOCH when compiling, or python -m compileall --invalidation-mode "
                         "unchecked-hash, or leave .pyc files out.",
    (Cause.TIME, "png"): "Leave the tIME and date chunks out (ImageMagick: -define png:exclude-chunks=date,time).",
    (Cause.TIME, "pdf"): "Set SOURCE_DATE_EPOCH (and FORCE_SOURCE_DATE=1 for TeX).",
    (Cause.TIME_ZONE, ""): "export TZ=UTC before, or format times as UTC (date -u).",
    (Cause.TIME_ZONE, "zip"): "export TZ=UTC: zip keeps local time.",
    (Cause.TIME_ZONE, "tar"): "Give the zone with the time: tar --mtime='2015-10-21 00:00Z'; export TZ=UTC.",
    (Cause.PATH, ""): "Write paths relative to the source; build in a fixed directory where that cannot be.",
    (Cause.PATH, "elf"): "-ffile-prefix-map=$PWD=. (GCC 8, clang 10; or -fdebug-prefix-map and -fmacro-prefix-map); "
                         "Rust: --remap-path-prefix; Go: -trimpath; strip what is not needed.",
    (Cause.PATH, "gzip"): "gzip -n, which writes neither time nor name.",
    (Cause.PATH, "pyc"): "python -m compileall -s $PWD -p / takes the build directory out of the names.",
    (Cause.HOSTNAME, ""): "Take the host's name out; for kernels KBUILD_BUILD_HOST; else a fixed word.",
    (Cause.USER, ""): "Take the user's name out; for kernels KBUILD_BUILD_USER; else a fixed word.",
    (Cause.USER, "tar"): "tar --owner=0 --group=0 --numeric-owner.",
    (Cause.OWNER, ""): "Do not write who builds.",
    (Cause.OWNER, "tar"): "tar --owner=0 --group=0 --numeric-owner; 'gitian canon' afterwards.",
    (Cause.OWNER, "zip"): "zip -X leaves owners out.",
    (Cause.OWNER, "ar"): "ar D (deterministic mode; ARFLAGS=rcD); dpkg-deb --root-owner-group.",
    (Cause.LOCALE, ""): "export LC_ALL=C.UTF-8 (or C) for what sorts, speaks or writes numbers.",
    (Cause.LOCALE, "order"): "Sort under LC_ALL=C: 'LC_ALL=C sort', and 'find . -print0 | LC_ALL=C sort -z'.",
    (Cause.CORES, ""): "Do not write how many processors there are; give a fixed number of parts or threads.",
    (Cause.CORES, "compressed"): "One thread, or a fixed number of them: xz -T1, zstd -T1, gzip in place of pigz.",
    (Cause.CORES, "order"): "Order what parallel jobs leave before it is written: sort it under LC_ALL=C.",
    (Cause.MEMORY, ""): "Do not derive sizes of buffers or parts from the memory that there is; give fixed ones.",
    (Cause.DIRECTORY_ORDER, ""): "Sort what is read from directories, sets or hash tables: sort under LC_ALL=C, "
                                 "sorted(os.listdir()), $(sort $(wildcard *.o)), PYTHONHASHSEED=0.",
    (Cause.DIRECTORY_ORDER, "tar"): "tar --sort=name, or 'find . -print0 | LC_ALL=C sort -z | tar --null -T - "
                                    "--no-recursion'.",
    (Cause.DIRECTORY_ORDER, "zip"): "'find . | LC_ALL=C sort | zip -X -@ FILE'.",
    (Cause.DIRECTORY_ORDER, "ar"): "Give ar its members sorted: $(sort $(wildcard *.o)).",
    (Cause.DIRECTORY_ORDER, "elf"): "Give the linker its objects sorted: $(sort $(wildcard *.o)).",
    (Cause.UMASK, ""): "Set modes: umask 022 at the start, 'install -m', or chmod -R u=rwX,go=rX.",
    (Cause.UMASK, "tar"): "tar --mode=u=rwX,go=rX, or umask 022 at the start; 'gitian canon' afterwards.",
    (Cause.RANDOM, ""): "Make it from the content (a hash, a version-5 UUID) or from a fixed seed; GCC: -frandom-seed; "
                        "temporary names must not be written.",
    (Cause.PID, ""): "Do not use the process id ($$, getpid) in what is written; name temporary files after what they "
                     "are for.",
    (Cause.KERNEL, ""): "Do not write uname -r, -v or -a; what is built for a kernel takes its version from that "
                        "kernel's headers.",
    (Cause.CPU, ""): "Name the processor to build for (-march=x86-64) in place of -march=native and of tests run at "
                     "build time (--enable-fat, --host).",
    (Cause.ADDRESS, ""): "Do not write pointers, and do not order by them (sort by name, not by address); Python's "
                         "repr of an object and id() are addresses.",
    (Cause.SHELL, ""): "Name the shell that a script is for (#!/bin/bash, SHELL in a Makefile, CONFIG_SHELL), and do "
                       "not use what dash and bash do differently, such as echo -n or -e.",
    (Cause.ENVIRONMENT, ""): "Unset the variable, or start with env -i and what is needed; do not write the "
                             "environment or build flags into outputs.",
    (Cause.BUILD_ID, ""): "It is a hash of all that was linked, debug information that was stripped later too: look "
                          "for a path (-ffile-prefix-map), or link with -Wl,--build-id=none.",
    (Cause.COMPRESSION, ""): "The same content, compressed in another way: fix level, threads and the version of the "
                             "compressor.",
}
_PAGES = {Cause.TIME: "source-date-epoch/", Cause.TIME_ZONE: "timezones/", Cause.PATH: "build-path/",
          Cause.LOCALE: "locales/", Cause.DIRECTORY_ORDER: "stable-inputs/", Cause.RANDOM: "randomness/",
          Cause.UMASK: "archives/", Cause.OWNER: "archives/", Cause.COMPRESSION: "archives/",
          Cause.CPU: "env-variations/", Cause.KERNEL: "env-variations/", Cause.HOSTNAME: "env-variations/",
          Cause.USER: "env-variations/", Cause.ENVIRONMENT: "env-variations/", Cause.SHELL: "env-variations/",
          Cause.CORES: "env-variations/", Cause.MEMORY: "env-variations/", Cause.PID: "randomness/",
          Cause.ADDRESS: "stable-outputs/", Cause.BUILD_ID: "build-path/"}


def hint(cause: Cause, where: str, evidence: str, place: str, *, sure: bool) -> Hint:
    """A hint with the remedy for ``where``: 'tar', 'zip', 'gzip', 'ar', 'elf', 'order' and so on, else the general."""
    remedy = _REMEDIES.get((cause, where)) or _REMEDIES[cause, ""]
    page = "archives/" if where in ("tar", "zip", "ar") and cause is not Cause.PATH else _PAGES[cause]
    return Hint(cause=cause, evidence=evidence, place=place, remedy=remedy, reference=_DOCS + page, sure=sure)
