"""What is asked of a guest's apt about an environment, and what is said of a guest that cannot be started again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gitian.build import guests, install
from gitian.build.request import TargetRequest
from gitian.errors import GuestError
from gitian.guest.protocol import MachineChanges
from tests.fakes.guest import TableGuest


def test_an_installed_package_is_asked_for_without_the_suite_that_it_came_from() -> None:
    """apt without indices knows of no suite: 'Release 'bookworm-backports' for 'tar' was not found' (apt 2.6)."""
    named = ["tar/bookworm-backports", "hello=2.10-3", "g++:amd64/s", "gcc-", "vim/s-", "zip/s+"]
    assert install.to_be_there(named) == ["tar", "hello=2.10-3", "g++:amd64", "zip"]


@pytest.mark.parametrize(("network", "machine", "words"), [
    (False, None, "without a network"), (True, MachineChanges(cpu="max"), "as another machine"),
    (False, MachineChanges(cpu="max"), "without a network and as another machine")])
def test_a_guest_that_cannot_be_stopped_is_not_started_again(network: bool, machine: MachineChanges | None,
                                                             words: str) -> None:
    request: Any = SimpleNamespace(backend=SimpleNamespace(name="table"), plan=SimpleNamespace(network=network))
    with pytest.raises(GuestError, match=rf"'table' .* cannot be started again {words}\."):
        guests._again(cast(TargetRequest, request), TableGuest({}), machine)
