"""What gbuild decides before it does anything."""

from __future__ import annotations

import pytest

from gitian.errors import InputError, UsageError
from gitian.formats.descriptor import Descriptor
from gitian.plan import Options, PlannedRemote, Target, make_plan, parse_assignments

_TEXT = """\
name: pkg
suites: [focal, jammy]
architectures: [i386, amd64, linux64]
reference_datetime: "2011-01-30 00:00:00"
distro: debian
remotes:
- {url: "https://example.org/foo.git", dir: foo}
- {url: "https://example.org/bar.git", dir: bar, commit: v2}
script: "true"
"""


def _descriptor(extra: str = "") -> Descriptor:
    return Descriptor.parse((_TEXT + extra).encode(), "d.yml")


def test_targets_are_suites_by_architectures() -> None:
    plan = make_plan(_descriptor(), Options(commits={"foo": "v1"}))
    assert [target.label for target in plan.targets] == [
        "focal-i386", "focal-amd64", "focal-linux64", "jammy-i386", "jammy-amd64", "jammy-linux64"]
    first, second, third = plan.targets[:3]
    assert (first.bits, first.setarch, first.dpkg_arch) == (32, "i386", "i386")
    assert (second.bits, second.setarch, second.dpkg_arch) == (64, "x86_64", "amd64")
    assert (third.bits, third.setarch, third.dpkg_arch) == (64, "linux64", "amd64")
    assert first == Target(suite="focal", architecture="i386", distro="debian")


def test_a_target_stands_once() -> None:
    descriptor = Descriptor.parse(_TEXT.replace("[focal, jammy]", "[focal, focal]").encode(), "d.yml")
    assert len(make_plan(descriptor, Options(commits={"foo": "v1"})).targets) == 3


def test_the_descriptors_commit_wins_and_the_users_url_does() -> None:
    plan = make_plan(_descriptor(), Options(commits={"foo": "v1", "bar": "v3"}, urls={"bar": "../bar"}))
    assert plan.remotes == (PlannedRemote(url="https://example.org/foo.git", dir="foo", commit="v1"),
                            PlannedRemote(url="../bar", dir="bar", commit="v2"))


def test_a_commit_is_needed() -> None:
    with pytest.raises(InputError, match="no commit for remote 'foo' of 'pkg'") as caught:
        make_plan(_descriptor(), Options())
    assert caught.value.hint == "Say which commit or tag to build: -c foo=COMMIT"


@pytest.mark.parametrize("options", [
    Options(commits={"foo": "v1", "fo": "v1"}),
    Options(commits={"foo": "v1"}, urls={"x": "y"}),
    Options(commits={"foo": "HEAD~1"}),
    Options(commits={"foo": "feature/x"}),
    Options(commits={"foo": "--upload-pack=x"}),
    Options(commits={"foo": "v1"}, urls={"foo": "--x"}),
    Options(commits={"foo": "v1"}, urls={"foo": "a b"}),
    Options(commits={"foo": "v1"}, num_make=0),
    Options(commits={"foo": "v1"}, memory=0),
])
def test_options_that_make_no_sense(options: Options) -> None:
    with pytest.raises(UsageError):
        make_plan(_descriptor(), options)


@pytest.mark.parametrize(("wanted", "allowed"), [(True, True), (True, False), (False, True), (False, False)])
def test_sudo_needs_both(wanted: bool, allowed: bool) -> None:
    plan = make_plan(_descriptor("sudo: true\n" if wanted else ""),
                     Options(commits={"foo": "v1"}, allow_sudo=allowed))
    assert plan.sudo == (wanted and allowed)
    assert any("--allow-sudo" in note for note in plan.notes) == (wanted and not allowed)


@pytest.mark.parametrize(("key", "option", "expected"), [
    ("", False, True), ("network: true\n", False, True), ("network: false\n", False, False), ("", True, False),
    ("network: true\n", True, False), ("network: off\n", True, False)])
def test_whoever_wants_no_network_gets_none(key: str, option: bool, expected: bool) -> None:
    plan = make_plan(_descriptor(key), Options(commits={"foo": "v1"}, no_network=option))
    assert plan.network is expected


def test_assignments() -> None:
    assert parse_assignments(["foo=v1,bar=v2"], "-c") == {"foo": "v1", "bar": "v2"}
    assert parse_assignments(["foo=v1", "bar=v2"], "-c") == {"foo": "v1", "bar": "v2"}
    assert parse_assignments(["foo=https://h/x?a=b"], "-u") == {"foo": "https://h/x?a=b"}
    assert parse_assignments([], "-c") == {}
    for text in ("foo", "foo=", "=v1", "foo=v1,bar"):
        with pytest.raises(UsageError, match="DIR=VALUE"):
            parse_assignments([text], "-c")
