/* Folders of the ONNX backend-test layout: DIR/model.onnx with DIR/test_data_set_K/input_J.pb and output_J.pb. Used by
 * the commands test and bench only; the daemon reads no such folders. [main thread] */
#ifndef QD_SERVER_TESTDATA_H
#define QD_SERVER_TESTDATA_H

#include "engine/engine.h"

#define QD_TESTDATA_PATH_BYTES 4096

/* One test_data_set_K. Tensors are owned; dtype QD_NONE where there is no file. */
struct qd_testdata {
    size_t input_count, output_count; /* of the model */
    struct qd_tensor *inputs, *outputs;
};

/* Whether DIR has a data set K. */
bool qd_testdata_exists(const char *folder, unsigned set);
/* Reads a set for the model: a file goes to the input of the name it holds, or else to the input of its number.
 * Errors: NOT_FOUND (an output without a file, when `outputs` are wanted), FORMAT, UNSUPPORTED, IO, NO_MEMORY. */
enum qd_status qd_testdata_read(const char *folder, unsigned set, const struct qd_model *model, bool outputs,
                                struct qd_testdata *out, struct qd_error *error) QD_MUST_CHECK;
/* Made-up inputs, the same for the same seed: floats in [-1, 1), integers and booleans 0 or 1, unknown dimensions 1.
 * Optional inputs are left out. Errors: UNSUPPORTED (text), TOO_LARGE, NO_MEMORY. */
enum qd_status qd_testdata_random(const struct qd_model *model, uint64_t seed, struct qd_testdata *out,
                                  struct qd_error *error) QD_MUST_CHECK;
void qd_testdata_clear(struct qd_testdata *data);

/* A request with these inputs, ready to run; the data must outlive it. */
enum qd_status qd_testdata_infer(struct qd_model *model, const struct qd_testdata *data, struct qd_infer **out,
                                 struct qd_error *error) QD_MUST_CHECK;

/* How one output differs. `cosine` is of the elements as numbers; 1 when both are all zero, 0 when one isn't finite. */
struct qd_difference {
    bool same; /* shape, type, and every element within |a - b| <= atol + rtol |b|; NaN equals NaN, integers exactly */
    bool comparable;      /* same shape and type: the numbers below say something */
    double cosine, worst; /* worst: largest |a - b| */
    int64_t different;    /* elements beyond the tolerance */
};
struct qd_difference qd_testdata_compare(const struct qd_tensor *got, const struct qd_tensor *want, double rtol,
                                         double atol);

#endif
