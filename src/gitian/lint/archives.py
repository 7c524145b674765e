"""Scripts that make archives: with which times, and in which order."""

from __future__ import annotations

import re

from gitian.lint import rules
from gitian.lint.ages import has_new_gzip
from gitian.lint.commands import Command
from gitian.lint.facts import Facts
from gitian.lint.model import Findings, Severity

_MKISOFS = frozenset(("genisoimage", "mkisofs", "xorrisofs"))
#: Programs to which the order of what they read matters.
_ORDERED = frozenset(("tar", "bsdtar", "cpio", "pax", "zip", "7z", "7za", "ar", "jar", "cat", "md5sum", "sha1sum",
                      "sha224sum", "sha256sum", "sha384sum", "sha512sum", "b2sum", "shasum", "cksum", "ld", "gcc",
                      "g++", "cc", "c++", "clang", "clang++", "javac"))


def check(facts: Facts, findings: Findings) -> None:
    """Apply the rules archive-times, directory-order, locale and sort-locale."""
    for command in facts.script.commands:
        if command.name in facts.script.functions or (command.name == "env" and len(command.words) > 1):
            continue
        problem = _times(facts, command)
        if problem is not None:
            findings.add(rules.ARCHIVE_TIMES, problem, line=command.line, end_line=command.end_line, where="script")
        problem = _order(facts, command)
        if problem is not None:
            findings.add(rules.DIRECTORY_ORDER, problem, line=command.line, end_line=command.end_line, where="script")
    _check_locale(facts, findings)


def tar_letters(command: Command) -> str:
    """The short options of tar, the old way of writing them ('tar czf') too, without what takes a word."""
    texts = command.texts
    letters = texts[0] if texts and re.fullmatch(r"[A-Za-z]+", texts[0]) else ""
    for text in texts:
        if re.match(r"-[A-Za-z]", text):
            # A letter that takes a word ends the letters: '-cTlist' names a list.
            letters += re.split(r"(?<=[bfgCFHIKLNTVX])", text[1:], maxsplit=1)[0]
    return letters


def _creates(command: Command) -> bool:
    if command.name in ("tar", "bsdtar", "gtar"):
        return "c" in tar_letters(command) or "r" in tar_letters(command) or command.has("--create", "--append")
    if command.name == "zip":
        return not command.has("-d", "--delete", "--copy", "--help", "--version") and len(command.words) > 1
    if command.name == "jar":
        return command.has("--create") or "c" in (command.texts[0].lstrip("-")[:4] if command.texts else "")
    if command.name in ("7z", "7za", "7zr"):
        return command.texts[:1] in (("a",), ("u",))
    return False


def _times(facts: Facts, command: Command) -> str | None:
    """What is wrong with the times of an archive that this command makes, in a sentence."""
    name = command.name
    if facts.is_faked(command) or facts.repairs or _only_copies(facts, command):
        return None
    sde = "SOURCE_DATE_EPOCH" in facts.assigned
    if name in ("tar", "bsdtar", "gtar") and _creates(command):
        if not (command.has("--mtime") or facts.value_has("TAR_OPTIONS", "--mtime") or facts.touches
                or any("--mtime" in word.text for variable, word in command.assignments if variable == "TAR_OPTIONS")):
            return "tar keeps the times of the files: neither --mtime, nor TAR_OPTIONS, nor touch sets them."
        compressed = "z" in tar_letters(command) or command.has("--gzip") or (
            ("a" in tar_letters(command) or command.has("--auto-compress"))
            and any(text.endswith((".tar.gz", ".tgz")) for text in command.texts))
        if compressed and not _gzip_is_plain(facts) and not all(map(has_new_gzip, facts.suites)):
            return "tar -z has gzip write the time of the build, as these suites' gzip does without -n."
    elif name == "zip" and _creates(command):
        if not facts.touches:
            return "zip keeps the times of the files, and nothing sets them: no touch, no faketime."
        if not command.has("-X", "--no-extra"):
            return "zip without -X also keeps when files were read, and whose they are."
    elif name in ("gzip", "pigz") and not command.has("-d", "-t", "-l", "--decompress", "--test", "--list"):
        if command.has("-n", "--no-name") or _gzip_is_plain(facts):
            return None
        reads_file = any(not text.startswith("-") for text in command.texts) or "xargs" in command.under \
            or "find" in command.under
        if reads_file and not facts.touches:
            return f"{name} without -n keeps the name and time of the file."
        if not reads_file and not all(map(has_new_gzip, facts.suites)):
            return f"{name} without -n writes the time of the build, as these suites' {name} does."
    elif name == "jar" and _creates(command) and not facts.touches and not command.has("--date"):
        return "jar keeps the times of the files and writes that of the build: there is neither --date nor touch."
    elif name in ("7z", "7za", "7zr") and _creates(command) and not facts.touches:
        return f"{name} keeps the times of the files, and nothing sets them."
    elif name == "cpio" and command.has("-o", "--create") and not facts.touches:
        return "cpio keeps the times of the files, and nothing sets them."
    elif name in _MKISOFS and not sde and not command.has("--modification-date"):
        return f"{name} writes the time of the build: neither SOURCE_DATE_EPOCH nor faketime sets it."
    elif name == "mksquashfs" and not sde and not (command.has("--mkfs-time") or "-mkfs-time" in command.texts
                                                   or "-all-time" in command.texts):
        return "mksquashfs writes the time of the build: neither SOURCE_DATE_EPOCH nor -mkfs-time sets it."
    elif name == "dpkg-deb" and command.has("-b", "--build") and not sde:
        return "dpkg-deb writes the time of the build: SOURCE_DATE_EPOCH is not set."
    return None


def _gzip_is_plain(facts: Facts) -> bool:
    return any(re.search(r"(^|\s)-\w*n|--no-name", word.text) for word in facts.assigned.get("GZIP", ())) \
        or "gzip" in facts.faked


def _only_copies(facts: Facts, command: Command) -> bool:
    """'tar -c | tar -x': what is packed is unpacked at once."""
    return any(other.position > command.position and other.name in ("tar", "bsdtar", "cpio", "ssh")
               and ("x" in tar_letters(other) or other.has("--extract", "-i", "--extract"))
               for other in facts.script.pipeline_of(command) if other is not command)


def _order(facts: Facts, command: Command) -> str | None:
    """What is wrong with the order of what this command puts together, in a sentence."""
    name, line = command.name, facts.script.pipeline_of(command)
    sorted_somewhere = any(other.name in ("sort", "msort") and not other.has("-R", "--random-sort") for other in line)
    if name == "ls" and command.has("-U", "-f"):
        return "ls -U lists in the order of the directory."
    if name in ("find", "fd"):
        eaters = [other.name for other in line if other.name in _ORDERED
                  and (other.position > command.position or name in other.under)]
        if eaters and not sorted_somewhere and not facts.repairs:
            return f"What find lists goes to {eaters[0]} in the order of the directory: there is no sort between."
    if name in _ORDERED:
        for word in command.words[1:]:
            for text, _ in word.inner:
                if re.match(r"\s*find\b", text) and not re.search(r"\|\s*(?:LC_ALL=\S+\s+)?sort\b", text):
                    return f"{name} takes what find lists in the order of the directory: there is no sort."
    if facts.repairs or _only_copies(facts, command) or not _creates(command):
        return None
    operands = _operands(command)
    if name in ("tar", "bsdtar", "gtar"):
        listed = command.has("-T", "--files-from") or "T" in tar_letters(command) or command.has("--no-recursion")
        ordered = command.has("--sort") or facts.value_has("TAR_OPTIONS", "--sort") or any(
            "--sort" in word.text for variable, word in command.assignments if variable == "TAR_OPTIONS")
        if not listed and not ordered and any(map(_may_be_directory, operands)):
            return "tar packs directories in the order that they are listed in: there is no --sort=name."
    elif name == "zip" and (command.has("-r", "--recurse-paths") or "-r" in command.texts):
        return "zip -r packs directories in the order that they are listed in; 'find | sort | zip -X@' does not."
    elif name == "jar" and any(map(_may_be_directory, operands)):
        return "jar packs directories in the order that they are listed in."
    elif name in ("7z", "7za", "7zr") and any(map(_may_be_directory, operands)):
        return f"{name} packs directories in the order that they are listed in."
    return None


def _operands(command: Command) -> list[str]:
    """The words that name what is packed: no options, and not the archive."""
    texts = list(command.texts)
    found: list[str] = []
    letters = texts[0] if texts and re.fullmatch(r"-?[A-Za-z0-9]+", texts[0]) else ""
    archive = bool(letters) and command.name in ("tar", "bsdtar", "gtar", "jar") and "f" in letters
    skip = 0
    for number, text in enumerate(texts):
        if skip:
            skip -= 1
        elif number == 0 and (letters.startswith("-") or (letters and command.name != "zip")):
            skip = letters.count("f") + ("m" in letters and command.name == "jar") if archive else 0
        elif text in ("-C", "-f", "--directory", "--file", "-T", "--files-from", "-X", "--exclude-from", "-I"):
            skip = 1
        elif text.startswith("-"):
            skip = 1 if re.fullmatch(r"-[A-Za-z]*f", text) else 0
        else:
            found.append(text)
    return found[1:] if command.name in ("7z", "7za", "7zr") else found


def _may_be_directory(text: str) -> bool:
    """Whether a word may name a directory. A name with an extension, or a pattern with one, is taken for a file."""
    last = text.rstrip("/").rpartition("/")[2]
    if text.endswith("/") or last in (".", "..", "*", ""):
        return True
    return re.search(r"\.[A-Za-z][A-Za-z0-9]{0,5}(\.[A-Za-z0-9]{1,4})?$|^[A-Z]{3,}$", last) is None


def _check_locale(facts: Facts, findings: Findings) -> None:
    plain = ("C", "POSIX", "C.UTF-8", "C.utf8", "en_US.UTF-8", "en_US.utf8")
    own = any(word.text in plain[:4] for word in facts.assigned.get("LC_ALL", ()))
    for command in facts.script.commands:
        named = [*command.assignments] + [
            (matched[1], word) for word in command.words[1:] if command.name in ("export", "declare", "env")
            and (matched := re.match(r"(LC_[A-Z]+|LANG|LANGUAGE)=", word.text))]
        for variable, word in named:
            value = word.text.partition("=")[2] if word in command.words else word.text
            if re.fullmatch(r"LC_[A-Z]+|LANG", variable) and value and value not in plain and "$" not in value:
                findings.add(rules.LOCALE, f"{variable} is '{value}', a locale that the guest may not have or that "
                             "sorts and speaks in its own way.", line=word.line, where="script")
        if command.name == "unset" and {"LC_ALL", "LANG"} & set(command.texts):
            findings.add(rules.LOCALE, "The locale is unset; C would be the same everywhere.", line=command.line,
                         where="script", severity=Severity.NOTE)
        if command.name == "sort" and not own and not any(variable in ("LC_ALL", "LC_COLLATE")
                                                          for variable, _ in command.assignments) \
                and not any(name == "env" for name in command.under) and any(
                    other.name in _ORDERED for other in facts.script.pipeline_of(command)):
            findings.add(rules.SORT_LOCALE, "sort goes by the guest's locale, en_US.UTF-8, whose order depends on the "
                         "version of glibc; with LC_ALL=C it does not.", line=command.line, where="script")
