"""The build script that a guest runs, byte for byte as the classic writes it (docs/reference/descriptor.md). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from gitian.build.changes import ScriptChanges
from gitian.plan import BuildPlan, Target

_PRELUDE = """\
#!/bin/bash
set -e
export LANG='{locale}'
export LC_ALL='{locale}'
umask {umask:03o}
export OUTDIR=$HOME/out
"""
_LOCALE, _UMASK = "en_US.UTF-8", 0o002
_USUAL = ScriptChanges()


def build_script(plan: BuildPlan, target: Target, *, reference_datetime: str,
                 changes: ScriptChanges = _USUAL) -> bytes:
    """The script for one target.

    ``reference_datetime`` is the text that the descriptor gives, or reference_of() of the last remote's commit.
    It is bash, to be run as 'setarch ARCH bash -x' in the guest's home directory.
    """
    return "".join((*_header(plan, target, changes), *_resets(plan), *_parts(plan, reference_datetime))).encode()


def probe_script(plan: BuildPlan, target: Target, probe: bytes, *, changes: ScriptChanges = _USUAL) -> bytes:
    """A script that finds itself where the descriptor's script does, with the same header, and changes nothing."""
    return "".join((*_header(plan, target, changes), "cd build\n")).encode() + probe


def reference_of(moment: datetime) -> str:
    """The author date of a commit as the script gets it: 'YYYY-MM-DD HH:MM:SS' in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _header(plan: BuildPlan, target: Target, changes: ScriptChanges) -> Iterator[str]:
    descriptor, options = plan.descriptor, plan.options
    yield _PRELUDE.format(locale=changes.locale or _LOCALE,
                          umask=_UMASK if changes.umask is None else changes.umask)
    yield f"GBUILD_BITS={target.bits}\n"
    if descriptor.enable_cache:
        yield "GBUILD_CACHE_ENABLED=1\n"
        yield f"GBUILD_PACKAGE_CACHE=$HOME/cache/{descriptor.name}\n"
        yield "GBUILD_COMMON_CACHE=$HOME/cache/common\n"
    processors, memory = changes.processors or options.num_make, changes.memory or options.memory
    yield f"MAKEOPTS=(-j{processors})\nNUM_PROCS={processors}\nNUM_MEM={memory}\n\n"


def _resets(plan: BuildPlan) -> Iterator[str]:
    for remote in plan.remotes:
        yield f"(cd build/{remote.dir} && git reset -q --hard && git clean -q -f -d)\n"


def _parts(plan: BuildPlan, reference: str) -> Iterator[str]:
    # Split as Ruby does: at runs of white space; a part that is not there is empty.
    date, time = (*reference.split(), "", "")[:2]
    assert "'" not in reference, "the descriptor's check keeps quotes out"
    yield f"\nREFERENCE_DATETIME='{reference}'\nREFERENCE_DATE='{date}'\nREFERENCE_TIME='{time}'\n\n"
    yield "cd build\n"
    script = plan.descriptor.script
    yield script if script.endswith("\n") else script + "\n"
