"""``make-base-vm``: options and environment into a MakeRequest."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gitian.cli.classic import ClassicCommand
from gitian.cli.common import CONTEXT


@click.command("make-base-vm", cls=ClassicCommand, context_settings=CONTEXT)
@click.option("-d", "--distro", metavar="D", default="ubuntu", show_default=True, help="The distro: debian or ubuntu.")
@click.option("-s", "--suite", metavar="S", help="The suite [default: the distro's long-term-support release: noble "
              "for ubuntu, bookworm for debian].")
@click.option("-a", "--arch", metavar="A", default="amd64", show_default=True, help="The architecture: amd64 or i386.")
@click.option("--disksize", metavar="MB", type=click.IntRange(1024, 2**24), default=12287, show_default=True,
              help="Size of a virtual machine's disk in MB; it takes room only as it fills.")
@click.option("--lxc", is_flag=True, help="Make an image for LXC instead of KVM (also: USE_LXC=1).")
@click.option("--mirror", metavar="URL", help="The archive to fetch from: http:, https:, file: or copy: [default: what "
              "mmdebstrap takes for the suite].")
@click.option("--security-mirror", metavar="URL", help="The archive of security updates [default: likewise].")
@click.option("--without", metavar="POCKET", multiple=True, help="Leave out 'security' or 'updates'; may be repeated.")
@click.option("--keyring", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="The keys that sign the archive [default: the distro's].")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the result.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
@click.option("--vbox", is_flag=True, hidden=True)
@click.option("--docker", is_flag=True, hidden=True)
@click.option("--docker-image-hash", "--docker-image-digest", "docker_hash", hidden=True)
def command(distro: str, suite: str | None, arch: str, disksize: int, lxc: bool, mirror: str | None,
            security_mirror: str | None, without: tuple[str, ...], keyring: Path | None, quiet: bool,
            directory: Path | None, vbox: bool, docker: bool, docker_hash: str | None) -> None:
    """Make the base image that guests start from: base-SUITE-ARCH for LXC, base-SUITE-ARCH.qcow2 for KVM.

    It is kept in the workspace, or in $GITIAN_IMAGES. The root filesystem's sha256 is printed: the same package indices
    give the same, wherever it is made.

    MIRROR_HOST names the host of a caching proxy on port 3142; 127.0.0.1 is this machine, which a guest knows
    as 10.0.2.2 or $GITIAN_HOST_IP.
    """
    from gitian.errors import UsageError
    from gitian.host import pool, progress
    from gitian.host.workspace import Workspace
    from gitian.images.make import MakeRequest, make_image
    from gitian.images.sources import SourceOptions

    if vbox or docker or docker_hash is not None:
        raise UsageError(f"Images for {'VirtualBox' if vbox else 'Docker'} are not made.",
                         hint="Use KVM (the default) or LXC (--lxc).")
    progress.set_quiet(quiet)
    made = make_image(MakeRequest(
        directory=Workspace.locate(directory, os.environ).image_directory, distro=distro, suite=suite, arch=arch,
        backend="lxc" if lxc or os.environ.get("USE_LXC") == "1" else "kvm", disksize=disksize, keyring=keyring,
        pool=pool.find(os.environ),
        sources=SourceOptions.of(mirror=mirror, security_mirror=security_mirror, without=without,
                                 environment=os.environ)))
    click.echo(f"{made.record.tarball_sha256}  {made.tarball.name}")
