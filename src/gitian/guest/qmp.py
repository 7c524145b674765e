"""qemu's control socket: JSON, one message per line (docs/interop/qmp-spec of qemu).

The socket's directory may be deep in a workspace and a socket's own address holds 107 bytes only, so the directory is
opened and the socket named through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gitian.errors import GuestError

#: The answers that we ask for are short; qemu is ours, but a guest has been at work in it (bytes).
_LIMIT = 2**20


@contextlib.contextmanager
def _near(path: Path) -> Iterator[str]:
    """A short address of a socket, good while the block runs."""
    number = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{number}/{path.name}"
    finally:
        os.close(number)


def listen(path: Path) -> socket.socket:
    """A listening socket that qemu inherits. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _near(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


class Qmp:
    """A connection to a running qemu; there is room for one at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = bytearray()

    @classmethod
    def connect(cls, path: Path, *, timeout: float = 10.0) -> Qmp:
        """Connect and agree. Raises GuestError when qemu is gone or does not answer within ``timeout`` seconds."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(timeout)
        try:
            with _near(path) as address:
                connected.connect(address)
            qmp = cls(connected)
            qmp._receive()  # the greeting
            qmp.execute("qmp_capabilities")
        except OSError as error:
            connected.close()
            raise GuestError(f"The guest's control socket '{path}' does not answer: {error}.",
                             hint="Is its qemu still running?") from error
        except BaseException:
            connected.close()
            raise
        return qmp

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Give a command; what it returns. Raises GuestError: refused, or qemu is gone."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = dict(arguments)
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            return self._answer(command)
        except OSError as error:
            raise GuestError(f"qemu did not answer '{command}': {error}.") from error

    def give(self, name: str, end: socket.socket) -> None:
        """Give qemu an open socket, which later commands call 'fd:NAME' (getfd). Raises GuestError."""
        message = {"execute": "getfd", "arguments": {"fdname": name}}
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode() + b"\n"], [end.fileno()])
            self._answer("getfd")
        except OSError as error:
            raise GuestError(f"qemu did not answer 'getfd': {error}.") from error

    def _answer(self, command: str) -> Any:
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise GuestError(f"qemu refused '{command}': {answer['error'].get('desc', 'no reason given')}.")

    def status(self) -> str:
        """'running', or why not: 'io-error' (the host's disk is full), 'paused', 'internal-error' ..."""
        return str(self.execute("query-status")["status"])

    def quit(self) -> None:
        """Let qemu end at once, without a word to the guest. It may be gone before it answers."""
        with contextlib.suppress(GuestError):
            self.execute("quit")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionResetError("it closed the connection")
            self._buffer += piece
            if len(self._buffer) > _LIMIT:
                raise ConnectionAbortedError("it sent a message without end")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        try:
            message = json.loads(line)
        except ValueError as error:
            raise ConnectionAbortedError("it sent something that is not JSON") from error
        if not isinstance(message, dict):
            raise ConnectionAbortedError("it sent something that is no message")
        return message
