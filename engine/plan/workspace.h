/* Workspaces that requests give back and later ones take again, so that a request's large tensors don't come as fresh
 * pages from the system every time. One set a plan; what is kept goes with the plan. Not for small things (arenas). */
#ifndef QD_ENGINE_PLAN_WORKSPACE_H
#define QD_ENGINE_PLAN_WORKSPACE_H

#include <pthread.h>
#include <stddef.h>

#define QD_WORKSPACES_KEPT 4

struct qd_workspaces {
    pthread_mutex_t lock;
    struct {
        void *block;
        size_t bytes;
    } kept[QD_WORKSPACES_KEPT];
};

void qd_workspaces_init(struct qd_workspaces *set);
/* At least `*bytes` of uninitialised memory, 64-byte aligned, and how many there are; NULL: out of memory. [any] */
void *qd_workspace_take(struct qd_workspaces *set, size_t *bytes);
/* Back again; NULL is fine. The smallest of what is kept goes when there are too many. [any] */
void qd_workspace_give(struct qd_workspaces *set, void *block, size_t bytes);
void qd_workspaces_destroy(struct qd_workspaces *set);

#endif
