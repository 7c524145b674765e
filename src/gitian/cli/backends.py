"""Which backend runs the guests: the choice, and the options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gitian.errors import UsageError

if TYPE_CHECKING:
    from gitian.guest.protocol import Backend


def choose_backend(name: str | None, environment: Mapping[str, str]) -> Backend:
    """The backend of that name, else LXC with USE_LXC=1, else KVM. Raises UsageError for what the classic knew besides.

    As in the classic, a variable USE_... counts only when it is exactly 1.
    """
    if name is None:
        for variable in ("USE_DOCKER", "USE_VBOX"):
            if environment.get(variable) == "1" and environment.get("USE_LXC") != "1":
                raise UsageError(f"{variable}=1 asks for a backend that gitian does not have.",
                                 hint="Unset it to use KVM, or set USE_LXC=1.")
        name = "lxc" if environment.get("USE_LXC") == "1" else "kvm"
    if name == "lxc":
        from gitian.guest.lxc import LxcBackend

        return LxcBackend()
    from gitian.guest.kvm import KvmBackend

    return KvmBackend()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOptions:
    """--backend and --accel as they were given."""

    name: str | None = None
    accel: str = "auto"

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment's variables, with the accelerator that was asked for."""
        return {**environ, "GITIAN_ACCEL": self.accel} if self.accel != "auto" else dict(environ)

    def backend(self, environment: Mapping[str, str]) -> Backend:
        """What runs the guests. Raises UsageError."""
        return choose_backend(self.name, environment)


def guest_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets them as ``guests``, a GuestOptions."""
    @click.option("--backend", type=click.Choice(["kvm", "lxc"]), help="What runs the guests [default: lxc with "
                  "USE_LXC=1, else kvm].")
    @click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True,
                  help="How qemu runs the guests: with hardware support, in software, or what works.")
    @functools.wraps(function)
    def command(*, backend: str | None, accel: str, **more: Any) -> Any:
        return function(guests=GuestOptions(name=backend, accel=accel), **more)

    return command
