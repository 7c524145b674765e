/* What a guest under 'gitian vary' preloads into its programs, where the kernel is not the guest's own to change:
 * another clock (-DOFFSET=SECONDS -DSTART=SECONDS) and another order of directories' entries (-DORDER=NUMBER).
 * docs/reference/variations.md says what it reaches and what not. Compiled in the guest, for glibc.
 *
 * Times of files: what was written since START shows the other clock's time, whatever was there before its own.
 * Times that come back (a deadline reckoned by the other clock) are told from others by their size.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <features.h>
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#if defined(OFFSET) && __GLIBC_PREREQ(2, 28)
#include <threads.h>
#endif
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#ifdef OFFSET
static int is_wall(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI;
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    int result = (int)syscall(SYS_clock_gettime, id, at);
    if (result == 0 && is_wall(id))
        at->tv_sec += OFFSET;
    return result;
}

static struct timespec now(void)
{
    struct timespec at = {0, 0};
    clock_gettime(CLOCK_REALTIME, &at);
    return at;
}

time_t time(time_t *where)
{
    time_t seconds = now().tv_sec;
    if (where)
        *where = seconds;
    return seconds;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    /* Some ask for the zone alone; the header says that nobody does, so the compiler would leave the question out. */
    struct timeval *volatile where = at;
    struct timespec moment = now();
    if (zone)
        memset(zone, 0, sizeof(struct timezone));
    if (where) {
        at->tv_sec = moment.tv_sec;
        at->tv_usec = moment.tv_nsec / 1000;
    }
    return 0;
}

int timespec_get(struct timespec *at, int base)
{
    if (base != TIME_UTC)
        return 0;
    *at = now();
    return base;
}

#if defined(__i386__) && defined(SYS_clock_gettime64)
/* 32-bit programs that were built for times of 64 bits. */
struct long_time { int64_t seconds; int32_t nanoseconds; int32_t padding; };

int __clock_gettime64(clockid_t id, struct long_time *at)
{
    int result = (int)syscall(SYS_clock_gettime64, id, at);
    if (result == 0 && is_wall(id))
        at->seconds += OFFSET;
    return result;
}

int64_t __time64(int64_t *where)
{
    int64_t seconds = now().tv_sec;
    if (where)
        *where = seconds;
    return seconds;
}

int __gettimeofday64(int64_t at[2], void *zone)
{
    struct timespec moment = now();
    if (zone)
        memset(zone, 0, sizeof(struct timezone));
    if (at) {
        at[0] = moment.tv_sec;
        at[1] = 0;
        *(int32_t *)&at[1] = (int32_t)(moment.tv_nsec / 1000);
    }
    return 0;
}
#endif

/* A deadline: by the other clock when it lies far ahead of the real one. Others, of clocks that count from the start of
 * the machine, are small. */
static const struct timespec *real(const struct timespec *deadline, struct timespec *place)
{
    if (!deadline || deadline->tv_sec < (time_t)START + OFFSET / 2)
        return deadline;
    *place = *deadline;
    place->tv_sec -= OFFSET;
    return place;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline)
{
    struct timespec place;
    __typeof__(&pthread_cond_timedwait) next = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        next = NEXT(pthread_cond_timedwait);
    return next(condition, mutex, real(deadline, &place));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_mutex_timedlock)(mutex, real(deadline, &place));
}

int pthread_rwlock_timedrdlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_rwlock_timedrdlock)(lock, real(deadline, &place));
}

int pthread_rwlock_timedwrlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_rwlock_timedwrlock)(lock, real(deadline, &place));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(sem_timedwait)(semaphore, real(deadline, &place));
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *until, struct timespec *left)
{
    struct timespec place;
    return NEXT(clock_nanosleep)(id, flags, flags & TIMER_ABSTIME ? real(until, &place) : until, left);
}

/* Those that name their clock: a deadline's size tells more than the clock, and the same. */
int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, clockid_t id,
                           const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_cond_clockwait)(condition, mutex, id, real(deadline, &place));
}

int pthread_mutex_clocklock(pthread_mutex_t *restrict mutex, clockid_t id, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_mutex_clocklock)(mutex, id, real(deadline, &place));
}

int pthread_rwlock_clockrdlock(pthread_rwlock_t *restrict lock, clockid_t id, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_rwlock_clockrdlock)(lock, id, real(deadline, &place));
}

int pthread_rwlock_clockwrlock(pthread_rwlock_t *restrict lock, clockid_t id, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(pthread_rwlock_clockwrlock)(lock, id, real(deadline, &place));
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t id, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(sem_clockwait)(semaphore, id, real(deadline, &place));
}

int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline)
{
    struct timespec place;
    return NEXT(pthread_timedjoin_np)(thread, result, real(deadline, &place));
}

int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t id, const struct timespec *deadline)
{
    struct timespec place;
    return NEXT(pthread_clockjoin_np)(thread, result, id, real(deadline, &place));
}

#if __GLIBC_PREREQ(2, 28)
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(cnd_timedwait)(condition, mutex, real(deadline, &place));
}

int mtx_timedlock(mtx_t *restrict mutex, const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(mtx_timedlock)(mutex, real(deadline, &place));
}
#endif

ssize_t mq_timedreceive(mqd_t queue, char *restrict text, size_t size, unsigned *restrict priority,
                        const struct timespec *restrict deadline)
{
    struct timespec place;
    return NEXT(mq_timedreceive)(queue, text, size, priority, real(deadline, &place));
}

int mq_timedsend(mqd_t queue, const char *text, size_t size, unsigned priority, const struct timespec *deadline)
{
    struct timespec place;
    return NEXT(mq_timedsend)(queue, text, size, priority, real(deadline, &place));
}

/* The same for a timer; zeros, which stop it, stay. */
static const struct itimerspec *real_timer(const struct itimerspec *timer, struct itimerspec *place)
{
    struct timespec first;
    if (!timer)
        return timer;
    *place = *timer;
    place->it_value = *real(&timer->it_value, &first);
    return place;
}

int timerfd_settime(int file, int flags, const struct itimerspec *timer, struct itimerspec *old)
{
    struct itimerspec place;
    return NEXT(timerfd_settime)(file, flags, flags & TFD_TIMER_ABSTIME ? real_timer(timer, &place) : timer, old);
}

int timer_settime(timer_t id, int flags, const struct itimerspec *restrict timer, struct itimerspec *restrict old)
{
    struct itimerspec place;
    return NEXT(timer_settime)(id, flags, flags & TIMER_ABSTIME ? real_timer(timer, &place) : timer, old);
}

/* Written since the start: what has the other clock's time already (touch -d, cp -p) lies far ahead. */
#define SHIFT(seconds) do { if ((seconds) >= START && (seconds) < START + OFFSET / 2) (seconds) += OFFSET; } while (0)
#define SHIFT_ALL(about) do { SHIFT((about)->st_atim.tv_sec); SHIFT((about)->st_mtim.tv_sec); \
    SHIFT((about)->st_ctim.tv_sec); } while (0)

#define WRAP_STAT(name, type, parameters, arguments) \
    int name parameters \
    { \
        int (*next) parameters = (int (*) parameters)dlsym(RTLD_NEXT, #name); \
        int result; \
        if (!next) { errno = ENOSYS; return -1; } \
        result = next arguments; \
        if (result == 0) SHIFT_ALL(about); \
        return result; \
    }

/* Since glibc 2.33 these are functions; before, programs call the ones with a version. */
#if __GLIBC_PREREQ(2, 33)
WRAP_STAT(stat, struct stat, (const char *restrict path, struct stat *restrict about), (path, about))
WRAP_STAT(lstat, struct stat, (const char *restrict path, struct stat *restrict about), (path, about))
WRAP_STAT(fstat, struct stat, (int file, struct stat *about), (file, about))
WRAP_STAT(fstatat, struct stat, (int at, const char *restrict path, struct stat *restrict about, int flags),
          (at, path, about, flags))
WRAP_STAT(stat64, struct stat64, (const char *restrict path, struct stat64 *restrict about), (path, about))
WRAP_STAT(lstat64, struct stat64, (const char *restrict path, struct stat64 *restrict about), (path, about))
WRAP_STAT(fstat64, struct stat64, (int file, struct stat64 *about), (file, about))
WRAP_STAT(fstatat64, struct stat64, (int at, const char *restrict path, struct stat64 *restrict about, int flags),
          (at, path, about, flags))
#endif
WRAP_STAT(__xstat, struct stat, (int version, const char *path, struct stat *about), (version, path, about))
WRAP_STAT(__lxstat, struct stat, (int version, const char *path, struct stat *about), (version, path, about))
WRAP_STAT(__fxstat, struct stat, (int version, int file, struct stat *about), (version, file, about))
WRAP_STAT(__fxstatat, struct stat, (int version, int at, const char *path, struct stat *about, int flags),
          (version, at, path, about, flags))
WRAP_STAT(__xstat64, struct stat64, (int version, const char *path, struct stat64 *about), (version, path, about))
WRAP_STAT(__lxstat64, struct stat64, (int version, const char *path, struct stat64 *about), (version, path, about))
WRAP_STAT(__fxstat64, struct stat64, (int version, int file, struct stat64 *about), (version, file, about))
WRAP_STAT(__fxstatat64, struct stat64, (int version, int at, const char *path, struct stat64 *about, int flags),
          (version, at, path, about, flags))

#ifdef STATX_BASIC_STATS
int statx(int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict about)
{
    int (*next)(int, const char *, int, unsigned, struct statx *) =
        (int (*)(int, const char *, int, unsigned, struct statx *))dlsym(RTLD_NEXT, "statx");
    int result;
    if (!next) {
        errno = ENOSYS;
        return -1;
    }
    result = next(at, path, flags, mask, about);
    if (result == 0) {
        SHIFT(about->stx_atime.tv_sec);
        SHIFT(about->stx_mtime.tv_sec);
        SHIFT(about->stx_ctime.tv_sec);
        SHIFT(about->stx_btime.tv_sec);
    }
    return result;
}
#endif
#endif /* OFFSET */

#ifdef ORDER
/* All entries are read at the first call and given out in an order that hangs on their names and on ORDER alone. */
struct listing {
    DIR *of;
    size_t count, next;
    struct dirent64 **entries;
    long start;
    struct listing *after;
};
static struct listing *listings;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static uint32_t rank_of(const char *name)
{
    uint32_t hash = 2166136261u ^ (uint32_t)ORDER; /* FNV-1a, and a last stir */
    while (*name)
        hash = (hash ^ (unsigned char)*name++) * 16777619u;
    hash ^= hash >> 15;
    hash *= 2246822519u;
    return hash ^ hash >> 13;
}

static int compare(const void *left, const void *right)
{
    const struct dirent64 *a = *(struct dirent64 *const *)left, *b = *(struct dirent64 *const *)right;
    uint32_t first = rank_of(a->d_name), second = rank_of(b->d_name);
    return first != second ? (first < second ? -1 : 1) : strcmp(a->d_name, b->d_name);
}

static void forget(DIR *directory)
{
    struct listing **link = &listings, *one;
    for (; (one = *link); link = &one->after)
        if (one->of == directory) {
            size_t i;
            *link = one->after;
            for (i = 0; i < one->count; i++)
                free(one->entries[i]);
            free(one->entries);
            free(one);
            return;
        }
}

static struct listing *find(DIR *directory)
{
    struct listing *one;
    for (one = listings; one; one = one->after)
        if (one->of == directory)
            return one;
    return NULL;
}

static struct listing *list(DIR *directory)
{
    static struct dirent64 *(*read_next)(DIR *);
    struct listing *one = find(directory);
    size_t room = 0;
    struct dirent64 *entry;
    int kept = errno;
    if (one)
        return one;
    if (!read_next)
        read_next = (struct dirent64 *(*)(DIR *))dlsym(RTLD_NEXT, "readdir64");
    one = calloc(1, sizeof *one);
    if (!one || !read_next) {
        free(one);
        return NULL;
    }
    one->of = directory;
    errno = 0;
    while ((entry = read_next(directory))) {
        struct dirent64 *copy;
        if (one->count == room) {
            struct dirent64 **more = realloc(one->entries, (room = room ? 2 * room : 64) * sizeof *more);
            if (!more)
                break;
            one->entries = more;
        }
        copy = malloc(sizeof *copy);
        if (!copy)
            break;
        memcpy(copy, entry, entry->d_reclen < sizeof *copy ? entry->d_reclen : sizeof *copy);
        one->entries[one->count++] = copy;
    }
    if (errno) { /* the directory could not be read to its end: let the caller find out for itself */
        size_t i;
        for (i = 0; i < one->count; i++)
            free(one->entries[i]);
        free(one->entries);
        free(one);
        return NULL;
    }
    errno = kept;
    qsort(one->entries, one->count, sizeof *one->entries, compare);
    one->after = listings;
    listings = one;
    return one;
}

struct dirent64 *readdir64(DIR *directory)
{
    struct listing *one;
    struct dirent64 *found = NULL;
    pthread_mutex_lock(&guard);
    one = list(directory);
    if (one && one->next < one->count)
        found = one->entries[one->next++];
    pthread_mutex_unlock(&guard);
    return found;
}

#if __WORDSIZE == 64
struct dirent *readdir(DIR *directory)
{
    return (struct dirent *)readdir64(directory);
}
#else
/* The short form is made of the long one, in a place of the stream's own. */
struct dirent *readdir(DIR *directory)
{
    static __thread struct dirent place;
    struct dirent64 *entry = readdir64(directory);
    if (!entry)
        return NULL;
    memset(&place, 0, sizeof place);
    place.d_ino = (ino_t)entry->d_ino;
    place.d_off = (off_t)entry->d_off;
    place.d_reclen = sizeof place;
    place.d_type = entry->d_type;
    memcpy(place.d_name, entry->d_name, strlen(entry->d_name) + 1);
    return &place;
}
#endif

void rewinddir(DIR *directory)
{
    pthread_mutex_lock(&guard);
    forget(directory);
    pthread_mutex_unlock(&guard);
    NEXT(rewinddir)(directory);
}

long telldir(DIR *directory)
{
    struct listing *one;
    long place;
    pthread_mutex_lock(&guard);
    one = list(directory);
    place = one ? (long)one->next : -1;
    pthread_mutex_unlock(&guard);
    return place;
}

void seekdir(DIR *directory, long place)
{
    struct listing *one;
    pthread_mutex_lock(&guard);
    one = list(directory);
    if (one && place >= 0 && (size_t)place <= one->count)
        one->next = (size_t)place;
    pthread_mutex_unlock(&guard);
}

int closedir(DIR *directory)
{
    pthread_mutex_lock(&guard);
    forget(directory);
    pthread_mutex_unlock(&guard);
    return NEXT(closedir)(directory);
}
#endif /* ORDER */
