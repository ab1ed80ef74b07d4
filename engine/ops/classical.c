/* Rows, labels and scores of the classical models. See classical.h. */
#include "engine/ops/classical.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ scores */

enum qd_status qd_transform_read(const struct qd_node *node, enum qd_transform *out, struct qd_error *error)
{
    static const char *const names[QD_TRANSFORM_COUNT] = {
        [QD_TRANSFORM_NONE] = "NONE",         [QD_TRANSFORM_SOFTMAX] = "SOFTMAX",
        [QD_TRANSFORM_LOGISTIC] = "LOGISTIC", [QD_TRANSFORM_SOFTMAX_ZERO] = "SOFTMAX_ZERO",
        [QD_TRANSFORM_PROBIT] = "PROBIT",
    };
    for (int i = 0; i < QD_TRANSFORM_COUNT; i++)
        if (qd_attr_is(node, "post_transform", "NONE", names[i])) {
            *out = (enum qd_transform)i;
            return QD_OK;
        }
    return qd_op_refuse(node, error, QD_ERR_INVALID, "post_transform is none of the standard's");
}

double qd_logistic(double x)
{
    const double v = 1 / (1 + exp(-fabs(x)));
    return x < 0 ? 1 - v : v;
}

/* The inverse of the normal distribution by Winitzki's approximation of erf^-1 (a = .147), which is what the
 * runtimes that such models are made for compute. NaN outside of (0, 1). */
float qd_probit(float p)
{
    const float x = 2 * p - 1, sign = x < 0 ? -1.0f : 1.0f;
    const float log_part = logf((1 - x) * (1 + x));
    const float v = 2 / (3.14159f * 0.147f) + 0.5f * log_part;
    return 1.41421356f * sign * sqrtf(-v + sqrtf(v * v - 1 / 0.147f * log_part));
}

/* SOFTMAX_ZERO: scores of zero take no part and stay zero. */
static void softmax(float *scores, size_t n, bool skip_zeros)
{
    const float nothing = skip_zeros ? 0.0000001f : -1;
    float most = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        most = scores[i] > most ? scores[i] : most;
    for (size_t i = 0; i < n; i++) {
        const bool counts = !(fabsf(scores[i]) <= nothing);
        scores[i] = counts ? expf(scores[i] - most) : scores[i] * expf(-most);
        sum += counts ? (double)scores[i] : 0;
    }
    for (size_t i = 0; i < n; i++)
        scores[i] = (float)((double)scores[i] / sum);
}

void qd_transform_apply(enum qd_transform transform, float *scores, size_t n)
{
    if (transform == QD_TRANSFORM_SOFTMAX || transform == QD_TRANSFORM_SOFTMAX_ZERO)
        softmax(scores, n, transform == QD_TRANSFORM_SOFTMAX_ZERO);
    for (size_t i = 0; i < n && transform == QD_TRANSFORM_LOGISTIC; i++)
        scores[i] = (float)qd_logistic((double)scores[i]);
    for (size_t i = 0; i < n && transform == QD_TRANSFORM_PROBIT; i++)
        scores[i] = qd_probit(scores[i]);
}

void qd_transform_pair(enum qd_transform transform, bool mirrored, float s, float out[2])
{
    const bool logistic = transform == QD_TRANSFORM_LOGISTIC;
    out[0] = logistic ? (float)qd_logistic((double)-s) : mirrored ? -s : 1 - s;
    out[1] = logistic ? (float)qd_logistic((double)s) : s;
}

/* ------------------------------------------------------------------ labels */

enum qd_status qd_labels_read(const struct qd_node *node, const char *ints_name, struct qd_labels *out,
                              struct qd_error *error)
{
    const struct qd_attr *strings = qd_attr_find(node, "classlabels_strings");
    *out = (struct qd_labels){.count = 0};
    if (strings && strings->type == QD_ATTR_STRINGS && strings->count) {
        out->strings = strings->strings;
        out->count = strings->count;
    } else {
        out->ints = qd_attr_ints(node, ints_name, &out->count);
    }
    if (out->count >= 1 && out->count <= QD_MOST_CLASSES)
        return QD_OK;
    return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu labels of classes, 1 to %d are allowed", out->count,
                        QD_MOST_CLASSES);
}

enum qd_dtype qd_labels_dtype(const struct qd_labels *labels) { return labels->strings ? QD_STR : QD_I64; }

void qd_labels_put(const struct qd_labels *labels, size_t which, struct qd_tensor *out, int64_t row)
{
    if (labels->strings)
        ((struct qd_string *)out->data)[row] = (struct qd_string){labels->strings[which].bytes,
                                                                  labels->strings[which].length};
    else
        ((int64_t *)out->data)[row] = labels->ints[which];
}

/* ------------------------------------------------------------------ rows */

enum qd_status qd_table_infer(const struct qd_call *call, int64_t *rows, int64_t *features, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, QD_TYPES_TABLE, error);
    if (status)
        return status;
    const struct qd_shape *in = &call->in[0].shape;
    if (in->rank < 1 || in->rank > 2)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs rows of numbers, of rank 1 or 2, not of rank %d", in->rank);
    *rows = in->rank == 2 ? in->dims[0] : 1;
    *features = in->dims[in->rank - 1];
    return QD_OK;
}

enum qd_status qd_table_classify(const struct qd_call *call, const struct qd_labels *labels, int64_t rows,
                                 int64_t columns, struct qd_error *error)
{
    const struct qd_shape names = {.rank = 1, .dims = {rows}}, scores = {.rank = 2, .dims = {rows, columns}};
    enum qd_status status = qd_op_out(call, 0, qd_labels_dtype(labels), &names, error);
    return status || call->out_count < 2 ? status : qd_op_out(call, 1, QD_F32, &scores, error);
}

size_t qd_table_scratch(const struct qd_call *call)
{
    return call->in[0].dtype == QD_F32 ? 0 : qd_align_up((size_t)qd_tensor_elems(&call->in[0]) * sizeof(float));
}

const float *qd_table_floats(const struct qd_call *call)
{
    const struct qd_tensor *in = &call->in[0];
    float *out = call->scratch;
    if (in->dtype == QD_F32)
        return in->data;
    const int64_t n = qd_tensor_elems(in);
    for (int64_t i = 0; i < n; i++)
        out[i] = in->dtype == QD_I64 ? (float)((const int64_t *)in->data)[i] : (float)((const int32_t *)in->data)[i];
    return out;
}

/* ------------------------------------------------------------------ attributes */

static enum qd_status tensor_numbers(const struct qd_node *node, const char *name, const struct qd_tensor *tensor,
                                     struct qd_arena *arena, const float **out, size_t *count, struct qd_error *error)
{
    const size_t size = qd_dtype_bytes(tensor->dtype);
    const unsigned char *from = tensor->data;
    if (tensor->dtype != QD_F32 && tensor->dtype != QD_F64)
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "%s of type %s is not supported", name,
                            qd_dtype_name(tensor->dtype));
    *count = (size_t)qd_tensor_elems(tensor);
    float *numbers = qd_arena_alloc(arena, *count, sizeof *numbers);
    if (!numbers)
        return qd_op_no_memory(node, error);
    for (size_t i = 0; i < *count; i++) { /* a large tensor may lie anywhere in the file */
        double wide;
        memcpy(tensor->dtype == QD_F32 ? (void *)&numbers[i] : (void *)&wide, from + i * size, size);
        if (tensor->dtype == QD_F64)
            numbers[i] = (float)wide;
    }
    *out = numbers;
    return QD_OK;
}

enum qd_status qd_attr_numbers(const struct qd_node *node, const char *name, struct qd_arena *arena, const float **out,
                               size_t *count, struct qd_error *error)
{
    char longer[64];
    snprintf(longer, sizeof longer, "%s_as_tensor", name);
    const struct qd_attr *tensor = qd_attr_find(node, longer);
    if (!tensor)
        tensor = qd_attr_find(node, name);
    if (tensor && tensor->type == QD_ATTR_TENSOR)
        return tensor_numbers(node, tensor->name, &tensor->t, arena, out, count, error);
    *out = qd_attr_floats(node, name, count);
    return QD_OK;
}
