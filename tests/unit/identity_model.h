/* A model made in memory whose outputs are its inputs, in any element type: what a test of the wire formats needs. */
#ifndef QD_TESTS_IDENTITY_MODEL_H
#define QD_TESTS_IDENTITY_MODEL_H

#include "engine/engine.h"

/* One Identity node per row: input NAME, output out_NAME; dims of -1 are named by dim_names. The result is NULL (and
 * *error filled) when the engine refuses. Unref the model and free *bytes (qd_free) after it. */
struct qd_model *qd_test_identity_model(struct qd_engine *engine, const struct qd_io *rows, size_t count, char **bytes,
                                        struct qd_error *error);

#endif
