"""Tar archives, written in canonical form: sorted, one date, no owners, plain modes; POSIX headers, pax where needed.

A hard link's file goes with the first of its names, so that the order does not depend on which name came first.
"""

from __future__ import annotations

from collections import Counter
from typing import IO

from gitian.canon.model import Settings, copy
from gitian.canon.tars import BLOCK, DIRECTORY, LINK, SPARSE, SYMLINK, Archive, Member
from gitian.errors import FormatError

#: GNU tar's blocking factor, to which every archive is filled up.
_RECORD = 20 * BLOCK
#: Records of extended headers that the header itself tells, or that say when, whose and from where.
_TOLD = (b"path", b"linkpath", b"size", b"hdrcharset", b"charset", b"atime", b"ctime", b"mtime", b"uid", b"gid",
         b"uname", b"gname", b"comment", b"LIBARCHIVE.creationtime", b"SCHILY.dev", b"SCHILY.ino", b"SCHILY.nlink",
         b"GNU.sparse.name")
_MOST_LINKS = 64


def write_canonical_tar(source: IO[bytes], archive: Archive, target: IO[bytes], settings: Settings) -> None:
    """Write the archive that ``source`` holds in canonical form. Raises FormatError: links that lead in circles."""
    members = list(archive.members)
    if "order" not in settings.keep:
        members = sorted(_regrouped(members), key=lambda member: member.key)
    written = 0

    def put(data: bytes) -> None:
        nonlocal written
        target.write(data)
        written += len(data)

    if archive.comment is not None:
        put(_extended(b"g", b"pax_global_header", [(b"comment", archive.comment)], settings))
    for member in members:
        put(_headers(member, settings))
        copy(source, member.offset, member.size, put)
        put(bytes(-written % BLOCK))
    put(bytes(2 * BLOCK))
    put(bytes(-written % _RECORD))


def _regrouped(members: list[Member]) -> list[Member]:
    """The same files, but of each file with several names the first name (by its bytes) has the data."""
    files = {member.key: number for number, member in enumerate(members) if member.kind not in (LINK, DIRECTORY)}
    links = {member.key: number for number, member in enumerate(members) if member.kind == LINK}
    times = Counter(member.key for member in members)
    groups: dict[int, list[int]] = {}
    for number, member in enumerate(members):
        if member.kind != LINK:
            continue
        name = member.linkname.rstrip(b"/")
        for _ in range(_MOST_LINKS):
            if name in files or name not in links:
                break
            name = members[links[name]].linkname.rstrip(b"/")
        else:
            raise FormatError("Hard links of the archive lead in circles.")
        if name in files:
            groups.setdefault(files[name], []).append(number)
    for root, others in groups.items():
        group = [root, *others]
        if any(times[members[number].key] > 1 for number in group):
            raise FormatError("A file with several names stands in the archive more than once, so its members cannot "
                              "be sorted.", hint="Keep their order: --keep order.")
        first = min(group, key=lambda number: members[number].key)
        data = members[root]
        name = members[first].name
        for number in group:
            member = members[number]
            members[number] = data._replace(name=member.name) if number == first else data._replace(
                name=member.name, linkname=name, kind=LINK, offset=0, size=0, extended=0, records=())
    return members


def _headers(member: Member, settings: Settings) -> bytes:
    """The member's header, after the extended one that it may need."""
    keep = settings.keep
    name = member.name
    if member.kind == DIRECTORY:
        name = name.rstrip(b"/") + b"/"
    sparse = [(key, value) for key, value in member.records if key.startswith(b"GNU.sparse.")
              and key != b"GNU.sparse.name"]
    others = {key: value for key, value in member.records if key not in _TOLD and not key.startswith(b"GNU.sparse.")}
    records = sorted(others.items()) + sparse
    stored = name
    if b"GNU.sparse.name" in dict(member.records):
        # The name that programs which know no sparse files see; GNU tar puts the number of its process there.
        records.append((b"GNU.sparse.name", name))
        directory, _, last = name.rpartition(b"/")
        stored = (directory or b".") + b"/GNUSparseFile.0/" + last
    if "times" in keep and b"mtime" in dict(member.records):
        records.append((b"mtime", dict(member.records)[b"mtime"]))
    uid, gid, uname, gname = 0, 0, b"", b""
    if "owners" in keep:
        uid, gid, uname, gname = member.uid, member.gid, member.uname, member.gname
    mtime = member.mtime if "times" in keep else settings.date
    prefix, short = _split(stored)
    size = member.size - member.extended
    if member.kind == SPARSE:
        return _gnu_header(member, name, uid, gid, uname, gname, mtime, settings)
    if short is None:
        records.append((b"path", stored))
        prefix, short = b"", stored[:100]
    if len(member.linkname) > 100:
        records.append((b"linkpath", member.linkname))
    for key, value, digits in ((b"size", size, 11), (b"uid", uid, 7), (b"gid", gid, 7), (b"mtime", mtime, 11)):
        if not 0 <= value < 8 ** digits and key not in dict(records):
            records.append((key, str(value).encode()))
    for key, text in ((b"uname", uname), (b"gname", gname)):
        if len(text) > 31:
            records.append((key, text))
    header = _block(short, _mode(member, settings), uid, gid, size, mtime, member.kind, member.linkname[:100], uname,
                    gname, member.major, member.minor, b"ustar\x0000", prefix.ljust(155, b"\0"))
    if not records:
        return header
    if not all(_is_utf8(value) for key, value in records if key in (b"path", b"linkpath", b"uname", b"gname")):
        records.insert(0, (b"hdrcharset", b"BINARY"))
    return _extended(b"x", b"PaxHeaders/" + stored.rstrip(b"/").rpartition(b"/")[2][:80], records, settings) + header


def _gnu_header(member: Member, name: bytes, uid: int, gid: int, uname: bytes, gname: bytes, mtime: int,
                settings: Settings) -> bytes:
    """A sparse file of GNU's old kind, whose map lies where POSIX has the prefix of the name."""
    long = b""
    if len(name) > 100:
        long = _block(b"././@LongLink", 0o644, 0, 0, len(name) + 1, 0, b"L", b"", b"", b"", 0, 0, b"ustar  \0", b"")
        long += name + bytes(1) + bytes(-(len(name) + 1) % BLOCK)
    # 12 bytes each of atime, ctime and offset, 4 of longnames and one unused are of no account; the map is kept.
    rest = bytes(41) + member.raw[386:495]
    return long + _block(name[:100], _mode(member, settings), uid, gid, member.size - member.extended, mtime, SPARSE,
                         b"", uname, gname, 0, 0, b"ustar  \0", rest)


def _mode(member: Member, settings: Settings) -> int:
    if "modes" in settings.keep:
        return member.mode & 0o7777
    if member.kind == SYMLINK:
        return 0o777
    # What is accident is the umask of whoever packed; set-user-id and the like are meant.
    runs = member.kind == DIRECTORY or member.mode & 0o111
    return member.mode & 0o7000 | (0o755 if runs else 0o644)


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """(prefix, name) as POSIX's header has room for them: 155 and 100 bytes; None when it has not."""
    if len(name) <= 100:
        return b"", name
    at = name.find(b"/", max(len(name) - 101, 0), 156)
    if at <= 0 or at == len(name) - 1:
        return b"", None
    return name[:at], name[at + 1:]


def _block(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, linkname: bytes,
           uname: bytes, gname: bytes, major: int, minor: int, magic: bytes, rest: bytes) -> bytes:
    def octal(value: int, digits: int) -> bytes:
        # What does not fit stands in an extended header.
        return b"%0*o\0" % (digits, value if 0 <= value < 8 ** digits else 0)

    fields = [name.ljust(100, b"\0"), octal(mode, 7), octal(uid, 7), octal(gid, 7), octal(size, 11), octal(mtime, 11),
              b" " * 8, kind, linkname.ljust(100, b"\0"), magic, uname[:31].ljust(32, b"\0"),
              gname[:31].ljust(32, b"\0"), octal(major, 7), octal(minor, 7), rest]
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _extended(kind: bytes, name: bytes, records: list[tuple[bytes, bytes]], settings: Settings) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    mtime = settings.date if "times" not in settings.keep else 0
    header = _block(name[:100], 0o644, 0, 0, len(data), mtime, kind, b"", b"", b"", 0, 0, b"ustar\x0000", b"")
    return header + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """'<length> <key>=<value>\\n', where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


