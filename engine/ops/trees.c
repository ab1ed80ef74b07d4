/* Forests of decision trees: TreeEnsembleClassifier, TreeEnsembleRegressor and TreeEnsemble. The three ways in which
 * files write them down become one: branches that name their two successors, leaves that name their weights.
 * trees_read.c does that and checks every index; nothing here can leave a table or walk in a circle. A row's sum is
 * made in FP32 in the order of the trees, so it depends on nothing but the row. */
#include "engine/ops/trees.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define BLOCK_ROWS 64 /* that go through a tree while its branches are warm */

static bool is_member(const struct qd_forest *f, const struct qd_branch *b, float x)
{
    for (uint32_t i = 0; i < b->member_count; i++)
        if (f->members[b->first_member + i] == x)
            return true;
    return false;
}

static bool takes_yes(const struct qd_forest *f, const struct qd_branch *b, float x)
{
    switch (b->mode) {
    case QD_BRANCH_LEQ:
        return x <= b->split;
    case QD_BRANCH_LT:
        return x < b->split;
    case QD_BRANCH_GTE:
        return x >= b->split;
    case QD_BRANCH_GT:
        return x > b->split;
    case QD_BRANCH_EQ:
        return x == b->split;
    case QD_BRANCH_NEQ:
        return x != b->split;
    case QD_BRANCH_MEMBER:
        return is_member(f, b, x);
    case QD_BRANCH_MODES:
        break;
    }
    return false;
}

static const struct qd_leaf *find_leaf(const struct qd_forest *f, int32_t at, const float *row)
{
    while (at >= 0) {
        const struct qd_branch *b = &f->branches[at];
        const float x = row[b->feature];
        at = takes_yes(f, b, x) || (b->missing_yes && isnan(x)) ? b->yes : b->no;
    }
    return &f->leaves[~at];
}

static void add_leaf(const struct qd_forest *f, const struct qd_leaf *leaf, float *scores, unsigned char *has)
{
    for (uint32_t i = 0; i < leaf->count; i++) {
        const struct qd_leaf_weight *w = &f->weights[leaf->first + i];
        float *score = &scores[w->target];
        if (f->aggregate == QD_AGGREGATE_SUM || f->aggregate == QD_AGGREGATE_AVERAGE)
            *score += w->weight;
        else if (!has[w->target] || (f->aggregate == QD_AGGREGATE_MIN ? w->weight < *score : w->weight > *score))
            *score = w->weight;
        has[w->target] = 1;
    }
}

/* ------------------------------------------------------------------ what becomes of the sums */

static void finish_regression(const struct qd_forest *f, float *scores)
{
    for (size_t t = 0; t < f->targets; t++) {
        if (f->aggregate == QD_AGGREGATE_AVERAGE)
            scores[t] /= (float)f->root_count;
        scores[t] += f->base_count ? f->base[t] : 0;
    }
    if (f->targets > 1 || f->transform == QD_TRANSFORM_PROBIT) /* onnxruntime transforms a lone target by PROBIT only */
        qd_transform_apply(f->transform, scores, f->targets);
}

/* A score that stands for two classes, or for the only one. Returns the label's number. */
static size_t finish_pair(const struct qd_forest *f, float s, float *out)
{
    const bool share = f->one_class_weighted && f->weights_positive;
    if (f->targets > 1)
        qd_transform_pair(f->transform, !share, s, out);
    else
        out[0] = f->transform == QD_TRANSFORM_PROBIT ? qd_probit(s) : s;
    return share ? s > 0.5f : s > 0;
}

static size_t finish_two(const struct qd_forest *f, float *scores, unsigned char *has)
{
    if (f->base_count == 2 && has[1]) { /* onnxruntime reads one score for two classes here */
        scores[1] = f->base[1] + scores[0];
        scores[0] = -scores[1];
    } else {
        for (size_t c = 0; c < f->base_count; c++)
            scores[c] += f->base[c];
    }
    if (!has[1] && f->base_count < 2)
        return finish_pair(f, scores[0], scores);
    const float positive = has[1] ? scores[1] : has[0] ? scores[0] : 0;
    const size_t label = f->one_class_weighted && f->weights_positive ? positive > 0.5f : positive > 0;
    for (size_t c = 0; c < 2; c++)
        scores[c] = has[c] ? scores[c] : 0;
    qd_transform_apply(f->transform, scores, 2);
    return label;
}

static size_t finish_classes(const struct qd_forest *f, float *scores, unsigned char *has)
{
    if (f->targets == 1)
        return finish_pair(f, scores[0] + (f->base_count ? f->base[0] : 0), scores);
    if (f->targets == 2)
        return finish_two(f, scores, has);
    size_t best = f->targets;
    for (size_t c = 0; c < f->targets; c++) {
        scores[c] += f->base_count ? f->base[c] : 0;
        has[c] |= f->base_count > 0;
        if (has[c] && (best == f->targets || scores[c] > scores[best]))
            best = c;
    }
    qd_transform_apply(f->transform, scores, f->targets);
    return best < f->targets ? best : 0;
}

/* ------------------------------------------------------------------ the operators */

enum qd_status qd_trees_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_forest *f = call->prep;
    int64_t rows, features;
    enum qd_status status = qd_table_infer(call, &rows, &features, error);
    if (status)
        return status;
    if (features <= f->last_feature)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "asks for feature %d, rows have %" PRId64, f->last_feature,
                          features);
    const struct qd_shape out = {.rank = 2, .dims = {rows, (int64_t)f->targets}};
    if (f->labels.count)
        return qd_table_classify(call, &f->labels, rows, (int64_t)f->targets, error);
    return qd_op_out(call, 0, QD_F32, &out, error);
}

/* Rows as FP32, then a score and whether there is one, by row and target. */
size_t qd_trees_scratch(const struct qd_call *call)
{
    const struct qd_forest *f = call->prep;
    const size_t rows = call->in[0].shape.rank == 2 ? (size_t)call->in[0].shape.dims[0] : 1;
    return qd_table_scratch(call) + qd_align_up(rows * f->targets * sizeof(float)) + rows * f->targets;
}

struct trees_work {
    const struct qd_call *call;
    const float *rows;
    int64_t features;
    float *scores;
    unsigned char *has;
};

static void finish_row(const struct trees_work *w, int64_t row)
{
    const struct qd_forest *f = w->call->prep;
    float *scores = w->scores + row * (int64_t)f->targets;
    unsigned char *has = w->has + row * (int64_t)f->targets;
    struct qd_tensor *out = w->call->out;
    if (!f->labels.count) {
        finish_regression(f, scores);
        memcpy((float *)out[0].data + row * (int64_t)f->targets, scores, f->targets * sizeof *scores);
        return;
    }
    const size_t label = finish_classes(f, scores, has);
    if (qd_op_wants(w->call, 0))
        qd_labels_put(&f->labels, label, &out[0], row);
    if (w->call->out_count > 1 && qd_op_wants(w->call, 1))
        memcpy((float *)out[1].data + row * (int64_t)f->targets, scores, f->targets * sizeof *scores);
}

static void trees_rows(void *ctx, int64_t begin, int64_t end)
{
    const struct trees_work *w = ctx;
    const struct qd_forest *f = w->call->prep;
    const int64_t targets = (int64_t)f->targets;
    for (int64_t from = begin; from < end; from += BLOCK_ROWS) {
        const int64_t to = from + BLOCK_ROWS < end ? from + BLOCK_ROWS : end;
        memset(w->scores + from * targets, 0, (size_t)((to - from) * targets) * sizeof(float));
        memset(w->has + from * targets, 0, (size_t)((to - from) * targets));
        for (size_t t = 0; t < f->root_count; t++)
            for (int64_t r = from; r < to; r++)
                add_leaf(f, find_leaf(f, f->roots[t], w->rows + r * w->features), w->scores + r * targets,
                         w->has + r * targets);
        for (int64_t r = from; r < to; r++)
            finish_row(w, r);
    }
}

enum qd_status qd_trees_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct qd_forest *f = call->prep;
    const struct qd_shape *in = &call->in[0].shape;
    const int64_t rows = in->rank == 2 ? in->dims[0] : 1;
    unsigned char *scratch = (unsigned char *)call->scratch + qd_table_scratch(call);
    struct trees_work work = {
        .call = call, .rows = qd_table_floats(call), .features = in->dims[in->rank - 1], .scores = (float *)scratch};
    work.has = scratch + qd_align_up((size_t)rows * f->targets * sizeof(float));
    qd_op_split(call, rows, 1 + 4096 / (1 + (int64_t)f->root_count), trees_rows, &work);
    return QD_OK;
}
