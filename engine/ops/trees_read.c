/* Forests out of attributes. TreeEnsembleClassifier and -Regressor list nodes by the ids of tree and node, leaves among
 * them; TreeEnsemble lists branches and leaves by their places. Attributes are a stranger's: every length, id and
 * number is checked here, and that a walk down a tree ends. Not for running them (trees.c). */
#include "engine/ops/trees.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_NODES (INT32_MAX / 2)

struct reading {
    const struct qd_node *node;
    struct qd_arena *arena;
    struct qd_forest *forest;
    struct qd_error *error;
};

static enum qd_status refuse(const struct reading *r, const char *what)
{
    return qd_op_refuse(r->node, r->error, QD_ERR_INVALID, "%s", what);
}

/* A list of ints that must have `count` elements; `or_none`: may be left out. */
static enum qd_status read_ints(const struct reading *r, const char *name, size_t count, bool or_none,
                                const int64_t **out)
{
    size_t found;
    *out = qd_attr_ints(r->node, name, &found);
    if (found == count || (or_none && found == 0))
        return QD_OK;
    return qd_op_refuse(r->node, r->error, QD_ERR_INVALID, "%s has %zu elements, %zu are needed", name, found, count);
}

static enum qd_status read_numbers(const struct reading *r, const char *name, size_t count, bool or_none,
                                   const float **out)
{
    size_t found;
    enum qd_status status = qd_attr_numbers(r->node, name, r->arena, out, &found, r->error);
    if (status || found == count || (or_none && found == 0))
        return status;
    return qd_op_refuse(r->node, r->error, QD_ERR_INVALID, "%s has %zu elements, %zu are needed", name, found, count);
}

static enum qd_status take_feature(const struct reading *r, int64_t feature, int32_t *out)
{
    if (feature < 0 || feature >= INT32_MAX)
        return refuse(r, "nodes_featureids must be columns");
    *out = (int32_t)feature;
    if (*out > r->forest->last_feature)
        r->forest->last_feature = *out;
    return QD_OK;
}

/* Each branch is reached from one place at most, and roots from none: then a walk from a root can't come back. */
static enum qd_status check_walks(const struct reading *r)
{
    const struct qd_forest *f = r->forest;
    unsigned char *reached = qd_arena_alloc(r->arena, f->branch_count, sizeof *reached);
    if (!reached)
        return qd_op_no_memory(r->node, r->error);
    for (size_t i = 0; i < f->branch_count; i++) {
        const struct qd_branch *b = &f->branches[i];
        if ((b->yes >= 0 && reached[b->yes]++) || (b->no >= 0 && b->no != b->yes && reached[b->no]++))
            return refuse(r, "a node of its trees is reached from two others");
    }
    for (size_t t = 0; t < f->root_count; t++)
        if (f->roots[t] >= 0 && reached[f->roots[t]])
            return refuse(r, "one of its trees walks in a circle");
    return QD_OK;
}

static enum qd_status make_tables(const struct reading *r, size_t branches, size_t leaves, size_t roots, size_t weights)
{
    struct qd_forest *f = r->forest;
    f->branches = qd_arena_alloc(r->arena, branches, sizeof *f->branches);
    f->leaves = qd_arena_alloc(r->arena, leaves, sizeof *f->leaves);
    f->roots = qd_arena_alloc(r->arena, roots, sizeof *f->roots);
    f->weights = qd_arena_alloc(r->arena, weights, sizeof *f->weights);
    return f->branches && f->leaves && f->roots && f->weights ? QD_OK : qd_op_no_memory(r->node, r->error);
}

/* ------------------------------------------------------------------ TreeEnsembleClassifier, TreeEnsembleRegressor */

struct listed {
    size_t count;
    const int64_t *trees, *ids, *features, *yes, *no, *missing;
    const struct qd_text *modes;
    const float *splits;
    size_t *sorted; /* places by tree and id */
    int32_t *names; /* what each became: a branch, or ~leaf */
};

static enum qd_status read_listed(const struct reading *r, struct listed *l)
{
    const struct qd_attr *modes = qd_attr_find(r->node, "nodes_modes");
    l->trees = qd_attr_ints(r->node, "nodes_treeids", &l->count);
    if (l->count > MOST_NODES)
        return refuse(r, "has too many nodes");
    if (!modes || modes->type != QD_ATTR_STRINGS || modes->count != l->count)
        return refuse(r, "nodes_modes must name a mode for each node");
    l->modes = modes->strings;
    enum qd_status status = read_ints(r, "nodes_nodeids", l->count, false, &l->ids);
    if (!status)
        status = read_ints(r, "nodes_featureids", l->count, false, &l->features);
    if (!status)
        status = read_ints(r, "nodes_truenodeids", l->count, false, &l->yes);
    if (!status)
        status = read_ints(r, "nodes_falsenodeids", l->count, false, &l->no);
    if (!status)
        status = read_ints(r, "nodes_missing_value_tracks_true", l->count, true, &l->missing);
    return status ? status : read_numbers(r, "nodes_values", l->count, false, &l->splits);
}

static int by_number(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int by_id(const void *a, const void *b, void *listed)
{
    const struct listed *l = listed;
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    const int trees = by_number(l->trees[x], l->trees[y]);
    return trees ? trees : by_number(l->ids[x], l->ids[y]);
}

/* Places in the order of tree and id: those lists that are sorted already (most) stay as they are. */
static enum qd_status sort_listed(const struct reading *r, struct listed *l)
{
    bool sorted = true;
    l->sorted = qd_arena_alloc(r->arena, l->count, sizeof *l->sorted);
    l->names = qd_arena_alloc(r->arena, l->count, sizeof *l->names);
    if (!l->sorted || !l->names)
        return qd_op_no_memory(r->node, r->error);
    for (size_t i = 0; i < l->count; i++) {
        l->sorted[i] = i;
        sorted = sorted && (i == 0 || by_id(&l->sorted[i - 1], &l->sorted[i], l) < 0);
    }
    if (!sorted)
        qsort_r(l->sorted, l->count, sizeof *l->sorted, by_id, l);
    for (size_t i = 1; i < l->count; i++)
        if (by_id(&l->sorted[i - 1], &l->sorted[i], l) == 0)
            return refuse(r, "two nodes of a tree have the same id");
    return QD_OK;
}

/* The place of a node, or l->count. */
static size_t find_listed(const struct listed *l, int64_t tree, int64_t id)
{
    size_t from = 0, to = l->count;
    while (from < to) {
        const size_t mid = from + (to - from) / 2, at = l->sorted[mid];
        const int order = l->trees[at] != tree ? by_number(l->trees[at], tree) : by_number(l->ids[at], id);
        if (order == 0)
            return at;
        if (order < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return l->count;
}

static const char *const mode_names[] = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE", "BRANCH_GT",
                                         "BRANCH_EQ",  "BRANCH_NEQ", "LEAF"};

/* The number of its name; LEAF stands where MEMBER would. */
static unsigned mode_of(struct qd_text text)
{
    unsigned m = 0;
    while (m <= QD_BRANCH_MEMBER &&
           (strlen(mode_names[m]) != text.length || memcmp(mode_names[m], text.bytes, text.length) != 0))
        m++;
    return m;
}

/* Branches and leaves get numbers of their own, in the file's order. */
static enum qd_status name_listed(const struct reading *r, const struct listed *l, size_t weights)
{
    size_t branches = 0, leaves = 0, roots = 0;
    for (size_t i = 0; i < l->count; i++) {
        const unsigned mode = mode_of(l->modes[i]);
        if (mode > QD_BRANCH_MEMBER)
            return refuse(r, "a mode of nodes_modes is unknown");
        l->names[i] = mode == QD_BRANCH_MEMBER ? ~(int32_t)leaves++ : (int32_t)branches++;
        roots += i == 0 || l->trees[i] != l->trees[i - 1];
    }
    enum qd_status status = make_tables(r, branches, leaves, roots, weights);
    for (size_t i = 0; i < l->count && !status; i++)
        if (i == 0 || l->trees[i] != l->trees[i - 1])
            r->forest->roots[r->forest->root_count++] = l->names[i]; /* the first that a tree lists */
    r->forest->branch_count = branches;
    r->forest->leaf_count = leaves;
    return status;
}

static enum qd_status link_listed(const struct reading *r, const struct listed *l)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->names[i] < 0)
            continue;
        struct qd_branch *b = &r->forest->branches[l->names[i]];
        const size_t yes = find_listed(l, l->trees[i], l->yes[i]), no = find_listed(l, l->trees[i], l->no[i]);
        if (yes == l->count || no == l->count)
            return refuse(r, "a node's successor is not in its tree");
        b->mode = (uint8_t)mode_of(l->modes[i]);
        b->split = l->splits[i];
        b->missing_yes = l->missing && l->missing[i] != 0;
        b->yes = l->names[yes];
        b->no = l->names[no];
        enum qd_status status = take_feature(r, l->features[i], &b->feature);
        if (status)
            return status;
    }
    return QD_OK;
}

/* Weights of leaves: counted, then put in the order of the leaves. Those of other nodes are never reached. */
static enum qd_status read_weights(const struct reading *r, const struct listed *l, const int64_t *const lists[3],
                                   const float *weights, size_t count)
{
    struct qd_forest *f = r->forest;
    int32_t *owners = qd_arena_alloc(r->arena, count, sizeof *owners);
    if (!owners)
        return qd_op_no_memory(r->node, r->error);
    for (size_t i = 0; i < count; i++) {
        const size_t at = find_listed(l, lists[0][i], lists[1][i]);
        if (at == l->count)
            return refuse(r, "a weight belongs to a node that is not there");
        if (lists[2][i] < 0 || lists[2][i] >= (int64_t)f->targets)
            return refuse(r, "a weight belongs to a target or class that is not there");
        owners[i] = l->names[at];
        if (owners[i] < 0)
            f->leaves[~owners[i]].count++;
    }
    uint32_t first = 0;
    for (size_t i = 0; i < f->leaf_count; i++) {
        f->leaves[i].first = first;
        first += f->leaves[i].count;
        f->leaves[i].count = 0;
    }
    for (size_t i = 0; i < count; i++)
        if (owners[i] < 0) {
            struct qd_leaf *leaf = &f->leaves[~owners[i]];
            f->weights[leaf->first + leaf->count++] = (struct qd_leaf_weight){.target = (uint32_t)lists[2][i],
                                                                              .weight = weights[i]};
        }
    return QD_OK;
}

/* Is one class the only one of two that has weights, and are all weights positive? onnxruntime decides by this how one
 * score stands for two. */
static void look_at_weights(struct qd_forest *f, const int64_t *classes, const float *weights, size_t count)
{
    f->one_class_weighted = f->targets == 2 && count > 0;
    f->weights_positive = true;
    for (size_t i = 0; i < count; i++) {
        f->one_class_weighted = f->one_class_weighted && classes[i] == classes[0];
        f->weights_positive = f->weights_positive && !(weights[i] < 0);
    }
}

static enum qd_status take_base(const struct reading *r, const char *name)
{
    struct qd_forest *f = r->forest;
    enum qd_status status = qd_attr_numbers(r->node, name, r->arena, &f->base, &f->base_count, r->error);
    if (status)
        return status;
    if (f->base_count == 0 || f->base_count == f->targets || (f->base_count == 1 && f->targets == 2 && f->labels.count))
        return QD_OK;
    return qd_op_refuse(r->node, r->error, QD_ERR_INVALID, "%s has %zu elements, there are %zu targets", name,
                        f->base_count, f->targets);
}

/* The classes, or the number of targets. */
static enum qd_status read_targets(const struct reading *r, bool classifier)
{
    struct qd_forest *f = r->forest;
    const int64_t targets = qd_attr_int(r->node, "n_targets", 1);
    if (!classifier) {
        f->targets = (size_t)targets;
        return targets >= 1 && targets <= QD_MOST_CLASSES ? QD_OK : refuse(r, "n_targets must lie in 1..65535");
    }
    static const int64_t no_or_yes[] = {0, 1};
    enum qd_status status = qd_labels_read(r->node, "classlabels_int64s", &f->labels, r->error);
    f->targets = f->labels.count;
    if (status || f->labels.count != 1)
        return status;
    if (f->labels.strings) {
        struct qd_text *twice = qd_arena_alloc(r->arena, 2, sizeof *twice);
        if (!twice)
            return qd_op_no_memory(r->node, r->error);
        twice[0] = twice[1] = f->labels.strings[0];
        f->labels.strings = twice;
    } else {
        f->labels.ints = no_or_yes; /* onnxruntime's answer for a lone class */
    }
    return QD_OK;
}

static enum qd_status read_aggregate(const struct reading *r)
{
    static const char *const names[QD_AGGREGATES] = {"AVERAGE", "SUM", "MIN", "MAX"};
    unsigned a = 0;
    while (a < QD_AGGREGATES && !qd_attr_is(r->node, "aggregate_function", "SUM", names[a]))
        a++;
    r->forest->aggregate = (enum qd_aggregate)a;
    return a < QD_AGGREGATES ? QD_OK : refuse(r, "aggregate_function is none of the standard's");
}

static enum qd_status read_forest(const struct reading *r, bool classifier)
{
    static const char *const names[2][4] = {{"target_treeids", "target_nodeids", "target_ids", "target_weights"},
                                            {"class_treeids", "class_nodeids", "class_ids", "class_weights"}};
    struct qd_forest *f = r->forest;
    struct listed l = {.count = 0};
    const int64_t *lists[3];
    const float *weights = NULL;
    size_t count;
    f->aggregate = QD_AGGREGATE_SUM;
    lists[0] = qd_attr_ints(r->node, names[classifier][0], &count);
    enum qd_status status = count < UINT32_MAX ? read_targets(r, classifier) : refuse(r, "has too many weights");
    for (int i = 1; i < 3 && !status; i++)
        status = read_ints(r, names[classifier][i], count, false, &lists[i]);
    if (!status)
        status = read_numbers(r, names[classifier][3], count, false, &weights);
    if (!status)
        status = read_listed(r, &l);
    if (!status)
        status = sort_listed(r, &l);
    if (!status)
        status = name_listed(r, &l, count);
    if (!status)
        status = link_listed(r, &l);
    if (!status)
        status = read_weights(r, &l, lists, weights, count);
    if (!status)
        status = qd_transform_read(r->node, &f->transform, r->error);
    if (!status && !classifier)
        status = read_aggregate(r);
    if (!status)
        status = take_base(r, "base_values");
    if (status)
        return status;
    if (classifier)
        look_at_weights(f, lists[2], weights, count);
    return check_walks(r);
}

/* ------------------------------------------------------------------ TreeEnsemble */

/* What the ops' numbers of branch i mean: a leaf's place or a branch's. */
static enum qd_status successor(const struct reading *r, int64_t id, bool leaf, int32_t *out)
{
    const size_t count = leaf ? r->forest->leaf_count : r->forest->branch_count;
    if (id < 0 || id >= (int64_t)count)
        return refuse(r, "a node's successor is not there");
    *out = leaf ? ~(int32_t)id : (int32_t)id;
    return QD_OK;
}

struct placed {
    size_t count, member_count;
    const int64_t *features, *yes, *no, *yes_leaf, *no_leaf, *missing;
    const uint8_t *modes;
    const float *splits;
};

static enum qd_status read_placed(const struct reading *r, struct placed *p)
{
    const struct qd_attr *modes = qd_attr_find(r->node, "nodes_modes");
    p->features = qd_attr_ints(r->node, "nodes_featureids", &p->count);
    if (p->count > MOST_NODES)
        return refuse(r, "has too many nodes");
    if (!modes || modes->type != QD_ATTR_TENSOR || modes->t.dtype != QD_U8 ||
        qd_tensor_elems(&modes->t) != (int64_t)p->count)
        return refuse(r, "nodes_modes must be UINT8, one for each node");
    p->modes = modes->t.data;
    enum qd_status status = read_ints(r, "nodes_truenodeids", p->count, false, &p->yes);
    if (!status)
        status = read_ints(r, "nodes_falsenodeids", p->count, false, &p->no);
    if (!status)
        status = read_ints(r, "nodes_trueleafs", p->count, false, &p->yes_leaf);
    if (!status)
        status = read_ints(r, "nodes_falseleafs", p->count, false, &p->no_leaf);
    if (!status)
        status = read_ints(r, "nodes_missing_value_tracks_true", p->count, true, &p->missing);
    if (!status)
        status = read_numbers(r, "nodes_splits", p->count, false, &p->splits);
    return status ? status
                  : qd_attr_numbers(r->node, "membership_values", r->arena, &r->forest->members, &p->member_count,
                                    r->error);
}

/* Sets stand one behind the other in the order of their nodes, each ended by a NaN. */
static enum qd_status take_members(const struct reading *r, const struct placed *p, size_t *at, struct qd_branch *b)
{
    size_t end = *at;
    while (end < p->member_count && !isnan(r->forest->members[end]))
        end++;
    if (end == p->member_count || end > UINT32_MAX)
        return refuse(r, "membership_values has fewer sets than there are nodes that ask for one");
    b->first_member = (uint32_t)*at;
    b->member_count = (uint32_t)(end - *at);
    *at = end + 1;
    return QD_OK;
}

static enum qd_status link_placed(const struct reading *r, const struct placed *p)
{
    size_t member = 0;
    enum qd_status status = QD_OK;
    for (size_t i = 0; i < p->count && !status; i++) {
        struct qd_branch *b = &r->forest->branches[i];
        b->mode = p->modes[i];
        b->missing_yes = p->missing && p->missing[i] != 0;
        if (b->mode >= QD_BRANCH_MODES)
            return refuse(r, "a mode of nodes_modes is unknown");
        if (b->mode == QD_BRANCH_MEMBER)
            status = take_members(r, p, &member, b);
        else
            b->split = p->splits[i];
        if (!status)
            status = take_feature(r, p->features[i], &b->feature);
        if (!status)
            status = successor(r, p->yes[i], p->yes_leaf[i] != 0, &b->yes);
        if (!status)
            status = successor(r, p->no[i], p->no_leaf[i] != 0, &b->no);
    }
    return status;
}

static enum qd_status read_leaves(const struct reading *r, const int64_t *targets, const float *weights)
{
    struct qd_forest *f = r->forest;
    for (size_t i = 0; i < f->leaf_count; i++) {
        if (targets[i] < 0 || targets[i] >= (int64_t)f->targets)
            return refuse(r, "leaf_targetids names a target that is not there");
        f->leaves[i] = (struct qd_leaf){.first = (uint32_t)i, .count = 1};
        f->weights[i] = (struct qd_leaf_weight){.target = (uint32_t)targets[i], .weight = weights[i]};
    }
    return QD_OK;
}

static enum qd_status read_roots(const struct reading *r, const int64_t *roots, size_t count)
{
    struct qd_forest *f = r->forest;
    for (size_t i = 0; i < count; i++) {
        enum qd_status status = successor(r, roots[i], false, &f->roots[i]);
        if (status)
            return status;
    }
    f->root_count = count;
    return QD_OK;
}

static enum qd_status read_ensemble(const struct reading *r)
{
    struct qd_forest *f = r->forest;
    struct placed p = {.count = 0};
    size_t leaves, roots;
    const float *weights = NULL;
    const int64_t *targets = qd_attr_ints(r->node, "leaf_targetids", &leaves);
    const int64_t *root_list = qd_attr_ints(r->node, "tree_roots", &roots);
    const int64_t transform = qd_attr_int(r->node, "post_transform", QD_TRANSFORM_NONE);
    const int64_t aggregate = qd_attr_int(r->node, "aggregate_function", QD_AGGREGATE_SUM);
    if (leaves > MOST_NODES)
        return refuse(r, "has too many leaves");
    if (transform < 0 || transform >= QD_TRANSFORM_COUNT || aggregate < 0 || aggregate >= QD_AGGREGATES)
        return refuse(r, "post_transform or aggregate_function is none of the standard's");
    f->transform = (enum qd_transform)transform;
    f->aggregate = (enum qd_aggregate)aggregate;
    enum qd_status status = read_targets(r, false);
    if (!status)
        status = read_placed(r, &p);
    if (!status)
        status = read_numbers(r, "leaf_weights", leaves, false, &weights);
    if (!status)
        status = make_tables(r, p.count, leaves, roots, leaves);
    f->branch_count = p.count;
    f->leaf_count = leaves;
    if (!status)
        status = link_placed(r, &p);
    if (!status)
        status = read_leaves(r, targets, weights);
    if (!status)
        status = read_roots(r, root_list, roots);
    return status ? status : check_walks(r);
}

static enum qd_status trees_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                    struct qd_error *error)
{
    struct qd_forest *f = QD_PREP_NEW(arena, struct qd_forest);
    if (!f)
        return qd_op_no_memory(node, error);
    const struct reading r = {node, arena, f, error};
    f->last_feature = -1;
    *prep = f;
    if (strcmp(node->op, "TreeEnsemble") == 0)
        return read_ensemble(&r);
    return read_forest(&r, strcmp(node->op, "TreeEnsembleClassifier") == 0);
}

const struct qd_op qd_op_trees = {
    .prepare = trees_prepare, .infer = qd_trees_infer, .scratch = qd_trees_scratch, .run = qd_trees_run};
