/* A parallel-for over a fixed set of threads: one job at a time, tasks handed out by an atomic counter. */
#include "engine/plan/team.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 64u

struct qd_team {
    struct qd_parallel parallel; /* first: run() gets it back */
    pthread_mutex_t busy;        /* held by the caller whose job is running */
    pthread_mutex_t lock;        /* guards what follows */
    pthread_cond_t wake, done;
    unsigned generation, active; /* active: helpers that have not finished the present job */
    bool stop;
    void (*fn)(void *, size_t);
    void *ctx;
    size_t tasks;
    atomic_size_t next;
    unsigned helper_count;
    pthread_t helpers[MAX_THREADS];
};

static void work(struct qd_team *team, void (*fn)(void *, size_t), void *ctx, size_t tasks)
{
    for (size_t i; (i = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed)) < tasks;)
        fn(ctx, i);
}

static void *helper_main(void *argument)
{
    struct qd_team *team = argument;
    unsigned seen = 0;
    pthread_mutex_lock(&team->lock);
    for (;;) {
        while (team->generation == seen && !team->stop)
            pthread_cond_wait(&team->wake, &team->lock);
        if (team->stop)
            break;
        seen = team->generation;
        void (*fn)(void *, size_t) = team->fn;
        void *ctx = team->ctx;
        size_t tasks = team->tasks;
        pthread_mutex_unlock(&team->lock);
        work(team, fn, ctx, tasks);
        pthread_mutex_lock(&team->lock);
        if (--team->active == 0)
            pthread_cond_signal(&team->done);
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

static void run(struct qd_parallel *parallel, size_t tasks, void (*fn)(void *ctx, size_t task), void *ctx)
{
    struct qd_team *team = (struct qd_team *)parallel;
    if (tasks < 2 || team->helper_count == 0 || pthread_mutex_trylock(&team->busy) != 0) {
        for (size_t i = 0; i < tasks; i++)
            fn(ctx, i);
        return;
    }
    pthread_mutex_lock(&team->lock);
    team->fn = fn;
    team->ctx = ctx;
    team->tasks = tasks;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    team->active = team->helper_count;
    team->generation++;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);

    work(team, fn, ctx, tasks);

    pthread_mutex_lock(&team->lock);
    while (team->active)
        pthread_cond_wait(&team->done, &team->lock);
    pthread_mutex_unlock(&team->lock);
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
    struct qd_team *team = qd_calloc(1, sizeof *team);
    if (!team)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for a team of %u threads", threads);
    team->parallel = (struct qd_parallel){threads, run};
    pthread_mutex_init(&team->busy, NULL);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    pthread_cond_init(&team->done, NULL);
    for (; team->helper_count + 1 < threads; team->helper_count++)
        if (pthread_create(&team->helpers[team->helper_count], NULL, helper_main, team) != 0) {
            qd_team_destroy(&team);
            return qd_fail(error, QD_ERR_UNAVAILABLE, "can't start %u threads", threads);
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
    t->stop = true;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < t->helper_count; i++)
        pthread_join(t->helpers[i], NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->busy);
    qd_free(t);
    *team = NULL;
}

struct qd_parallel *qd_team_parallel(struct qd_team *team) { return &team->parallel; }
