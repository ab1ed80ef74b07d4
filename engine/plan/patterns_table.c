/* The expressions (patterns_match.c says how they read) and what stands in their place. Longer ones come first where
 * two end in the same node. */
#include "engine/plan/patterns_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* inputs: a variable each; 1 for the constant [1], a capital letter for a constant of the number of that name.
 * attributes: "name=value", an int, a float (with a dot), @x for the number x, or a text. */
static const struct row {
    const char *op;
    int64_t opset; /* the node's own, when that is later */
    const char *expression, *inputs, *attributes;
} rows[] = {
    {"LayerNormalization", 17, "Add(Mul(Normed(x),$g),$b)", "xgb", "epsilon=@e"},
    {"LayerNormalization", 17, "Add(Mul(Centred(x),Gain(x)),$b)", "xgb", "epsilon=@e"},
    {"LayerNormalization", 17, "Add(Mul(x,Gain(x)),Sub($b,Mul(Mean(x),Gain(x))))", "xgb", "epsilon=@e"},
    {"LayerNormalization", 17, "Mul(Normed(x),$g)", "xg", "epsilon=@e"},
    {"LayerNormalization", 17, "Mul(Centred(x),Gain(x))", "xg", "epsilon=@e"},
    {"LayerNormalization", 17, "Normed(x)", "x1", "epsilon=@e"},
    {"RMSNormalization", 23, "Mul(Rms(x),$g)", "xg", "epsilon=@e"},
    {"RMSNormalization", 23, "Mul(x,Mul(OverRoot(Add(Mean(Square(x)),@e)),$g))", "xg", "epsilon=@e"},
    {"RMSNormalization", 23, "Rms(x)", "x1", "epsilon=@e"},
    {"Gelu", 20, "Times(Mul(x,ErfHalf(x)),#0.5)", "x", ""},
    {"Gelu", 20, "Mul(Times(x,#0.5),ErfHalf(x))", "x", ""},
    {"Gelu", 20, "Mul(x,Times(ErfHalf(x),#0.5))", "x", ""},
    {"Gelu", 20, "Mul(x,Add(Times(Erf(Times(x,#0.70710678)),#0.5),#0.5))", "x", ""},
    {"Gelu", 20, "Times(Mul(x,TanhHalf(x)),#0.5)", "x", "approximate=tanh"},
    {"Gelu", 20, "Mul(Times(x,#0.5),TanhHalf(x))", "x", "approximate=tanh"},
    {"Gelu", 20, "Mul(x,Times(TanhHalf(x),#0.5))", "x", "approximate=tanh"},
    {"Gelu", 20, "Mul(x,Add(Times(Tanh(TanhArgument(x)),#0.5),#0.5))", "x", "approximate=tanh"},
    {"Swish", 24, "Mul(x,Sigmoid(x))", "x", ""},
    {"Swish", 24, "Mul(x,Sigmoid(Times(x,@a)))", "x", "alpha=@a"},
    {"Mish", 18, "Mul(x,Tanh(Softplus(x)))", "x", ""},
    {"HardSwish", 14, "Times(Mul(x,Cap6(Add(x,#3))),#0.16666667)", "x", ""},
    {"HardSwish", 14, "Mul(Times(x,#0.16666667),Cap6(Add(x,#3)))", "x", ""},
    {"HardSwish", 14, "Mul(x,Times(Cap6(Add(x,#3)),#0.16666667))", "x", ""},
    {"HardSwish", 14, "Mul(x,Sixth(x))", "x", ""},
    {"HardSigmoid", 7, "Times(Cap6(Add(x,#3)),#0.16666667)", "x", "alpha=0.16666667 beta=0.5"},
    {"HardSigmoid", 7, "Clamp(Add(Times(x,@a),@b),#0,#1)", "x", "alpha=@a beta=@b"},
    {"Softmax", 13, "Div(Exp(Sub(x,Most(x))),Total(Exp(Sub(x,Most(x)))))", "x", "axis=-1"},
    {"Clip", 11, "Min(Max(x,@a),@b)", "xAB", ""},
    {"Relu", 7, "Max(x,#0)", "x", ""},
};

/* A constant of one float. */
static int constant(struct qd_finder *f, float number, int rank)
{
    float *data = qd_arena_alloc(f->arena, 1, sizeof *data);
    struct qd_tensor tensor = {.dtype = QD_F32, .shape = {.rank = rank, .dims = {rank ? 1 : 0}}, .data = data};
    f->out_of_memory |= !data;
    if (!data)
        return QD_NO_VALUE;
    *data = number;
    return qd_finder_add(f, &tensor);
}

/* A constant along the last dimension, as a vector. */
static int vector(struct qd_finder *f, int value)
{
    struct qd_tensor tensor = f->graph->values[value].info;
    if (tensor.shape.rank == 1)
        return value;
    tensor.shape = (struct qd_shape){.rank = 1, .dims = {qd_tensor_elems(&tensor)}};
    return qd_finder_add(f, &tensor);
}

static int input(struct qd_finder *f, const struct qd_match *m, char name)
{
    if (name == '1')
        return constant(f, 1, 1);
    if (isupper((unsigned char)name))
        return constant(f, (float)m->numbers[name - 'A'], 0);
    int value = m->vars[name - 'a'];
    return name == 'x' ? value : vector(f, value);
}

/* Reads "name=value" at *p into *attr; false at the end of the text, or when memory is out. */
static bool attribute(struct qd_finder *f, const struct qd_match *m, const char **p, struct qd_attr *attr)
{
    const char *equals = strchr(*p, '=');
    if (!equals)
        return false;
    size_t length = strcspn(equals + 1, " ");
    char *value = qd_arena_strndup(f->arena, equals + 1, length);
    *attr = (struct qd_attr){.name = qd_arena_strndup(f->arena, *p, (size_t)(equals - *p)), .count = 1};
    *p = equals + 1 + length + (equals[1 + length] == ' ');
    f->out_of_memory |= !value || !attr->name;
    if (!value || !attr->name)
        return false;
    if (value[0] == '@') {
        attr->type = QD_ATTR_FLOAT;
        attr->f = (float)m->numbers[value[1] - 'a'];
    } else if (isalpha((unsigned char)value[0])) {
        attr->type = QD_ATTR_STRING;
        attr->s = (struct qd_text){value, length};
    } else if (strchr(value, '.')) {
        attr->type = QD_ATTR_FLOAT;
        attr->f = strtof(value, NULL);
    } else {
        attr->type = QD_ATTR_INT;
        attr->i = strtoll(value, NULL, 10);
    }
    return true;
}

static bool rewrite(struct qd_finder *f, int n, const struct row *row, const struct qd_match *m)
{
    enum { MOST = 4 };
    struct qd_node *node = &f->graph->nodes[n];
    struct qd_attr *attrs = qd_arena_alloc(f->arena, MOST, sizeof *attrs);
    int in[MOST], in_count = 0, attr_count = 0;
    f->out_of_memory |= !attrs;
    for (const char *p = row->inputs; *p; p++)
        if ((in[in_count++] = input(f, m, *p)) == QD_NO_VALUE)
            return false;
    for (const char *p = row->attributes; attrs && attr_count < MOST && attribute(f, m, &p, &attrs[attr_count]);)
        attr_count++;
    if (f->out_of_memory || !qd_finder_set_inputs(f, n, in, in_count))
        return false;
    node->op = row->op;
    node->domain = "";
    node->opset = node->opset > row->opset ? node->opset : row->opset;
    node->attrs = attrs;
    node->attr_count = attr_count;
    for (int i = 1; i < m->node_count; i++)
        qd_finder_remove(f, m->nodes[i]);
    return true;
}

bool qd_patterns_table(struct qd_finder *f, int n)
{
    static const char *const ends[] = {"Add", "Clip", "Div", "Max", "Min", "Mul", "Relu"}; /* of any expression */
    struct qd_match match;
    bool possible = false;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        possible = possible || strcmp(f->graph->nodes[n].op, ends[i]) == 0;
    for (size_t i = 0; possible && i < sizeof rows / sizeof rows[0]; i++)
        if (qd_patterns_match(f, n, rows[i].expression, &match))
            return rewrite(f, n, &rows[i], &match);
    return false;
}
