from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitian.update import paths

PARTS = st.one_of(st.sampled_from(["..", ".", "", "a", "A", "b", "é", "e\u0301", "ß", "ss", "C:", "\\", "\0", "~",
                                   ".gitian-manifest", ".GITIAN-manifest", "x" * 256, "\u202e", "\ud800", " "]),
                  st.text(max_size=8))
PATHS = st.one_of(st.lists(PARTS, max_size=5).map("/".join), st.text(max_size=30))


@given(PATHS)
def test_what_is_accepted_stays_inside(path: str) -> None:
    try:
        paths.check(path)
    except ValueError as error:
        assert str(error)
        return
    full = os.path.normpath(os.path.join("/top/level", path))
    assert full == "/top/level/" + path, "means exactly what it says"
    assert path.isprintable()
    assert paths.folded(path.split("/")[0]) != ".gitian-manifest"
    path.encode()


@given(st.lists(PATHS, max_size=8))
def test_no_collision_means_that_all_can_be_files_anywhere(found: list[str]) -> None:
    accepted = []
    for path in found:
        try:
            accepted.append(paths.check(path))
        except ValueError:
            continue
    if paths.collision(accepted) is not None:
        return
    files = {paths.folded(path) for path in accepted}
    assert len(files) == len(accepted)
    for path in accepted:
        above = paths.folded(path)
        while "/" in above:
            above = above.rpartition("/")[0]
            assert above not in files


@pytest.mark.parametrize("found, expected", [
    (["a", "b", "c/d", "c/e"], None),
    (["a", "a"], ("a", "a")),
    (["README", "x", "readme"], ("README", "readme")),
    (["é", "e\u0301"], ("é", "e\u0301")),
    (["straße", "STRASSE"], ("straße", "STRASSE")),
    (["a", "a/b"], ("a", "a/b")),
    (["a/b/c", "A"], ("A", "a/b/c")),
    (["Doc/a", "doc/b"], ("Doc/a", "doc/b")),
])
def test_collisions(found: list[str], expected: tuple[str, str] | None) -> None:
    assert paths.collision(found) == expected


@pytest.mark.parametrize("path", ["bin/demo", "Tor Browser/start.desktop", "a~b(1)@x+y.tar.gz", "ünïcode/文件",
                                  "..a/b..", "gitian-1.0.tar.gz"])
def test_names_that_releases_have(path: str) -> None:
    assert paths.check(path) == path
