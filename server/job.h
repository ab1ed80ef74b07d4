/* Work off the loop: the one file that crosses threads. A bounded queue, worker threads, completions handed back to the
 * loop. A job is embedded in its owner's struct; the owner keeps it alive until `done` was called. Knows nothing of
 * HTTP or models. */
#ifndef QD_SERVER_JOB_H
#define QD_SERVER_JOB_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define QD_JOBS_MAX_JOINED 64

struct qd_job {
    struct qd_job *next;  /* of the queue that has it */
    const void *group;    /* waiting jobs of one group may run together (the batcher); same `run` */
    uint64_t deadline_ns; /* monotonic; when it passes before the job runs, `done` gets QD_ERR_DEADLINE; 0: none */
    void (*run)(struct qd_job *const *jobs, size_t count); /* [worker] */
    void (*done)(struct qd_job *job);                      /* [loop] exactly once for every submitted job */
    enum qd_status outcome; /* QD_OK: it ran; QD_ERR_DEADLINE; QD_ERR_UNAVAILABLE: cancelled while it waited */
    bool cancelled;         /* [loop] nobody wants the result; a waiting job is dropped, a running one finishes */
    uint64_t queued_ns, started_ns, ended_ns; /* monotonic */
    size_t joined;                            /* jobs it ran with, itself included */
    bool first;                               /* the first of those */
};

struct qd_jobs;

struct qd_jobs_options {
    unsigned workers;
    size_t queue_size, batch_max;
    uint64_t batch_delay_ns; /* how long the first of a batch may wait for others */
};

/* `after` is called on the loop once after each round of completions. Errors: NO_MEMORY, UNAVAILABLE. [loop] */
enum qd_status qd_jobs_create(uv_loop_t *loop, const struct qd_jobs_options *options, void (*after)(void *ctx),
                              void *ctx, struct qd_jobs **out, struct qd_error *error) QD_MUST_CHECK;
/* Errors: UNAVAILABLE when the queue is full, or `jobs` is NULL (already stopped): the job was not taken and `done` is
 * not called. [loop] */
enum qd_status qd_jobs_submit(struct qd_jobs *jobs, struct qd_job *job, struct qd_error *error) QD_MUST_CHECK;
/* Marks a submitted job as unwanted; `done` still comes. [loop] */
void qd_jobs_cancel(struct qd_jobs *jobs, struct qd_job *job);
/* Ends waiting jobs that are cancelled or past their deadline: calls their `done`. Call it some times a second. [loop]
 */
void qd_jobs_expire(struct qd_jobs *jobs);
/* Jobs that wait; jobs submitted and not yet done. [loop] */
size_t qd_jobs_waiting(const struct qd_jobs *jobs);
size_t qd_jobs_in_flight(const struct qd_jobs *jobs);
/* Joins the workers after the job they are at; every waiting job is done with UNAVAILABLE first. Its async handle
 * closes with the next turn of the loop, so run the loop once more before closing it. [loop] */
void qd_jobs_destroy(struct qd_jobs **jobs);

uint64_t qd_now_ns(void); /* monotonic [any] */

#endif
