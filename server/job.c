/* Work off the loop: the queue, the workers, and completions on their way back. Two locks that are never held together:
 * the queue's and the completions'. A worker touches only the jobs it took. */
#include "server/job.h"

#include "base/mem.h"

#include <pthread.h>
#include <time.h>

struct qd_jobs {
    struct qd_jobs_options options;
    void (*after)(void *ctx);
    void *ctx;
    uv_async_t async;
    size_t in_flight; /* [loop] submitted and not yet done */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct qd_job *head, **tail; /* waiting, oldest first */
    size_t waiting;
    bool stop;
    pthread_mutex_t done_lock;
    struct qd_job *done_head, **done_tail;
    unsigned started;
    pthread_t *threads;
};

uint64_t qd_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ------------------------------------------------------------------ workers */

/* Unlinks *link from the queue; the lock is held. */
static struct qd_job *unlink_job(struct qd_jobs *jobs, struct qd_job **link)
{
    struct qd_job *job = *link;
    *link = job->next;
    if (!*link)
        jobs->tail = link;
    job->next = NULL;
    jobs->waiting--;
    return job;
}

static size_t waiting_of_group(const struct qd_jobs *jobs, const void *group)
{
    size_t n = 0;
    for (const struct qd_job *job = jobs->head; job; job = job->next)
        n += job->group == group;
    return n;
}

/* The batcher: the oldest job may wait a little until its group is large enough. The lock is held; it is given up while
 * waiting. */
static void wait_for_others(struct qd_jobs *jobs)
{
    while (jobs->head && jobs->options.batch_delay_ns && !jobs->stop) {
        uint64_t until = jobs->head->queued_ns + jobs->options.batch_delay_ns, now = qd_now_ns();
        if (now >= until || waiting_of_group(jobs, jobs->head->group) >= jobs->options.batch_max)
            return;
        struct timespec at = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
        pthread_cond_timedwait(&jobs->wake, &jobs->lock, &at);
    }
}

/* The oldest job and what may run with it; 0 when the workers are to stop. The lock is held. */
static size_t take(struct qd_jobs *jobs, struct qd_job **batch)
{
    do {
        while (!jobs->head && !jobs->stop)
            pthread_cond_wait(&jobs->wake, &jobs->lock);
        wait_for_others(jobs);
    } while (!jobs->head && !jobs->stop); /* another worker was faster */
    if (!jobs->head)
        return 0;
    size_t count = 0;
    const void *group = jobs->head->group;
    for (struct qd_job **link = &jobs->head; *link && count < jobs->options.batch_max;)
        if ((*link)->group == group)
            batch[count++] = unlink_job(jobs, link);
        else
            link = &(*link)->next;
    if (jobs->head)
        pthread_cond_signal(&jobs->wake); /* the submitter's signal may have woken us instead of an idle worker */
    return count;
}

static void hand_back(struct qd_jobs *jobs, struct qd_job *const *batch, size_t count)
{
    pthread_mutex_lock(&jobs->done_lock);
    for (size_t i = 0; i < count; i++) {
        *jobs->done_tail = batch[i];
        jobs->done_tail = &batch[i]->next;
    }
    pthread_mutex_unlock(&jobs->done_lock);
    uv_async_send(&jobs->async);
}

/* A job that waited too long goes back without having run. Returns how many are left to run. */
static size_t drop_late(struct qd_jobs *jobs, struct qd_job **batch, size_t count)
{
    uint64_t now = qd_now_ns();
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (batch[i]->deadline_ns && now > batch[i]->deadline_ns) {
            batch[i]->outcome = QD_ERR_DEADLINE;
            batch[i]->started_ns = batch[i]->ended_ns = now;
            hand_back(jobs, &batch[i], 1);
        } else {
            batch[kept++] = batch[i];
        }
    }
    return kept;
}

static void *worker_main(void *argument)
{
    struct qd_jobs *jobs = argument;
    struct qd_job *batch[QD_JOBS_MAX_JOINED];
    for (;;) {
        pthread_mutex_lock(&jobs->lock);
        size_t count = take(jobs, batch);
        pthread_mutex_unlock(&jobs->lock);
        if (count == 0)
            return NULL;
        count = drop_late(jobs, batch, count);
        if (count == 0)
            continue;
        uint64_t start = qd_now_ns();
        batch[0]->run(batch, count);
        uint64_t end = qd_now_ns();
        for (size_t i = 0; i < count; i++) {
            batch[i]->outcome = QD_OK;
            batch[i]->started_ns = start;
            batch[i]->ended_ns = end;
            batch[i]->joined = count;
            batch[i]->first = i == 0;
        }
        hand_back(jobs, batch, count);
    }
}

/* ------------------------------------------------------------------ loop */

static void finish(struct qd_jobs *jobs, struct qd_job *job)
{
    jobs->in_flight--;
    job->done(job);
}

static void on_async(uv_async_t *async)
{
    struct qd_jobs *jobs = async->data;
    pthread_mutex_lock(&jobs->done_lock);
    struct qd_job *job = jobs->done_head;
    jobs->done_head = NULL;
    jobs->done_tail = &jobs->done_head;
    pthread_mutex_unlock(&jobs->done_lock);
    for (struct qd_job *next; job; job = next) {
        next = job->next;
        job->next = NULL;
        finish(jobs, job);
    }
    jobs->after(jobs->ctx);
}

static void free_jobs(uv_handle_t *handle)
{
    struct qd_jobs *jobs = handle->data;
    pthread_mutex_destroy(&jobs->lock);
    pthread_mutex_destroy(&jobs->done_lock);
    pthread_cond_destroy(&jobs->wake);
    qd_free(jobs->threads);
    qd_free(jobs);
}

enum qd_status qd_jobs_create(uv_loop_t *loop, const struct qd_jobs_options *options, void (*after)(void *ctx),
                              void *ctx, struct qd_jobs **out, struct qd_error *error)
{
    struct qd_jobs *jobs = qd_calloc(1, sizeof *jobs);
    pthread_t *threads = qd_calloc(options->workers, sizeof *threads);
    if (!jobs || !threads || uv_async_init(loop, &jobs->async, on_async) != 0) {
        qd_free(threads);
        qd_free(jobs);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the workers");
    }
    jobs->options = *options;
    if (jobs->options.batch_max > QD_JOBS_MAX_JOINED)
        jobs->options.batch_max = QD_JOBS_MAX_JOINED;
    jobs->after = after;
    jobs->ctx = ctx;
    jobs->async.data = jobs;
    jobs->threads = threads;
    jobs->tail = &jobs->head;
    jobs->done_tail = &jobs->done_head;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_mutex_init(&jobs->done_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (; jobs->started < options->workers; jobs->started++)
        if (pthread_create(&threads[jobs->started], NULL, worker_main, jobs) != 0) {
            qd_jobs_destroy(&jobs);
            return qd_fail(error, QD_ERR_UNAVAILABLE, "can't start %u worker threads", options->workers);
        }
    *out = jobs;
    return QD_OK;
}

enum qd_status qd_jobs_submit(struct qd_jobs *jobs, struct qd_job *job, struct qd_error *error)
{
    if (!jobs)
        return qd_fail(error, QD_ERR_UNAVAILABLE, "the server is stopping");
    job->next = NULL;
    job->cancelled = false;
    job->queued_ns = qd_now_ns();
    pthread_mutex_lock(&jobs->lock);
    bool full = jobs->waiting >= jobs->options.queue_size;
    if (!full) {
        *jobs->tail = job;
        jobs->tail = &job->next;
        jobs->waiting++;
        if (jobs->options.batch_delay_ns)
            pthread_cond_broadcast(&jobs->wake); /* one that waits for its batch must not be the only one to hear it */
        else
            pthread_cond_signal(&jobs->wake);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (full)
        return qd_fail(error, QD_ERR_UNAVAILABLE, "the queue is full: %zu requests are waiting",
                       jobs->options.queue_size);
    jobs->in_flight++;
    return QD_OK;
}

void qd_jobs_cancel(struct qd_jobs *jobs, struct qd_job *job)
{
    (void)jobs;
    job->cancelled = true; /* read by the loop only: the next qd_jobs_expire drops it if it still waits */
}

/* Ends the waiting jobs that `all`, their cancellation or their deadline say so of. */
static void end_waiting(struct qd_jobs *jobs, bool all)
{
    struct qd_job *ended = NULL, **end = &ended;
    uint64_t now = qd_now_ns();
    pthread_mutex_lock(&jobs->lock);
    for (struct qd_job **link = &jobs->head; *link;) {
        bool late = (*link)->deadline_ns && now > (*link)->deadline_ns;
        if (!all && !late && !(*link)->cancelled) {
            link = &(*link)->next;
            continue;
        }
        *end = unlink_job(jobs, link);
        (*end)->outcome = late ? QD_ERR_DEADLINE : QD_ERR_UNAVAILABLE;
        (*end)->started_ns = (*end)->ended_ns = now;
        end = &(*end)->next;
    }
    pthread_mutex_unlock(&jobs->lock);
    for (struct qd_job *job = ended, *next; job; job = next) {
        next = job->next;
        job->next = NULL;
        finish(jobs, job);
    }
}

void qd_jobs_expire(struct qd_jobs *jobs) { end_waiting(jobs, false); }

size_t qd_jobs_waiting(const struct qd_jobs *jobs)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&jobs->lock;
    pthread_mutex_lock(lock);
    size_t waiting = jobs->waiting;
    pthread_mutex_unlock(lock);
    return waiting;
}

size_t qd_jobs_in_flight(const struct qd_jobs *jobs) { return jobs->in_flight; }

void qd_jobs_destroy(struct qd_jobs **jobs)
{
    struct qd_jobs *j = *jobs;
    *jobs = NULL;
    if (!j)
        return;
    end_waiting(j, true);
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_broadcast(&j->wake);
    pthread_mutex_unlock(&j->lock);
    for (unsigned i = 0; i < j->started; i++)
        pthread_join(j->threads[i], NULL);
    on_async(&j->async);
    uv_close((uv_handle_t *)&j->async, free_jobs);
}
