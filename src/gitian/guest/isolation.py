"""Is a guest that was started without a network really cut off? Tried from inside, as its root.

A probe of each kind that a program could use, all at once: DNS, TCP, UDP and ICMP, to where the emulated network has
its services and to an address of nobody's (RFC 5737, RFC 3849); and the ways that are in no network namespace, sockets
to a hypervisor (vsock(7)) and io_uring(7), which makes sockets behind the back of a seccomp profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from gitian.errors import GuestError
from gitian.guest.protocol import DNS_ADDRESS, HOST_ADDRESS, Guest
from gitian.host import progress

_NOBODY = "192.0.2.1"
_NOBODY_6 = "2001:db8::1"
#: A name that stands for the world: whether it is found or not, who says so is a name server.
_NAME = "www.example.org"

#: The number of io_uring_setup(2), the same for every architecture, and AF_VSOCK.
_IO_URING_SETUP = 425
_AF_VSOCK = 40
#: The hypervisor, to a virtual machine (VMADDR_CID_HOST).
_HYPERVISOR = 2
#: Where guests have the host's own kernel, these are not to open at all. 32-bit programs make sockets by socketcall(2),
#: which no seccomp profile can look into: in their guests the first is not tried.
_VSOCK_OPENS = "vsock opens"
_RING_OPENS = "io_uring opens"

#: How long the probe waits for answers (seconds). Where packets are refused at once, it does not wait at all.
_PATIENCE = 3
_TIMEOUT = 120.0

#: What qemu itself says with restrict=on: it refuses every connection, and is at home at its own addresses.
_GATEWAY = re.compile(rf"tcp \S+: answered \(Connection refused\)|icmp (?:{HOST_ADDRESS}|{DNS_ADDRESS}): ")

_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_ANSWER = re.compile(r"([a-z0-9_]+ \S+): (refused|silent|answered) \((.*)\)")

# Arguments: the patience, then words KIND TARGET. Only what perl-base has. A line per probe: 'refused': the guest's own
# kernel would not send it; 'silent': sent, and nothing came; 'answered': something out there heard it.
_PROBE = r"""
use strict;
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 getaddrinfo AF_INET6 EAI_AGAIN EAI_FAIL);
use Errno qw(EINPROGRESS ENODEV EHOSTUNREACH ETIMEDOUT EAGAIN EINTR);
$| = 1;
my $patience = shift;
my (%open, %said);
sub told { my ($probe, $how, $why) = @_; $said{$probe} = 1; $why =~ s/[^ -~]/?/g; print "$probe: $how ($why)\n"; }
sub checksum { my $sum = 0; $sum += $_ for unpack("n*", $_[0]); $sum = ($sum >> 16) + ($sum & 0xffff) while $sum >> 16;
               return ~$sum & 0xffff; }
my $query = pack("n6", 4711, 0x100, 1, 0, 0, 0) . join("", map { chr(length) . $_ } split(/\./, "__NAME__"))
    . pack("Cn2", 0, 1, 1);
for my $probe (@ARGV) {
    my ($kind, $target) = split(/ /, $probe);
    if ($kind eq "io_uring") {
        my $parameters = "\0" x 120;
        my $ring = syscall(__IO_URING_SETUP__, 1, $parameters);
        if ($ring < 0) { told($probe, "refused", "$!"); } else { told($probe, "answered", "it opens"); }
        next;
    }
    if ($kind eq "vsock") {
        my $socket;
        if (!socket($socket, __AF_VSOCK__, SOCK_STREAM, 0)) { told($probe, "refused", "$!"); }
        elsif ($target eq "opens") { told($probe, "answered", "it opens"); }
        elsif (connect($socket, pack("S2L2x4", __AF_VSOCK__, 0, 22, $target))) { told($probe, "answered", "yes"); }
        # A kernel that has such sockets, and no device for them.
        elsif ($! == ENODEV) { told($probe, "refused", "$!"); }
        else { told($probe, $! == ETIMEDOUT ? "silent" : "answered", "$!"); }
        next;
    }
    if ($kind eq "name") {
        pipe(my $in, my $out) or die "pipe: $!\n";
        my $child = fork();
        defined $child or die "fork: $!\n";
        if (!$child) {
            my ($error) = getaddrinfo($target, "80", {socktype => SOCK_STREAM});
            # 'Try again' and 'failed': no name server has said anything about the name.
            my $none = $error && ($error == EAI_AGAIN || $error == EAI_FAIL);
            syswrite($out, ($none ? "refused" : "answered") . " " . ($error || "found"));
            kill "KILL", $$;
        }
        close($out);
        $open{$probe} = {kind => $kind, socket => $in, child => $child};
        next;
    }
    my ($host, $port) = $target =~ /^\[?(.*?)\]?(?::(\d+))?$/ or die "$probe\n";
    my $six = $host =~ /:/;
    my $address = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host))
        : pack_sockaddr_in($port || 0, inet_aton($host));
    my ($type, $protocol) = $kind =~ /tcp/ ? (SOCK_STREAM, 0) : $kind eq "icmp" ? (SOCK_RAW, 1) : (SOCK_DGRAM, 0);
    my $socket;
    my $done = socket($socket, $six ? AF_INET6 : AF_INET, $type | Socket::SOCK_NONBLOCK(), $protocol)
        && (connect($socket, $address) || ($kind =~ /tcp/ && $! == EINPROGRESS));
    if ($done && $kind !~ /tcp/) {
        my $echo = "gitian" x 4;
        $echo = pack("C2n3a*", 8, 0, checksum(pack("C2n3a*", 8, 0, 0, $$ & 0xffff, 1, $echo)), $$ & 0xffff, 1, $echo);
        $done = send($socket, $kind eq "icmp" ? $echo : $query, 0);
    }
    if (!$done) { told($probe, "refused", "$!"); next; }
    $open{$probe} = {kind => $kind, socket => $socket};
}
my $until = time() + $patience;
while (%open && time() <= $until) {
    my ($read, $write) = ("", "");
    for my $one (values %open) { vec($one->{kind} =~ /tcp/ ? $write : $read, fileno($one->{socket}), 1) = 1; }
    select($read, $write, undef, 0.5) > 0 or next;
    for my $probe (keys %open) {
        my ($kind, $socket) = @{$open{$probe}}{"kind", "socket"};
        vec($kind =~ /tcp/ ? $write : $read, fileno($socket), 1) or next;
        if ($kind eq "name") {
            sysread($socket, my $word, 200);
            $word =~ /^(\w+) (.*)/ ? told($probe, $1, $2) : told($probe, "silent", "the resolver ended");
        } elsif ($kind =~ /tcp/) {
            my $error = unpack("i", getsockopt($socket, SOL_SOCKET, SO_ERROR));
            local $! = $error;
            # Nobody of that address on the link, or no word at all: else the error is what somebody has answered.
            told($probe, $! == EHOSTUNREACH || $! == ETIMEDOUT ? "silent" : "answered", $error ? "$!" : "connected");
        } else {
            if (defined recv($socket, my $data, 2000, 0)) {
                told($probe, "answered", length($data) . " bytes");
            } else {
                next if $! == EAGAIN || $! == EINTR;
                told($probe, "answered", "$!");  # somebody has sent an ICMP error
            }
        }
        close($socket);
        waitpid($open{$probe}{child}, 0) if $open{$probe}{child};
        delete $open{$probe};
    }
}
for my $probe (keys %open) {
    kill "KILL", $open{$probe}{child} if $open{$probe}{child};
    told($probe, "silent", "no answer within $patience s");
}
"""
for _blank, _value in (("NAME", _NAME), ("IO_URING_SETUP", _IO_URING_SETUP), ("AF_VSOCK", _AF_VSOCK)):
    _PROBE = _PROBE.replace(f"__{_blank}__", str(_value))


@runtime_checkable
class GatewayGuest(Protocol):
    """A guest whose backend's own emulated gateway may answer it, though nothing else does."""

    gateway_answers: bool


@runtime_checkable
class SharedKernelGuest(Protocol):
    """A guest that has no kernel of its own: what is in no namespace has to be kept from it."""

    shares_kernel: bool


def check_isolation(guest: Guest, *, host_address: str = HOST_ADDRESS) -> tuple[str, ...]:
    """Try to reach something from inside a guest, in every way; lines 'KIND TARGET: refused (why)', sorted.

    Raises GuestError: something answered, or not everything could be tried.
    """
    wanted = tuple(_probes(host_address, guest))
    answers = try_out(guest, wanted)
    gateway = isinstance(guest, GatewayGuest) and guest.gateway_answers
    heard = [line for how, line in answers.values() if how == "answered" and not (gateway and _GATEWAY.match(line))]
    opened = [line for line in heard if line.startswith((f"{_VSOCK_OPENS}:", f"{_RING_OPENS}:"))]
    if heard != opened:
        raise GuestError("The guest was to have no network, and has been answered from outside: "
                         + "\n  ".join(["", *heard]), hint="Is the guest's kernel or the backend not the usual one?")
    if opened:
        raise GuestError("The guest was to have no network, and its seccomp profile leaves a way to one: "
                         + "\n  ".join(["", *opened]),
                         hint="lxc needs a libseccomp that knows io_uring (that of Debian 11, Ubuntu 20.04 or later).")
    return tuple(line for _, line in answers.values())


def try_out(guest: Guest, probes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """What became of each probe: ('refused', 'silent' or 'answered', the whole line). Raises GuestError."""
    # The script goes by standard input: a long argument is shown in every list of processes.
    done = guest.run(["perl", "-", str(_PATIENCE), *probes], user="root", input=_PROBE.encode(), check=False,
                     timeout=_TIMEOUT, limit=2**16)
    found = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        match = _ANSWER.fullmatch(line)
        if match is not None and match[1] in probes:
            found[match[1]] = (match[2], progress.plain(line))
    missing = [probe for probe in probes if probe not in found]
    if done.status != 0 or missing:
        said = progress.plain(" / ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:]))
        raise GuestError("Whether the guest is cut off could not be tried: "
                         + (f"no word of {len(missing)} probe(s), such as '{missing[0]}'; " if missing else "")
                         + f"perl ended with status {done.status}: {said or 'it said nothing'}.",
                         hint="perl comes with every Debian and Ubuntu (perl-base). Does a package replace it?")
    return dict(sorted(found.items()))


def _probes(host_address: str, guest: Guest) -> Iterator[str]:
    yield from _outside(host_address)
    if isinstance(guest, SharedKernelGuest) and guest.shares_kernel:
        yield _RING_OPENS
        if not guest.label.endswith("-i386"):
            yield _VSOCK_OPENS
    else:
        yield f"vsock {_HYPERVISOR}"


def _outside(host_address: str) -> Iterator[str]:
    yield f"dns {DNS_ADDRESS}:53"
    yield f"name {_NAME}"
    more = (host_address,) if _ADDRESS.fullmatch(host_address) else ()
    for host in dict.fromkeys((HOST_ADDRESS, *more, DNS_ADDRESS, _NOBODY)):
        yield f"icmp {host}"
        yield f"udp {host}:123"
        for port in (22, 53, 80, 443):
            yield f"tcp {host}:{port}"
    yield f"tcp6 [{_NOBODY_6}]:80"
