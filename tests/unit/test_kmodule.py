"""What kernel modules say about themselves, and in which order they are loaded."""

from __future__ import annotations

import pytest

from gitian.formats import kmodule
from tests.fakes.modules import module


@pytest.mark.parametrize(("path", "name"), [
    ("kernel/crypto/crc32c-intel.ko.xz", "crc32c_intel"), ("kernel/fs/ext4/ext4.ko", "ext4"),
    ("virtio_net.ko.zst", "virtio_net"), ("a.ko.gz", "a"), ("modules.dep", None), ("vmlinuz", None)])
def test_names(path: str, name: str | None) -> None:
    assert kmodule.module_name(path) == name


def test_builtin() -> None:
    listing = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-ccitt.ko\n\nrubbish\n"
    assert kmodule.builtin(listing) == {"ext4", "crc_ccitt"}


@pytest.mark.parametrize("wide", [True, False])
def test_information(wide: bool) -> None:
    data = module("license=GPL", "alias=fs-ext4", "alias=ext3", "softdep=pre: crc32c post: other-one", "no value",
                  "depends=jbd2,mbcache,crc16", wide=wide)
    told = kmodule.information(data)
    assert told["alias"] == ["fs-ext4", "ext3"]
    assert told["license"] == ["GPL"]
    assert kmodule.needs(data) == (("jbd2", "mbcache", "crc16"), ("crc32c",))


def test_depends_may_be_empty() -> None:
    assert kmodule.needs(module("depends=")) == ((), ())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(100), b"MZ" + bytes(100), module("a=b")[:-70],
                                  module("a=b").replace(b".modinfo", b".nothing")])
def test_not_a_module(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a kernel module"):
        kmodule.information(data)


def order(files: dict[str, bytes], *wanted: str, built_in: frozenset[str] = frozenset()) -> list[str]:
    return list(kmodule.load_order(wanted, files.get, built_in))


def test_what_is_needed_comes_first_and_once() -> None:
    files = {"virtio_net": module("depends=virtio_ring,net_failover,virtio"),
             "net_failover": module("depends=failover"), "failover": module("depends="),
             "virtio_ring": module("depends="), "virtio": module("depends=virtio_ring"),
             "virtio_blk": module("depends=virtio_ring,virtio")}
    loaded = order(files, "virtio-blk", "virtio_net")
    assert loaded == ["virtio_ring", "virtio", "virtio_blk", "failover", "net_failover", "virtio_net"]


def test_builtin_is_left_out() -> None:
    files = {"virtio_blk": module("depends=virtio_ring,virtio")}
    assert order(files, "virtio_blk", "ext4", built_in=frozenset({"ext4", "virtio", "virtio_ring"})) == ["virtio_blk"]


def test_soft_dependencies_only_when_they_are_there() -> None:
    ext4 = module("depends=jbd2", "softdep=pre: crc32c", "softdep=pre: absent")
    files = {"ext4": ext4, "jbd2": module(), "crc32c": module()}
    assert order(files, "ext4") == ["crc32c", "jbd2", "ext4"]


def test_missing() -> None:
    with pytest.raises(LookupError, match="^jbd2$"):
        order({"ext4": module("depends=jbd2")}, "ext4")


def test_circle() -> None:
    with pytest.raises(ValueError, match="a -> b -> a"):
        order({"a": module("depends=b"), "b": module("depends=a")}, "a")
