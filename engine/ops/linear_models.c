/* LinearClassifier and LinearRegressor of `ai.onnx.ml`: a product with the model's own coefficients, then labels and
 * scores. Sums are made in double in the order of the features. Not the quantized layers (linear.h): these models have
 * a few numbers, and their last digits decide a class. */
#include "engine/ops/classical.h"

#include <inttypes.h>
#include <string.h>

struct linear_model {
    size_t targets, columns, features; /* columns: of the scores, 2 where one score stands for two classes */
    const float *coefficients, *intercepts;
    enum qd_transform transform;
    struct qd_labels labels; /* count 0: regression */
};

static enum qd_status check_coefficients(const struct qd_node *node, struct linear_model *m, size_t count,
                                         size_t intercepts, struct qd_error *error)
{
    if (m->targets < 1 || m->targets > QD_MOST_CLASSES || count % m->targets || count == 0)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu coefficients for %zu targets", count, m->targets);
    if (intercepts && intercepts != m->targets)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu intercepts for %zu targets", intercepts, m->targets);
    m->features = count / m->targets;
    m->columns = m->targets;
    return qd_transform_read(node, &m->transform, error);
}

static enum qd_status classifier_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                         struct qd_error *error)
{
    struct linear_model *m = QD_PREP_NEW(arena, struct linear_model);
    size_t count, intercepts;
    if (!m)
        return qd_op_no_memory(node, error);
    *prep = m;
    m->coefficients = qd_attr_floats(node, "coefficients", &count);
    m->intercepts = qd_attr_floats(node, "intercepts", &intercepts);
    enum qd_status status = qd_labels_read(node, "classlabels_ints", &m->labels, error);
    if (status)
        return status;
    m->targets = intercepts ? intercepts : m->labels.count;
    if ((status = check_coefficients(node, m, count, intercepts, error)))
        return status;
    const bool pair = m->targets == 1 && m->labels.count == 2;
    if (!pair && m->targets != m->labels.count)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu labels for %zu targets", m->labels.count, m->targets);
    if (m->targets == 1 && m->transform == QD_TRANSFORM_PROBIT)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "post_transform PROBIT of one score is not supported");
    m->columns = pair ? 2 : m->targets;
    return QD_OK;
}

static enum qd_status regressor_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                        struct qd_error *error)
{
    struct linear_model *m = QD_PREP_NEW(arena, struct linear_model);
    size_t count, intercepts;
    if (!m)
        return qd_op_no_memory(node, error);
    *prep = m;
    m->coefficients = qd_attr_floats(node, "coefficients", &count);
    m->intercepts = qd_attr_floats(node, "intercepts", &intercepts);
    const int64_t targets = qd_attr_int(node, "targets", 1);
    m->targets = targets < 1 ? 0 : (size_t)targets;
    return check_coefficients(node, m, count, intercepts, error);
}

static enum qd_status linear_model_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct linear_model *m = call->prep;
    int64_t rows, features;
    enum qd_status status = qd_table_infer(call, &rows, &features, error);
    if (status)
        return status;
    if (features != (int64_t)m->features)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has coefficients for %zu features, rows have %" PRId64,
                          m->features, features);
    const struct qd_shape out = {.rank = 2, .dims = {rows, (int64_t)m->targets}};
    return m->labels.count ? qd_table_classify(call, &m->labels, rows, (int64_t)m->columns, error)
                           : qd_op_out(call, 0, QD_F32, &out, error);
}

/* Rows as FP32 and the scores. */
static size_t linear_model_scratch(const struct qd_call *call)
{
    const struct linear_model *m = call->prep;
    const size_t rows = call->in[0].shape.rank == 2 ? (size_t)call->in[0].shape.dims[0] : 1;
    return qd_table_scratch(call) + rows * m->columns * sizeof(float);
}

static size_t top_class(const struct linear_model *m, const float *scores)
{
    size_t best = 0;
    if (m->targets == 1)
        return m->labels.count == 2 && scores[0] > 0;
    for (size_t t = 1; t < m->targets; t++)
        best = scores[t] > scores[best] ? t : best;
    return best;
}

struct linear_work {
    const struct qd_call *call;
    const float *rows;
    float *scores;
};

static void linear_rows(void *ctx, int64_t begin, int64_t end)
{
    const struct linear_work *w = ctx;
    const struct linear_model *m = w->call->prep;
    struct qd_tensor *out = w->call->out;
    for (int64_t r = begin; r < end; r++) {
        const float *row = w->rows + r * (int64_t)m->features;
        float *scores = w->scores + r * (int64_t)m->columns;
        for (size_t t = 0; t < m->targets; t++) {
            double sum = m->intercepts ? (double)m->intercepts[t] : 0;
            for (size_t f = 0; f < m->features; f++)
                sum += (double)row[f] * (double)m->coefficients[t * m->features + f];
            scores[t] = (float)sum;
        }
        if (m->labels.count && qd_op_wants(w->call, 0))
            qd_labels_put(&m->labels, top_class(m, scores), &out[0], r);
        if (m->columns > m->targets)
            qd_transform_pair(m->transform, false, scores[0], scores);
        else if (m->targets > 1 || m->transform == QD_TRANSFORM_PROBIT) /* as in trees: a lone target by PROBIT only */
            qd_transform_apply(m->transform, scores, m->targets);
        const int at = m->labels.count ? 1 : 0;
        if (at < w->call->out_count && qd_op_wants(w->call, at))
            memcpy((float *)out[at].data + r * (int64_t)m->columns, scores, m->columns * sizeof *scores);
    }
}

static enum qd_status linear_model_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct linear_model *m = call->prep;
    const int64_t rows = call->in[0].shape.rank == 2 ? call->in[0].shape.dims[0] : 1;
    struct linear_work work = {call, qd_table_floats(call),
                               (float *)(void *)((unsigned char *)call->scratch + qd_table_scratch(call))};
    qd_op_split(call, rows, 1 + 16384 / (int64_t)(m->features * m->targets), linear_rows, &work);
    return QD_OK;
}

const struct qd_op qd_op_linear_classifier = {.prepare = classifier_prepare,
                                              .infer = linear_model_infer,
                                              .scratch = linear_model_scratch,
                                              .run = linear_model_run};
const struct qd_op qd_op_linear_regressor = {.prepare = regressor_prepare,
                                             .infer = linear_model_infer,
                                             .scratch = linear_model_scratch,
                                             .run = linear_model_run};
