/* Writes ONNX models in memory from short texts, and runs requests on them: what tests of the engine need.
 * A mistake of the test itself stops the program with a sentence. Not for hostile files (tests/unit/wire.h). */
#ifndef QD_TESTS_MODEL_BUILDER_H
#define QD_TESTS_MODEL_BUILDER_H

#include "engine/engine.h"
#include "tests/unit/wire.h"

struct qd_mb {
    struct wire graph, model; /* model: after qd_mb_finish */
};

/* Shapes are texts: "N,3,?,8" has a named, a fixed, an unknown and a fixed dimension; "" is a scalar. */
void qd_mb_input(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape);
void qd_mb_output(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape);
void qd_mb_value(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape); /* value_info */
void qd_mb_constant(struct qd_mb *b, const char *name, enum qd_dtype dtype, const char *shape, const void *data);
/* A FP32 initializer of seeded uniform numbers in [-scale, scale]. */
void qd_mb_weights(struct qd_mb *b, const char *name, const char *shape, uint64_t seed, float scale);
/* Inputs, outputs: names divided by spaces, "-" for an absent one. The node is called as its first output.
 * Attributes: "group=2 epsilon=0.5 pads=[1,1] auto_pad=SAME_UPPER": int, float (has a dot), ints, string. */
void qd_mb_node(struct qd_mb *b, const char *op, const char *inputs, const char *outputs, const char *attributes);
void qd_mb_finish(struct qd_mb *b, uint64_t opset);
/* Loads the finished model; NULL and *error (may be NULL) when the engine refuses. The builder outlives the model. */
struct qd_model *qd_mb_load(struct qd_mb *b, struct qd_engine *engine, const struct qd_quant_options *options,
                            struct qd_error *error);
void qd_mb_free(struct qd_mb *b);

/* Seeded uniform numbers in [-scale, scale]. */
uint64_t qd_mb_random(uint64_t *state);
void qd_mb_fill(float *x, size_t n, uint64_t seed, float scale);
struct qd_shape qd_mb_shape(const char *shape);
/* An engine of that many threads, which must come into being. */
struct qd_engine *qd_mb_engine(unsigned threads);

/* A request whose input 0 is x, copied; prepared. NULL options: the defaults. */
struct qd_infer *qd_mb_request(struct qd_model *model, const struct qd_infer_options *options, const char *shape,
                               const float *x);
/* The same, run, finished; must succeed. */
struct qd_infer *qd_mb_run(struct qd_model *model, const struct qd_infer_options *options, const char *shape,
                           const float *x);
/* The same `times` times with nothing kept: teaches the model. */
void qd_mb_teach(struct qd_model *model, const char *shape, const float *x, int times);

#endif
