/* Bitwise operators on integers: BitShift, BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot. Not for booleans (binary.c).
 */
#include "engine/ops/helpers.h"

#include <string.h>

#define TYPES_UNSIGNED (QD_BIT(QD_U8) | QD_BIT(QD_U16) | QD_BIT(QD_U32) | QD_BIT(QD_U64))
#define TYPES_INTEGER  (TYPES_UNSIGNED | QD_BIT(QD_I8) | QD_BIT(QD_I16) | QD_BIT(QD_I32) | QD_BIT(QD_I64))

enum bits { LEFT, RIGHT, AND, OR, XOR, NOT };

static enum bits which(const struct qd_node *node)
{
    static const char *const names[] = {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"};
    for (int i = 0; i < 4; i++)
        if (strcmp(node->op, names[i]) == 0)
            return (enum bits)(AND + i);
    return qd_attr_is(node, "direction", "", "LEFT") ? LEFT : RIGHT;
}

/* Every type is read as the unsigned one of its size; only a shift to the right copies the sign. A count that is
 * negative or as large as the type (as unsigned both are large) leaves nothing but copies of the sign. */
struct work {
    enum bits how;
    const char *a, *b;
    char *out;
    int64_t a_step, b_step;
    bool is_signed;
};

#define PIECE(type)                                                                                                    \
    static void piece_##type(void *ctx, int64_t out_at, const int64_t *at, int64_t n)                                  \
    {                                                                                                                  \
        const struct work *w = ctx;                                                                                    \
        const type *a = (const type *)(const void *)w->a + at[0], *b = (const type *)(const void *)w->b + at[1];       \
        type *out = (type *)(void *)w->out + out_at;                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            uint64_t x = a[i * w->a_step], y = b[i * w->b_step], wide = 8 * sizeof(type);                              \
            uint64_t sign = w->is_signed && w->how == RIGHT && x >> (wide - 1) ? UINT64_MAX : 0;                       \
            uint64_t shifted = y >= wide ? sign : w->how == LEFT ? x << y : x >> y | (y ? sign << (wide - y) : 0);     \
            uint64_t logic = w->how == AND ? x & y : w->how == OR ? x | y : w->how == XOR ? x ^ y : ~x;                \
            out[i] = (type)(w->how <= RIGHT ? shifted : logic);                                                        \
        }                                                                                                              \
    }
PIECE(uint8_t)
PIECE(uint16_t)
PIECE(uint32_t)
PIECE(uint64_t)

static enum qd_status infer(const struct qd_call *call, struct qd_error *error)
{
    enum bits how = which(call->node);
    int inputs = how == NOT ? 1 : 2;
    struct qd_shape out = call->in_count > 0 ? call->in[0].shape : (struct qd_shape){0};
    enum qd_status status = qd_op_inputs(call, inputs, inputs, error);
    if (status ||
        (status = qd_op_types(call, 0, how <= RIGHT && call->node->opset < 28 ? TYPES_UNSIGNED : TYPES_INTEGER,
                              error)) ||
        (inputs == 2 && (status = qd_op_same_type(call, 0, 1, error))))
        return status;
    if (how == RIGHT && !qd_attr_is(call->node, "direction", "", "RIGHT"))
        return qd_op_fail(call, error, QD_ERR_INVALID, "direction is neither LEFT nor RIGHT");
    char a[160], b[160];
    if (inputs == 2 && !qd_broadcast(&call->in[0].shape, &call->in[1].shape, &out))
        return qd_op_fail(call, error, QD_ERR_SHAPE, "shapes %s and %s can't be broadcast",
                          qd_shape_text(&call->in[0].shape, a, sizeof a),
                          qd_shape_text(&call->in[1].shape, b, sizeof b));
    return qd_op_out(call, 0, call->in[0].dtype, &out, error);
}

static enum qd_status run(const struct qd_call *call, struct qd_error *error)
{
    (void)error;
    static void (*const pieces[9])(void *, int64_t, const int64_t *, int64_t) = {
        [1] = piece_uint8_t, [2] = piece_uint16_t, [4] = piece_uint32_t, [8] = piece_uint64_t};
    const struct qd_tensor *a = &call->in[0], *b = which(call->node) == NOT ? a : &call->in[1];
    struct qd_walk walk;
    qd_walk_begin(&walk, &call->out[0].shape);
    qd_walk_broadcast(&walk, &a->shape);
    qd_walk_broadcast(&walk, &b->shape);
    qd_walk_join(&walk);
    struct work work = {which(call->node),
                        a->data,
                        b->data,
                        call->out[0].data,
                        walk.strides[0][walk.rank - 1],
                        walk.strides[1][walk.rank - 1],
                        (TYPES_UNSIGNED & QD_BIT(a->dtype)) == 0};
    qd_walk_run(&walk, call, pieces[qd_dtype_bytes(a->dtype)], &work);
    return QD_OK;
}

const struct qd_op qd_op_bits = {.infer = infer, .run = run};
