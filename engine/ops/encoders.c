/* Categories to numbers and back: LabelEncoder, CategoryMapper, OneHotEncoder. A table of keys, sorted once, is looked
 * up by halving; strings, integers and floats are keys. Not for words within strings (strings.c). */
#include "engine/ops/classical.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QD_TYPES_KEYS                                                                                                  \
    (QD_BIT(QD_STR) | QD_BIT(QD_I64) | QD_BIT(QD_F32) | QD_BIT(QD_I32) | QD_BIT(QD_I16)) /* doubles come as FP32 */

/* One of them by `dtype`: STR, F32, or I64 for all integers. */
struct list {
    enum qd_dtype dtype; /* QD_NONE: there is none */
    size_t count;
    const struct qd_string *strings;
    const float *floats;
    const int64_t *ints;
};

struct element {
    struct qd_string s;
    float f;
    int64_t i;
};

struct keys {
    struct list list;
    size_t *sorted; /* places by key; of equal keys the one that counts stands first */
    bool last_wins, nan_is_a_key;
};

/* ------------------------------------------------------------------ elements and their order */

static struct element list_at(const struct list *list, size_t i)
{
    struct element e = {.i = 0};
    if (list->dtype == QD_STR)
        e.s = list->strings[i];
    else if (list->dtype == QD_F32)
        e.f = list->floats[i];
    else
        e.i = list->ints[i];
    return e;
}

/* Element i of an input, as keys of `kind` are. */
static struct element input_at(const struct qd_tensor *in, int64_t i, enum qd_dtype kind)
{
    struct element e = {.i = 0};
    double number = 0;
    switch (in->dtype) {
    case QD_STR:
        e.s = ((const struct qd_string *)in->data)[i];
        return e;
    case QD_F32:
        e.f = ((const float *)in->data)[i];
        number = (double)e.f;
        e.i = number >= -0x1p63 && number < 0x1p63 ? (int64_t)number : INT64_MIN;
        return e;
    case QD_I16:
        e.i = ((const int16_t *)in->data)[i];
        break;
    case QD_I32:
        e.i = ((const int32_t *)in->data)[i];
        break;
    default:
        e.i = ((const int64_t *)in->data)[i];
        break;
    }
    e.f = kind == QD_F32 ? (float)e.i : 0;
    return e;
}

/* NaNs are equal and stand behind all numbers. */
static int compare(enum qd_dtype kind, const struct element *a, const struct element *b)
{
    if (kind == QD_I64)
        return (a->i > b->i) - (a->i < b->i);
    if (kind == QD_F32)
        return isnan(a->f) || isnan(b->f) ? !!isnan(a->f) - !!isnan(b->f) : (a->f > b->f) - (a->f < b->f);
    if (a->s.length != b->s.length)
        return a->s.length < b->s.length ? -1 : 1;
    return a->s.length ? memcmp(a->s.bytes, b->s.bytes, a->s.length) : 0;
}

static int by_key(const void *a, const void *b, void *keys)
{
    const struct keys *k = keys;
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    const struct element ex = list_at(&k->list, x), ey = list_at(&k->list, y);
    const int order = compare(k->list.dtype, &ex, &ey), place = (x > y) - (x < y);
    return order ? order : k->last_wins ? -place : place;
}

static enum qd_status sort_keys(const struct qd_node *node, struct keys *keys, struct qd_arena *arena,
                                struct qd_error *error)
{
    keys->sorted = qd_arena_alloc(arena, keys->list.count, sizeof *keys->sorted);
    if (!keys->sorted)
        return qd_op_no_memory(node, error);
    for (size_t i = 0; i < keys->list.count; i++)
        keys->sorted[i] = i;
    if (keys->list.count)
        qsort_r(keys->sorted, keys->list.count, sizeof *keys->sorted, by_key, keys);
    return QD_OK;
}

/* The place of a key in the model's list, or its count. */
static size_t find_key(const struct keys *keys, const struct element *e)
{
    const enum qd_dtype kind = keys->list.dtype;
    size_t from = 0, to = keys->list.count;
    if (kind == QD_F32 && isnan(e->f) && !keys->nan_is_a_key)
        return keys->list.count;
    while (from < to) { /* the first that is not below e */
        const size_t mid = from + (to - from) / 2;
        const struct element key = list_at(&keys->list, keys->sorted[mid]);
        if (compare(kind, &key, e) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    if (from == keys->list.count)
        return from;
    const struct element key = list_at(&keys->list, keys->sorted[from]);
    return compare(kind, &key, e) == 0 ? keys->sorted[from] : keys->list.count;
}

/* ------------------------------------------------------------------ attributes */

/* Strings of attributes are laid out as elements are (engine/ir/graph.h). */
static bool read_strings(const struct qd_node *node, const char *name, struct list *out)
{
    const struct qd_attr *attr = qd_attr_find(node, name);
    if (!attr || attr->type != QD_ATTR_STRINGS || attr->count == 0)
        return false;
    *out = (struct list){QD_STR, attr->count, (const void *)attr->strings, NULL, NULL};
    return true;
}

static bool read_ints(const struct qd_node *node, const char *name, struct list *out)
{
    size_t count;
    const int64_t *ints = qd_attr_ints(node, name, &count);
    if (count)
        *out = (struct list){QD_I64, count, NULL, NULL, ints};
    return count > 0;
}

static bool read_floats(const struct qd_node *node, const char *name, struct list *out)
{
    size_t count;
    const float *floats = qd_attr_floats(node, name, &count);
    if (count)
        *out = (struct list){QD_F32, count, NULL, floats, NULL};
    return count > 0;
}

/* A tensor as a list; *dtype is its own type, with FP32 for doubles. */
static enum qd_status read_tensor(const struct qd_node *node, const char *name, struct qd_arena *arena,
                                  struct list *out, enum qd_dtype *dtype, struct qd_error *error)
{
    const struct qd_attr *attr = qd_attr_find(node, name);
    if (!attr || attr->type != QD_ATTR_TENSOR)
        return QD_OK;
    const struct qd_tensor *t = &attr->t;
    const size_t count = (size_t)qd_tensor_elems(t);
    *dtype = t->dtype == QD_F64 ? QD_F32 : t->dtype;
    *out = (struct list){*dtype == QD_STR || *dtype == QD_F32 ? *dtype : QD_I64, count, t->data, NULL, NULL};
    if (!(QD_TYPES_KEYS & QD_BIT(*dtype)))
        return qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "%s of type %s is not supported", name,
                            qd_dtype_name(t->dtype));
    if (*dtype == QD_STR)
        return QD_OK;
    out->strings = NULL;
    if (*dtype == QD_F32)
        return qd_attr_numbers(node, name, arena, &out->floats, &out->count, error);
    int64_t *ints = qd_arena_alloc(arena, count, sizeof *ints);
    if (!ints)
        return qd_op_no_memory(node, error);
    for (size_t i = 0; i < count; i++)
        ints[i] = input_at(t, (int64_t)i, QD_I64).i;
    out->ints = ints;
    return QD_OK;
}

static struct qd_string text_of(const struct qd_node *node, const char *name, const char *otherwise)
{
    const struct qd_attr *attr = qd_attr_find(node, name);
    if (attr && attr->type == QD_ATTR_STRING)
        return (struct qd_string){attr->s.bytes, attr->s.length};
    return (struct qd_string){otherwise, strlen(otherwise)};
}

/* ------------------------------------------------------------------ LabelEncoder, CategoryMapper */

/* Keys to values; `ways` 2: also from the second list to the first, by the input's type. */
struct encoder {
    struct keys keys[2];
    struct list values[2];
    enum qd_dtype out[2];
    struct element otherwise; /* for what is no key */
    int ways;
};

/* CategoryMapper, and LabelEncoder before opset 2, whose strings are numbered: strings to integers and back. */
static enum qd_status read_categories(const struct qd_node *node, struct qd_arena *arena, struct encoder *e,
                                      struct qd_error *error)
{
    const bool mapper = strcmp(node->op, "CategoryMapper") == 0;
    struct list strings = {.dtype = QD_NONE}, ints = {.dtype = QD_NONE};
    if (!read_strings(node, mapper ? "cats_strings" : "classes_strings", &strings) ||
        (mapper && (!read_ints(node, "cats_int64s", &ints) || ints.count != strings.count)))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "its categories are missing, or no pairs");
    if (!mapper) {
        int64_t *numbers = qd_arena_alloc(arena, strings.count, sizeof *numbers);
        if (!numbers)
            return qd_op_no_memory(node, error);
        for (size_t i = 0; i < strings.count; i++)
            numbers[i] = (int64_t)i;
        ints = (struct list){QD_I64, strings.count, NULL, NULL, numbers};
    }
    e->ways = 2;
    e->keys[0] = (struct keys){.list = strings, .last_wins = true};
    e->keys[1] = (struct keys){.list = ints, .last_wins = true};
    e->values[0] = ints;
    e->values[1] = strings;
    e->out[0] = QD_I64;
    e->out[1] = QD_STR;
    return QD_OK;
}

/* What its default_* says of the type of the values. */
static enum qd_status read_default(const struct qd_node *node, struct qd_arena *arena, struct encoder *e,
                                   struct qd_error *error)
{
    struct list list = {.dtype = QD_NONE};
    enum qd_dtype dtype = QD_NONE;
    e->otherwise = (struct element){.s = text_of(node, "default_string", "_Unused"),
                                    .f = qd_attr_float(node, "default_float", -0.0f),
                                    .i = qd_attr_int(node, "default_int64", -1)};
    enum qd_status status = read_tensor(node, "default_tensor", arena, &list, &dtype, error);
    if (status || dtype == QD_NONE)
        return status;
    if (list.count != 1 || list.dtype != e->values[0].dtype)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "default_tensor must be one element of the values' type");
    e->otherwise = list_at(&list, 0);
    return QD_OK;
}

static enum qd_status read_encoder(const struct qd_node *node, struct qd_arena *arena, struct encoder *e,
                                   struct qd_error *error)
{
    struct list *keys = &e->keys[0].list, *values = &e->values[0];
    enum qd_dtype dtype = QD_NONE;
    enum qd_status status = QD_OK;
    e->ways = 1;
    e->keys[0].nan_is_a_key = node->opset >= 4;
    if (!read_strings(node, "keys_strings", keys) && !read_ints(node, "keys_int64s", keys) &&
        !read_floats(node, "keys_floats", keys))
        status = read_tensor(node, "keys_tensor", arena, keys, &dtype, error);
    if (!status && !read_strings(node, "values_strings", values) && !read_ints(node, "values_int64s", values) &&
        !read_floats(node, "values_floats", values))
        status = read_tensor(node, "values_tensor", arena, values, &e->out[0], error);
    if (status)
        return status;
    if (keys->dtype == QD_NONE || values->dtype == QD_NONE || keys->count != values->count)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has %zu keys for %zu values", keys->count, values->count);
    e->out[0] = e->out[0] == QD_NONE ? values->dtype : e->out[0];
    return QD_OK;
}

static enum qd_status encoder_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                      struct qd_error *error)
{
    struct encoder *e = QD_PREP_NEW(arena, struct encoder);
    if (!e)
        return qd_op_no_memory(node, error);
    *prep = e;
    const bool pairs = strcmp(node->op, "CategoryMapper") == 0 || node->opset < 2;
    enum qd_status status = pairs ? read_categories(node, arena, e, error) : read_encoder(node, arena, e, error);
    if (!status)
        status = read_default(node, arena, e, error);
    for (int way = 0; way < e->ways && !status; way++)
        status = sort_keys(node, &e->keys[way], arena, error);
    return status;
}

static int way_of(const struct qd_call *call)
{
    const struct encoder *e = call->prep;
    return e->ways == 2 && call->in[0].dtype != QD_STR;
}

static enum qd_status encoder_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct encoder *e = call->prep;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, QD_TYPES_KEYS, error);
    if (status)
        return status;
    const enum qd_dtype kind = e->keys[way_of(call)].list.dtype, in = call->in[0].dtype;
    if ((kind == QD_STR) != (in == QD_STR) || (kind == QD_F32) != (in == QD_F32))
        return qd_op_fail(call, error, QD_ERR_TYPE, "its keys are %s, input 0 is %s", qd_dtype_name(kind),
                          qd_dtype_name(in));
    return qd_op_out(call, 0, e->out[way_of(call)], &call->in[0].shape, error);
}

static void put(const struct qd_tensor *out, int64_t i, const struct element *e)
{
    if (out->dtype == QD_STR)
        ((struct qd_string *)out->data)[i] = e->s;
    else if (out->dtype == QD_F32)
        ((float *)out->data)[i] = e->f;
    else if (out->dtype == QD_I16)
        ((int16_t *)out->data)[i] = (int16_t)e->i;
    else if (out->dtype == QD_I32)
        ((int32_t *)out->data)[i] = (int32_t)e->i;
    else
        ((int64_t *)out->data)[i] = e->i;
}

static enum qd_status encoder_run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    const struct encoder *e = call->prep;
    const int way = way_of(call);
    const struct keys *keys = &e->keys[way];
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++) {
        const struct element key = input_at(&call->in[0], i, keys->list.dtype);
        const size_t at = find_key(keys, &key);
        const struct element value = at < keys->list.count ? list_at(&e->values[way], at) : e->otherwise;
        put(&call->out[0], i, &value);
    }
    return QD_OK;
}

const struct qd_op qd_op_encoder = {.prepare = encoder_prepare, .infer = encoder_infer, .run = encoder_run};

/* ------------------------------------------------------------------ OneHotEncoder */

static enum qd_status one_hot_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                      struct qd_error *error)
{
    struct keys *keys = QD_PREP_NEW(arena, struct keys);
    if (!keys)
        return qd_op_no_memory(node, error);
    *prep = keys;
    keys->last_wins = true;
    if (!read_strings(node, "cats_strings", &keys->list) && !read_ints(node, "cats_int64s", &keys->list))
        return qd_op_refuse(node, error, QD_ERR_INVALID, "has no categories");
    return sort_keys(node, keys, arena, error);
}

static enum qd_status one_hot_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct keys *keys = call->prep;
    const bool strings = keys->list.dtype == QD_STR;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (!status)
        status = qd_op_types(call, 0, strings ? QD_BIT(QD_STR) : QD_TYPES_TABLE, error);
    struct qd_shape out = call->in[0].shape;
    if (!status && out.rank == QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "the output's rank would be above %d", QD_MAX_RANK);
    if (status)
        return status;
    out.dims[out.rank++] = (int64_t)keys->list.count;
    return qd_op_out(call, 0, QD_F32, &out, error);
}

static enum qd_status one_hot_run(const struct qd_call *call, struct qd_error *error)
{
    const struct keys *keys = call->prep;
    const bool zeros = qd_attr_int(call->node, "zeros", 1) != 0;
    float *out = call->out[0].data;
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++, out += keys->list.count) {
        const struct element key = input_at(&call->in[0], i, keys->list.dtype);
        const size_t at = find_key(keys, &key);
        if (at == keys->list.count && !zeros)
            return qd_op_fail(call, error, QD_ERR_INVALID, "element %" PRId64 " is none of its categories", i);
        for (size_t c = 0; c < keys->list.count; c++)
            out[c] = c == at;
    }
    return QD_OK;
}

const struct qd_op qd_op_one_hot_encoder = {.prepare = one_hot_prepare, .infer = one_hot_infer, .run = one_hot_run};
