/* A wall clock that a test can set: preloaded into a process, it adds the seconds in the file WRONG_CLOCK to the time of
 * day. The monotonic clock stays right, as it does when somebody sets the clock of a machine. A wait until a time of day
 * lasts until the wrong clock shows it, also when the clock is set while it lasts; it may then end early, which every
 * caller of these functions has to expect. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define NANOS 1000000000L
#define SLICE_NANOS 50000000L
#define TIME_OF_DAY_SECONDS 1000000000L /* a later deadline is a time of day, an earlier one counts from the boot */

static int (*right_gettime)(clockid_t, struct timespec *);
static int (*right_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*right_cnd_wait)(cnd_t *, mtx_t *, const struct timespec *);
static int file = -1;

__attribute__((constructor)) static void prepare(void) {
    right_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    right_wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    right_cnd_wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    file = open(getenv("WRONG_CLOCK"), O_RDONLY | O_CLOEXEC);
}

static long offset_seconds(void) {
    char text[32] = {0};
    return pread(file, text, sizeof text - 1, 0) > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (right_gettime == NULL) prepare();
    int failed = right_gettime(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += offset_seconds();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec wrong;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &wrong);
    now->tv_sec = wrong.tv_sec;
    now->tv_usec = wrong.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec wrong;
    clock_gettime(CLOCK_REALTIME, &wrong);
    if (now != NULL) *now = wrong.tv_sec;
    return wrong.tv_sec;
}

/* Whether a deadline has passed by the wrong clock; if not, `slice` is set to a short time from now by the right one. */
static int passed(const struct timespec *deadline, struct timespec *slice) {
    struct timespec wrong;
    clock_gettime(CLOCK_REALTIME, &wrong);
    if (wrong.tv_sec > deadline->tv_sec || (wrong.tv_sec == deadline->tv_sec && wrong.tv_nsec >= deadline->tv_nsec))
        return 1;
    right_gettime(CLOCK_REALTIME, slice);
    slice->tv_nsec += SLICE_NANOS;
    slice->tv_sec += slice->tv_nsec / NANOS;
    slice->tv_nsec %= NANOS;
    return 0;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline) {
    struct timespec slice;
    if (right_wait == NULL) prepare();
    if (deadline->tv_sec < TIME_OF_DAY_SECONDS) return right_wait(condition, mutex, deadline);
    if (passed(deadline, &slice)) return ETIMEDOUT;
    int ended = right_wait(condition, mutex, &slice);
    return ended == ETIMEDOUT ? 0 : ended;
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline) {
    struct timespec slice;
    if (right_cnd_wait == NULL) prepare();
    if (passed(deadline, &slice)) return thrd_timedout;
    int ended = right_cnd_wait(condition, mutex, &slice);
    return ended == thrd_timedout ? thrd_success : ended;
}
