/* What is done with strings themselves: StringConcat, StringSplit, StringNormalizer, and casts between strings and
 * numbers. Bytes that are made here come from the call's lender; parts of a string are views into it. Not for strings
 * as keys (encoders.c). RegexFullMatch is not here: its patterns are RE2's, which no library of this project reads. */
#include "engine/ops/strings.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

static struct qd_string *strings_of(const struct qd_tensor *t) { return t->data; }

static enum qd_status no_memory(const struct qd_call *call, struct qd_error *error)
{
    return qd_op_fail(call, error, QD_ERR_TOO_LARGE, "no memory left for its strings");
}

/* ------------------------------------------------------------------ casts */

#define NUMBER_BYTES 64 /* no number that makes sense is spelled longer */

/* The spelling onnxruntime uses: 8 significant digits, INF, NaN. */
static size_t spell_float(double v, char *out)
{
    if (isnan(v) || isinf(v))
        return (size_t)snprintf(out, NUMBER_BYTES, "%s", isnan(v) ? "NaN" : v < 0 ? "-INF" : "INF");
    return (size_t)snprintf(out, NUMBER_BYTES, "%.8g", v);
}

static size_t spell(const struct qd_tensor *in, int64_t i, char *out)
{
    switch (in->dtype) {
    case QD_F32:
        return spell_float((double)((const float *)in->data)[i], out);
    case QD_F64:
        return spell_float(((const double *)in->data)[i], out);
    case QD_I8:
        return (size_t)snprintf(out, NUMBER_BYTES, "%d", ((const int8_t *)in->data)[i]);
    case QD_I16:
        return (size_t)snprintf(out, NUMBER_BYTES, "%d", ((const int16_t *)in->data)[i]);
    case QD_I32:
        return (size_t)snprintf(out, NUMBER_BYTES, "%" PRId32, ((const int32_t *)in->data)[i]);
    case QD_I64:
        return (size_t)snprintf(out, NUMBER_BYTES, "%" PRId64, ((const int64_t *)in->data)[i]);
    case QD_U16:
        return (size_t)snprintf(out, NUMBER_BYTES, "%u", ((const uint16_t *)in->data)[i]);
    case QD_U32:
        return (size_t)snprintf(out, NUMBER_BYTES, "%" PRIu32, ((const uint32_t *)in->data)[i]);
    case QD_U64:
        return (size_t)snprintf(out, NUMBER_BYTES, "%" PRIu64, ((const uint64_t *)in->data)[i]);
    default: /* UINT8, BOOL */
        return (size_t)snprintf(out, NUMBER_BYTES, "%u", ((const uint8_t *)in->data)[i]);
    }
}

static enum qd_status to_strings(const struct qd_call *call, struct qd_error *error)
{
    char text[NUMBER_BYTES];
    const int64_t n = qd_tensor_elems(&call->in[0]);
    for (int64_t i = 0; i < n; i++) {
        const size_t length = spell(&call->in[0], i, text);
        char *bytes = call->lender->take(call->lender, length);
        if (!bytes)
            return no_memory(call, error);
        memcpy(bytes, text, length);
        strings_of(&call->out[0])[i] = (struct qd_string){bytes, length};
    }
    return QD_OK;
}

/* What a narrower integer holds, in the order of their types. */
static bool fits(enum qd_dtype dtype, int64_t v)
{
    switch (dtype) {
    case QD_I8:
        return v >= INT8_MIN && v <= INT8_MAX;
    case QD_I16:
        return v >= INT16_MIN && v <= INT16_MAX;
    case QD_I32:
        return v >= INT32_MIN && v <= INT32_MAX;
    case QD_U8:
        return v >= 0 && v <= UINT8_MAX;
    case QD_U16:
        return v >= 0 && v <= UINT16_MAX;
    case QD_U32:
        return v >= 0 && v <= UINT32_MAX;
    case QD_BOOL:
        return v == 0 || v == 1;
    default:
        return true;
    }
}

/* The number a string begins with, as C's own functions read it (and so onnxruntime): blanks before it are passed over,
 * and what stands behind it. False when there is none, or it has no room in the type. */
static bool read_number(struct qd_string s, const struct qd_tensor *out, int64_t i)
{
    char text[NUMBER_BYTES], *end = text;
    if (s.length >= sizeof text)
        return false;
    if (s.length)
        memcpy(text, s.bytes, s.length);
    text[s.length] = 0;
    errno = 0;
    if (out->dtype == QD_F32 || out->dtype == QD_F64) {
        const double v = strtod(text, &end);
        if (out->dtype == QD_F32)
            ((float *)out->data)[i] = (float)v;
        else
            ((double *)out->data)[i] = v;
        return end != text;
    }
    if (out->dtype == QD_U64) {
        const unsigned long long v = strtoull(text, &end, 10);
        ((uint64_t *)out->data)[i] = v;
        return end != text && errno == 0;
    }
    const int64_t v = strtoll(text, &end, 10);
    memcpy((char *)out->data + (size_t)i * qd_dtype_bytes(out->dtype), &v, qd_dtype_bytes(out->dtype));
    return end != text && errno == 0 && fits(out->dtype, v); /* little endian: the low bytes come first */
}

bool qd_string_cast_known(enum qd_dtype dtype)
{
    return dtype != QD_NONE && dtype != QD_F16 && dtype != QD_BF16 && dtype < QD_DTYPE_COUNT;
}

enum qd_status qd_string_cast(const struct qd_call *call, struct qd_error *error)
{
    const struct qd_tensor *in = &call->in[0];
    if (call->out[0].dtype == QD_STR)
        return to_strings(call, error);
    for (int64_t i = 0, n = qd_tensor_elems(in); i < n; i++) {
        const struct qd_string s = strings_of(in)[i];
        if (!read_number(s, &call->out[0], i))
            return qd_op_fail(call, error, QD_ERR_INVALID, "'%.*s' is not a value of %s",
                              s.length < 40 ? (int)s.length : 40, s.length ? s.bytes : "",
                              qd_dtype_name(call->out[0].dtype));
    }
    return QD_OK;
}

/* ------------------------------------------------------------------ StringConcat */

static enum qd_status concat_infer(const struct qd_call *call, struct qd_error *error)
{
    struct qd_shape shape;
    enum qd_status status = qd_op_inputs(call, 2, 2, error);
    for (int i = 0; i < 2 && !status; i++)
        status = qd_op_types(call, i, QD_BIT(QD_STR), error);
    if (status)
        return status;
    if (!qd_broadcast(&call->in[0].shape, &call->in[1].shape, &shape))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "its inputs can't be broadcast together");
    return qd_op_out(call, 0, QD_STR, &shape, error);
}

struct concat {
    const struct qd_call *call;
    int64_t sa, sb;
    char *to;     /* NULL: lengths are counted only */
    size_t bytes; /* of all; SIZE_MAX: too many */
};

static void concat_piece(void *ctx, int64_t out_at, const int64_t *at, int64_t n)
{
    struct concat *c = ctx;
    for (int64_t i = 0; i < n; i++) {
        const struct qd_string a = strings_of(&c->call->in[0])[at[0] + i * c->sa];
        const struct qd_string b = strings_of(&c->call->in[1])[at[1] + i * c->sb];
        if (!c->to) {
            if (!qd_size_add(c->bytes, a.length, &c->bytes) || !qd_size_add(c->bytes, b.length, &c->bytes))
                c->bytes = SIZE_MAX;
            continue;
        }
        strings_of(&c->call->out[0])[out_at + i] = (struct qd_string){c->to, a.length + b.length};
        qd_op_copy(c->to, a.bytes, a.length);
        qd_op_copy(c->to + a.length, b.bytes, b.length);
        c->to += a.length + b.length;
    }
}

static enum qd_status concat_run(const struct qd_call *call, struct qd_error *error)
{
    struct qd_walk walk;
    struct qd_call alone = *call; /* one piece after the other: they share the memory */
    struct concat concat = {.call = call};
    alone.parallel = NULL;
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_broadcast(&walk, &call->in[0].shape);
    qd_walk_broadcast(&walk, &call->in[1].shape);
    qd_walk_join(&walk);
    concat.sa = walk.strides[0][walk.rank - 1];
    concat.sb = walk.strides[1][walk.rank - 1];
    qd_walk_run(&walk, &alone, concat_piece, &concat);
    concat.to = concat.bytes == SIZE_MAX ? NULL : call->lender->take(call->lender, concat.bytes + 1);
    if (!concat.to)
        return no_memory(call, error);
    qd_walk_run(&walk, &alone, concat_piece, &concat);
    return QD_OK;
}

const struct qd_op qd_op_string_concat = {.infer = concat_infer, .run = concat_run};

/* ------------------------------------------------------------------ StringSplit */

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A walk over the parts of a string. */
struct parts {
    struct qd_string rest, delimiter; /* an empty delimiter: runs of blanks */
    int64_t splits_left;
    bool ended;
};

static struct parts parts_of(const struct qd_call *call, struct qd_string s)
{
    const struct qd_attr *attr = qd_attr_find(call->node, "delimiter");
    struct parts p = {.rest = s, .splits_left = qd_attr_int(call->node, "maxsplit", INT64_MAX), .ended = s.length == 0};
    if (attr && attr->type == QD_ATTR_STRING)
        p.delimiter = (struct qd_string){attr->s.bytes, attr->s.length};
    return p;
}

static void drop(struct qd_string *s, size_t n)
{
    s->bytes += n;
    s->length -= n;
}

static bool next_part(struct parts *p, struct qd_string *part)
{
    const size_t width = p->delimiter.length ? p->delimiter.length : 1;
    size_t n = 0;
    while (!p->delimiter.length && p->rest.length && is_blank(*p->rest.bytes))
        drop(&p->rest, 1);
    if (p->ended || (!p->delimiter.length && !p->rest.length))
        return false;
    while (
        n + width <= p->rest.length &&
        !(p->delimiter.length ? memcmp(p->rest.bytes + n, p->delimiter.bytes, width) == 0 : is_blank(p->rest.bytes[n])))
        n++;
    const bool last = n + width > p->rest.length || p->splits_left == 0;
    *part = last ? p->rest : (struct qd_string){p->rest.bytes, n};
    if (last)
        p->ended = true;
    else
        drop(&p->rest, n + width);
    p->splits_left -= !last;
    return true;
}

static enum qd_status split_infer(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_STR), error)))
        return status;
    if (qd_attr_int(call->node, "maxsplit", 0) < 0)
        return qd_op_fail(call, error, QD_ERR_INVALID, "maxsplit must not be negative");
    const struct qd_tensor *in = &call->in[0];
    struct qd_shape out = in->shape;
    int64_t most = 0;
    if (out.rank == QD_MAX_RANK)
        return qd_op_fail(call, error, QD_ERR_UNSUPPORTED, "the output's rank would be above %d", QD_MAX_RANK);
    if (!in->data && qd_tensor_elems(in))
        return QD_ERR_NEEDS_DATA;
    for (int64_t i = 0, n = qd_tensor_elems(in); i < n; i++) {
        struct parts p = parts_of(call, strings_of(in)[i]);
        struct qd_string part;
        int64_t count = 0;
        while (next_part(&p, &part))
            count++;
        most = count > most ? count : most;
    }
    out.dims[out.rank++] = most;
    status = qd_op_out(call, 0, QD_STR, &out, error);
    return status || call->out_count < 2 ? status : qd_op_out(call, 1, QD_I64, &in->shape, error);
}

static enum qd_status split_run(const struct qd_call *call, struct qd_error *error)
{
    enum qd_status status = qd_op_recheck(call, split_infer, error);
    if (status)
        return status;
    const int64_t most = call->out[0].shape.dims[call->out[0].shape.rank - 1];
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++) {
        struct parts p = parts_of(call, strings_of(&call->in[0])[i]);
        struct qd_string *parts = strings_of(&call->out[0]) + i * most;
        int64_t count = 0;
        while (count < most && next_part(&p, &parts[count]))
            count++;
        if (call->out_count > 1 && qd_op_wants(call, 1))
            ((int64_t *)call->out[1].data)[i] = count;
        for (; count < most; count++)
            parts[count] = (struct qd_string){"", 0};
    }
    return QD_OK;
}

const struct qd_op qd_op_string_split = {.infer = split_infer, .run = split_run};

/* ------------------------------------------------------------------ StringNormalizer */

enum letters { AS_THEY_ARE, LOWER, UPPER, LETTER_CASES };

struct normalizer {
    enum letters letters;
    bool sensitive;
    size_t stop_count;
    const struct qd_text *stops;
    locale_t locale; /* of the process; what letters are to it depends on no environment */
};

static locale_t letters_locale;
static void make_locale(void) { letters_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }

static enum qd_status normalizer_prepare(const struct qd_node *node, struct qd_arena *arena, void **prep,
                                         struct qd_error *error)
{
    static const char *const names[LETTER_CASES] = {"NONE", "LOWER", "UPPER"};
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct normalizer *z = QD_PREP_NEW(arena, struct normalizer);
    const struct qd_attr *stops = qd_attr_find(node, "stopwords");
    unsigned c = 0;
    if (!z)
        return qd_op_no_memory(node, error);
    *prep = z;
    while (c < LETTER_CASES && !qd_attr_is(node, "case_change_action", "NONE", names[c]))
        c++;
    if (c == LETTER_CASES)
        return qd_op_refuse(node, error, QD_ERR_INVALID, "case_change_action must be NONE, LOWER or UPPER");
    if (stops && stops->type == QD_ATTR_STRINGS) {
        z->stops = stops->strings;
        z->stop_count = stops->count;
    }
    z->letters = (enum letters)c;
    z->sensitive = qd_attr_int(node, "is_case_sensitive", 0) != 0;
    pthread_once(&once, make_locale);
    z->locale = letters_locale;
    return z->locale ? QD_OK : qd_op_refuse(node, error, QD_ERR_UNSUPPORTED, "this system has no locale C.UTF-8");
}

/* The next code point, or a byte that is no UTF-8 as it is (*raw). Returns the bytes it takes. */
static size_t next_letter(struct qd_string s, uint32_t *point, bool *raw)
{
    const unsigned char *b = (const unsigned char *)s.bytes;
    const size_t n = b[0] < 0x80 ? 1 : b[0] >= 0xf0 && b[0] < 0xf5 ? 4 : b[0] >= 0xe0 ? 3 : b[0] >= 0xc2 ? 2 : 0;
    *raw = n == 0 || n > s.length || b[0] >= 0xf5;
    *point = n == 1 ? b[0] : b[0] & (0x7fu >> n);
    for (size_t i = 1; i < n && !*raw; i++) {
        *raw = (b[i] & 0xc0) != 0x80;
        *point = *point << 6 | (b[i] & 0x3fu);
    }
    if (*raw)
        *point = b[0];
    return *raw ? 1 : n;
}

static size_t put_letter(uint32_t p, bool raw, char *out)
{
    const size_t n = raw || p < 0x80 ? 1 : p < 0x800 ? 2 : p < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; p >>= 6)
        out[i] = (char)(0x80 | (p & 0x3f));
    out[0] = (char)(first[n == 1 ? 0 : n] | p);
    return n;
}

static uint32_t change(const struct normalizer *z, enum letters letters, uint32_t p, bool raw)
{
    if (raw || letters == AS_THEY_ARE)
        return p;
    return (uint32_t)(letters == LOWER ? towlower_l((wint_t)p, z->locale) : towupper_l((wint_t)p, z->locale));
}

static bool same_words(const struct normalizer *z, struct qd_string a, struct qd_string b)
{
    const enum letters letters = z->sensitive ? AS_THEY_ARE : LOWER;
    while (a.length && b.length) {
        uint32_t x, y;
        bool raw_x, raw_y;
        const size_t n = next_letter(a, &x, &raw_x), m = next_letter(b, &y, &raw_y);
        if (raw_x != raw_y || change(z, letters, x, raw_x) != change(z, letters, y, raw_y))
            return false;
        drop(&a, n);
        drop(&b, m);
    }
    return a.length == b.length;
}

static bool stays(const struct normalizer *z, struct qd_string s)
{
    for (size_t i = 0; i < z->stop_count; i++)
        if (same_words(z, s, (struct qd_string){z->stops[i].bytes, z->stops[i].length}))
            return false;
    return true;
}

static enum qd_status normalizer_infer(const struct qd_call *call, struct qd_error *error)
{
    const struct normalizer *z = call->prep;
    enum qd_status status = qd_op_inputs(call, 1, 1, error);
    if (status || (status = qd_op_types(call, 0, QD_BIT(QD_STR), error)))
        return status;
    const struct qd_tensor *in = &call->in[0];
    struct qd_shape out = in->shape;
    if (out.rank < 1 || out.rank > 2 || (out.rank == 2 && out.dims[0] != 1))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "needs one row of strings");
    if (z->stop_count && !in->data)
        return QD_ERR_NEEDS_DATA;
    int64_t n = qd_tensor_elems(in), left = z->stop_count ? 0 : n;
    for (int64_t i = 0; i < n && z->stop_count; i++)
        left += stays(z, strings_of(in)[i]);
    out.dims[out.rank - 1] = left ? left : 1;
    return qd_op_out(call, 0, QD_STR, &out, error);
}

/* A letter's other case may take more bytes, never more than four for one. */
static bool change_word(const struct qd_call *call, struct qd_string s, struct qd_string *out)
{
    const struct normalizer *z = call->prep;
    char *bytes = s.length > SIZE_MAX / 4 ? NULL : call->lender->take(call->lender, 4 * s.length + 1);
    if (!bytes)
        return false;
    *out = (struct qd_string){bytes, 0};
    while (s.length) {
        uint32_t p;
        bool raw;
        const size_t n = next_letter(s, &p, &raw);
        out->length += put_letter(change(z, z->letters, p, raw), raw, bytes + out->length);
        drop(&s, n);
    }
    return true;
}

static enum qd_status normalizer_run(const struct qd_call *call, struct qd_error *error)
{
    const struct normalizer *z = call->prep;
    enum qd_status status = qd_op_recheck(call, normalizer_infer, error);
    struct qd_string *out = strings_of(&call->out[0]);
    if (status)
        return status;
    int64_t left = 0;
    for (int64_t i = 0, n = qd_tensor_elems(&call->in[0]); i < n; i++) {
        const struct qd_string s = strings_of(&call->in[0])[i];
        if (!stays(z, s))
            continue;
        out[left] = s;
        if (z->letters != AS_THEY_ARE && !change_word(call, s, &out[left]))
            return no_memory(call, error);
        left++;
    }
    if (left == 0)
        out[0] = (struct qd_string){"", 0};
    return QD_OK;
}

const struct qd_op qd_op_string_normalizer = {
    .prepare = normalizer_prepare, .infer = normalizer_infer, .run = normalizer_run};
