/* The seam between the benchmark's line protocol (runner.c) and the engines that it can drive (runner_quantd.c,
 * runner_ort.c). Only for tests/bench: one model, one thread, errors end as a sentence. */
#ifndef QD_TESTS_BENCH_RUNNER_H
#define QD_TESTS_BENCH_RUNNER_H

#include "engine/engine.h"

#define BENCH_MAX_IO 64

struct bench_options {
    const char *model;   /* an ONNX file */
    const char *library; /* ONNX Runtime's shared library; unused by quantd */
    uint32_t threads;
    enum qd_precision precision; /* of quantd; ONNX Runtime runs what the file says */
};

/* One request's inputs in the order of the files; an empty name means the model's input of the same number. */
struct bench_inputs {
    size_t count;
    struct qd_tensor tensors[BENCH_MAX_IO];
    char names[BENCH_MAX_IO][256];
};

struct bench_backend {
    const char *name;
    enum qd_status (*load)(const struct bench_options *options, struct qd_error *error);
    /* The tensors are borrowed until the next call. */
    enum qd_status (*set_inputs)(const struct bench_inputs *inputs, struct qd_error *error);
    /* One whole request: made, run, learned from; the last one's outputs stay readable until the next. */
    enum qd_status (*run)(struct qd_error *error);
    size_t (*output_count)(void);
    enum qd_status (*output)(size_t i, struct qd_tensor *out, struct qd_error *error);
    /* Stop learning, and go on; NULL when there is nothing to stop. */
    enum qd_status (*freeze)(struct qd_error *error);
    enum qd_status (*unfreeze)(struct qd_error *error);
    const char *(*version)(void);
};

extern const struct bench_backend bench_quantd, bench_ort;

#endif
