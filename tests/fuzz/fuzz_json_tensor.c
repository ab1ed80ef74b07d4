/* Any bytes into the tensor parser: byte 0 chooses type and shape, the rest is `data`. The elements lie in a block of
 * exactly their size (a sanitizer sees one byte too many), and cutting the text in two must change neither outcome nor
 * elements. */
#include "server/codec_json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum qd_status to_tensor(void *ctx, const struct qd_json_token *token, struct qd_error *error)
{
    struct qd_json_tensor *tensor = ctx;
    if (tensor->done)
        abort(); /* the parser lets nothing through behind the closing bracket */
    return qd_json_tensor_token(tensor, token, error);
}

static enum qd_status parse(enum qd_dtype dtype, const struct qd_shape *shape, void *memory, const uint8_t *text,
                            size_t size, size_t cut)
{
    struct qd_json json;
    struct qd_json_tensor tensor;
    struct qd_error error = {0};
    qd_json_tensor_init(&tensor, "x", dtype, shape, memory);
    qd_json_init(&json, to_tensor, &tensor);
    enum qd_status status = qd_json_feed(&json, text, cut, &error);
    if (!status)
        status = qd_json_feed(&json, text + cut, size - cut, &error);
    if (!status)
        status = qd_json_end(&json, &error);
    qd_json_release(&json);
    if (status ? !error.text[0] : !tensor.done || tensor.filled != tensor.elems)
        abort();
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum qd_dtype types[] = {QD_F32, QD_F64, QD_U8,  QD_I8,  QD_U16, QD_I16,
                                          QD_U32, QD_I32, QD_U64, QD_I64, QD_BOOL};
    static const struct qd_shape shapes[] = {{1, {3}},       {2, {2, 2}}, {0, {0}},
                                             {3, {1, 2, 3}}, {2, {2, 0}}, {8, {1, 1, 2, 1, 1, 1, 1, 2}}};
    if (!size)
        return 0;
    enum qd_dtype dtype = types[data[0] % (sizeof types / sizeof types[0])];
    const struct qd_shape *shape = &shapes[data[0] / 16 % (sizeof shapes / sizeof shapes[0])];
    int64_t elems = 0;
    if (!qd_shape_elems(shape, &elems))
        abort();
    size_t bytes = (size_t)elems * qd_dtype_bytes(dtype);
    char *whole = calloc(bytes + 1, 1), *cut = calloc(bytes + 1, 1);
    char *tight = malloc(bytes ? bytes : 1);
    if (whole && cut && tight) {
        enum qd_status first = parse(dtype, shape, whole, data + 1, size - 1, 0);
        enum qd_status second = parse(dtype, shape, cut, data + 1, size - 1, (size - 1) / 2);
        if (first != second || (!first && memcmp(whole, cut, bytes) != 0))
            abort();
        parse(dtype, shape, tight, data + 1, size - 1, size - 1);
    }
    free(whole);
    free(cut);
    free(tight);
    return 0;
}
