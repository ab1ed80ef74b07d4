/* Writing elementwise programs: the steps of each operator. Only of float values and only where the type is known. */
#include "engine/plan/pointwise_impl.h"

#include <math.h>
#include <string.h>

static bool is_op(const struct qd_node *node, const char *op) { return strcmp(node->op, op) == 0; }

static bool emit(struct qd_pw_writer *w, enum qd_pw op, int a, int b, float p, float q)
{
    struct qd_pointwise_program *program = &w->program;
    if (program->step_count == QD_POINTWISE_STEPS)
        return false;
    program->steps[program->step_count++] = (struct qd_pointwise_step){op, a, b, p, q};
    return true;
}

static bool emit_unary(struct qd_pw_writer *w, enum qd_pw op, int a, float p, float q)
{
    return emit(w, op, a, 0, p, q);
}

static int last_step(const struct qd_pw_writer *w) { return ~(w->program.step_count - 1); }

/* The operand that a value is; false when there is no room for another input. */
static bool operand(struct qd_pw_writer *w, int value, int *out)
{
    for (int i = 0; i < w->made_count; i++)
        if (w->made[i] == value) {
            *out = ~w->made_at[i];
            return true;
        }
    for (*out = 0; *out < w->in_count; ++*out)
        if (w->inputs[*out] == value)
            return true;
    if (w->in_count == QD_POINTWISE_INPUTS)
        return false;
    w->inputs[w->in_count++] = value;
    return true;
}

static const struct qd_tensor *constant_f32(const struct qd_pw_finder *f, int value)
{
    const struct qd_value *v = value == QD_NO_VALUE ? NULL : &f->graph->values[value];
    return v && v->constant && !v->is_input && v->info.dtype == QD_F32 && v->info.data ? &v->info : NULL;
}

/* A constant number that doesn't raise the rank of the value beside it. */
static bool number(const struct qd_pw_finder *f, int value, int beside, float *out)
{
    const struct qd_tensor *t = constant_f32(f, value);
    if (!t || qd_tensor_elems(t) != 1 || (t->shape.rank && t->shape.rank > f->types[beside].rank))
        return false;
    *out = *(const float *)t->data;
    return true;
}

/* ------------------------------------------------------------------ operators of one tensor */

static bool write_clip(struct qd_pw_writer *w, const struct qd_node *node, int a)
{
    float limits[2] = {-INFINITY, INFINITY};
    if (node->opset < 11) {
        limits[0] = qd_attr_float(node, "min", limits[0]);
        limits[1] = qd_attr_float(node, "max", limits[1]);
    }
    for (int i = 1; i < node->in_count; i++) {
        const struct qd_tensor *t = constant_f32(w->finder, node->in[i]);
        if (node->in[i] == QD_NO_VALUE)
            continue;
        if (!t || qd_tensor_elems(t) != 1 || i > 2)
            return false;
        limits[i - 1] = *(const float *)t->data;
    }
    return !isnan(limits[0]) && !isnan(limits[1]) && emit_unary(w, QD_PW_CLIP, a, limits[0], limits[1]);
}

static bool write_selu(struct qd_pw_writer *w, const struct qd_node *node, int a)
{
    const float alpha = qd_attr_float(node, "alpha", 1.67326319217681884765625f);
    return emit_unary(w, QD_PW_ELU, a, alpha, 0) &&
           emit_unary(w, QD_PW_MUL_P, last_step(w), qd_attr_float(node, "gamma", 1.05070102214813232421875f), 0);
}

static bool write_gelu(struct qd_pw_writer *w, const struct qd_node *node, int a)
{
    return emit_unary(w, qd_attr_is(node, "approximate", "none", "tanh") ? QD_PW_GELU_TANH : QD_PW_GELU, a, 0, 0);
}

static bool write_swish(struct qd_pw_writer *w, const struct qd_node *node, int a)
{
    const float alpha = qd_attr_float(node, "alpha", 1.0f);
    if (alpha == 1.0f)
        return emit_unary(w, QD_PW_SILU, a, 0, 0);
    return emit_unary(w, QD_PW_MUL_P, a, alpha, 0) && emit_unary(w, QD_PW_SIGMOID, last_step(w), 0, 0) &&
           emit(w, QD_PW_MUL, a, last_step(w), 0, 0);
}

/* Those whose parameters are attributes or nothing. */
static const struct {
    const char *op;
    enum qd_pw code;
    float p, q; /* defaults */
    const char *p_name, *q_name;
    bool (*write)(struct qd_pw_writer *w, const struct qd_node *node, int a);
} UNARY[] = {
    {.op = "Abs", .code = QD_PW_ABS},
    {.op = "Clip", .write = write_clip},
    {.op = "Elu", .code = QD_PW_ELU, .p = 1, .p_name = "alpha"},
    {.op = "Erf", .code = QD_PW_ERF},
    {.op = "Exp", .code = QD_PW_EXP},
    {.op = "Gelu", .write = write_gelu},
    {.op = "HardSigmoid", .code = QD_PW_HARD_SIGMOID, .p = 0.2f, .q = 0.5f, .p_name = "alpha", .q_name = "beta"},
    {.op = "HardSwish", .code = QD_PW_HARD_SWISH, .p = 1.0f / 6, .q = 0.5f},
    {.op = "LeakyRelu", .code = QD_PW_LEAKY_RELU, .p = 0.01f, .p_name = "alpha"},
    {.op = "Log", .code = QD_PW_LOG},
    {.op = "Mish", .code = QD_PW_MISH},
    {.op = "Neg", .code = QD_PW_NEG},
    {.op = "Reciprocal", .code = QD_PW_P_DIV, .p = 1},
    {.op = "Relu", .code = QD_PW_CLIP, .q = INFINITY},
    {.op = "Selu", .write = write_selu},
    {.op = "Sigmoid", .code = QD_PW_SIGMOID},
    {.op = "Softplus", .code = QD_PW_SOFTPLUS},
    {.op = "Softsign", .code = QD_PW_SOFTSIGN},
    {.op = "Sqrt", .code = QD_PW_SQRT},
    {.op = "Swish", .write = write_swish},
    {.op = "Tanh", .code = QD_PW_TANH},
};

/* ------------------------------------------------------------------ operators of two and more */

/* One number with one tensor; `first`: the number stands first. */
static bool write_number(struct qd_pw_writer *w, enum qd_pw op, int a, float value, bool first)
{
    int exponent;
    switch (op) {
    case QD_PW_SUB:
        if (first)
            return emit_unary(w, QD_PW_P_SUB, a, value, 0);
        value = -value; /* the same to the last bit */
        /* fall through */
    case QD_PW_ADD: {
        struct qd_pointwise_step *before = w->program.steps + w->program.step_count - 1;
        bool alone = a < 0 && a == last_step(w); /* nobody reads the product as it is */
        for (int i = 0; i < w->made_count; i++)
            alone = alone && (~w->made_at[i] != a || w->finder->readers[w->made[i]] == 1);
        if (alone && before->op == QD_PW_MUL_P) {
            before->op = QD_PW_MUL_P_ADD_Q;
            before->q = value;
            return true;
        }
        return emit_unary(w, QD_PW_ADD_P, a, value, 0);
    }
    case QD_PW_MUL:
        return emit_unary(w, QD_PW_MUL_P, a, value, 0);
    case QD_PW_DIV:
        if (first)
            return emit_unary(w, QD_PW_P_DIV, a, value, 0);
        if (fabsf(frexpf(value, &exponent)) == 0.5f && exponent > -100 && exponent < 100) /* a power of two: exact */
            return emit_unary(w, QD_PW_MUL_P, a, 1.0f / value, 0);
        return emit_unary(w, QD_PW_DIV_P, a, value, 0);
    case QD_PW_MIN:
        return !isnan(value) && emit_unary(w, QD_PW_CLIP, a, -INFINITY, value);
    case QD_PW_MAX:
        return !isnan(value) && emit_unary(w, QD_PW_CLIP, a, value, INFINITY);
    default:
        return false;
    }
}

static bool write_two(struct qd_pw_writer *w, enum qd_pw op, int x, int y)
{
    float value;
    int a, b;
    if (number(w->finder, y, x, &value))
        return operand(w, x, &a) && write_number(w, op, a, value, false);
    if (number(w->finder, x, y, &value))
        return operand(w, y, &a) && write_number(w, op, a, value, true);
    if (!operand(w, x, &a) || !operand(w, y, &b))
        return false;
    return op == QD_PW_MUL && a == b ? emit_unary(w, QD_PW_SQUARE, a, 0, 0) : emit(w, op, a, b, 0, 0);
}

/* Two inputs or, from the third on, each with what came before. */
static bool write_fold(struct qd_pw_writer *w, enum qd_pw op, const struct qd_node *node)
{
    int b;
    const bool many = op == QD_PW_MIN || op == QD_PW_MAX || is_op(node, "Sum");
    if (node->in_count < 2 || (node->in_count > 2 && !many) || node->opset < 7 ||
        !write_two(w, op, node->in[0], node->in[1]))
        return false;
    for (int i = 2; i < node->in_count; i++) {
        int before = last_step(w);
        if (!operand(w, node->in[i], &b) || !emit(w, op, before, b, 0, 0))
            return false;
    }
    return true;
}

static bool write_pow(struct qd_pw_writer *w, const struct qd_node *node)
{
    static const struct {
        float exponent;
        enum qd_pw op;
        float p;
    } rows[] = {{2, QD_PW_SQUARE, 0}, {3, QD_PW_CUBE, 0},   {0.5f, QD_PW_SQRT, 0},
                {1, QD_PW_MUL_P, 1},  {-1, QD_PW_P_DIV, 1}, {-0.5f, QD_PW_RSQRT, 0}};
    float exponent;
    int a;
    if (node->in_count != 2 || node->opset < 7 || !number(w->finder, node->in[1], node->in[0], &exponent))
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (exponent == rows[i].exponent)
            return operand(w, node->in[0], &a) && emit_unary(w, rows[i].op, a, rows[i].p, 0);
    return false;
}

static bool write_prelu(struct qd_pw_writer *w, const struct qd_node *node)
{
    const struct qd_tensor *slope = node->in_count == 2 ? constant_f32(w->finder, node->in[1]) : NULL;
    int a, b;
    return slope && node->opset >= 7 && slope->shape.rank <= w->finder->types[node->in[0]].rank &&
           operand(w, node->in[0], &a) && operand(w, node->in[1], &b) && emit(w, QD_PW_PRELU, a, b, 0, 0);
}

/* [C, 1, ...] of a batch normalization: what each channel is multiplied by, and what is added then. */
static bool make_norm(struct qd_pw_finder *f, const struct qd_node *node, const struct qd_tensor *const p[4], int rank,
                      int made[2])
{
    const int64_t channels = qd_tensor_elems(p[0]);
    const float epsilon = qd_attr_float(node, "epsilon", 1e-5f);
    struct qd_tensor t = {.dtype = QD_F32, .shape = {.rank = rank - 1}};
    for (int d = 0; d < t.shape.rank; d++)
        t.shape.dims[d] = d ? 1 : channels;
    float *factor = qd_arena_alloc(f->arena, (size_t)channels, sizeof *factor);
    float *offset = qd_arena_alloc(f->arena, (size_t)channels, sizeof *offset);
    f->out_of_memory |= !factor || !offset;
    if (!factor || !offset)
        return false;
    for (int64_t c = 0; c < channels; c++) {
        const float *scale = p[0]->data, *bias = p[1]->data, *mean = p[2]->data, *variance = p[3]->data;
        factor[c] = scale[c] / sqrtf(variance[c] + epsilon);
        offset[c] = bias[c] - mean[c] * factor[c];
    }
    for (int i = 0; i < 2; i++) {
        t.data = i ? offset : factor;
        made[i] = f->graph->value_count++;
        f->graph->values[made[i]] = (struct qd_value){
            .name = "", .info = t, .producer = -1, .constant = true, .outer = QD_NO_VALUE};
    }
    return true;
}

static bool write_batch_norm(struct qd_pw_writer *w, int n)
{
    struct qd_pw_finder *f = w->finder;
    const struct qd_node *node = &f->graph->nodes[n];
    const struct qd_tensor *p[4]; /* scale, bias, mean, variance */
    int a, factor, offset, *made = f->norms[n];
    if (node->in_count != 5 || qd_attr_int(node, "training_mode", 0) != 0 || node->opset < 9)
        return false;
    for (int i = 0; i < 4; i++) {
        p[i] = constant_f32(f, node->in[i + 1]);
        if (!p[i] || p[i]->shape.rank != 1 || p[i]->shape.dims[0] != p[0]->shape.dims[0])
            return false;
    }
    const int rank = f->types[node->in[0]].rank;
    if (rank < 2 || rank > QD_MAX_RANK || (!made[0] && !make_norm(f, node, p, rank, made)))
        return false;
    return operand(w, node->in[0], &a) && operand(w, made[0], &factor) && operand(w, made[1], &offset) &&
           emit(w, QD_PW_MUL, a, factor, 0, 0) && emit(w, QD_PW_ADD, last_step(w), offset, 0, 0);
}

static const struct {
    const char *op;
    enum qd_pw code;
} BINARY[] = {
    {"Add", QD_PW_ADD}, {"Sub", QD_PW_SUB}, {"Mul", QD_PW_MUL}, {"Div", QD_PW_DIV},
    {"Min", QD_PW_MIN}, {"Max", QD_PW_MAX}, {"Sum", QD_PW_ADD},
};

static bool write_node(struct qd_pw_writer *w, int n)
{
    const struct qd_node *node = &w->finder->graph->nodes[n];
    int a;
    if (is_op(node, "Pow"))
        return write_pow(w, node);
    if (is_op(node, "PRelu"))
        return write_prelu(w, node);
    if (is_op(node, "BatchNormalization"))
        return write_batch_norm(w, n);
    for (size_t i = 0; i < sizeof BINARY / sizeof *BINARY; i++)
        if (is_op(node, BINARY[i].op))
            return write_fold(w, BINARY[i].code, node);
    for (size_t i = 0; i < sizeof UNARY / sizeof *UNARY; i++) {
        if (!is_op(node, UNARY[i].op))
            continue;
        if (!operand(w, node->in[0], &a))
            return false;
        if (UNARY[i].write)
            return UNARY[i].write(w, node, a);
        const float p = UNARY[i].p_name ? qd_attr_float(node, UNARY[i].p_name, UNARY[i].p) : UNARY[i].p;
        const float q = UNARY[i].q_name ? qd_attr_float(node, UNARY[i].q_name, UNARY[i].q) : UNARY[i].q;
        return node->in_count == 1 && emit_unary(w, UNARY[i].code, a, p, q);
    }
    return false;
}

bool qd_pw_write(struct qd_pw_writer *w, int n)
{
    const struct qd_node *node = &w->finder->graph->nodes[n];
    if (node->domain[0] != 0 || node->in_count < 1 || node->out_count < 1 || node->out[0] == QD_NO_VALUE)
        return false;
    for (int i = 1; i < node->out_count; i++)
        if (node->out[i] != QD_NO_VALUE)
            return false;
    for (int i = 0; i < node->in_count; i++)
        if (node->in[i] == QD_NO_VALUE ? !is_op(node, "Clip") || i == 0 : w->finder->types[node->in[i]].dtype != QD_F32)
            return false;
    if (w->made_count == QD_POINTWISE_STEPS || !write_node(w, n))
        return false;
    w->made[w->made_count] = node->out[0];
    w->made_at[w->made_count++] = w->program.step_count - 1;
    return true;
}
