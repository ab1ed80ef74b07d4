/* The threads that split one step's work: a parallel-for shared by all requests. When it is busy with another request
 * the caller does its own work alone, so small and concurrent requests never wait for each other. */
#ifndef QD_ENGINE_PLAN_TEAM_H
#define QD_ENGINE_PLAN_TEAM_H

#include "base/parallel.h"
#include "base/status.h"

struct qd_team;

/* `threads`: the caller's included; 0 = what the affinity mask and the cgroup's CPU quota allow. Errors: NO_MEMORY,
 * UNAVAILABLE. */
enum qd_status qd_team_create(unsigned threads, struct qd_team **out, struct qd_error *error) QD_MUST_CHECK;
void qd_team_destroy(struct qd_team **team);
/* The interface steps use; valid as long as the team. run() may be called from any thread at any time. */
struct qd_parallel *qd_team_parallel(struct qd_team *team);
/* From now on this thread works without the team: what it runs must not keep requests waiting for theirs. */
void qd_team_leave(void);
/* CPUs this process may use: affinity mask, cut by the cgroup v2 or v1 quota (rounded up), at least 1. [any] */
unsigned qd_team_cpus(void);

#endif
