/* Writes protocol buffers by hand, so that tests can say anything, also what no library would write. Grows as needed;
 * a test that runs out of memory just stops. Field numbers of ONNX stand in the models' builders below. */
#ifndef QD_TESTS_UNIT_WIRE_H
#define QD_TESTS_UNIT_WIRE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct wire {
    unsigned char *bytes;
    size_t size, room;
};

static inline void put_raw(struct wire *w, const void *bytes, size_t n)
{
    if (w->room < w->size + n) {
        w->room = (w->size + n) * 2 + 64;
        w->bytes = realloc(w->bytes, w->room);
        if (!w->bytes)
            abort();
    }
    if (n)
        memcpy(w->bytes + w->size, bytes, n);
    w->size += n;
}

static inline void put_number(struct wire *w, uint64_t value)
{
    unsigned char bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (unsigned char)(value | 0x80);
    bytes[n++] = (unsigned char)value;
    put_raw(w, bytes, n);
}

static inline void put_tag(struct wire *w, unsigned field, unsigned type)
{
    put_number(w, (uint64_t)field << 3 | type);
}

static inline void put_varint(struct wire *w, unsigned field, uint64_t value)
{
    put_tag(w, field, 0);
    put_number(w, value);
}

static inline void put_bytes(struct wire *w, unsigned field, const void *bytes, size_t n)
{
    put_tag(w, field, 2);
    put_number(w, n);
    put_raw(w, bytes, n);
}

static inline void put_text(struct wire *w, unsigned field, const char *text)
{
    put_bytes(w, field, text, strlen(text));
}

static inline void put_float(struct wire *w, unsigned field, float value)
{
    put_tag(w, field, 5);
    put_raw(w, &value, sizeof value);
}

static inline void drop(struct wire *w)
{
    free(w->bytes);
    *w = (struct wire){0};
}

/* Puts the message and empties it. */
static inline void put_message(struct wire *w, unsigned field, struct wire *message)
{
    put_bytes(w, field, message->bytes, message->size);
    drop(message);
}

/* ---------------------------------------------------------------- pieces of ONNX */

/* NodeProto: one input, one output (NULL: none), a name unless NULL. The caller may add to it. */
static inline struct wire node(const char *op, const char *in, const char *out, const char *name)
{
    struct wire w = {0};
    if (in)
        put_text(&w, 1, in);
    if (out)
        put_text(&w, 2, out);
    if (name)
        put_text(&w, 3, name);
    put_text(&w, 4, op);
    return w;
}

/* ValueInfoProto: FP32 (or another type) of shape [2]. */
static inline struct wire value_info(const char *name, int type)
{
    struct wire w = {0}, dim = {0}, shape = {0}, tensor = {0}, kind = {0};
    put_varint(&dim, 1, 2);
    put_message(&shape, 1, &dim);
    put_varint(&tensor, 1, (uint64_t)type);
    put_message(&tensor, 2, &shape);
    put_message(&kind, 1, &tensor);
    put_text(&w, 1, name);
    put_message(&w, 2, &kind);
    return w;
}

/* TensorProto with raw data. */
static inline struct wire tensor_proto(const char *name, int type, int rank, const int64_t *dims, const void *data,
                                       size_t bytes)
{
    struct wire w = {0};
    for (int i = 0; i < rank; i++)
        put_varint(&w, 1, (uint64_t)dims[i]);
    put_varint(&w, 2, (uint64_t)type);
    put_text(&w, 8, name);
    if (data)
        put_bytes(&w, 9, data, bytes);
    return w;
}

static inline struct wire opset_id(const char *domain, uint64_t version)
{
    struct wire w = {0};
    put_text(&w, 1, domain);
    put_varint(&w, 2, version);
    return w;
}

/* ModelProto around a GraphProto, which it empties. */
static inline struct wire model_of(struct wire *graph, uint64_t opset)
{
    struct wire w = {0}, id = opset_id("", opset);
    put_varint(&w, 1, 8);
    put_message(&w, 7, graph);
    put_message(&w, 8, &id);
    return w;
}

/* ---------------------------------------------------------------- whole graphs */

static inline void put_node(struct wire *graph, const char *op, const char *in, const char *out, const char *name)
{
    struct wire w = node(op, in, out, name);
    put_message(graph, 1, &w);
}

static inline void put_value(struct wire *graph, unsigned field, const char *name)
{
    struct wire w = value_info(name, 1);
    put_message(graph, field, &w);
}

/* x -> Relu -> y, to which tests add. */
static inline struct wire relu(void)
{
    struct wire g = {0};
    put_value(&g, 11, "x");
    put_value(&g, 12, "y");
    put_node(&g, "Relu", "x", "y", "act");
    return g;
}

static inline void put_attr(struct wire *n, const char *name, int type, unsigned field, struct wire *content)
{
    struct wire a = {0};
    put_text(&a, 1, name);
    put_varint(&a, 20, (uint64_t)type);
    if (content)
        put_message(&a, field, content);
    put_message(n, 5, &a);
}

#endif
