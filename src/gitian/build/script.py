"""The build script that a guest runs, byte for byte as the classic writes it (docs/reference/descriptor.md). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from gitian.plan import BuildPlan, Target

_PRELUDE = """\
#!/bin/bash
set -e
export LANG='en_US.UTF-8'
export LC_ALL='en_US.UTF-8'
umask 002
export OUTDIR=$HOME/out
"""


def build_script(plan: BuildPlan, target: Target, *, reference_datetime: str) -> bytes:
    """The script for one target.

    ``reference_datetime`` is the text that the descriptor gives, or reference_of() of the last remote's commit.
    It is bash, to be run as 'setarch ARCH bash -x' in the guest's home directory.
    """
    return "".join(_parts(plan, target, reference_datetime)).encode()


def reference_of(moment: datetime) -> str:
    """The author date of a commit as the script gets it: 'YYYY-MM-DD HH:MM:SS' in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _parts(plan: BuildPlan, target: Target, reference: str) -> Iterator[str]:
    descriptor, options = plan.descriptor, plan.options
    yield _PRELUDE
    yield f"GBUILD_BITS={target.bits}\n"
    if descriptor.enable_cache:
        yield "GBUILD_CACHE_ENABLED=1\n"
        yield f"GBUILD_PACKAGE_CACHE=$HOME/cache/{descriptor.name}\n"
        yield "GBUILD_COMMON_CACHE=$HOME/cache/common\n"
    yield f"MAKEOPTS=(-j{options.num_make})\nNUM_PROCS={options.num_make}\nNUM_MEM={options.memory}\n\n"
    for remote in plan.remotes:
        yield f"(cd build/{remote.dir} && git reset -q --hard && git clean -q -f -d)\n"
    # Split as Ruby does: at runs of white space; a part that is not there is empty.
    date, time = (*reference.split(), "", "")[:2]
    assert "'" not in reference, "the descriptor's check keeps quotes out"
    yield f"\nREFERENCE_DATETIME='{reference}'\nREFERENCE_DATE='{date}'\nREFERENCE_TIME='{time}'\n\n"
    yield "cd build\n"
    yield descriptor.script if descriptor.script.endswith("\n") else descriptor.script + "\n"
