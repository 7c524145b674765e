"""Which backend runs the guests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
