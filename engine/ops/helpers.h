/* What the operator families share: checks that end in a sentence naming the node, reading of shape inputs, walks over
 * broadcast or strided tensors, and the split of work over threads. Private to engine/ops; not for arithmetic. */
#ifndef QD_ENGINE_OPS_HELPERS_H
#define QD_ENGINE_OPS_HELPERS_H

#include "engine/ops/op.h"

#define QD_OP(domain, type, since, vtable) extern const struct qd_op vtable;
#include "engine/ops/ops.def"
#undef QD_OP

/* Sets of element types. */
#define QD_BIT(dtype)  (1u << (unsigned)(dtype))
#define QD_TYPES_FLOAT (QD_BIT(QD_F32))
#define QD_TYPES_INDEX (QD_BIT(QD_I32) | QD_BIT(QD_I64))
#define QD_TYPES_ANY   (QD_BIT(QD_DTYPE_COUNT) - 1u - QD_BIT(QD_NONE) - QD_BIT(QD_STR)) /* numbers and truth values */
#define QD_TYPES_MOVED (QD_TYPES_ANY | QD_BIT(QD_STR)) /* for operators that move elements and know nothing of them */

/* ------------------------------------------------------------------ attributes, for prepare functions */

/* Zeroed memory for prep; NULL: the caller returns qd_op_no_memory. */
#define QD_PREP_NEW(arena, type) ((type *)qd_arena_alloc((arena), 1, sizeof(type)))
enum qd_status qd_op_no_memory(const struct qd_node *node, struct qd_error *error);
/* As qd_op_fail, from a prepare function. */
enum qd_status qd_op_refuse(const struct qd_node *node, struct qd_error *error, enum qd_status status,
                            const char *format, ...) QD_PRINTF(4, 5);

/* ------------------------------------------------------------------ checks, for infer functions */

/* At least `least` inputs, the first `least` present, no more than `most`, at least one output. */
enum qd_status qd_op_inputs(const struct qd_call *call, int least, int most, struct qd_error *error) QD_MUST_CHECK;
/* Input i is given. */
bool qd_op_has(const struct qd_call *call, int i);
/* Output i is asked for. */
bool qd_op_wants(const struct qd_call *call, int i);
/* Input i has one of the types of the set (QD_BIT). Absent inputs pass. */
enum qd_status qd_op_types(const struct qd_call *call, int i, unsigned set, struct qd_error *error) QD_MUST_CHECK;
/* Inputs i and j have the same type. */
enum qd_status qd_op_same_type(const struct qd_call *call, int i, int j, struct qd_error *error) QD_MUST_CHECK;
/* -rank <= *axis < rank, made non-negative. */
enum qd_status qd_op_axis(const struct qd_call *call, int64_t *axis, int rank, struct qd_error *error) QD_MUST_CHECK;
/* Sets output i; checks that its bytes can be counted. */
enum qd_status qd_op_out(const struct qd_call *call, int i, enum qd_dtype dtype, const struct qd_shape *shape,
                         struct qd_error *error) QD_MUST_CHECK;
/* Reads input i, a list (rank <= 1) of ints, at most `room`. NEEDS_DATA when its values aren't known yet. */
enum qd_status qd_op_ints(const struct qd_call *call, int i, int64_t *out, size_t room, size_t *count,
                          struct qd_error *error) QD_MUST_CHECK;
/* The one element of input i (F32 or an integer type) as double; NEEDS_DATA as above. */
enum qd_status qd_op_scalar(const struct qd_call *call, int i, double *out, struct qd_error *error) QD_MUST_CHECK;
/* For run functions of operators whose output shape came from data: `infer` again, and SHAPE when a shape is another
 * now. */
enum qd_status qd_op_recheck(const struct qd_call *call,
                             enum qd_status (*infer)(const struct qd_call *, struct qd_error *),
                             struct qd_error *error) QD_MUST_CHECK;

/* ------------------------------------------------------------------ work, for run functions */

/* memcpy that takes NULL for no bytes, and does nothing when both are the same. */
void qd_op_copy(void *out, const void *in, size_t bytes);
/* fn over disjoint pieces of [0, items), each of about `grain` items or more, on call->parallel. */
void qd_op_split(const struct qd_call *call, int64_t items, int64_t grain,
                 void (*fn)(void *ctx, int64_t begin, int64_t end), void *ctx);
/* How many of a run's tasks may work at once (>= 1): for scratch per task. */
unsigned qd_op_threads(const struct qd_call *call);

#define QD_WALK_OPERANDS 3

/* A walk over the elements of an output in order, with up to three operands that are broadcast or strided. */
struct qd_walk {
    int rank, operands; /* neighbouring dimensions that all operands cross evenly are joined; rank >= 1 */
    int64_t elems;
    int64_t dims[QD_MAX_RANK];
    int64_t strides[QD_WALK_OPERANDS][QD_MAX_RANK]; /* in elements; 0 where an operand is repeated; may be negative */
};

/* Row-major strides in elements. */
void qd_op_strides(const struct qd_shape *shape, int64_t strides[QD_MAX_RANK]);
/* Starts a walk over `out`; then one call per operand; qd_walk_join before use. */
void qd_walk_begin(struct qd_walk *walk, const struct qd_shape *out);
void qd_walk_operand(struct qd_walk *walk, const int64_t *strides);         /* strides by dimension of out */
void qd_walk_broadcast(struct qd_walk *walk, const struct qd_shape *shape); /* that qd_broadcast has accepted */
void qd_walk_join(struct qd_walk *walk);
/* piece(ctx, out_at, at, n): n outputs from index out_at on; operand i at at[i] + j * strides[i][rank - 1], j < n. */
void qd_walk_run(const struct qd_walk *walk, const struct qd_call *call,
                 void (*piece)(void *ctx, int64_t out_at, const int64_t *at, int64_t n), void *ctx);
/* out[...] = in[walk's operand 0]: any element size of 1, 2, 4, 8 or 16 bytes. */
void qd_walk_copy(const struct qd_walk *walk, const struct qd_call *call, const void *in, void *out, size_t elem_bytes);

#endif
