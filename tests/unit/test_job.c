/* The queue between the loop and the workers: every submitted job is done once, on the loop; limits, deadlines,
 * cancelling, joining, stopping. A gate holds the only worker, so that what waits is known. */
#include "server/job.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MANY 500

struct task {
    struct qd_job job; /* first: a job is its task */
    int value;         /* made by the worker */
    int done;
};

static uv_loop_t loop;
static struct qd_jobs *jobs;
static int rounds, done_count;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_int at_gate;

static void after(void *ctx)
{
    assert_ptr_equal(ctx, &loop);
    rounds++;
}

static void on_done(struct qd_job *job)
{
    struct task *task = (struct task *)job;
    task->done++;
    done_count++;
}

static void run(struct qd_job *const *batch, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((struct task *)batch[i])->value = (int)count;
}

static void run_at_gate(struct qd_job *const *batch, size_t count)
{
    atomic_store(&at_gate, 1);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    run(batch, count);
}

static void start(unsigned workers, size_t queue_size, size_t batch_max, uint64_t delay_ns)
{
    struct qd_jobs_options options = {workers, queue_size, batch_max, delay_ns};
    struct qd_error error;
    done_count = rounds = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(qd_jobs_create(&loop, &options, after, &loop, &jobs, &error), QD_OK);
}

static void finish(void)
{
    qd_jobs_destroy(&jobs);
    assert_null(jobs);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static enum qd_status submit(struct task *task, const void *group)
{
    struct qd_error error;
    task->job.group = group;
    task->job.run = task->job.run ? task->job.run : run;
    task->job.done = on_done;
    return qd_jobs_submit(jobs, &task->job, &error);
}

static void run_loop_until(int count)
{
    uint64_t end = qd_now_ns() + 20000000000u;
    while (done_count < count && qd_now_ns() < end)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(done_count, count);
}

/* The worker takes `task` and stays in it until the gate opens. */
static void hold_worker(struct task *task)
{
    atomic_store(&at_gate, 0);
    pthread_mutex_lock(&gate);
    task->job.run = run_at_gate;
    assert_int_equal(submit(task, task), QD_OK);
    while (!atomic_load(&at_gate))
        ;
}

static void test_many_groups_and_workers(void **state)
{
    static struct task tasks[MANY];
    int groups[3];
    size_t ran = 0;
    (void)state;
    memset(tasks, 0, sizeof tasks);
    start(3, MANY, 8, 0);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(submit(&tasks[i], &groups[i % 3]), QD_OK);
    assert_int_equal(qd_jobs_in_flight(jobs), MANY);
    run_loop_until(MANY);
    assert_int_equal(qd_jobs_in_flight(jobs), 0);
    assert_true(rounds > 0);
    for (int i = 0; i < MANY; i++) {
        const struct qd_job *job = &tasks[i].job;
        assert_int_equal(tasks[i].done, 1);
        assert_int_equal(job->outcome, QD_OK);
        assert_true(job->joined >= 1 && job->joined <= 8 && tasks[i].value == (int)job->joined);
        assert_true(job->queued_ns <= job->started_ns && job->started_ns <= job->ended_ns);
        ran += job->first;
    }
    assert_true(ran >= MANY / 8 && ran <= MANY);
    finish();
}

static void test_joins_only_its_group(void **state)
{
    struct task held = {0}, tasks[7] = {0};
    int a, b;
    (void)state;
    start(1, 10, 3, 0);
    hold_worker(&held);
    for (int i = 0; i < 7; i++) /* a b a b a b a: three of a, three of b, the last of a */
        assert_int_equal(submit(&tasks[i], i % 2 ? &b : &a), QD_OK);
    pthread_mutex_unlock(&gate);
    run_loop_until(8);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(tasks[i].job.joined, i == 6 ? 1 : 3);
        assert_int_equal(tasks[i].job.first, i < 2 || i == 6);
    }
    assert_true(tasks[0].job.started_ns <= tasks[1].job.started_ns &&
                tasks[1].job.started_ns <= tasks[6].job.started_ns);
    finish();
}

static void test_full_queue(void **state)
{
    struct task held = {0}, tasks[3] = {0};
    struct qd_error error = {0};
    (void)state;
    start(1, 2, 1, 0);
    hold_worker(&held);
    assert_int_equal(submit(&tasks[0], NULL), QD_OK);
    assert_int_equal(submit(&tasks[1], NULL), QD_OK);
    assert_int_equal(submit(&tasks[2], NULL), QD_ERR_UNAVAILABLE);
    assert_int_equal(qd_jobs_waiting(jobs), 2);
    assert_int_equal(qd_jobs_in_flight(jobs), 3);
    pthread_mutex_unlock(&gate);
    run_loop_until(3);
    assert_int_equal(tasks[2].done, 0);
    assert_int_equal(submit(&tasks[2], NULL), QD_OK); /* there is room again */
    run_loop_until(4);
    finish();
    assert_int_equal(qd_jobs_submit(NULL, &tasks[0].job, &error), QD_ERR_UNAVAILABLE);
}

static void test_deadline_and_cancel(void **state)
{
    struct task held = {0}, late = {0}, unwanted = {0}, fine = {0};
    (void)state;
    start(1, 10, 1, 0);
    hold_worker(&held);
    late.job.deadline_ns = qd_now_ns() + 1000000;
    fine.job.deadline_ns = qd_now_ns() + 60000000000u;
    assert_int_equal(submit(&late, NULL), QD_OK);
    assert_int_equal(submit(&unwanted, NULL), QD_OK);
    assert_int_equal(submit(&fine, NULL), QD_OK);
    qd_jobs_cancel(jobs, &unwanted.job);
    while (qd_now_ns() <= late.job.deadline_ns)
        ;
    qd_jobs_expire(jobs);
    assert_int_equal(done_count, 2);
    assert_int_equal(late.job.outcome, QD_ERR_DEADLINE);
    assert_int_equal(unwanted.job.outcome, QD_ERR_UNAVAILABLE);
    assert_int_equal(qd_jobs_waiting(jobs), 1);
    qd_jobs_cancel(jobs, &held.job); /* it runs: it ends in its own time */
    qd_jobs_expire(jobs);
    assert_int_equal(done_count, 2);
    pthread_mutex_unlock(&gate);
    run_loop_until(4);
    assert_int_equal(fine.job.outcome, QD_OK);
    assert_int_equal(held.job.outcome, QD_OK);
    assert_true(held.job.cancelled);
    assert_int_equal(late.value, 0);
    finish();
}

/* A worker that comes to a job too late gives it back without running it. */
static void test_worker_drops_late_jobs(void **state)
{
    struct task held = {0}, late = {0};
    (void)state;
    start(1, 10, 4, 0);
    hold_worker(&held);
    late.job.deadline_ns = qd_now_ns() + 1000000;
    assert_int_equal(submit(&late, NULL), QD_OK);
    while (qd_now_ns() <= late.job.deadline_ns)
        ;
    pthread_mutex_unlock(&gate);
    run_loop_until(2);
    assert_int_equal(late.job.outcome, QD_ERR_DEADLINE);
    assert_int_equal(late.value, 0);
    finish();
}

static void test_batch_delay(void **state)
{
    struct task tasks[4] = {0}, lone = {0};
    (void)state;
    start(2, 10, 4, 30000000000u);
    uint64_t begin = qd_now_ns();
    for (int i = 0; i < 4; i++)
        assert_int_equal(submit(&tasks[i], tasks), QD_OK);
    run_loop_until(4); /* the batch is full: no reason to wait */
    assert_true(qd_now_ns() - begin < 15000000000u);
    for (int i = 0; i < 4; i++)
        assert_int_equal(tasks[i].job.joined, 4);
    assert_int_equal(submit(&lone, &lone), QD_OK);
    assert_int_equal(qd_jobs_waiting(jobs), 1);
    finish(); /* stopping ends the waiting */
    assert_int_equal(lone.done, 1);
    assert_int_equal(lone.job.outcome, QD_ERR_UNAVAILABLE);
}

static void test_stop_with_work(void **state)
{
    struct task held = {0}, tasks[5] = {0};
    (void)state;
    start(1, 10, 2, 0);
    hold_worker(&held);
    for (int i = 0; i < 5; i++)
        assert_int_equal(submit(&tasks[i], NULL), QD_OK);
    qd_jobs_cancel(jobs, &tasks[0].job);
    pthread_mutex_unlock(&gate);
    finish();
    assert_int_equal(held.done, 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(tasks[i].done, 1);
    assert_int_equal(done_count, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_groups_and_workers),
        cmocka_unit_test(test_joins_only_its_group),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_worker_drops_late_jobs),
        cmocka_unit_test(test_batch_delay),
        cmocka_unit_test(test_stop_with_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
