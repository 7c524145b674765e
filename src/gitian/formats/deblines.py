"""Lines of sources.list(5), as a guest has them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def deb_words(line: str) -> list[str]:
    """The words of a 'deb' line of sources.list(5) without its options, [] of any other line."""
    words = line.split()
    if words[:1] != ["deb"]:
        return []
    if len(words) > 1 and words[1].startswith("["):
        end = next((number for number, word in enumerate(words) if word.endswith("]")), len(words))
        return [words[0], *words[end + 1:]]
    return words


def seen_from_here(url: str, host_address: str) -> str:
    """A guest's URL as this machine reaches it: the host's address in the guest is our own."""
    parts = urlsplit(url)
    if parts.hostname != host_address:
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"127.0.0.1{port}"))
