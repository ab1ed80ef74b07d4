/* Element types, shapes and tensor views: lookups and arithmetic. */
#include "engine/ir/tensor.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct row {
    int onnx;
    size_t bytes;
    const char *oip;
};

_Static_assert(sizeof(struct qd_string) == 16, "as dtype.def says");

static const struct row rows[QD_DTYPE_COUNT] = {
#define QD_DTYPE(name, onnx, bytes, oip) [QD_##name] = {onnx, bytes, oip},
#include "engine/ir/dtype.def"
#undef QD_DTYPE
};

size_t qd_dtype_bytes(enum qd_dtype dtype) { return (unsigned)dtype < QD_DTYPE_COUNT ? rows[dtype].bytes : 0; }
const char *qd_dtype_name(enum qd_dtype dtype) { return (unsigned)dtype < QD_DTYPE_COUNT ? rows[dtype].oip : ""; }
int qd_dtype_to_onnx(enum qd_dtype dtype) { return (unsigned)dtype < QD_DTYPE_COUNT ? rows[dtype].onnx : 0; }

enum qd_dtype qd_dtype_from_name(const char *name, size_t length)
{
    for (int i = 1; i < QD_DTYPE_COUNT; i++)
        if (strlen(rows[i].oip) == length && memcmp(rows[i].oip, name, length) == 0)
            return (enum qd_dtype)i;
    return QD_NONE;
}

enum qd_dtype qd_dtype_from_onnx(int64_t onnx)
{
    for (int i = 1; i < QD_DTYPE_COUNT; i++)
        if (rows[i].onnx == onnx)
            return (enum qd_dtype)i;
    return QD_NONE;
}

bool qd_shape_elems(const struct qd_shape *shape, int64_t *elems)
{
    int64_t product = 1;
    bool empty = false;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dims[i] < 0)
            return false;
        if (shape->dims[i] == 0)
            empty = true; /* still check the others: [0, 2^62, 2^62] is not a sound shape */
        else if (!qd_i64_mul(product, shape->dims[i], &product))
            return false;
    }
    *elems = empty ? 0 : product;
    return true;
}

bool qd_shape_equal(const struct qd_shape *a, const struct qd_shape *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

bool qd_shape_known(const struct qd_shape *shape)
{
    for (int i = 0; i < shape->rank; i++)
        if (shape->dims[i] < 0)
            return false;
    return true;
}

const char *qd_shape_text(const struct qd_shape *shape, char *text, size_t room)
{
    size_t used = 0;
    for (int i = 0; i < shape->rank && used < room; i++) {
        const char *before = i ? ", " : "[";
        int n = shape->dims[i] < 0 ? snprintf(text + used, room - used, "%s?", before)
                                   : snprintf(text + used, room - used, "%s%" PRId64, before, shape->dims[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < room)
        snprintf(text + used, room - used, shape->rank ? "]" : "[]");
    return text;
}

int64_t qd_shape_span(const struct qd_shape *shape, int from, int to)
{
    int64_t product = 1;
    for (int i = from; i < to; i++)
        product *= shape->dims[i];
    return product;
}

int64_t qd_tensor_elems(const struct qd_tensor *tensor) { return qd_shape_span(&tensor->shape, 0, tensor->shape.rank); }
size_t qd_tensor_bytes(const struct qd_tensor *tensor)
{
    return (size_t)qd_tensor_elems(tensor) * qd_dtype_bytes(tensor->dtype);
}

bool qd_tensor_block_bytes(const struct qd_tensor *tensor, size_t *bytes)
{
    *bytes = qd_tensor_bytes(tensor);
    for (int64_t i = 0, n = tensor->dtype == QD_STR ? qd_tensor_elems(tensor) : 0; i < n; i++)
        if (!qd_size_add(*bytes, ((const struct qd_string *)tensor->data)[i].length, bytes))
            return false;
    return true;
}

struct qd_tensor qd_tensor_copy(const struct qd_tensor *tensor, void *block)
{
    const size_t bytes = qd_tensor_bytes(tensor);
    struct qd_tensor copy = *tensor;
    copy.data = block;
    if (bytes)
        memcpy(block, tensor->data, bytes);
    char *to = (char *)block + bytes;
    for (int64_t i = 0, n = tensor->dtype == QD_STR ? qd_tensor_elems(tensor) : 0; i < n; i++) {
        struct qd_string *s = &((struct qd_string *)block)[i];
        if (s->length)
            memcpy(to, s->bytes, s->length);
        s->bytes = to;
        to += s->length;
    }
    return copy;
}
