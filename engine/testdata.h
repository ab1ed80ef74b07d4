/* Checks: of the kernels on this machine, and folders of test data (test_data_set_K/input_0.pb). Part of the installed
 * interface, by engine/engine.h. */
#ifndef QD_ENGINE_TESTDATA_H
#define QD_ENGINE_TESTDATA_H

#include "base/status.h"
#include "engine/ir/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qd_engine;

/* Compares every kernel of the ISA in use with plain arithmetic on seeded data; false names the first that differs.
 * [any] */
bool qd_engine_selftest(const struct qd_engine *engine, uint64_t seed, struct qd_error *error);

/* Reads one serialized TensorProto (input_0.pb, output_0.pb). The data is malloc'ed; free tensor->data with
 * qd_tensor_proto_free. */
enum qd_status qd_tensor_proto_read(const void *bytes, size_t size, struct qd_tensor *out, char *name, size_t name_room,
                                    struct qd_error *error) QD_MUST_CHECK;
void qd_tensor_proto_free(struct qd_tensor *tensor);

#endif
