/* See model_builder.h. */
#include "tests/unit/model_builder.h"

#include <stdio.h>

static void stop(const char *what, const char *detail)
{
    fprintf(stderr, "model_builder: %s: %s\n", what, detail);
    abort();
}

/* Cuts the next piece off *text at a divider; false at the end. */
static bool piece(const char **text, char divider, char *out, size_t room)
{
    size_t n = 0;
    while (*text && **text == ' ')
        (*text)++;
    if (!*text || !**text)
        return false;
    while (**text && **text != divider) {
        if (n + 1 >= room)
            stop("too long", *text);
        out[n++] = *(*text)++;
    }
    out[n] = 0;
    if (**text)
        (*text)++;
    return true;
}

static bool is_number(const char *text) { return *text == '-' || (*text >= '0' && *text <= '9'); }

struct qd_shape qd_mb_shape(const char *shape)
{
    struct qd_shape s = {0};
    char dim[64];
    while (piece(&shape, ',', dim, sizeof dim))
        s.dims[s.rank++] = is_number(dim) ? strtoll(dim, NULL, 10) : -1;
    return s;
}

/* ValueInfoProto */
static void put_info(struct qd_mb *b, unsigned field, const char *name, enum qd_dtype dtype, const char *text)
{
    struct wire w = {0}, shape = {0}, tensor = {0}, kind = {0};
    char part[64];
    while (piece(&text, ',', part, sizeof part)) {
        struct wire dim = {0};
        if (is_number(part))
            put_varint(&dim, 1, strtoull(part, NULL, 10));
        else if (part[0] != '?')
            put_text(&dim, 2, part);
        put_message(&shape, 1, &dim);
    }
    put_varint(&tensor, 1, (uint64_t)qd_dtype_to_onnx(dtype));
    put_message(&tensor, 2, &shape);
    put_message(&kind, 1, &tensor);
    put_text(&w, 1, name);
    put_message(&w, 2, &kind);
    put_message(&b->graph, field, &w);
}

void qd_mb_input(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape)
{
    put_info(b, 11, name, dtype, shape);
}

void qd_mb_output(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape)
{
    put_info(b, 12, name, dtype, shape);
}

void qd_mb_value(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape)
{
    put_info(b, 13, name, dtype, shape);
}

void qd_mb_constant(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape, const void *data)
{
    struct qd_tensor t = {.dtype = dtype, .shape = qd_mb_shape(shape)};
    struct wire w = tensor_proto(name, qd_dtype_to_onnx(dtype), t.shape.rank, t.shape.dims, data, qd_tensor_bytes(&t));
    put_message(&b->graph, 5, &w);
}

uint64_t qd_mb_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void qd_mb_fill(float *x, size_t n, uint64_t seed, float scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = scale * ((float)(qd_mb_random(&seed) >> 40) / (float)(1 << 23) - 1);
}

void qd_mb_weights(struct qd_mb *b, const char *name, const char *shape, uint64_t seed, float scale)
{
    struct qd_tensor t = {.dtype = QD_F32, .shape = qd_mb_shape(shape)};
    size_t n = (size_t)qd_tensor_elems(&t);
    float *data = calloc(n + 1, sizeof *data);
    if (!data)
        abort();
    qd_mb_fill(data, n, seed, scale);
    qd_mb_constant(b, name, QD_F32, shape, data);
    free(data);
}

static void put_attribute(struct wire *node_proto, const char *text)
{
    enum { FLOAT = 1, INT, STRING, INTS = 7 };
    char name[64];
    struct wire a = {0};
    int type = STRING;
    piece(&text, '=', name, sizeof name);
    put_text(&a, 1, name);
    if (*text == '[') {
        char part[32];
        type = INTS;
        for (text++; *text != ']' && piece(&text, ',', part, sizeof part);) {
            put_varint(&a, 8, (uint64_t)strtoll(part, NULL, 10));
            if (strchr(part, ']'))
                break;
        }
    } else if (is_number(text) && strchr(text, '.')) {
        type = FLOAT;
        put_float(&a, 2, strtof(text, NULL));
    } else if (is_number(text)) {
        type = INT;
        put_varint(&a, 3, (uint64_t)strtoll(text, NULL, 10));
    } else {
        put_text(&a, 4, text);
    }
    put_varint(&a, 20, (uint64_t)type);
    put_message(node_proto, 5, &a);
}

void qd_mb_node(struct qd_mb *b, const char *op, const char *inputs, const char *outputs, const char *attributes)
{
    char text[128];
    struct wire w = {0};
    while (piece(&inputs, ' ', text, sizeof text))
        put_text(&w, 1, strcmp(text, "-") == 0 ? "" : text);
    for (bool first = true; piece(&outputs, ' ', text, sizeof text); first = false) {
        put_text(&w, 2, strcmp(text, "-") == 0 ? "" : text);
        if (first)
            put_text(&w, 3, text);
    }
    put_text(&w, 4, op);
    while (piece(&attributes, ' ', text, sizeof text))
        put_attribute(&w, text);
    put_message(&b->graph, 1, &w);
}

void qd_mb_finish(struct qd_mb *b, uint64_t opset)
{
    put_text(&b->graph, 2, "test");
    b->model = model_of(&b->graph, opset);
}

struct qd_model *qd_mb_load(struct qd_mb *b, struct qd_engine *engine, const struct qd_quant_options *options,
                            struct qd_error *error)
{
    struct qd_quant_options chosen = options ? *options : qd_quant_defaults();
    struct qd_model *model = NULL;
    struct qd_error local = {0};
    if (chosen.precision == QD_PRECISION_AUTO)
        chosen.precision = QD_INT8; /* a choice by time would make tests depend on the machine */
    enum qd_status status = qd_model_load_memory(engine, "test", b->model.bytes, b->model.size, &chosen, &model,
                                                 error ? error : &local);
    if (status && !error)
        fprintf(stderr, "model_builder: the engine refuses: %s\n", local.text);
    return status ? NULL : model;
}

void qd_mb_free(struct qd_mb *b)
{
    drop(&b->graph);
    drop(&b->model);
}

struct qd_engine *qd_mb_engine(unsigned threads)
{
    struct qd_engine_options options = {.threads = threads};
    struct qd_engine *engine = NULL;
    struct qd_error error;
    if (qd_engine_create(&options, &engine, &error) != QD_OK)
        stop("no engine", error.text);
    return engine;
}

struct qd_infer *qd_mb_request(struct qd_model *model, const struct qd_infer_options *options, const char *shape,
                               const float *x)
{
    struct qd_infer_options defaults = qd_infer_defaults();
    struct qd_tensor t = {.dtype = QD_F32, .shape = qd_mb_shape(shape)};
    struct qd_infer *infer = NULL;
    struct qd_error error;
    void *data;
    if (qd_infer_create(model, options ? options : &defaults, &infer, &error) != QD_OK ||
        qd_infer_input_alloc(infer, 0, QD_F32, &t.shape, &data, &error) != QD_OK)
        stop("no request", error.text);
    if (qd_tensor_bytes(&t))
        memcpy(data, x, qd_tensor_bytes(&t));
    if (qd_infer_prepare(infer, &error) != QD_OK)
        stop("not prepared", error.text);
    return infer;
}

struct qd_infer *qd_mb_run(struct qd_model *model, const struct qd_infer_options *options, const char *shape,
                           const float *x)
{
    struct qd_infer *infer = qd_mb_request(model, options, shape, x);
    struct qd_error error;
    qd_infer_run(&infer, 1);
    if (qd_infer_status(infer, &error) != QD_OK)
        stop("failed", error.text);
    qd_infer_finish(infer);
    return infer;
}

void qd_mb_teach(struct qd_model *model, const char *shape, const float *x, int times)
{
    for (int i = 0; i < times; i++) {
        struct qd_infer *infer = qd_mb_run(model, NULL, shape, x);
        qd_infer_destroy(&infer);
    }
}
