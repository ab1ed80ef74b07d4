/* Writes the few fields of ONNX's protocol buffers that a graph of Identity nodes needs. */
#include "tests/unit/identity_model.h"

#include "base/mem.h"
#include "server/text.h"

#include <stdio.h>
#include <string.h>

static void put_varint(struct qd_text *out, uint64_t value)
{
    do {
        char byte = (char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        qd_text_append(out, &byte, 1);
        value >>= 7;
    } while (value);
}

static void put_number(struct qd_text *out, unsigned field, uint64_t value)
{
    put_varint(out, field << 3);
    put_varint(out, value);
}

static void put_bytes(struct qd_text *out, unsigned field, const char *bytes, size_t n)
{
    put_varint(out, field << 3 | 2);
    put_varint(out, n);
    qd_text_append(out, bytes, n);
}

static void put_string(struct qd_text *out, unsigned field, const char *text)
{
    put_bytes(out, field, text, strlen(text));
}

static void put_message(struct qd_text *out, unsigned field, struct qd_text *message)
{
    put_bytes(out, field, message->bytes ? message->bytes : "", message->length);
    qd_text_free(message);
}

/* ValueInfoProto */
static struct qd_text value_info(const char *name, const struct qd_io *io)
{
    struct qd_text shape = {0}, tensor = {0}, type = {0}, info = {0};
    for (int i = 0; i < io->shape.rank; i++) {
        struct qd_text dim = {0};
        if (io->shape.dims[i] >= 0)
            put_number(&dim, 1, (uint64_t)io->shape.dims[i]);
        else if (io->dim_names[i])
            put_string(&dim, 2, io->dim_names[i]);
        put_message(&shape, 1, &dim);
    }
    put_number(&tensor, 1, (uint64_t)qd_dtype_to_onnx(io->dtype));
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_string(&info, 1, name);
    put_message(&info, 2, &type);
    return info;
}

struct qd_model *qd_test_identity_model(struct qd_engine *engine, const struct qd_io *rows, size_t count, char **bytes,
                                        struct qd_error *error)
{
    struct qd_text graph = {0}, model = {0}, opset = {0};
    struct qd_model *loaded = NULL;
    struct qd_quant_options options = qd_quant_defaults();
    char name[128];
    for (size_t i = 0; i < count; i++) {
        struct qd_text node = {0};
        snprintf(name, sizeof name, "out_%s", rows[i].name);
        put_string(&node, 1, rows[i].name);
        put_string(&node, 2, name);
        put_string(&node, 3, rows[i].name);
        put_string(&node, 4, "Identity");
        put_message(&graph, 1, &node);
    }
    put_string(&graph, 2, "identity");
    for (unsigned outputs = 0; outputs < 2; outputs++)
        for (size_t i = 0; i < count; i++) {
            snprintf(name, sizeof name, "%s%s", outputs ? "out_" : "", rows[i].name);
            struct qd_text info = value_info(name, &rows[i]);
            put_message(&graph, 11 + outputs, &info);
        }
    put_number(&model, 1, 8);
    put_message(&model, 7, &graph);
    put_number(&opset, 2, 13);
    put_message(&model, 8, &opset);
    *bytes = model.bytes;
    enum qd_status status = qd_model_load_memory(engine, "identity", model.bytes, model.length, &options, &loaded,
                                                 error);
    return status ? NULL : loaded;
}
