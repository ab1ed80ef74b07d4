/* Kept workspaces: a handful of blocks under a lock. */
#include "engine/plan/workspace.h"

#include "base/mem.h"

#include <string.h>

void qd_workspaces_init(struct qd_workspaces *set)
{
    memset(set, 0, sizeof *set);
    pthread_mutex_init(&set->lock, NULL);
}

void *qd_workspace_take(struct qd_workspaces *set, size_t *bytes)
{
    void *block = NULL;
    int best = -1;
    pthread_mutex_lock(&set->lock);
    for (int i = 0; i < QD_WORKSPACES_KEPT; i++)
        if (set->kept[i].block && set->kept[i].bytes >= *bytes &&
            (best < 0 || set->kept[i].bytes < set->kept[best].bytes))
            best = i;
    if (best >= 0) {
        block = set->kept[best].block;
        *bytes = set->kept[best].bytes;
        set->kept[best].block = NULL;
    }
    pthread_mutex_unlock(&set->lock);
    return block ? block : qd_alloc_aligned(*bytes);
}

void qd_workspace_give(struct qd_workspaces *set, void *block, size_t bytes)
{
    int at = 0;
    pthread_mutex_lock(&set->lock);
    for (int i = 1; i < QD_WORKSPACES_KEPT && set->kept[at].block; i++)
        if (!set->kept[i].block || set->kept[i].bytes < set->kept[at].bytes)
            at = i;
    if (!set->kept[at].block || set->kept[at].bytes < bytes) {
        void *smaller = set->kept[at].block;
        set->kept[at].block = block;
        set->kept[at].bytes = bytes;
        block = smaller;
    }
    pthread_mutex_unlock(&set->lock);
    qd_free(block);
}

void qd_workspaces_destroy(struct qd_workspaces *set)
{
    for (int i = 0; i < QD_WORKSPACES_KEPT; i++)
        qd_free(set->kept[i].block);
    pthread_mutex_destroy(&set->lock);
}
