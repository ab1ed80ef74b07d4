/* What stands before and behind classical models: Scaler, Normalizer, Imputer, Binarizer, FeatureVectorizer,
 * ArrayFeatureExtractor, and ZipMap, whose list of maps is served as the matrix of its numbers. Not for categories
 * (encoders.c). */
#include "engine/ops/classical.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The number of elements along the last dimension; a scalar has none. */
static enum qd_status last_dim(const struct qd_call *call, int64_t *n, struct qd_error *error)
{
    const struct qd_shape *in = &call->in[0].shape;
    *n = in->rank ? in->dims[in->rank - 1] : 0;
    return in->rank ? QD_OK : qd_op_fail(call, error, QD_ERR_SHAPE, "needs rows of numbers, not a scalar");
}

/* A list that goes with the columns: as many as there are, or one for all. */
static enum qd_status fits_columns(const struct qd_call *call, const char *name, size_t count, int64_t columns,
                                   struct qd_error *error)
{
    if (count <= 1 || (int64_t)count == columns)
        return QD_OK;
    return qd_op_fail(call, error, QD_ERR_SHAPE, "%s has %zu elements, rows have %" PRId64, name, count, columns);
}

/* ------------------------------------------------------------------ Scaler */

struct scaler {
    const float *offset, *scale;
    size_t offsets, scales;
};

static enum qd_status scaler_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct scaler *s = QD_PREP_NEW(arena, struct scaler);
    if (!s)
        return qd_op_no_memory(node, error);
    s->offset = qd_attr_floats(node, "offset", &s->offsets);
    s->scale = qd_attr_floats(node, "scale", &s->scales);
    *prep = s;
    return QD_OK;
}

static enum qd_status scaler_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct scaler *s = call->prep;
    int64_t n;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, QD_TYPES_TABLE, error);
    if (!status)
        status = last_dim(call, &n, error);
    if (!status)
        status = fits_columns(call, "offset", s->offsets, n, error);
    if (!status)
        status = fits_columns(call, "scale", s->scales, n, error);
    return status ? status : qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

static float of_column(const float *list, size_t count, int64_t column, float none)
{
    return count == 0 ? none : list[count == 1 ? 0 : column];
}

static enum qd_status scaler_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct scaler *s = call->prep;
    const float *in = qd_table_floats(call);
    float *out = call->out[0].data;
    const int64_t elems = qd_tensor_elems(&call->in[0]), n = call->in[0].shape.dims[call->in[0].shape.rank - 1];
    for (int64_t i = 0; i < elems; i++)
        out[i] = (in[i] - of_column(s->offset, s->offsets, i % n, 0)) * of_column(s->scale, s->scales, i % n, 1);
    return QD_OK;
}

const struct qd_op qd_op_scaler = {
    .prepare = scaler_prepare, .infer = scaler_infer, .scratch = qd_table_scratch, .run = scaler_run};

/* ------------------------------------------------------------------ Normalizer */

enum norm { NORM_MAX, NORM_L1, NORM_L2, NORMS };

static enum qd_status normalizer_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                         struct qd_error *error)
{
    static const char *const names[NORMS] = {"MAX", "L1", "L2"};
    int *norm = QD_PREP_NEW(arena, int);
    if (!norm)
        return qd_op_no_memory(node, error);
    while (*norm < NORMS && !qd_attr_is(node, "norm", "MAX", names[*norm]))
        ++*norm;
    *prep = norm;
    return *norm < NORMS ? QD_OK : qd_op_refuse(node, error, QD_ERR_INVALID, "norm must be MAX, L1 or L2");
}

static enum qd_status normalizer_infer(const struct qd_call *call, struct qd_error *error)
{
    int64_t rows, features;
    enum qd_status status = qd_table_infer(call, &rows, &features, error);
    return status ? status : qd_op_out(call, 0, QD_F32, &call->in[0].shape, error);
}

/* A row of zeros stays so. The largest is taken with its sign, as onnxruntime does. */
static double norm_of(enum norm norm, const float *x, int64_t n)
{
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        most = (double)x[i] > most ? (double)x[i] : most;
        sum += norm == NORM_L1 ? fabs((double)x[i]) : (double)x[i] * (double)x[i];
    }
    const double by = norm == NORM_MAX ? most : norm == NORM_L1 ? sum : sqrt(sum);
    return by == 0 ? 1 : by;
}

static enum qd_status normalizer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const float *in = qd_table_floats(call);
    float *out = call->out[0].data;
    const int64_t elems = qd_tensor_elems(&call->in[0]), n = call->in[0].shape.dims[call->in[0].shape.rank - 1];
    for (int64_t r = 0; r < elems; r += n) {
        const double by = norm_of((enum norm) * (const int *)call->prep, in + r, n);
        for (int64_t i = r; i < r + n; i++)
            out[i] = (float)((double)in[i] / by);
    }
    return QD_OK;
}

const struct qd_op qd_op_normalizer = {
    .prepare = normalizer_prepare, .infer = normalizer_infer, .scratch = qd_table_scratch, .run = normalizer_run};

/* ------------------------------------------------------------------ Imputer */

struct imputer {
    const float *floats;
    const int64_t *ints;
    size_t float_count, int_count;
    float replaced_float;
    int64_t replaced_int;
};

static enum qd_status imputer_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                      struct qd_error *error)
{
    struct imputer *m = QD_PREP_NEW(arena, struct imputer);
    if (!m)
        return qd_op_no_memory(node, error);
    m->floats = qd_attr_floats(node, "imputed_value_floats", &m->float_count);
    m->ints = qd_attr_ints(node, "imputed_value_int64s", &m->int_count);
    m->replaced_float = qd_attr_float(node, "replaced_value_float", 0);
    m->replaced_int = qd_attr_int(node, "replaced_value_int64", 0);
    *prep = m;
    return QD_OK;
}

static enum qd_status imputer_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct imputer *m = call->prep;
    int64_t n;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, QD_BIT(QD_F32) | QD_BIT(QD_I64), error);
    if (!status)
        status = last_dim(call, &n, error);
    if (status)
        return status;
    const bool floats = call->in[0].dtype == QD_F32;
    const size_t count = floats ? m->float_count : m->int_count;
    if (count == 0)
        return qd_op_fail(call, error, QD_ERR_INVALID, "has no imputed values for %s",
                          qd_dtype_name(call->in[0].dtype));
    status = fits_columns(call, floats ? "imputed_value_floats" : "imputed_value_int64s", count, n, error);
    return status ? status : qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
}

static enum qd_status imputer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct imputer *m = call->prep;
    const struct qd_tensor *in = &call->in[0];
    const int64_t elems = qd_tensor_elems(in), n = in->shape.dims[in->shape.rank - 1];
    const bool nan = isnan(m->replaced_float);
    for (int64_t i = 0; i < elems; i++)
        if (in->dtype == QD_F32) {
            const float x = ((const float *)in->data)[i];
            const bool missing = nan ? isnan(x) : x == m->replaced_float;
            ((float *)call->out[0].data)[i] = missing ? of_column(m->floats, m->float_count, i % n, 0) : x;
        } else {
            const int64_t x = ((const int64_t *)in->data)[i];
            ((int64_t *)call->out[0].data)[i] = x == m->replaced_int ? m->ints[m->int_count == 1 ? 0 : i % n] : x;
        }
    return QD_OK;
}

const struct qd_op qd_op_imputer = {.prepare = imputer_prepare, .infer = imputer_infer, .run = imputer_run};

/* ------------------------------------------------------------------ Binarizer */

static enum qd_status binarizer_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, QD_TYPES_TABLE, error);
    return status ? status : qd_op_out(call, 0, call->in[0].dtype, &call->in[0].shape, error);
}

static enum qd_status binarizer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const float threshold = qd_attr_float(call->node, "threshold", 0);
    const int64_t elems = qd_tensor_elems(&call->in[0]);
    const float *in = qd_table_floats(call);
    for (int64_t i = 0; i < elems; i++) {
        const bool above = in[i] > threshold;
        if (call->in[0].dtype == QD_F32)
            ((float *)call->out[0].data)[i] = above;
        else if (call->in[0].dtype == QD_I64)
            ((int64_t *)call->out[0].data)[i] = above;
        else
            ((int32_t *)call->out[0].data)[i] = above;
    }
    return QD_OK;
}

const struct qd_op qd_op_binarizer = {.infer = binarizer_infer, .scratch = qd_table_scratch, .run = binarizer_run};

/* ------------------------------------------------------------------ FeatureVectorizer: matrices side by side */

/* Columns of input i in the output; what it lacks is zero, what it has more is left out. */
static int64_t width_of(const struct qd_call *call, int i, int64_t *own)
{
    size_t count;
    const int64_t *widths = qd_attr_ints(call->node, "inputdimensions", &count);
    const struct qd_shape *in = &call->in[i].shape;
    *own = in->rank == 1 ? in->dims[0] : qd_shape_span(in, 1, in->rank);
    return (size_t)i < count ? widths[i] : *own;
}

static enum qd_status vectorizer_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, QD_MAX_OUTPUTS, error);
    struct qd_shape out = {.rank = 2};
    for (int i = 0; i < call->in_count && !status; i++) {
        int64_t own;
        const struct qd_shape *in = &call->in[i].shape;
        if (!qd_op_has(call, i) || in->rank < 1)
            return qd_op_fail(call, error, QD_ERR_SHAPE, "input %d is no matrix", i);
        status = qd_op_types(call, i, QD_TYPES_TABLE, error);
        const int64_t rows = in->rank == 1 ? 1 : in->dims[0], width = width_of(call, i, &own);
        if (!status && (width < 0 || !qd_i64_add(out.dims[1], width, &out.dims[1])))
            return qd_op_fail(call, error, QD_ERR_INVALID, "inputdimensions make no sense");
        if (!status && i > 0 && rows != out.dims[0])
            return qd_op_fail(call, error, QD_ERR_SHAPE, "inputs have different numbers of rows");
        out.dims[0] = rows;
    }
    return status ? status : qd_op_out(call, 0, QD_F32, &out, error);
}

static float number(const struct qd_tensor *in, int64_t i)
{
    return in->dtype == QD_F32   ? ((const float *)in->data)[i]
           : in->dtype == QD_I64 ? (float)((const int64_t *)in->data)[i]
                                 : (float)((const int32_t *)in->data)[i];
}

static enum qd_status vectorizer_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const int64_t rows = call->out[0].shape.dims[0], columns = call->out[0].shape.dims[1];
    int64_t from = 0;
    for (int i = 0; i < call->in_count; i++) {
        int64_t own;
        const int64_t width = width_of(call, i, &own);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c++)
                ((float *)call->out[0].data)[r * columns + from + c] = c < own ? number(&call->in[i], r * own + c) : 0;
        from += width;
    }
    return QD_OK;
}

const struct qd_op qd_op_feature_vectorizer = {.infer = vectorizer_infer, .run = vectorizer_run};

/* ------------------------------------------------------------------ ArrayFeatureExtractor: columns by number */

static enum qd_status extractor_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    if (!status)
        status = qd_op_types(call, 0, QD_TYPES_MOVED, error);
    if (!status)
        status = qd_op_types(call, 1, QD_BIT(QD_I64), error);
    if (status)
        return status;
    const struct qd_shape *in = &call->in[0].shape;
    struct qd_shape out = *in;
    const int64_t wanted = qd_tensor_elems(&call->in[1]);
    if (in->rank < 1 || wanted < 1)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs rows, and the numbers of columns");
    if (in->rank == 1)
        out = (struct qd_shape){.rank = 2, .dims = {1}};
    out.dims[out.rank - 1] = wanted;
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status extractor_run(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0];
    const int64_t *wanted = call->in[1].data;
    const int64_t count = qd_tensor_elems(&call->in[1]), columns = in->shape.dims[in->shape.rank - 1];
    const int64_t rows = columns ? qd_tensor_elems(in) / columns : 0;
    const size_t size = qd_dtype_bytes(in->dtype);
    unsigned char *out = call->out[0].data;
    for (int64_t i = 0; i < count; i++)
        if (wanted[i] < 0 || wanted[i] >= columns)
            return qd_op_fail(call, error, QD_ERR_INVALID, "column %" PRId64 " is asked for, rows have %" PRId64,
                              wanted[i], columns);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < count; i++, out += size)
            memcpy(out, (const unsigned char *)in->data + (size_t)(r * columns + wanted[i]) * size, size);
    return QD_OK;
}

const struct qd_op qd_op_feature_extractor = {.infer = extractor_infer, .run = extractor_run};

/* ------------------------------------------------------------------ ZipMap */

/* A list of maps from labels to numbers, a map per row: the same numbers as a matrix, whose columns stand in the order
 * of the labels. */
static enum qd_status zipmap_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                     struct qd_error *error)
{
    struct qd_labels *labels = QD_PREP_NEW(arena, struct qd_labels);
    if (!labels)
        return qd_op_no_memory(node, error);
    *prep = labels;
    return qd_labels_read(node, "classlabels_int64s", labels, error);
}

static enum qd_status zipmap_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_labels *labels = call->prep;
    int64_t rows, columns;
    enum qd_status status = qd_table_infer(call, &rows, &columns, error);
    if (status)
        return status;
    if (call->in[0].dtype != QD_F32 || columns != (int64_t)labels->count)
        return qd_op_fail(call, error, QD_ERR_SHAPE, "has %zu labels for %" PRId64 " columns", labels->count, columns);
    const struct qd_shape out = {.rank = 2, .dims = {rows, columns}};
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static enum qd_status zipmap_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    qd_op_copy(call->out[0].data, call->in[0].data, qd_tensor_bytes(&call->out[0]));
    return QD_OK;
}

const struct qd_op qd_op_zipmap = {
    .flags = QD_OP_VIEW, .prepare = zipmap_prepare, .infer = zipmap_infer, .run = zipmap_run};
