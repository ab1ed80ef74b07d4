/* What makes the model targets' fuzzing structure-aware: libFuzzer's mutator for ONNX files. A file is read as the tree
 * of messages it is; an edit deletes, repeats, moves or replaces one field, lengths of all that is around it are put
 * right, and the rest stays a valid model. So mistakes reach shapes, attributes, wiring and counts instead of ending at
 * the reader. One edit in eight is libFuzzer's own, on plain bytes. Not for what the bytes mean: nothing is checked. */
#include "tests/fuzz/mutate.h"

#include <string.h>

#define MOST_FIELDS 8192
#define MOST_BYTES  (1u << 20)
#define DEEPEST     24

/* The messages of onnx.proto, as far as they hold others. */
enum message {
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE,
    VALUE,
    TYPE,
    TENSOR_TYPE,
    SHAPE,
    DIM,
    OPSET,
    ENTRY,
    FUNCTION
};

static const struct child {
    enum message in;
    uint32_t field;
    enum message is;
} children[] = {
    {MODEL, 7, GRAPH},         {MODEL, 8, OPSET},       {MODEL, 14, ENTRY},     {MODEL, 25, FUNCTION},
    {GRAPH, 1, NODE},          {GRAPH, 5, TENSOR},      {GRAPH, 11, VALUE},     {GRAPH, 12, VALUE},
    {GRAPH, 13, VALUE},        {GRAPH, 15, SPARSE},     {NODE, 5, ATTRIBUTE},   {ATTRIBUTE, 5, TENSOR},
    {ATTRIBUTE, 6, GRAPH},     {ATTRIBUTE, 10, TENSOR}, {ATTRIBUTE, 11, GRAPH}, {ATTRIBUTE, 22, SPARSE},
    {TENSOR, 13, ENTRY},       {SPARSE, 1, TENSOR},     {SPARSE, 2, TENSOR},    {VALUE, 2, TYPE},
    {TYPE, 1, TENSOR_TYPE},    {TYPE, 8, TENSOR_TYPE},  {TYPE, 4, TYPE},        {TYPE, 9, TYPE},
    {TENSOR_TYPE, 2, SHAPE},   {SHAPE, 1, DIM},         {FUNCTION, 7, NODE},    {FUNCTION, 9, OPSET},
    {FUNCTION, 11, ATTRIBUTE},
};

struct field {
    enum message in; /* the message that holds it */
    int is;          /* the message it is, or -1 */
    int parent;      /* index of the field it lies in, or -1 */
    uint32_t number, wire;
    size_t start, payload, end; /* of the tag, of what follows tag and length, one past the last byte */
};

struct tree {
    struct field fields[MOST_FIELDS];
    int count;
};

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return below ? (state >> 11) % below : 0;
}

/* ------------------------------------------------------------------ reading */

static bool get_varint(const uint8_t *data, size_t end, size_t *at, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = data[(*at)++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

static size_t put_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;
    for (; value > 127; value >>= 7)
        to[n++] = (uint8_t)(value | 128);
    to[n++] = (uint8_t)value;
    return n;
}

static int message_of(enum message in, uint32_t number)
{
    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++)
        if (children[i].in == in && children[i].field == number)
            return (int)children[i].is;
    return -1;
}

static bool read_field(const uint8_t *data, size_t end, size_t *at, struct field *field)
{
    uint64_t tag, length;
    field->start = *at;
    if (!get_varint(data, end, at, &tag))
        return false;
    field->number = (uint32_t)(tag >> 3);
    field->wire = tag & 7;
    field->payload = *at;
    if (field->wire == 0) {
        if (!get_varint(data, end, at, &length))
            return false;
    } else if (field->wire == 2) {
        if (!get_varint(data, end, at, &length) || length > end - *at)
            return false;
        field->payload = *at;
        *at += length;
    } else if (field->wire == 5 || field->wire == 1) {
        size_t bytes = field->wire == 5 ? 4 : 8;
        if (end - *at < bytes)
            return false;
        *at += bytes;
    } else {
        return false;
    }
    field->end = *at;
    return true;
}

/* Adds the fields of the message in [at, end) and below; what can't be read ends its message. */
static void read_message(struct tree *tree, const uint8_t *data, size_t at, size_t end, enum message in, int parent,
                         int depth)
{
    while (at < end && tree->count < MOST_FIELDS) {
        int self = tree->count;
        struct field *field = &tree->fields[self];
        if (!read_field(data, end, &at, field))
            return;
        tree->count++;
        field->in = in;
        field->parent = parent;
        field->is = field->wire == 2 ? message_of(in, field->number) : -1;
        if (field->is >= 0 && depth < DEEPEST)
            read_message(tree, data, field->payload, field->end, (enum message)field->is, self, depth + 1);
    }
}

static void read_tree(struct tree *tree, const uint8_t *data, size_t size)
{
    tree->count = 0;
    read_message(tree, data, 0, size, MODEL, -1, 0);
}

/* ------------------------------------------------------------------ writing */

/* Replaces [from, to) by `n` bytes and puts the lengths of `around` and of all around it right. The new bytes may not
 * lie in `data`. Returns the new size; the old one, and nothing changed, when it would exceed `most`. */
static size_t splice(uint8_t *data, size_t size, size_t most, const struct tree *tree, int around, size_t from,
                     size_t to, const uint8_t *bytes, size_t n)
{
    if (n > most || size - (to - from) > most - n || size - (to - from) + n + 10 * DEEPEST > most)
        return size;
    memmove(data + from + n, data + to, size - to);
    if (n)
        memcpy(data + from, bytes, n);
    size = size - (to - from) + n;
    int64_t grown = (int64_t)n - (int64_t)(to - from);
    for (; around >= 0; around = tree->fields[around].parent) {
        const struct field *field = &tree->fields[around];
        uint8_t tag[10], length[10];
        size_t tag_bytes = put_varint(tag, (uint64_t)field->number << 3 | field->wire);
        size_t at = field->start + tag_bytes, old = field->payload > at ? field->payload - at : 0;
        size_t now = put_varint(length, (uint64_t)((int64_t)(field->end - field->payload) + grown));
        memmove(data + at + now, data + at + old, size - at - old);
        memcpy(data + at, length, now);
        size = size - old + now;
        grown += (int64_t)now - (int64_t)old;
    }
    return size;
}

static uint64_t number(uint64_t was)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   7,
                                   8,
                                   9,
                                   16,
                                   255,
                                   65536,
                                   UINT32_MAX,
                                   INT32_MAX,
                                   1ull << 31,
                                   1ull << 32,
                                   1ull << 40,
                                   1ull << 61,
                                   1ull << 62,
                                   INT64_MAX,
                                   1ull << 63,
                                   UINT64_MAX,
                                   -2ull,
                                   -3ull,
                                   -8ull,
                                   INT64_MIN / 8,
                                   INT64_MAX / 4,
                                   (uint64_t)(int64_t)INT32_MIN};
    switch (draw(5)) {
    case 0:
        return was + 1;
    case 1:
        return was - 1;
    case 2:
        return draw(48);
    case 3:
        return -was;
    default:
        return odd[draw(sizeof odd / sizeof odd[0])];
    }
}

/* Writes an odd number of 4 or 8 bytes: an integer, or a float that is not a number, infinite, tiny, huge. */
static void put_odd(uint8_t *to, size_t bytes)
{
    static const uint32_t floats[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7fc00000, 0x7f800000, 0xff800000,
                                      1, 0x7f7fffff, 0xff7fffff, 0x4f000000, 0x5f000000, 0x3f000000};
    uint64_t value = 0;
    memcpy(&value, to, bytes);
    value = bytes == 4 && draw(2) ? floats[draw(sizeof floats / sizeof floats[0])] : number(value);
    memcpy(to, &value, bytes);
}

/* ------------------------------------------------------------------ edits */

struct edit {
    uint8_t *data;
    size_t size, most;
    struct tree *tree;
    uint8_t *spare; /* MOST_BYTES */
};

/* Another field that holds the same thing, out of `other` (the same model, or one to cross with); -1 when none does. */
static int likewise(const struct tree *other, const struct field *field)
{
    int found = -1, seen = 0;
    for (int i = 0; i < other->count; i++) {
        const struct field *f = &other->fields[i];
        bool same = field->is >= 0 ? f->is == field->is : f->is < 0 && f->wire == field->wire && f->in == field->in;
        if (same && (field->is >= 0 || field->wire != 2 || f->number == field->number || draw(4) == 0) &&
            draw((uint64_t)++seen) == 0)
            found = i;
    }
    return found;
}

static void remove_field(struct edit *e, const struct field *field)
{
    e->size = splice(e->data, e->size, e->most, e->tree, field->parent, field->start, field->end, NULL, 0);
}

/* Puts a copy of some field of the same message before or behind this one. */
static void insert_copy(struct edit *e, const struct field *field)
{
    int from = draw(2) ? (int)(field - e->tree->fields) : likewise(e->tree, field);
    if (from < 0)
        return;
    const struct field *source = &e->tree->fields[from];
    size_t bytes = source->end - source->start, at = draw(2) ? field->start : field->end;
    memcpy(e->spare, e->data + source->start, bytes);
    e->size = splice(e->data, e->size, e->most, e->tree, field->parent, at, at, e->spare, bytes);
}

/* Gives the field the content of another that holds the same kind of thing: a name rewires the graph, a node gets
 * another's attributes, a tensor another's shape. */
static void replace(struct edit *e, const struct field *field, const uint8_t *other_data, const struct tree *other)
{
    int from = likewise(other, field);
    if (from < 0)
        return;
    const struct field *source = &other->fields[from];
    size_t bytes = source->end - source->payload;
    memcpy(e->spare, other_data + source->payload, bytes);
    int around = field->wire == 2 ? (int)(field - e->tree->fields) : field->parent;
    e->size = splice(e->data, e->size, e->most, e->tree, around, field->payload, field->end, e->spare, bytes);
}

static void change_number(struct edit *e, const struct field *field)
{
    if (field->wire != 0) {
        put_odd(e->data + field->payload, field->wire == 5 ? 4 : 8);
        return;
    }
    uint64_t value = 0;
    size_t at = field->payload;
    get_varint(e->data, field->end, &at, &value);
    size_t n = put_varint(e->spare, number(value));
    e->size = splice(e->data, e->size, e->most, e->tree, field->parent, field->payload, field->end, e->spare, n);
}

/* Bytes: text, raw numbers, packed integers. One of them becomes odd, or some are cut off or repeated. */
static void change_bytes(struct edit *e, const struct field *field)
{
    size_t bytes = field->end - field->payload, from = draw(bytes + 1), unit = draw(2) ? 4 : 8;
    int self = (int)(field - e->tree->fields);
    uint64_t value = 0;
    switch (draw(4)) {
    case 0:
        e->size = splice(e->data, e->size, e->most, e->tree, self, field->payload + from, field->end, NULL, 0);
        return;
    case 1:
        memcpy(e->spare, e->data + field->payload + from, bytes - from);
        e->size = splice(e->data, e->size, e->most, e->tree, self, field->end, field->end, e->spare, bytes - from);
        return;
    case 2:
        if (bytes >= unit)
            put_odd(e->data + field->payload + from / unit * unit % (bytes - unit + 1), unit);
        return;
    default: { /* as packed integers */
        size_t at = field->payload + from, end = at;
        size_t n = get_varint(e->data, field->end, &end, &value) ? put_varint(e->spare, number(value)) : 0;
        e->size = splice(e->data, e->size, e->most, e->tree, self, at, end, e->spare, n);
    }
    }
}

static void edit_once(struct edit *e)
{
    read_tree(e->tree, e->data, e->size);
    if (!e->tree->count)
        return;
    const struct field *field = &e->tree->fields[draw((uint64_t)e->tree->count)];
    uint64_t kind = draw(8);
    if (kind == 0)
        remove_field(e, field);
    else if (kind == 1)
        insert_copy(e, field);
    else if (kind < 4 || field->is >= 0)
        replace(e, field, e->data, e->tree);
    else if (field->wire == 2)
        change_bytes(e, field);
    else
        change_number(e, field);
}

static struct tree tree, other_tree;
static uint8_t spare[MOST_BYTES];

size_t qd_mutate_model(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    struct edit e = {data, size, most < MOST_BYTES ? most : MOST_BYTES, &tree, spare};
    state = seed * 0x9e3779b97f4a7c15ull + 1;
    if (size > MOST_BYTES)
        return size;
    for (uint64_t edits = 1 + draw(3); edits > 0; edits--)
        edit_once(&e);
    return e.size;
}

size_t qd_cross_models(uint8_t *data, size_t size, size_t most, const uint8_t *other, size_t other_size, unsigned seed)
{
    struct edit e = {data, size, most < MOST_BYTES ? most : MOST_BYTES, &tree, spare};
    state = seed * 0x9e3779b97f4a7c15ull + 1;
    if (size > MOST_BYTES || other_size > MOST_BYTES)
        return size;
    read_tree(&tree, data, size);
    read_tree(&other_tree, other, other_size);
    if (tree.count)
        replace(&e, &tree.fields[draw((uint64_t)tree.count)], other, &other_tree);
    return e.size;
}
