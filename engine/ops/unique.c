/* Unique: the different elements, or slices along an axis, in order of size or of appearance. How many there are is
 * known only when the data is; sorting then takes memory of its own. Not for TopK (select.c). */
#include "engine/ops/helpers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum output { OUT_VALUES, OUT_FIRST, OUT_INVERSE, OUT_COUNTS };

/* Slice i is `inner` elements at `outer` places that are `count * inner` elements apart. */
struct slices {
    const struct qd_tensor *in;
    int axis; /* -1: all elements, one by one */
    int64_t count, outer, inner;
};

#define COMPARE(name, type)                                                                                            \
    static int name(const void *data, int64_t i, int64_t j)                                                            \
    {                                                                                                                  \
        const type a = ((const type *)data)[i], b = ((const type *)data)[j];                                           \
        return (a > b) - (a < b);                                                                                      \
    }
COMPARE(compare_i8, int8_t)
COMPARE(compare_i16, int16_t)
COMPARE(compare_i32, int32_t)
COMPARE(compare_i64, int64_t)
COMPARE(compare_u8, uint8_t)
COMPARE(compare_u16, uint16_t)
COMPARE(compare_u32, uint32_t)
COMPARE(compare_u64, uint64_t)

/* NaNs are one value, above all others. */
static int compare_f32(const void *data, int64_t i, int64_t j)
{
    const float a = ((const float *)data)[i], b = ((const float *)data)[j];
    return isnan(a) || isnan(b) ? isnan(a) - isnan(b) : (a > b) - (a < b);
}

static int (*const COMPARES[QD_DTYPE_COUNT])(const void *, int64_t, int64_t) = {
    [QD_F32] = compare_f32, [QD_I8] = compare_i8,   [QD_I16] = compare_i16, [QD_I32] = compare_i32,
    [QD_I64] = compare_i64, [QD_U8] = compare_u8,   [QD_U16] = compare_u16, [QD_U32] = compare_u32,
    [QD_U64] = compare_u64, [QD_BOOL] = compare_u8,
};

static int compare_slices(const struct slices *s, int64_t i, int64_t j)
{
    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t k = 0; k < s->inner; k++) {
            const int64_t at = o * s->count * s->inner + k;
            const int order = COMPARES[s->in->dtype](s->in->data, at + i * s->inner, at + j * s->inner);
            if (order)
                return order;
        }
    return 0;
}

static int by_size(const void *a, const void *b, void *ctx)
{
    const int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    const int order = compare_slices(ctx, i, j);
    return order ? order : (i > j) - (i < j);
}

static int by_number(const void *a, const void *b)
{
    const int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    return (i > j) - (i < j);
}

static enum qd_status slices_of(const struct qd_call *call, struct slices *s, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0];
    const struct qd_attr *axis = qd_attr_find(call->node, "axis");
    *s = (struct slices){.in = in, .axis = -1, .count = qd_tensor_elems(in), .outer = 1, .inner = 1};
    if (!axis)
        return QD_OK;
    int64_t at = qd_attr_int(call->node, "axis", 0);
    enum qd_status status = qd_op_axis(call, &at, in->shape.rank, error);
    if (status)
        return status;
    s->axis = (int)at;
    s->count = in->shape.dims[at];
    s->outer = qd_shape_span(&in->shape, 0, s->axis);
    s->inner = qd_shape_span(&in->shape, s->axis + 1, in->shape.rank);
    return QD_OK;
}

/* All slices by size into sorted[count], the first of each kind into first[] in the order of the output. Returns how
 * many kinds there are; -1: no memory. */
static int64_t find_kinds(const struct qd_call *call, struct slices *s, int64_t **sorted, int64_t **first)
{
    int64_t kinds = 0;
    *sorted = qd_calloc((size_t)s->count + 1, sizeof **sorted);
    *first = qd_calloc((size_t)s->count + 1, sizeof **first);
    if (!*sorted || !*first)
        return -1;
    for (int64_t i = 0; i < s->count; i++)
        (*sorted)[i] = i;
    qsort_r(*sorted, (size_t)s->count, sizeof **sorted, by_size, s);
    for (int64_t i = 0; i < s->count; i++)
        if (i == 0 || compare_slices(s, (*sorted)[i - 1], (*sorted)[i]) != 0)
            (*first)[kinds++] = (*sorted)[i];
    if (qd_attr_int(call->node, "sorted", 1) == 0)
        qsort(*first, (size_t)kinds, sizeof **first, by_number);
    return kinds;
}

static enum qd_status unique_infer(const struct qd_call *call, struct qd_error *error)
{
    struct slices s;
    const struct qd_tensor *in = &call->in[0];
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = slices_of(call, &s, error)))
        return status;
    if (!COMPARES[in->dtype])
        return qd_op_types(call, 0, QD_TYPES_FLOAT, error);
    if (!in->data)
        return QD_ERR_NEEDS_DATA;
    int64_t *sorted, *first, kinds = find_kinds(call, &s, &sorted, &first);
    qd_free(sorted);
    qd_free(first);
    if (kinds < 0)
        return qd_op_fail(call, error, QD_ERR_NO_MEMORY, "no memory to sort its input");
    struct qd_shape values = {.rank = 1, .dims = {kinds}}, each = {.rank = 1, .dims = {kinds}},
                    all = {.rank = 1, .dims = {s.count}};
    if (s.axis >= 0) {
        values = in->shape;
        values.dims[s.axis] = kinds;
    }
    status = qd_op_out(call, OUT_VALUES, in->dtype, &values, error);
    for (int o = OUT_FIRST; o <= OUT_COUNTS && !status; o++)
        if (qd_op_wants(call, o))
            status = qd_op_out(call, o, QD_I64, o == OUT_INVERSE ? &all : &each, error);
    return status;
}

/* Which kind each slice is of, and how many are of each. Kinds stand in `first` in the order of `sorted`, or by the
 * number of their first slice. */
static void give_numbers(const struct qd_call *call, const struct slices *s, const int64_t *sorted,
                         const int64_t *first, int64_t kinds)
{
    int64_t *firsts = qd_op_wants(call, OUT_FIRST) ? call->out[OUT_FIRST].data : NULL,
            *inverse = qd_op_wants(call, OUT_INVERSE) ? call->out[OUT_INVERSE].data : NULL,
            *counts = qd_op_wants(call, OUT_COUNTS) ? call->out[OUT_COUNTS].data : NULL;
    const bool by_appearance = qd_attr_int(call->node, "sorted", 1) == 0;
    int64_t kind = -1, groups = 0;
    if (firsts)
        qd_op_copy(firsts, first, (size_t)kinds * sizeof *first);
    if (counts && kinds)
        memset(counts, 0, (size_t)kinds * sizeof *counts);
    for (int64_t i = 0; i < s->count; i++) {
        if (i == 0 || compare_slices(s, sorted[i - 1], sorted[i]) != 0) {
            const int64_t *at = by_appearance ? bsearch(&sorted[i], first, (size_t)kinds, sizeof *first, by_number)
                                              : &first[groups];
            kind = at - first;
            groups++;
        }
        if (inverse)
            inverse[sorted[i]] = kind;
        if (counts)
            counts[kind]++;
    }
}

static enum qd_status unique_run(const struct qd_call *call, struct qd_error *error)
{
    struct slices s;
    enum qd_status status = qd_op_recheck(call, unique_infer, error);
    if (status || (status = slices_of(call, &s, error)))
        return status;
    int64_t *sorted, *first, kinds = find_kinds(call, &s, &sorted, &first);
    const size_t bytes = qd_dtype_bytes(s.in->dtype) * (size_t)s.inner;
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t k = 0; k < kinds; k++)
            qd_op_copy((char *)call->out[0].data + (size_t)(o * kinds + k) * bytes,
                       (const char *)s.in->data + (size_t)(o * s.count + first[k]) * bytes, bytes);
    if (kinds >= 0)
        give_numbers(call, &s, sorted, first, kinds);
    else
        status = qd_op_fail(call, error, QD_ERR_NO_MEMORY, "no memory to sort its input");
    qd_free(sorted);
    qd_free(first);
    return status;
}

const struct qd_op qd_op_unique = {.infer = unique_infer, .run = unique_run};
