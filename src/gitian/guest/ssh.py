"""One SSH connection to a guest, kept for the whole session. The only place that knows paramiko.

What is at the other end is hostile once a build has run there: what it sends is bounded here (packets, windows, output
kept), and nothing of it is believed but bytes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from gitian.errors import GitianError, GuestError
from gitian.guest.protocol import Result
from gitian.guest.ssh_wire import ending_line

if TYPE_CHECKING:
    import paramiko

Lost = Callable[[str], GuestError]

#: What a guest may have on its way to us per stream of a command; with a full window, sshd waits for us (bytes).
WINDOW = 4 * 2**20
#: OpenSSH sends packets of at most this size, and takes none larger (bytes; CHAN_SES_PACKET_DEFAULT).
_PACKET = 32 * 2**10
#: Of a command whose output streams elsewhere, this much of what it says on stderr is kept: the end (bytes).
_COMPLAINT = 64 * 2**10
#: AES in hardware, and no separate MAC, where it is there on both sides; the first is what a busy guest does fastest.
_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr")
_TICK = 0.5
#: After a command has ended, something it started may hold its output open: so long do we wait for more (seconds).
_AFTERMATH = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An ed25519 key: the private half in OpenSSH's own format, the public one as a line without comment."""

    private: str = field(repr=False)
    public: str


def make_key() -> Key:
    """A fresh key, made in this process."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return Key(private=key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH,
                                         forms.NoEncryption()).decode("ascii"),
               public=key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode("ascii"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a guest's sshd listens, who logs in, and the one host key (a public line) that it may show."""

    port: int
    host_key: str
    user: str = "root"
    address: str = "127.0.0.1"
    #: A directory in the guest, root's alone, for the process numbers of running commands.
    marks: str = "/run/gitian"


def _plain_loss(what: str) -> GuestError:
    return GuestError(what, hint="Look into var/target.log; start the guest again.")


class Connection:
    """An open connection. Commands may be run from several threads at once.

    ``lost`` makes the error for a guest that is gone, from a sentence that says what was going on; the backend adds
    why.
    """

    def __init__(self, transport: paramiko.Transport, live: set[paramiko.Channel], server: Server, *, lost: Lost,
                 patience: float) -> None:
        self._transport = transport
        self._live = live
        self._server = server
        self._lost = lost
        self._patience = patience
        self._token = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._answered = time.monotonic()
        self._hangs = False
        self._closing = threading.Event()
        for work in (self._ask, self._watch):
            threading.Thread(target=work, daemon=True, name=f"ssh-{work.__name__}").start()

    @classmethod
    def open(cls, server: Server, key: Key, *, timeout: float, lost: Lost = _plain_loss,
             patience: float = 120.0) -> Connection:
        """Connect and log in within ``timeout`` seconds.

        A guest that answers nothing for ``patience`` seconds, whatever it is asked, counts as hung. Raises GuestError,
        at once when the host key is another one.
        """
        until = time.monotonic() + timeout
        while True:
            try:
                live: set[paramiko.Channel] = set()
                transport = _connect(server, key, live, until - time.monotonic())
            except _NotYet as error:
                if time.monotonic() + 0.2 > until:
                    raise lost(f"The guest's SSH server could not be reached within {timeout:g} s: {error}.") from error
                time.sleep(0.2)
            else:
                return cls(transport, live, server, lost=lost, patience=patience)

    def mark(self) -> str:
        """A fresh name, in the guest, for a command's process number (see ssh_wire.command_line)."""
        return f"{self._server.marks}/command.{self._token}.{next(self._numbers)}"

    def run(self, line: bytes, *, what: str, mark: str | None = None, input: bytes | None = None,
            output: Callable[[bytes], None] | None = None, timeout: float | None = None,
            limit: int = 16 * 2**20) -> Result:
        """Run a line to its end; with ``output``, both streams go there as they come, else both are collected.

        ``what`` names the command in errors; ``mark`` lets it be ended when ``timeout`` (seconds) passes or we are
        interrupted. Raises GuestError: the guest died or hangs, the time has passed, more output than ``limit`` bytes.
        """
        with self._session(line, what, mark) as session:
            if output is not None:
                session.channel.set_combine_stderr(True)
            feeder = session.aside(lambda: session.feed_all(input or b""))
            errors = session.aside(lambda: session.collect(session.channel.recv_stderr, limit, timeout))
            if output is None:
                stdout = session.collect(session.channel.recv, limit, timeout)
            else:
                stdout = b""
                for piece in session.pieces(session.channel.recv, timeout):
                    output(piece)
            status = session.status(timeout)
            stderr = errors()
            # A command need not read all of its input.
            with contextlib.suppress(_Ended):
                feeder()
            return Result(status=status, stdout=stdout, stderr=stderr)

    def pipe(self, line: bytes, *, what: str, mark: str | None, stdin: Callable[[int], bytes] | None,
             stdout: Callable[[bytes], None], stderr: Callable[[bytes], None]) -> int:
        """Run a line as part of a pipeline on the host; its exit status. ``stdin`` is called in another thread."""
        with self._session(line, what, mark) as session:
            if stdin is None:
                session.close_input()
            else:
                session.aside(lambda: session.pour(stdin))  # nobody waits for input that the command did not want
            errors = session.aside(lambda: session.pass_on(session.channel.recv_stderr, stderr))
            session.pass_on(session.channel.recv, stdout)
            status = session.status(None)
            errors()
            return status

    def send(self, line: bytes, produce: Callable[[Callable[[bytes], object]], None], *, what: str,
             mark: str | None = None) -> Result:
        """Run a line whose standard input is what ``produce`` writes. Its stdout is thrown away.

        When the command ends before all was written, what it said comes back and ``produce`` is broken off.
        """
        with self._session(line, what, mark) as session:
            waste = session.aside(lambda: session.tail(session.channel.recv))
            errors = session.aside(lambda: session.tail(session.channel.recv_stderr))
            with contextlib.suppress(_Ended):
                produce(lambda data: session.feed(memoryview(data)))
                session.close_input()
            status = session.status(None)
            waste()
            return Result(status=status, stderr=errors())

    def receive(self, line: bytes, consume: Callable[[Callable[[int], bytes]], None], *, what: str,
                mark: str | None = None) -> Result:
        """Run a line whose standard output ``consume`` reads: up to n bytes, all of them unless it ends.

        When the command fails, or the guest dies, that is the news, and not what ``consume`` makes of a stream that is
        cut short.
        """
        with self._session(line, what, mark) as session:
            session.close_input()
            errors = session.aside(lambda: session.tail(session.channel.recv_stderr))
            raw = _Receiving(session)
            reader = io.BufferedReader(raw, 8 * _PACKET)
            try:
                consume(reader.read)
                while reader.read(8 * _PACKET):
                    pass  # what follows the archive's end; the status comes after it
            except GitianError:
                if not raw.ended or session.status(None) == 0:
                    raise
            return Result(status=session.status(None), stderr=errors())

    def close(self) -> None:
        """Close the connection; commands that still run see their input end."""
        self._closing.set()
        self._transport.close()

    @contextlib.contextmanager
    def _session(self, line: bytes, what: str, mark: str | None) -> Iterator[_Session]:
        import paramiko

        try:
            channel = self._transport.open_session(window_size=WINDOW, max_packet_size=_PACKET,
                                                   timeout=self._patience)
            self._live.add(channel)
            channel.settimeout(_TICK)
            channel.exec_command(line)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._gone(f"'{what}' could not be started in the guest: {_said(error)}.") from error
        session = _Session(self, channel, what)
        try:
            yield session
        except BaseException:
            if mark is not None:
                self._end(mark)
            raise
        finally:
            session.over.set()
            channel.close()
            self._live.discard(channel)

    def _end(self, mark: str) -> None:
        """End what runs under ``mark``; a guest that cannot even do that is ended by its owner anyway."""
        if not self._transport.is_active():
            return
        with contextlib.suppress(Exception):
            channel = self._transport.open_session(timeout=10)
            channel.settimeout(10)
            channel.exec_command(ending_line(mark))
            channel.recv(1)
            channel.close()

    def _gone(self, what: str) -> GuestError:
        if self._hangs:
            return self._lost(f"{what.rstrip('.')}: the guest has answered nothing for {self._patience:g} s.")
        return self._lost(what)

    def _ask(self) -> None:
        """Ask the server for something it does not know, and note that it answers (as OpenSSH's client does)."""
        while not self._closing.wait(min(15.0, self._patience / 4)) and self._transport.is_active():
            with contextlib.suppress(Exception):
                self._transport.global_request("keepalive@openssh.com", wait=True)
                if self._transport.is_active():
                    self._answered = time.monotonic()

    def _watch(self) -> None:
        while not self._closing.wait(_TICK) and self._transport.is_active():
            if time.monotonic() - self._answered > self._patience:
                self._hangs = True
                self._transport.close()


class _Session:
    """One command on the connection."""

    def __init__(self, connection: Connection, channel: paramiko.Channel, what: str) -> None:
        self.connection = connection
        self.channel = channel
        self.what = what
        self.started = time.monotonic()
        self.over = threading.Event()

    def aside(self, work: Callable[[], bytes | None]) -> Callable[[], bytes]:
        """Do ``work`` in a thread of its own; the result is a function that waits for what came of it."""
        found: list[bytes] = []
        failed: list[BaseException] = []

        def body() -> None:
            try:
                found.append(work() or b"")
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=body, daemon=True, name="ssh-aside")
        thread.start()

        def wait() -> bytes:
            while thread.is_alive():
                thread.join(_TICK)
                if self.connection._hangs or not self.connection._transport.is_active():
                    thread.join(2 * _TICK)
                    break
            if failed:
                raise failed[0]
            return found[0] if found else b""

        return wait

    def pieces(self, receive: Callable[[int], bytes], timeout: float | None) -> Iterator[bytes]:
        """What comes out of one stream, as it comes, until it ends."""
        silent_since: float | None = None
        while True:
            try:
                piece = receive(8 * _PACKET)
            except TimeoutError:
                self.in_time(timeout)
                if not self.channel.exit_status_ready():
                    continue
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _AFTERMATH:
                    return
                continue
            silent_since = None
            if not piece:
                return
            yield piece
            self.in_time(timeout)

    def collect(self, receive: Callable[[int], bytes], limit: int, timeout: float | None) -> bytes:
        """All of one stream; GuestError when it is longer than ``limit``."""
        kept = bytearray()
        for piece in self.pieces(receive, timeout):
            kept += piece
            if len(kept) > limit:
                raise GuestError(f"'{self.what}' said more than {limit} bytes in the guest.")
        return bytes(kept)

    def tail(self, receive: Callable[[int], bytes]) -> bytes:
        """The end of one stream."""
        kept = bytearray()
        for piece in self.pieces(receive, None):
            kept += piece
            if len(kept) > 2 * _COMPLAINT:
                del kept[:-_COMPLAINT]
        return bytes(kept[-_COMPLAINT:])

    def pass_on(self, receive: Callable[[int], bytes], sink: Callable[[bytes], None]) -> None:
        """Give what comes out of one stream to a sink, until it ends."""
        for piece in self.pieces(receive, None):
            sink(piece)

    def pour(self, read: Callable[[int], bytes]) -> None:
        """Send what is read, until it ends or the command takes no more."""
        with contextlib.suppress(_Ended):
            while data := read(_PACKET):
                self.feed(memoryview(data))
        self.close_input()

    def feed_all(self, data: bytes) -> None:
        self.feed(memoryview(data))
        self.close_input()

    def close_input(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.channel.shutdown_write()

    def feed(self, data: memoryview) -> None:
        """Send all of ``data``; raises _Ended when the command takes no more."""
        while data:
            try:
                sent = self.channel.send(bytes(data[:_PACKET]))
            except TimeoutError:
                if self.over.is_set() or self.channel.exit_status_ready():
                    raise _Ended from None
                continue
            except (OSError, EOFError):
                raise _Ended from None
            if sent == 0:
                raise _Ended
            data = data[sent:]

    def status(self, timeout: float | None) -> int:
        """The exit status, once the command has ended; GuestError when the guest ended first."""
        while not self.channel.exit_status_ready():
            self.channel.status_event.wait(_TICK)
            self.in_time(timeout)
        status = self.channel.recv_exit_status()
        if status < 0:
            self.fail("the connection ended")
        return status

    def in_time(self, timeout: float | None) -> None:
        if timeout is not None and time.monotonic() - self.started > timeout:
            raise GuestError(f"'{self.what}' did not end within {timeout:g} s in the guest.")

    def fail(self, why: str) -> NoReturn:
        raise self.connection._gone(f"The guest was lost while '{self.what}' ran: {why}.")


class _Receiving(io.RawIOBase):
    """A command's standard output as a file."""

    def __init__(self, session: _Session) -> None:
        super().__init__()
        self._pieces = session.pieces(session.channel.recv, None)
        self._rest = memoryview(b"")
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
            self.ended = not self._rest
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Ended(Exception):
    """The command takes no more input; its status says why."""


class _NotYet(Exception):
    """Nobody answers yet, or not properly: a server that is just starting does that."""


def _said(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def _connect(server: Server, key: Key, live: set[paramiko.Channel], patience: float) -> paramiko.Transport:
    import paramiko

    quiet = logging.getLogger("paramiko")
    if not quiet.handlers:  # else Python's handler of last resort prints what a guest made it say
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
    patience = max(patience, 1.0)
    try:
        connected = socket.create_connection((server.address, server.port), timeout=patience)
    except OSError as error:
        raise _NotYet(_said(error)) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = _transport(connected, live)
    try:
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = patience
        private = paramiko.Ed25519Key.from_private_key(io.StringIO(key.private))
        transport.start_client(timeout=patience)
        shown = transport.get_remote_server_key()
        if f"{shown.get_name()} {shown.get_base64()}" != " ".join(server.host_key.split()[:2]):
            raise GuestError("The SSH server that answers is not this guest's: it shows another host key.",
                             hint="Another program listens on this port; start the guest again.")
        transport.auth_publickey(server.user, private)
    except paramiko.AuthenticationException as error:
        transport.close()
        raise GuestError(f"The guest's SSH server does not accept our key: {_said(error)}.") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        raise _NotYet(_said(error)) from error
    except BaseException:
        transport.close()
        raise
    return transport


def _transport(connected: socket.socket, live: set[paramiko.Channel]) -> paramiko.Transport:
    """A transport that is fast, renews its keys rarely, and keeps a flood out of memory."""
    import paramiko
    from paramiko.packet import Packetizer

    class Bounded(Packetizer):
        # RFC 4253 asks for new keys after a gigabyte because of old ciphers; for AES the bound is 2**36 bytes and
        # more, and an exchange of keys costs seconds in an emulated guest.
        REKEY_BYTES = 2**35

        def read_all(self, n: int, check_rekey: bool = False) -> bytes:
            if n > 16 * _PACKET:
                raise paramiko.SSHException("a packet beyond all bounds")
            return super().read_all(n, check_rekey)

        def read_message(self) -> tuple[int, paramiko.Message]:
            # A server that heeds the windows we give never comes near this.
            if any(len(channel.in_buffer) + len(channel.in_stderr_buffer) > 4 * WINDOW for channel in tuple(live)):
                raise paramiko.SSHException("more data than was asked for")
            return super().read_message()

    transport = paramiko.Transport(connected, default_window_size=WINDOW, default_max_packet_size=_PACKET,
                                   packetizer_class=Bounded)
    options = transport.get_security_options()
    options.ciphers = [name for name in _CIPHERS if name in options.ciphers] or options.ciphers
    options.key_types = ["ssh-ed25519"]
    options.kex = [name for name in options.kex if name.startswith("curve25519")] or options.kex
    return transport
