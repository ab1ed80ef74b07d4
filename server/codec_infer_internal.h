/* What the three parts of codec_infer share: the request being decoded. Private to codec_infer*.c. */
#ifndef QD_SERVER_CODEC_INFER_INTERNAL_H
#define QD_SERVER_CODEC_INFER_INTERNAL_H

#include "server/codec_infer.h"
#include "server/codec_json.h"

/* Where in the request's JSON the parser stands. */
enum qd_infer_place {
    QD_PLACE_START,
    QD_PLACE_ROOT,
    QD_PLACE_INPUTS,
    QD_PLACE_INPUT,
    QD_PLACE_SHAPE,
    QD_PLACE_DATA,
    QD_PLACE_OUTPUTS,
    QD_PLACE_OUTPUT,
    QD_PLACE_PARAMETERS,
    QD_PLACE_SKIP,
    QD_PLACE_COUNT
};

/* One object of `inputs` or `outputs` while it is read; reused for the next one. */
struct qd_infer_item {
    char name[QD_INFER_MAX_NAME_BYTES + 1];
    uint32_t seen; /* keys met, by bit */
    bool has_name, has_type, has_shape, has_data;
    enum qd_dtype dtype;
    struct qd_shape shape;
    int binary;             /* outputs: -1 not said, 0, 1; inputs: 1 when binary_data_size was given */
    uint64_t binary_bytes;  /* inputs: binary_data_size */
    struct qd_text capture; /* text of a `data` that came before the name, type or shape */
    bool capturing;
    struct qd_json_tensor tensor;
};

struct qd_infer_pending { /* an input whose bytes follow behind the JSON */
    uint8_t *data;
    size_t bytes, filled;
    size_t input;
    struct qd_string *strings; /* BYTES: the elements, `count` of them, whose lengths and bytes `data` receives */
    int64_t count;
};

struct qd_infer_wanted {
    size_t output;
    int binary; /* -1: the request's default */
};

struct qd_infer_call {
    struct qd_model *model;
    struct qd_infer *infer;
    struct qd_infer_options options;
    struct qd_infer_framing framing;
    uint64_t json_bytes; /* of the body; UINT64_MAX: all */
    uint64_t consumed;   /* bytes of the body taken */
    bool raw, json_done, failed;
    struct qd_json json;

    enum qd_infer_place place, owner; /* owner: whose `parameters` these are */
    enum qd_infer_place back;         /* where SKIP returns to */
    int skip_depth;
    int key; /* index in the key table of the place, -1: unknown */
    char parameter[QD_INFER_MAX_NAME_BYTES + 1];
    uint32_t seen;                         /* keys of the root */
    uint64_t hashes[QD_INFER_MAX_TENSORS]; /* keys of the open `parameters` */
    size_t hash_count;
    struct qd_infer_item item;

    char *id; /* owned */
    uint64_t timeout_us;
    uint64_t batch;
    bool binary_default;
    bool outputs_listed;
    size_t input_count, pending_count, pending_at, wanted_count;
    uint64_t pending_bytes;
    size_t inputs[QD_INFER_MAX_TENSORS];
    struct qd_infer_pending pending[QD_INFER_MAX_TENSORS];
    struct qd_infer_wanted wanted[QD_INFER_MAX_TENSORS];
};

#define QD_INFER_LENGTH_BYTES 4 /* before each string of a binary tensor, little endian */

/* The JSON part: handler for qd_json, ctx = the call. */
enum qd_status qd_infer_call_token(void *ctx, const struct qd_json_token *token, struct qd_error *error);
/* Memory for `bytes` bytes of the model's input `index`; creates the qd_infer at the first. */
enum qd_status qd_infer_call_alloc(struct qd_infer_call *call, size_t index, enum qd_dtype dtype,
                                   const struct qd_shape *shape, void **data, struct qd_error *error);
/* The same for an input whose `bytes` bytes come behind the JSON. */
enum qd_status qd_infer_call_await(struct qd_infer_call *call, size_t index, enum qd_dtype dtype,
                                   const struct qd_shape *shape, size_t bytes, struct qd_error *error);

#endif
