"""Fill an ext4 filesystem straight from a tar archive: no root rights, no mount, no loop device, no extraction.

``mke2fs`` makes the empty filesystem, so the layout of superblocks, tables and journal is its business; what is written
here are inodes, directories and contents. That keeps owners, modes, links and times as the archive has them whoever
runs it, and the same archive gives the same bytes. Source of the format: Documentation/filesystems/ext4 of the kernel.

The features asked of mke2fs are the ones a 5.10 kernel and later mounts, without checksums in the metadata: a base
image is checked by its own hash, and what is written here stays simple.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from gitian.errors import ImageError
from gitian.host import process

_BLOCK = 4096
_FEATURES = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file," \
            "dir_nlink,extra_isize"
#: One inode per so many bytes, as mke2fs does it, but never more than this many in all: mke2fs writes their tables
#: (256 bytes each) when it makes the filesystem, however empty it is.
_BYTES_PER_INODE = 16384
_MOST_INODES = 4 * 2**20
#: Block numbers have 32 bits here, and the host's own filesystem must hold so large a file, though sparse (MiB).
LARGEST = 8 * 2**20
_ROOT = 2
_LOST_AND_FOUND = 11
_EXTRA = 32  # bytes of an inode beyond the classic 128 that hold fields: the nanoseconds and the time of creation
_EXTENT = 32768  # blocks at most in one extent
_LEAF = (_BLOCK - 12) // 12  # extents in one block of them
_EXTENTS_FLAG = 0x80000
_NAMESPACES = {"user.": 1, "trusted.": 4, "security.": 6}
_DIRECTORY_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFIFO: 5, stat.S_IFLNK: 7}


def fill(*, tarball: Path, image: Path, megabytes: int, epoch: int, identity: str) -> None:
    """Make ``image``, a raw (sparse) ext4 filesystem of ``megabytes`` MiB with the contents of ``tarball``.

    ``epoch`` (seconds) is the time of making written into it; its UUID and hash seed are derived from ``identity``, so
    that equal arguments give equal bytes. Devices are left out: every guest has its own /dev. Raises ImageError: the
    archive is damaged, holds what cannot be kept, or does not fit; ProgramError, MissingToolError.
    """
    name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"gitian:{identity}"))
    if megabytes > LARGEST:
        raise ImageError(f"A disk of {megabytes} MB is too large.", hint=f"The largest '--disksize' is {LARGEST}.")
    image.unlink(missing_ok=True)
    inodes = min(megabytes * 2**20 // _BYTES_PER_INODE, _MOST_INODES)
    journal = max(4, min(32, megabytes // 16))
    process.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", str(_BLOCK), "-I", "256", "-N", str(inodes),
         "-m", "0", "-J", f"size={journal}", "-U", name, "-E", f"hash_seed={name},lazy_journal_init=1,root_owner=0:0",
         image, f"{megabytes}M"],
        env={"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}, timeout=300)
    try:
        with tarball.open("rb") as source, tarfile.open(fileobj=source, mode="r:", errorlevel=2) as archive, \
                image.open("r+b", buffering=0) as stream:
            filesystem = _Filesystem(stream.fileno(), epoch)
            tree = _Tree(filesystem, archive, source.fileno())
            for member in archive:
                tree.add(member)
            tree.finish()
            filesystem.finish()
            os.fsync(stream.fileno())
    except _FullError as error:
        raise ImageError(f"The root filesystem '{tarball}' does not fit into {megabytes} MB: {error}.",
                         hint="Give a larger '--disksize' (in MB).") from error
    except (tarfile.TarError, EOFError) as error:
        raise ImageError(f"The root filesystem '{tarball}' cannot be read: {error}.",
                         hint="Remove it and make the base image again.") from error


class _FullError(Exception):
    """No room for more blocks or inodes."""


@dataclass(slots=True, kw_only=True)
class _Node:
    """A file to be: what its inode needs to know."""

    number: int
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: float = 0
    size: int = 0
    links: int = 1
    extents: list[tuple[int, int]] = field(default_factory=list)  # (first block, number of blocks)
    inline: bytes = b""  # the target of a short symbolic link
    attributes: dict[str, bytes] = field(default_factory=dict)
    children: dict[bytes, _Node] = field(default_factory=dict)


class _Filesystem:
    """The empty filesystem that mke2fs left, with what has been taken of it so far."""

    def __init__(self, descriptor: int, epoch: int) -> None:
        self._fd = descriptor
        self._epoch = epoch
        self._super = bytearray(os.pread(descriptor, 1024, 1024))
        (magic,) = struct.unpack_from("<H", self._super, 56)
        (self._inodes, self._blocks) = struct.unpack_from("<II", self._super, 0)
        (self._free_blocks, self._free_inodes) = struct.unpack_from("<II", self._super, 12)
        (self._per_group,) = struct.unpack_from("<I", self._super, 32)
        (self._inodes_per_group,) = struct.unpack_from("<I", self._super, 40)
        (self._inode_size,) = struct.unpack_from("<H", self._super, 88)
        (block_log,) = struct.unpack_from("<I", self._super, 24)
        if magic != 0xEF53 or block_log != 2 or self._inode_size != 256:
            raise ImageError("'mke2fs' made a filesystem of another shape than it was asked for.")
        groups = -(-self._blocks // self._per_group)
        self._descriptors = bytearray(os.pread(descriptor, 32 * groups, _BLOCK))
        self._groups = groups
        self._bitmap = bytearray()  # of blocks, of the group blocks are being taken from
        self._group = -1
        self._runs: list[tuple[int, int]] = []  # free runs of that group, last one first: (first block, length)
        self._tables: dict[int, bytearray] = {}
        self._drop_lost_and_found()
        self._next = _LOST_AND_FOUND

    def _drop_lost_and_found(self) -> None:
        """Free the directory that e2fsck would use: the root directory is to look the same under every backend."""
        inode = self._inode(_LOST_AND_FOUND)
        extents = _read_extents(bytes(inode[40:100]))
        bitmap = bytearray(os.pread(self._fd, _BLOCK, self._at(0, 0) * _BLOCK))
        for first, length in extents:
            if first + length > self._per_group:
                raise ImageError("'mke2fs' put 'lost+found' where it was not looked for.")
            for block in range(first, first + length):
                bitmap[block // 8] &= ~(1 << block % 8)
            self._count(0, 12, length)
            self._free_blocks += length
        os.pwrite(self._fd, bitmap, self._at(0, 0) * _BLOCK)
        inode[:] = bytes(len(inode))
        self._count(0, 14, 1)
        self._count(0, 16, -1)
        self._free_inodes += 1

    def _at(self, group: int, which: int) -> int:
        """The block where a group's block bitmap (0), inode bitmap (1) or inode table (2) lies."""
        (block,) = struct.unpack_from("<I", self._descriptors, 32 * group + 4 * which)
        return int(block)

    def _count(self, group: int, offset: int, change: int) -> None:
        """Change a group's count of free blocks (12), free inodes (14) or directories (16)."""
        (value,) = struct.unpack_from("<H", self._descriptors, 32 * group + offset)
        struct.pack_into("<H", self._descriptors, 32 * group + offset, value + change)

    def _inode(self, number: int) -> memoryview:
        group, index = divmod(number - 1, self._inodes_per_group)
        table = self._tables.get(group)
        if table is None:
            size = self._inodes_per_group * self._inode_size
            table = self._tables[group] = bytearray(os.pread(self._fd, size, self._at(group, 2) * _BLOCK))
        return memoryview(table)[index * self._inode_size:(index + 1) * self._inode_size]

    def root_blocks(self) -> list[tuple[int, int]]:
        """What mke2fs gave to the root directory."""
        return _read_extents(bytes(self._inode(_ROOT)[40:100]))

    def new_inode(self, *, directory: bool) -> int:
        """The number of an inode that is free."""
        if self._next > self._inodes:
            raise _FullError(f"it has room for {self._inodes} files only")
        number, self._next = self._next, self._next + 1
        group = (number - 1) // self._inodes_per_group
        self._count(group, 14, -1)
        if directory:
            self._count(group, 16, 1)
        self._free_inodes -= 1
        return number

    def allocate(self, blocks: int) -> list[tuple[int, int]]:
        """So many free blocks, in as few runs as there can be, in ascending order."""
        taken: list[tuple[int, int]] = []
        while blocks:
            while not self._runs:
                self._load_group(self._group + 1)
            first, length = self._runs.pop()
            use = min(length, blocks)
            if use < length:
                self._runs.append((first + use, length - use))
            self._mark(first, use)
            blocks -= use
            if taken and sum(taken[-1]) == first:
                taken[-1] = (taken[-1][0], taken[-1][1] + use)
            else:
                taken.append((first, use))
        return taken

    def _load_group(self, group: int) -> None:
        self._save_bitmap()
        if group >= self._groups:
            raise _FullError("its contents are larger")
        self._group = group
        self._bitmap = bytearray(os.pread(self._fd, _BLOCK, self._at(group, 0) * _BLOCK))
        base = group * self._per_group
        number = min(self._per_group, self._blocks - base)
        bits = bin(int.from_bytes(self._bitmap, "little") | 1 << _BLOCK * 8)[:2:-1][:number]
        self._runs = [(base + free.start(), free.end() - free.start()) for free in re.finditer("0+", bits)][::-1]

    def _mark(self, first: int, length: int) -> None:
        start = first - self._group * self._per_group
        whole = int.from_bytes(self._bitmap[start // 8:(start + length + 7) // 8], "little")
        whole |= ((1 << length) - 1) << start % 8
        self._bitmap[start // 8:(start + length + 7) // 8] = whole.to_bytes((start + length + 7) // 8 - start // 8,
                                                                             "little")
        self._count(self._group, 12, -length)
        self._free_blocks -= length

    def _save_bitmap(self) -> None:
        if self._group >= 0:
            os.pwrite(self._fd, self._bitmap, self._at(self._group, 0) * _BLOCK)

    def write(self, extents: list[tuple[int, int]], data: bytes) -> None:
        """Write contents that are in memory."""
        done = 0
        for first, length in extents:
            os.pwrite(self._fd, data[done:done + length * _BLOCK], first * _BLOCK)
            done += length * _BLOCK

    def copy(self, source: int, offset: int, size: int, extents: list[tuple[int, int]]) -> None:
        """Write ``size`` bytes that lie at ``offset`` in the file ``source``."""
        for first, length in extents:
            at, left = first * _BLOCK, min(length * _BLOCK, size)
            size -= left
            while left:
                piece = os.pread(source, min(left, 1 << 20), offset)
                if not piece:
                    raise EOFError("it ends in the middle of a file")
                os.pwrite(self._fd, piece, at)
                at, offset, left = at + len(piece), offset + len(piece), left - len(piece)

    def put(self, node: _Node) -> None:
        """Write a file's inode."""
        inode = self._inode(node.number)
        inode[:] = bytes(len(inode))
        used = sum(length for _, length in node.extents)
        body, flags = node.inline, 0
        if not node.inline and stat.S_IFMT(node.mode) != stat.S_IFIFO:
            body, extra = self._extent_tree(node.extents)
            used, flags = used + extra, _EXTENTS_FLAG
        seconds = int(node.mtime // 1)
        low, beyond = _time(seconds, int((node.mtime - seconds) * 1_000_000_000))
        struct.pack_into("<HHIIIIIHHII", inode, 0, node.mode, node.uid & 0xFFFF, node.size & 0xFFFFFFFF, low, low,
                         low, 0, node.gid & 0xFFFF, node.links, used * (_BLOCK // 512), flags)
        inode[40:40 + len(body)] = body
        struct.pack_into("<I", inode, 108, node.size >> 32)
        struct.pack_into("<HH", inode, 120, node.uid >> 16, node.gid >> 16)
        struct.pack_into("<HHIIIII", inode, 128, _EXTRA, 0, beyond, beyond, beyond, low, beyond)
        if node.attributes:
            packed = _attributes(node.attributes, self._inode_size - 128 - _EXTRA)
            inode[128 + _EXTRA:128 + _EXTRA + len(packed)] = packed

    def _extent_tree(self, extents: list[tuple[int, int]]) -> tuple[bytes, int]:
        """The 60 bytes of an inode that say where its blocks are, and how many blocks more that took."""
        pieces: list[tuple[int, int, int]] = []
        logical = 0
        for first, length in extents:
            while length:
                use = min(length, _EXTENT)
                pieces.append((logical, use, first))
                logical, first, length = logical + use, first + use, length - use
        entries = [struct.pack("<IHHI", at, use, 0, first) for at, use, first in pieces]
        if len(entries) <= 4:
            return _extent_node(entries, 4, 0), 0
        leaves = [slice(start, start + _LEAF) for start in range(0, len(entries), _LEAF)]
        if len(leaves) > 4:
            raise _FullError("one of its files would lie in too many pieces")
        indices = []
        for leaf in leaves:
            place = self.allocate(1)
            self.write(place, _extent_node(entries[leaf], _LEAF, 0))
            indices.append(struct.pack("<IIHH", pieces[leaf.start][0], place[0][0], 0, 0))
        return _extent_node(indices, 4, 1), len(leaves)

    def finish(self) -> None:
        """Write the tables, the bitmaps and the counts."""
        self._save_bitmap()
        for group, table in self._tables.items():
            os.pwrite(self._fd, table, self._at(group, 2) * _BLOCK)
        last = self._next - 1
        for group in range((last - 1) // self._inodes_per_group + 1):
            at = self._at(group, 1) * _BLOCK
            bitmap = int.from_bytes(os.pread(self._fd, _BLOCK, at), "little")
            bitmap |= (1 << min(self._inodes_per_group, last - group * self._inodes_per_group)) - 1
            os.pwrite(self._fd, bitmap.to_bytes(_BLOCK, "little"), at)
        struct.pack_into("<II", self._super, 12, self._free_blocks, self._free_inodes)
        for offset in (48, 64, 264):  # written, checked, made
            struct.pack_into("<I", self._super, offset, self._epoch)
        os.pwrite(self._fd, self._descriptors, _BLOCK)
        os.pwrite(self._fd, self._super, 1024)


class _Tree:
    """The files of the archive, with their contents written as they come."""

    def __init__(self, filesystem: _Filesystem, archive: tarfile.TarFile, source: int) -> None:
        self._filesystem = filesystem
        self._archive = archive
        self._source = source
        self._root = _Node(number=_ROOT, mode=stat.S_IFDIR | 0o755, extents=filesystem.root_blocks())

    def add(self, member: tarfile.TarInfo) -> None:
        """Add one member of the archive."""
        parts = [os.fsencode(part) for part in member.name.split("/") if part not in ("", ".")]
        if b".." in parts or any(len(part) > 255 for part in parts):
            raise ImageError(f"The root filesystem holds a file with an impossible name: '{member.name[:300]}'.")
        if member.ischr() or member.isblk():
            return
        if not parts:
            self._describe(self._root, member)
            return
        parent = self._directory(parts[:-1], member.name)
        name, old = parts[-1], parent.children.get(parts[-1])
        if member.islnk():
            target = self._find(member.linkname)
            if old is not None or stat.S_ISDIR(target.mode):
                raise ImageError(f"The root filesystem holds a link that cannot be: '{member.name}'.")
            target.links += 1
            parent.children[name] = target
            return
        if old is not None:
            if not (member.isdir() and stat.S_ISDIR(old.mode)):
                raise ImageError(f"The root filesystem holds '{member.name}' twice.")
            self._describe(old, member)
            return
        node = _Node(number=self._filesystem.new_inode(directory=member.isdir()), mode=_type(member))
        self._describe(node, member)
        if member.isreg():
            node.size = member.size
            self._contents(node, member)
        elif member.issym():
            self._link(node, os.fsencode(member.linkname))
        parent.children[name] = node

    def _describe(self, node: _Node, member: tarfile.TarInfo) -> None:
        node.mode = stat.S_IFMT(node.mode) | (member.mode & 0o7777)
        node.uid, node.gid, node.mtime = member.uid, member.gid, member.mtime
        for key, value in member.pax_headers.items():
            name = key.removeprefix("SCHILY.xattr.")
            if name != key and name.startswith(tuple(_NAMESPACES)):
                node.attributes[name] = value.encode("utf-8", "surrogateescape")

    def _contents(self, node: _Node, member: tarfile.TarInfo) -> None:
        node.extents = self._filesystem.allocate(-(-node.size // _BLOCK))
        if not member.issparse():
            self._filesystem.copy(self._source, member.offset_data, node.size, node.extents)
            return
        stream = self._archive.extractfile(member)
        if stream is None:
            raise ImageError(f"The root filesystem's file '{member.name}' cannot be read.")
        for first, length in node.extents:
            for block in range(first, first + length, 256):
                self._filesystem.write([(block, 256)], stream.read(min(256, first + length - block) * _BLOCK))

    def _link(self, node: _Node, target: bytes) -> None:
        node.mode = stat.S_IFLNK | 0o777
        node.size = len(target)
        if len(target) < 60:
            node.inline = target
            return
        if len(target) >= _BLOCK:
            raise ImageError("The root filesystem holds a symbolic link that is too long.")
        node.extents = self._filesystem.allocate(1)
        self._filesystem.write(node.extents, target)

    def _directory(self, parts: list[bytes], what: str) -> _Node:
        node = self._root
        for part in parts:
            child = node.children.get(part)
            if child is None:
                child = _Node(number=self._filesystem.new_inode(directory=True), mode=stat.S_IFDIR | 0o755,
                              mtime=node.mtime)
                node.children[part] = child
            if not stat.S_ISDIR(child.mode):
                raise ImageError(f"The root filesystem holds '{what}', below something that is no directory.")
            node = child
        return node

    def _find(self, name: str) -> _Node:
        node: _Node | None = self._root
        for part in (os.fsencode(part) for part in name.split("/") if part not in ("", ".")):
            node = node.children.get(part) if node is not None else None
        if node is None:
            raise ImageError(f"The root filesystem holds a link to '{name}', which is not there.")
        return node

    def finish(self) -> None:
        """Write all directories and inodes."""
        waiting = [(self._root, self._root)]
        written: set[int] = set()
        while waiting:
            node, parent = waiting.pop()
            if node.number in written:
                continue
            written.add(node.number)
            if stat.S_ISDIR(node.mode):
                blocks = _directory_blocks(node, parent)
                node.size = len(blocks)
                missing = len(blocks) // _BLOCK - sum(length for _, length in node.extents)
                node.extents += self._filesystem.allocate(max(0, missing))
                node.links = 2 + sum(stat.S_ISDIR(child.mode) for child in node.children.values())
                self._filesystem.write(node.extents, blocks)
                waiting += [(node.children[name], node) for name in sorted(node.children, reverse=True)]
            self._filesystem.put(node)


def _type(member: tarfile.TarInfo) -> int:
    for kind, answer in ((member.isreg, stat.S_IFREG), (member.isdir, stat.S_IFDIR), (member.issym, stat.S_IFLNK),
                         (member.isfifo, stat.S_IFIFO)):
        if kind():
            return answer
    raise ImageError(f"The root filesystem holds '{member.name}', which is of an unknown kind.")


def _time(seconds: int, nanoseconds: int) -> tuple[int, int]:
    """A time as an inode has it: the low 32 bits, and nanoseconds with two more bits of the seconds below them."""
    low = seconds & 0xFFFFFFFF
    signed = low - (1 << 32) if low & 0x80000000 else low
    return low, (nanoseconds << 2 | (seconds - signed) >> 32 & 3) & 0xFFFFFFFF


def _extent_node(entries: list[bytes], room: int, depth: int) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(entries), room, depth, 0) + b"".join(entries)


def _read_extents(body: bytes) -> list[tuple[int, int]]:
    magic, entries, _, depth, _ = struct.unpack_from("<HHHHI", body)
    if magic != 0xF30A or depth:
        raise ImageError("'mke2fs' made a directory of another shape than was expected.")
    found = []
    for number in range(entries):
        _, length, high, low = struct.unpack_from("<IHHI", body, 12 + 12 * number)
        found.append((low | high << 32, length))
    return found


def _directory_blocks(node: _Node, parent: _Node) -> bytes:
    """A directory's contents: entries that do not cross blocks; the last of each block reaches to its end."""
    entries = [(b".", node), (b"..", parent), *((name, node.children[name]) for name in sorted(node.children))]
    blocks: list[bytes] = []
    block = bytearray()
    last = 0
    for name, child in entries:
        length = (8 + len(name) + 3) & ~3
        if len(block) + length > _BLOCK:
            blocks.append(_closed(block, last))
            block = bytearray()
        last = len(block)
        kind = _DIRECTORY_TYPES[stat.S_IFMT(child.mode)]
        block += struct.pack("<IHBB", child.number, length, len(name), kind) + name
        block += bytes(last + length - len(block))
    blocks.append(_closed(block, last))
    return b"".join(blocks)


def _closed(block: bytearray, last: int) -> bytes:
    struct.pack_into("<H", block, last + 4, _BLOCK - last)
    return bytes(block.ljust(_BLOCK, b"\0"))


def _attributes(attributes: dict[str, bytes], room: int) -> bytes:
    """Extended attributes as they lie in an inode: names from the front, values from the end."""
    body = bytearray(room - 4)
    at, end = 0, len(body)
    for key in sorted(attributes):
        prefix = next(prefix for prefix in _NAMESPACES if key.startswith(prefix))
        name, value = os.fsencode(key.removeprefix(prefix)), attributes[key]
        end -= (len(value) + 3) & ~3
        after = at + ((16 + len(name) + 3) & ~3)
        if after + 4 > end:
            raise ImageError(f"The root filesystem holds a file whose attribute '{key}' is too large to be kept.")
        struct.pack_into("<BBHIII", body, at, len(name), _NAMESPACES[prefix], end, 0, len(value), 0)
        body[at + 16:at + 16 + len(name)] = name
        body[end:end + len(value)] = value
        at = after
    return struct.pack("<I", 0xEA020000) + bytes(body)
