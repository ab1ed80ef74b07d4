/* The graph's small helpers: attributes by name, texts for error sentences, constants as ints, the end of it all. */
#include "engine/ir/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct qd_text) == sizeof(struct qd_string) &&
                   offsetof(struct qd_text, length) == offsetof(struct qd_string, length),
               "a list of strings is the data of a tensor");

static const struct qd_attr *find_typed(const struct qd_node *node, const char *name, enum qd_attr_type type)
{
    const struct qd_attr *attr = qd_attr_find(node, name);
    return attr && attr->type == type ? attr : NULL;
}

const struct qd_attr *qd_attr_find(const struct qd_node *node, const char *name)
{
    for (int i = 0; i < node->attr_count; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            return &node->attrs[i];
    return NULL;
}

int64_t qd_attr_int(const struct qd_node *node, const char *name, int64_t otherwise)
{
    const struct qd_attr *attr = find_typed(node, name, QD_ATTR_INT);
    return attr ? attr->i : otherwise;
}

float qd_attr_float(const struct qd_node *node, const char *name, float otherwise)
{
    const struct qd_attr *attr = find_typed(node, name, QD_ATTR_FLOAT);
    return attr ? attr->f : otherwise;
}

const int64_t *qd_attr_ints(const struct qd_node *node, const char *name, size_t *count)
{
    const struct qd_attr *attr = find_typed(node, name, QD_ATTR_INTS);
    *count = attr ? attr->count : 0;
    return attr ? attr->ints : NULL;
}

const float *qd_attr_floats(const struct qd_node *node, const char *name, size_t *count)
{
    const struct qd_attr *attr = find_typed(node, name, QD_ATTR_FLOATS);
    *count = attr ? attr->count : 0;
    return attr ? attr->floats : NULL;
}

bool qd_attr_is(const struct qd_node *node, const char *name, const char *otherwise, const char *text)
{
    const struct qd_attr *attr = find_typed(node, name, QD_ATTR_STRING);
    if (!attr)
        return strcmp(otherwise, text) == 0;
    return attr->s.length == strlen(text) && memcmp(attr->s.bytes, text, attr->s.length) == 0;
}

/* Bytes of `text` that fit into `most` without cutting a UTF-8 sequence. */
static int fitting(const char *text, size_t most)
{
    size_t n = strnlen(text, most + 1);
    if (n > most)
        for (n = most; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
            ;
    return (int)n;
}

bool qd_node_is(const struct qd_node *node, const char *op)
{
    return node->domain[0] == 0 && strcmp(node->op, op) == 0;
}

const char *qd_node_text(const struct qd_node *node, char *text, size_t room)
{
    const char *colon = node->domain[0] ? ":" : "";
    /* Each part gets its share, so that a long name can't push out what stands behind it. */
    size_t share = room / 3 < 24 ? 8 : room / 3 - 16;
    snprintf(text, room, "%.*s%s%.*s '%.*s' (opset %" PRId64 ")", fitting(node->domain, share), node->domain, colon,
             fitting(node->op, share), node->op, fitting(node->name, share), node->name, node->opset);
    return text;
}

bool qd_tensor_ints(const struct qd_tensor *tensor, int64_t *out, size_t room, size_t *count)
{
    int64_t elems;
    if ((tensor->dtype != QD_I32 && tensor->dtype != QD_I64) || tensor->shape.rank < 0 ||
        !qd_shape_elems(&tensor->shape, &elems) || (uint64_t)elems > room || (elems > 0 && !tensor->data))
        return false;
    for (int64_t i = 0; i < elems; i++)
        out[i] = tensor->dtype == QD_I64 ? ((const int64_t *)tensor->data)[i] : ((const int32_t *)tensor->data)[i];
    *count = (size_t)elems;
    return true;
}

void qd_graph_destroy(struct qd_graph **graph)
{
    if (!*graph)
        return;
    struct qd_arena *arena = (*graph)->arena; /* the graph itself lies in it */
    qd_arena_destroy(&arena);
    *graph = NULL;
}
