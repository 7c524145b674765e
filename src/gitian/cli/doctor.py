"""``gitian doctor``: what this machine has, lacks, or cannot use, for each backend."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.host.doctor import Check
    from gitian.host.workspace import Workspace


@click.command("doctor", context_settings=CONTEXT)
@click.option("--backend", type=click.Choice(["kvm", "lxc"]), help="Look at this one only [default: both].")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(backend: str | None, as_json: bool, directory: Path | None) -> int:
    """Tell what this machine has, lacks, or cannot use, for each backend, and what to do about it.

    The exit status is 0 when a backend can be used (with --backend: that one), else 6.
    """
    from gitian.errors import HostError
    from gitian.host import doctor
    from gitian.host.workspace import Workspace

    workspace = Workspace.locate(directory, os.environ)
    backends = (backend,) if backend else doctor.BACKENDS
    request = doctor.Examination(workspace=workspace.root, images=workspace.image_directory, environment=os.environ,
                                 backends=backends, qemu=_qemu(os.environ), probe=_probe(workspace, os.environ))
    checks = []
    for check in doctor.examine(request):
        checks.append(check)
        if not as_json:
            _show(check)
    verdicts = {name: doctor.usable(checks, name) for name in backends}
    if as_json:
        click.echo(json.dumps({
            "backends": {name: {"usable": good} for name, good in verdicts.items()},
            "checks": [{"name": check.name, "backend": check.backend or None, "state": check.state,
                        "detail": check.detail, "hint": check.hint or None} for check in checks]}, indent=2))
    else:
        click.echo("")
        for name, good in verdicts.items():
            click.echo(f"{name}: {'can be used' if good else 'cannot be used'}")
    return 0 if any(verdicts.values()) else HostError.exit_code


def _show(check: Check) -> None:
    from gitian.host.progress import plain

    where = f" ({check.backend})" if check.backend else ""
    click.echo(plain(f"{check.state:<9} {check.name}{where}: {check.detail}"))
    if check.hint and check.state != "ok":
        click.echo(plain(f"{'':<9} {check.hint}"))


def _qemu(environment: Mapping[str, str]) -> tuple[str, ...]:
    from gitian.guest import qemu

    return tuple(dict.fromkeys(qemu.program(arch, environment)[0] for arch in ("amd64", "i386")))


def _probe(workspace: Workspace, environment: Mapping[str, str]) -> Callable[[], str]:
    """A question that boots the kernel of a base image, or this machine's own."""
    def ask() -> str:
        from gitian.errors import HostError
        from gitian.guest import acceleration, qemu

        places = ((workspace.image_directory, "base-*.vmlinuz"), (Path("/boot"), "vmlinuz-*"))
        found = (path for place, pattern in places for path in sorted(place.glob(pattern)))
        kernels = [path for path in found if os.access(path, os.R_OK)]
        asked = {**environment, "GITIAN_ACCEL": "auto"}
        if not kernels:
            # What can be told without a kernel is that the device is not there.
            if not acceleration.DEVICE.exists():
                return f"there is no {acceleration.DEVICE}"
            raise HostError("There is no kernel to start with it.", hint="Make a base image first: 'make-base-vm'.")
        return acceleration.choose(program=qemu.program("amd64", environment), kernel=kernels[0], environment=asked,
                                   fallback=workspace.var).why

    return ask
