"""What is asked of a guest's apt about an environment."""

from __future__ import annotations

from gitian.build import install


def test_an_installed_package_is_asked_for_without_the_suite_that_it_came_from() -> None:
    """apt without indices knows of no suite: 'Release 'bookworm-backports' for 'tar' was not found' (apt 2.6)."""
    named = ["tar/bookworm-backports", "hello=2.10-3", "g++:amd64/s", "gcc-", "vim/s-", "zip/s+"]
    assert install.to_be_there(named) == ["tar", "hello=2.10-3", "g++:amd64", "zip"]
