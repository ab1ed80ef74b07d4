/* The team's parallel-for: every task once, whoever calls, from wherever. Meant to be run under ThreadSanitizer as
 * well. */
#include "base/mem.h"
#include "engine/plan/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MOST = 400 };

/* One job: plain counters, because each task has its own; `inner` makes tasks run jobs themselves. */
struct job {
    struct qd_parallel *parallel;
    unsigned counts[MOST];
    struct job *inner; /* [MOST] or NULL */
    size_t inner_tasks;
};

static void task(void *ctx, size_t i)
{
    struct job *job = ctx;
    job->counts[i]++;
    if (job->inner)
        job->parallel->run(job->parallel, job->inner_tasks, task, &job->inner[i]);
}

static bool each_once(const struct job *job, size_t tasks)
{
    for (size_t i = 0; i < MOST; i++)
        if (job->counts[i] != (i < tasks))
            return false;
    return true;
}

static struct qd_team *team_of(unsigned threads)
{
    struct qd_team *team = NULL;
    struct qd_error error;
    assert_int_equal(qd_team_create(threads, &team, &error), QD_OK);
    assert_int_equal(qd_team_parallel(team)->threads, threads);
    return team;
}

static void test_each_task_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct qd_team *team = team_of(threads);
        for (size_t n = 0; n < 1000; n++) {
            struct job job = {.parallel = qd_team_parallel(team)};
            size_t tasks = n * 7 % (n < 990 ? 23 : MOST + 1);
            job.parallel->run(job.parallel, tasks, task, &job);
            if (!each_once(&job, tasks))
                fail_msg("%u threads, job %zu of %zu tasks", threads, n, tasks);
        }
        qd_team_destroy(&team);
        assert_null(team);
    }
}

static void test_nested(void **state)
{
    (void)state;
    struct qd_team *team = team_of(3);
    struct job *inner = test_calloc(MOST, sizeof *inner);
    for (int round = 0; round < 20; round++) {
        struct job job = {.parallel = qd_team_parallel(team), .inner = inner, .inner_tasks = 9};
        memset(inner, 0, MOST * sizeof *inner);
        for (size_t i = 0; i < MOST; i++)
            inner[i].parallel = job.parallel;
        job.parallel->run(job.parallel, 50, task, &job);
        assert_true(each_once(&job, 50));
        for (size_t i = 0; i < MOST; i++)
            assert_true(each_once(&inner[i], i < 50 ? 9 : 0));
    }
    test_free(inner);
    qd_team_destroy(&team);
}

struct caller {
    struct qd_parallel *parallel;
    size_t jobs;
    atomic_int *failures;
    pthread_t thread;
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    for (size_t n = 0; n < caller->jobs; n++) {
        struct job job = {.parallel = caller->parallel};
        size_t tasks = 1 + n % 31;
        caller->parallel->run(caller->parallel, tasks, task, &job);
        if (!each_once(&job, tasks))
            atomic_fetch_add(caller->failures, 1);
    }
    return NULL;
}

static void test_concurrent_callers(void **state)
{
    (void)state;
    atomic_int failures = 0;
    struct qd_team *team = team_of(3);
    struct caller callers[4];
    for (int i = 0; i < 4; i++) {
        callers[i] = (struct caller){.parallel = qd_team_parallel(team), .jobs = 1000, .failures = &failures};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i].thread, NULL);
    assert_int_equal(failures, 0);
    qd_team_destroy(&team);
}

/* Two tasks that wait for each other end only when two threads work at once. */
struct meeting {
    pthread_barrier_t barrier;
};

static void meet(void *ctx, size_t i)
{
    (void)i;
    pthread_barrier_wait(&((struct meeting *)ctx)->barrier);
}

static void test_threads_really_work_together(void **state)
{
    (void)state;
    struct meeting meeting;
    struct qd_team *team = team_of(4);
    pthread_barrier_init(&meeting.barrier, NULL, 4);
    qd_team_parallel(team)->run(qd_team_parallel(team), 4, meet, &meeting);
    pthread_barrier_destroy(&meeting.barrier);
    qd_team_destroy(&team);
}

/* Every job puts the helper on its caller's processor when it ends; `elsewhere`: jobs that it began on another. */
struct crowd {
    pthread_barrier_t barrier;
    pthread_t caller;
    size_t cpu; /* the caller's */
    cpu_set_t allowed;
    size_t elsewhere, changed; /* changed: jobs it began with other processors allowed than it was made with */
};

static void crowd_in(void *ctx, size_t i)
{
    (void)i;
    struct crowd *crowd = ctx;
    cpu_set_t mine, now;
    if (!pthread_equal(pthread_self(), crowd->caller)) {
        crowd->elsewhere += sched_getcpu() != (int)crowd->cpu;
        crowd->changed += sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &crowd->allowed);
        CPU_ZERO(&mine);
        CPU_SET(crowd->cpu, &mine);
        sched_setaffinity(0, sizeof mine, &mine);
        sched_setaffinity(0, sizeof crowd->allowed, &crowd->allowed);
    }
    pthread_barrier_wait(&crowd->barrier);
}

static void test_helpers_keep_off_their_callers_processor(void **state)
{
    (void)state;
    enum { JOBS = 200 };
    cpu_set_t mine;
    struct crowd crowd = {.caller = pthread_self()};
    assert_int_equal(sched_getaffinity(0, sizeof crowd.allowed, &crowd.allowed), 0);
    if (CPU_COUNT(&crowd.allowed) < 2)
        skip();
    while (!CPU_ISSET(crowd.cpu, &crowd.allowed))
        crowd.cpu++;
    CPU_ZERO(&mine);
    CPU_SET(crowd.cpu, &mine);
    struct qd_team *team = team_of(2); /* its helper may use every processor, its caller from here on one */
    assert_int_equal(sched_setaffinity(0, sizeof mine, &mine), 0);
    pthread_barrier_init(&crowd.barrier, NULL, 2);
    for (int n = 0; n < JOBS; n++)
        qd_team_parallel(team)->run(qd_team_parallel(team), 2, crowd_in, &crowd);
    pthread_barrier_destroy(&crowd.barrier);
    sched_setaffinity(0, sizeof crowd.allowed, &crowd.allowed);
    qd_team_destroy(&team);
    if (crowd.elsewhere < JOBS * 9 / 10)
        fail_msg("%zu of %d jobs with a processor for each thread", crowd.elsewhere, JOBS);
    assert_int_equal(crowd.changed, 0);
}

static void test_sizes(void **state)
{
    (void)state;
    struct qd_team *team = NULL;
    assert_true(qd_team_cpus() >= 1);
    assert_int_equal(qd_team_create(0, &team, NULL), QD_OK);
    unsigned cpus = qd_team_cpus();
    assert_int_equal(qd_team_parallel(team)->threads, cpus < 64 ? cpus : 64);
    qd_team_destroy(&team);
    assert_int_equal(qd_team_create(100000, &team, NULL), QD_OK);
    assert_int_equal(qd_team_parallel(team)->threads, 64);
    qd_team_destroy(&team);
    qd_team_destroy(&team); /* nothing there: nothing happens */
    qd_mem_fail_at(1, true);
    assert_int_equal(qd_team_create(2, &team, NULL), QD_ERR_NO_MEMORY);
    qd_mem_fail_at(0, false);
    assert_null(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_task_once),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_concurrent_callers),
        cmocka_unit_test(test_threads_really_work_together),
        cmocka_unit_test(test_helpers_keep_off_their_callers_processor),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
