/* A parallel-for over a fixed set of threads: one job at a time. Every thread has a share of the tasks, the same part
 * of every job, so that it meets the rows it wrote in the step before in its own cache; when its share is done it takes
 * from the others'. Steps follow each other by microseconds while a request runs, so a helper looks for the next job
 * for a while, giving way to any other thread, before it sleeps; and the caller waits only for helpers that have
 * joined, never for one to wake up. */
#include "engine/plan/team.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 64u
#define LOOK_NS     50000u /* how long is looked before sleeping: longer than most steps that don't split */

/* The gate: the job's number above, whether it is open, and how many helpers have joined it. */
#define JOINED_MASK ((uint64_t)0xff)
#define OPEN        ((uint64_t)0x100)
#define NEXT_JOB    ((uint64_t)0x200)

/* Tasks [next, end) of a job: one thread's, in a line of the cache of their own. */
struct share {
    _Alignas(64) atomic_size_t next;
    size_t end;
};

struct helper {
    struct qd_team *team;
    unsigned number; /* of its share */
    pthread_t thread;
};

struct qd_team {
    struct qd_parallel parallel; /* first: run() gets it back */
    pthread_mutex_t busy;        /* held by the caller whose job is running */
    /* The job; written while the gate is closed and nobody is inside. */
    void (*fn)(void *, size_t);
    void *ctx;
    atomic_int cpu;                   /* the caller's */
    struct share shares[MAX_THREADS]; /* 0: the caller's */
    atomic_uint_fast64_t gate, left;  /* left: helpers that have finished the present job */
    pthread_mutex_t lock;             /* for sleeping only */
    pthread_cond_t wake, done;
    atomic_uint sleepers; /* helpers in `wake`; changed under the lock */
    atomic_bool waiting;  /* the caller is in `done` */
    atomic_bool stop;
    unsigned helper_count;
    struct helper helpers[MAX_THREADS];
};

static _Thread_local bool alone; /* this thread splits nothing */

void qd_team_leave(void) { alone = true; }

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* `own`: whose share comes first. */
static void work(struct qd_team *team, unsigned own)
{
    const unsigned threads = team->helper_count + 1;
    for (unsigned other = 0; other < threads; other++) {
        struct share *share = &team->shares[(own + other) % threads];
        for (size_t i; (i = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) < share->end;)
            team->fn(team->ctx, i);
    }
}

/* ------------------------------------------------------------------ helpers */

/* Joins the job while its gate is open; false when there is none. */
static bool join(struct qd_team *team)
{
    uint64_t gate = atomic_load(&team->gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&team->gate, &gate, gate + 1))
            return true;
    return false;
}

static void leave(struct qd_team *team)
{
    atomic_fetch_add(&team->left, 1);
    if (!atomic_load(&team->waiting))
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_signal(&team->done);
    pthread_mutex_unlock(&team->lock);
}

/* The kernel may wake a helper on the processor its caller keeps busy, and leave it there for milliseconds: whole
 * requests. It moves to another that it may use, and stays free to be moved again. */
static void keep_off(const struct qd_team *team)
{
    const int cpu = atomic_load_explicit(&team->cpu, memory_order_relaxed);
    cpu_set_t allowed, others;
    if (sched_getcpu() != cpu || cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    others = allowed;
    CPU_CLR((size_t)cpu, &others);
    if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

/* True: in a job. `worked`: the job it was in before, whose tasks are all taken though its gate may still be open. */
static bool look(struct qd_team *team, uint64_t worked)
{
    const uint64_t until = now_ns() + LOOK_NS;
    do {
        keep_off(team);
        if (atomic_load(&team->gate) / NEXT_JOB != worked && join(team))
            return true;
        sched_yield();
    } while (now_ns() < until);
    return false;
}

static bool sleep_until_job(struct qd_team *team, uint64_t worked)
{
    bool joined = false;
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleepers, 1);
    while (!atomic_load(&team->stop) && !(joined = atomic_load(&team->gate) / NEXT_JOB != worked && join(team)))
        pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
    return joined;
}

static void *helper_main(void *argument)
{
    struct helper *self = argument;
    struct qd_team *team = self->team;
    uint64_t worked = UINT64_MAX;
    while (look(team, worked) || sleep_until_job(team, worked)) {
        worked = atomic_load(&team->gate) / NEXT_JOB;
        work(team, self->number);
        leave(team);
    }
    return NULL;
}

/* ------------------------------------------------------------------ the caller */

static void open_gate(struct qd_team *team, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    team->fn = fn;
    team->ctx = ctx;
    for (size_t i = 0, threads = team->helper_count + 1; i < threads; i++) {
        atomic_store_explicit(&team->shares[i].next, i * tasks / threads, memory_order_relaxed);
        team->shares[i].end = (i + 1) * tasks / threads;
    }
    atomic_store_explicit(&team->cpu, sched_getcpu(), memory_order_relaxed);
    atomic_store(&team->left, 0);
    atomic_store(&team->gate, (atomic_load(&team->gate) & ~(OPEN | JOINED_MASK)) + NEXT_JOB + OPEN);
    if (atomic_load(&team->sleepers) == 0)
        return;
    pthread_mutex_lock(&team->lock);
    for (size_t i = 1; i < tasks && i <= team->helper_count; i++)
        pthread_cond_signal(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

/* Nobody joins any more; returns when those who did have left. */
static void close_gate(struct qd_team *team)
{
    const uint64_t joined = atomic_fetch_and(&team->gate, ~OPEN) & JOINED_MASK;
    for (uint64_t until = now_ns() + LOOK_NS; atomic_load(&team->left) != joined && now_ns() < until;)
        sched_yield();
    if (atomic_load(&team->left) == joined)
        return;
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->waiting, true);
    while (atomic_load(&team->left) != joined)
        pthread_cond_wait(&team->done, &team->lock);
    atomic_store(&team->waiting, false);
    pthread_mutex_unlock(&team->lock);
}

static void run(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    struct qd_team *team = (struct qd_team *)parallel;
    if (tasks < 2 || alone || team->helper_count == 0 || pthread_mutex_trylock(&team->busy) != 0) {
        for (size_t i = 0; i < tasks; i++)
            fn(ctx, i);
        return;
    }
    open_gate(team, tasks, fn, ctx);
    work(team, 0);
    close_gate(team);
    pthread_mutex_unlock(&team->busy);
}

/* One number from a small file of the kernel's; -1 when there is none ("max" counts as none). */
static long long read_number(const char *path, int field)
{
    char text[128] = "", *at = text;
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    if (!fgets(text, sizeof text, file))
        text[0] = 0;
    fclose(file);
    for (; field > 0 && at; field--)
        at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
    char *end = at;
    long long value = at ? strtoll(at, &end, 10) : -1;
    return end != at ? value : -1;
}

unsigned qd_team_cpus(void)
{
    cpu_set_t set;
    unsigned cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    long long quota = read_number("/sys/fs/cgroup/cpu.max", 0), period = read_number("/sys/fs/cgroup/cpu.max", 1);
    if (quota <= 0) {
        quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", 0);
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 0);
    }
    if (quota > 0 && period > 0 && (quota + period - 1) / period < (long long)cpus)
        cpus = (unsigned)((quota + period - 1) / period);
    return cpus ? cpus : 1;
}

enum qd_status qd_team_create(unsigned threads, struct qd_team **out, struct qd_error *error)
{
    if (threads == 0)
        threads = qd_team_cpus();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    struct qd_team *team = qd_alloc_aligned(sizeof *team);
    if (!team)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a team of %u threads", threads);
    memset(team, 0, sizeof *team);
    team->parallel = (struct qd_parallel){threads, run};
    pthread_mutex_init(&team->busy, NULL);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    pthread_cond_init(&team->done, NULL);
    for (; team->helper_count + 1 < threads; team->helper_count++) {
        struct helper *helper = &team->helpers[team->helper_count];
        *helper = (struct helper){.team = team, .number = team->helper_count + 1};
        if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0) {
            qd_team_destroy(&team);
            return qd_fail(error, QD_ERR_UNAVAILABLE, "can't start %u threads", threads);
        }
    }
    *out = team;
    return QD_OK;
}

void qd_team_destroy(struct qd_team **team)
{
    struct qd_team *t = *team;
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->stop, true);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < t->helper_count; i++)
        pthread_join(t->helpers[i].thread, NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->busy);
    qd_free(t);
    *team = NULL;
}

struct qd_parallel *qd_team_parallel(struct qd_team *team) { return &team->parallel; }
