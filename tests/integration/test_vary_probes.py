"""Each variation in real guests: it changes what its own probe and its own fault see, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gitian.build.target import build_target
from gitian.build.varied import seen_path
from gitian.errors import NotVariedError
from gitian.guest.kvm import KvmBackend
from gitian.guest.protocol import Guest
from gitian.vary import wrapper
from gitian.vary.probe import circumstances
from gitian.vary.variations import VARIATIONS, available, changes_for
from tests.integration import kvm_kit, lxc_kit
from tests.integration.vary_kit import SCRIPT, Builder, Seen

#: Made in the guest alone, of any machine.
IN_THE_GUEST = [name for name, entry in VARIATIONS.items()
                if entry.usual and "lxc" in entry.backends and name != "seed"]
#: What takes another virtual machine.
MACHINES = {"cpu", "memory", "cold"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A guest that is there, how it is built in, and what the usual build gave."""

    guest: Guest
    builder: Builder
    usual: Seen


@pytest.fixture(scope="module")
def lxc(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("lxc")
    builder = Builder(root=root, images=images, backend="lxc")
    with lxc_kit.running(root, images) as guest:
        yield Place(guest=guest, builder=builder, usual=builder.build(guest))


@pytest.mark.lxc
def test_the_usual_build_is_the_same_again(lxc: Place) -> None:
    assert lxc.usual.status == 0 and len(lxc.usual.outputs) > 20
    assert set(IN_THE_GUEST) <= set(lxc.usual.probes)
    again = lxc.builder.build(lxc.guest)
    assert again.differs(lxc.usual) == (set(), set())


@pytest.mark.lxc
@pytest.mark.parametrize("name", IN_THE_GUEST)
def test_a_variation_changes_its_own_probe_and_fault_alone(lxc: Place, name: str) -> None:
    assert available(VARIATIONS[name], lxc.builder.setting) == ""
    seen = lxc.builder.build(lxc.guest, frozenset({name}))
    assert seen.status == 0
    probes, faults = seen.differs(lxc.usual)
    assert probes == {name}
    assert name in faults and faults <= {name} | VARIATIONS[name].implies


@pytest.mark.lxc
def test_all_at_once_and_everything_is_put_back(lxc: Place) -> None:
    seen = lxc.builder.build(lxc.guest, frozenset(IN_THE_GUEST))
    assert seen.status == 0
    assert seen.differs(lxc.usual) == (set(IN_THE_GUEST), set(IN_THE_GUEST))
    about = circumstances(seen.raw)
    assert (about.user, about.uid, about.gid) == (wrapper.USER, wrapper.UID, wrapper.GID)
    assert (about.home, about.paths) == (wrapper.HOME, (f"{wrapper.PLACE}/build",))
    assert (about.hostname, about.domain, about.umask) == (wrapper.HOST, wrapper.DOMAIN, 0o022)
    assert (about.cores, about.memory, about.aslr, about.sh) == (1, 1280, False, "/usr/bin/bash")
    usual = circumstances(lxc.usual.raw)
    assert usual.time is not None and about.time is not None and about.time[0] - usual.time[1] > 300 * 86400
    assert about.pids is not None and 10000 < about.pids[0] < about.pids[1]

    left = lxc.guest.run(["sh", "-c", "id -un; hostname; readlink /bin/sh; date +%Z; ls -ld out build | cut -c 1; "
                                      "cat out/user; ls /etc/ld.so.preload /srv/another /var/lib/gitian-vary || :"])
    assert left.stdout.decode().split() == ["debian", "gitian", "dash", "UTC", "d", "d", wrapper.USER, wrapper.USER]
    assert lxc.builder.build(lxc.guest).differs(lxc.usual) == (set(), set())


@pytest.mark.lxc
def test_the_status_is_the_scripts_and_what_was_seen_stays(lxc: Place) -> None:
    failing = replace(lxc.builder, script=SCRIPT + "exit 7\n")
    seen = failing.build(lxc.guest, frozenset({"uid", "home", "path", "filesystem"}))
    assert seen.status == 7 and seen.probes["filesystem"] == "tmpfs"
    assert lxc.guest.run(["cat", "out/filesystem"]).stdout == b"tmpfs\n", "the guest's user reads it, whoever wrote it"
    assert lxc.guest.run(["stat", "-c", "%U", "out", "out/home"]).stdout == b"debian\ndebian\n"


@pytest.mark.lxc
def test_a_guest_that_cannot_be_varied_is_no_failed_build(lxc: Place) -> None:
    hide, show = (["mv", *pair] for pair in (("/usr/bin/gcc", "/usr/bin/no-gcc"), ("/usr/bin/no-gcc", "/usr/bin/gcc")))
    lxc.guest.run(hide, user="root")
    try:
        with pytest.raises(NotVariedError, match="could not be varied(?s:.*)gcc") as raised:
            lxc.builder.build(lxc.guest, frozenset({"file-order", "umask", "hostname"}))
        assert raised.value.names == {"file-order"}
    finally:
        lxc.guest.run(show, user="root")
    assert lxc.builder.build(lxc.guest, frozenset({"file-order"})).status == 0


@pytest.mark.lxc
def test_a_build_that_does_not_fit_into_memory_is_no_failed_build(lxc: Place) -> None:
    # Half of the 1024 MiB that these builds have. It says nothing of it, and leaves what it has written.
    large = replace(lxc.builder, script="head -c 600M /dev/zero >large 2>/dev/null\n")
    with pytest.raises(NotVariedError, match="does not fit"):
        large.build(lxc.guest, frozenset({"filesystem", "umask"}))
    assert lxc.guest.run(["sh", "-c", "rm -f build/large; stat -f -c %T build"]).stdout != b"tmpfs\n"


#: Waits for a second in all ways that take a time of the clock; what it waits for never comes.
WAITS = r"""
#define _GNU_SOURCE
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
#define TRY(what, call) do { clock_gettime(CLOCK_REALTIME, &t); t.tv_nsec = 0; t.tv_sec += 1; \
    puts(what); fflush(stdout); if (!(call)) { puts("that went wrong"); return 1; } } while (0)
static void *sleeper(void *p) { pause(); return p; }
int main(void)
{
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
    struct timespec t, steady, zero = {0, 0};
    struct timezone zone;
    pthread_t thread;
    sem_t s;
    cnd_t cc;
    mtx_t mm, other;
    timer_t timer;
    sigset_t set;
    uint64_t n;
    int fd = timerfd_create(CLOCK_REALTIME, 0);
    gettimeofday(NULL, &zone);
    pthread_create(&thread, NULL, sleeper, NULL);
    pthread_mutex_lock(&held); pthread_mutex_lock(&m); pthread_rwlock_wrlock(&rw); sem_init(&s, 0, 0);
    cnd_init(&cc); mtx_init(&mm, mtx_timed); mtx_lock(&mm); mtx_init(&other, mtx_timed); mtx_lock(&other);
    sigemptyset(&set); sigaddset(&set, SIGALRM); sigprocmask(SIG_BLOCK, &set, NULL);
    TRY("condition", pthread_cond_timedwait(&c, &m, &t) == 110);
    TRY("condition, a clock", pthread_cond_clockwait(&c, &m, CLOCK_REALTIME, &t) == 110);
    clock_gettime(CLOCK_MONOTONIC, &steady);
    TRY("condition, the steady clock", pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &steady) == 110);
    TRY("mutex", pthread_mutex_clocklock(&held, CLOCK_REALTIME, &t) == 110);
    TRY("read", pthread_rwlock_clockrdlock(&rw, CLOCK_REALTIME, &t) != 0);
    TRY("write", pthread_rwlock_clockwrlock(&rw, CLOCK_REALTIME, &t) != 0);
    TRY("semaphore", sem_clockwait(&s, CLOCK_REALTIME, &t) != 0);
    TRY("join", pthread_timedjoin_np(thread, NULL, &t) == 110);
    TRY("join, a clock", pthread_clockjoin_np(thread, NULL, CLOCK_REALTIME, &t) == 110);
    TRY("C condition", cnd_timedwait(&cc, &mm, &t) == thrd_timedout);
    TRY("C mutex", mtx_timedlock(&other, &t) == thrd_timedout);
    TRY("timer's file", timerfd_settime(fd, TFD_TIMER_ABSTIME, &(struct itimerspec){zero, t}, NULL) == 0
        && read(fd, &n, 8) == 8 && n == 1);
    TRY("timer", timer_create(CLOCK_REALTIME, NULL, &timer) == 0
        && timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){zero, t}, NULL) == 0
        && sigwaitinfo(&set, NULL) == SIGALRM);
    return 0;
}
"""


@pytest.mark.lxc
def test_a_clock_that_is_shown_leaves_waiting_alone(lxc: Place) -> None:
    """A deadline by the other clock is waited for as long as by the real one; who asks for the zone alone gets it."""
    script = f"cat >w.c <<'END'\n{WAITS}END\ngcc -o w w.c -pthread\ntimeout 120 ./w && echo waited >$OUTDIR/clock\n"
    builder = replace(lxc.builder, script=script)
    assert builder.build(lxc.guest, frozenset({"clock"})).status == 0


@pytest.mark.lxc
def test_a_target_is_built_varied_from_its_layer(images: Path, tmp_path: Path) -> None:
    """The whole way of a target: the usual build is what gbuild gives, with probes or without."""
    outputs: list[dict[str, bytes]] = []
    for number, names in enumerate((None, frozenset[str](), frozenset({"hostname", "uid", "clock"}))):
        builder = Builder(root=tmp_path, images=images, backend="lxc", script="hostname >$OUTDIR/hostname\n"
                          "touch m\nstat -c %u m >$OUTDIR/uid\ndate +%Y >$OUTDIR/clock\npwd >$OUTDIR/path\n")
        (tmp_path / "result").mkdir(exist_ok=True)
        scratch = tmp_path / str(number)
        scratch.mkdir()
        changes = changes_for(names, builder.setting) if names is not None else None
        outcome = build_target(builder.request(changes), scratch)
        outputs.append({path.name: path.read_bytes() for path in outcome.out.iterdir()})
        assert seen_path(tmp_path / "var", "").exists() == (names is not None)
    assert len(outputs[0]) == 4 and outputs[0] == outputs[1]
    assert {name for name in outputs[0] if outputs[2][name] != outputs[0][name]} == {"hostname", "uid", "clock"}
    assert lxc_kit.left_behind(tmp_path) == [f"{tmp_path}/target-bookworm-amd64"], "what it has written stays, as ever"


@pytest.mark.kvm
def test_virtual_machines(images: Path, tmp_path: Path) -> None:
    builder = Builder(root=tmp_path, images=images, backend="kvm")
    layer = tmp_path / "layer"
    KvmBackend().start(kvm_kit.request(tmp_path, images)).freeze(layer)
    with kvm_kit.running(tmp_path, images, layer=layer) as guest:
        usual = builder.build(guest)
        assert usual.status == 0 and {*IN_THE_GUEST, *MACHINES} <= set(usual.probes)
        clock = builder.build(guest, frozenset({"clock"}))
        assert clock.differs(usual) == ({"clock"}, {"clock"})
        names = frozenset(IN_THE_GUEST) - MACHINES - {"clock"}
        seen = builder.build(guest, names)
        assert seen.status == 0 and seen.differs(usual) == (set(names), set(names))

    # All of these machines boot, so that one tells about them; each is asked for what it is by the probe of its own.
    machine = changes_for(frozenset(MACHINES), builder.setting).machine
    assert machine is not None
    with kvm_kit.running(tmp_path, images, layer=layer, machine=machine) as guest:
        other = builder.build(guest)
        probes, faults = other.differs(usual)
        assert probes == MACHINES
        assert faults == MACHINES
