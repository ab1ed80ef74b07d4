/* Reading, making up and comparing the tensors of `quantd test` and `quantd bench`. */
#include "server/testdata.h"

#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LARGEST_FILE_BYTES ((int64_t)1 << 31)

bool qd_testdata_exists(const char *folder, unsigned set)
{
    char path[QD_TESTDATA_PATH_BYTES];
    struct stat about;
    return snprintf(path, sizeof path, "%s/test_data_set_%u", folder, set) < (int)sizeof path &&
           stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* ------------------------------------------------------------------ reading */

/* The whole file; *bytes is qd_calloc'ed. */
static enum qd_status read_file(const char *path, uint8_t **bytes, size_t *size, struct qd_error *error)
{
    struct stat about;
    enum qd_status status = QD_OK;
    FILE *file = fopen(path, "rb");
    if (!file)
        return qd_fail(error, errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, "%s", strerror(errno));
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode))
        status = qd_fail(error, QD_ERR_IO, "not a file");
    else if (about.st_size > LARGEST_FILE_BYTES)
        status = qd_fail(error, QD_ERR_TOO_LARGE, "larger than 2 GiB");
    *size = status ? 0 : (size_t)about.st_size;
    *bytes = status ? NULL : qd_calloc(*size + 1, 1);
    if (!status && !*bytes)
        status = qd_fail(error, QD_ERR_NO_MEMORY, "no memory");
    if (!status && fread(*bytes, 1, *size, file) != *size)
        status = qd_fail(error, QD_ERR_IO, "could not be read");
    if (status) {
        qd_free(*bytes);
        *bytes = NULL;
    }
    fclose(file);
    return status;
}

static enum qd_status read_tensor(const char *folder, unsigned set, const char *kind, size_t j, struct qd_tensor *out,
                                  char *name, size_t name_room, struct qd_error *error)
{
    char path[QD_TESTDATA_PATH_BYTES];
    uint8_t *bytes = NULL;
    size_t size = 0;
    memset(out, 0, sizeof *out);
    name[0] = 0;
    if (snprintf(path, sizeof path, "%s/test_data_set_%u/%s_%zu.pb", folder, set, kind, j) >= (int)sizeof path)
        return qd_fail(error, QD_ERR_IO, "the path is too long");
    enum qd_status status = read_file(path, &bytes, &size, error);
    if (!status)
        status = qd_tensor_proto_read(bytes, size, out, name, name_room, error);
    qd_free(bytes);
    return status ? qd_error_prefix(error, "test_data_set_%u/%s_%zu.pb", set, kind, j) : QD_OK;
}

static size_t input_index(const struct qd_model *model, const char *name, size_t otherwise)
{
    for (size_t i = 0; *name && i < qd_model_input_count(model); i++)
        if (strcmp(qd_model_input(model, i)->name, name) == 0)
            return i;
    return otherwise;
}

static enum qd_status read_inputs(const char *folder, unsigned set, const struct qd_model *model,
                                  struct qd_testdata *data, struct qd_error *error)
{
    for (size_t j = 0; j < data->input_count; j++) {
        struct qd_tensor tensor;
        char name[1024];
        enum qd_status status = read_tensor(folder, set, "input", j, &tensor, name, sizeof name, error);
        if (status == QD_ERR_NOT_FOUND)
            continue; /* the model's default, or the engine's sentence when it has none */
        if (status)
            return status;
        size_t i = input_index(model, name, j);
        if (data->inputs[i].dtype != QD_NONE) {
            qd_tensor_proto_free(&tensor);
            return qd_fail(error, QD_ERR_FORMAT, "test_data_set_%u: two files for the input '%s'", set,
                           qd_model_input(model, i)->name);
        }
        data->inputs[i] = tensor;
    }
    return QD_OK;
}

static enum qd_status create(const struct qd_model *model, struct qd_testdata *out, struct qd_error *error)
{
    size_t inputs = qd_model_input_count(model), outputs = qd_model_output_count(model);
    *out = (struct qd_testdata){inputs, outputs, qd_calloc(inputs + 1, sizeof *out->inputs),
                                qd_calloc(outputs + 1, sizeof *out->outputs)};
    if (out->inputs && out->outputs)
        return QD_OK;
    qd_testdata_clear(out);
    return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the test data");
}

enum qd_status qd_testdata_read(const char *folder, unsigned set, const struct qd_model *model, bool outputs,
                                struct qd_testdata *out, struct qd_error *error)
{
    char name[1024];
    enum qd_status status = create(model, out, error);
    if (status)
        return status;
    status = read_inputs(folder, set, model, out, error);
    for (size_t j = 0; outputs && !status && j < out->output_count; j++)
        status = read_tensor(folder, set, "output", j, &out->outputs[j], name, sizeof name, error);
    if (status)
        qd_testdata_clear(out);
    return status;
}

void qd_testdata_clear(struct qd_testdata *data)
{
    for (size_t i = 0; data->inputs && i < data->input_count; i++)
        qd_tensor_proto_free(&data->inputs[i]);
    for (size_t i = 0; data->outputs && i < data->output_count; i++)
        qd_tensor_proto_free(&data->outputs[i]);
    qd_free(data->inputs);
    qd_free(data->outputs);
    memset(data, 0, sizeof *data);
}

/* ------------------------------------------------------------------ making up */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill(struct qd_tensor *tensor, int64_t elems, uint64_t *state)
{
    for (int64_t i = 0; i < elems; i++) {
        uint64_t bits = next_random(state) >> 32;
        double unit = (double)bits / 2147483648.0 - 1;
        size_t size = qd_dtype_bytes(tensor->dtype);
        uint8_t *at = (uint8_t *)tensor->data + (size_t)i * size;
        if (tensor->dtype == QD_STR)
            memcpy(at, &(struct qd_string){bits & 1 ? "a" : "b", 1}, sizeof(struct qd_string));
        else if (tensor->dtype == QD_F32)
            memcpy(at, &(float){(float)unit}, 4);
        else if (tensor->dtype == QD_F64)
            memcpy(at, &unit, 8);
        else if (tensor->dtype == QD_F16) /* exponent of 0.5: magnitudes 0.5 to 1, either sign */
            memcpy(at, &(uint16_t){(uint16_t)(0x3800 | (bits & 0x83ff))}, 2);
        else if (tensor->dtype == QD_BF16)
            memcpy(at, &(uint16_t){(uint16_t)(0x3f00 | (bits & 0x807f))}, 2);
        else
            at[0] = (uint8_t)(bits & 1); /* little endian; an index of 1 is rarely out of range, 0 never */
    }
}

static enum qd_status make_input(const struct qd_io *io, uint64_t *state, struct qd_tensor *out, struct qd_error *error)
{
    int64_t elems;
    *out = (struct qd_tensor){.dtype = io->dtype, .shape = io->shape};
    for (int i = 0; i < io->shape.rank; i++)
        if (io->shape.dims[i] < 0)
            out->shape.dims[i] = 1;
    size_t size = qd_dtype_bytes(io->dtype);
    if (!size)
        return qd_fail(error, QD_ERR_UNSUPPORTED, "input '%s': no made-up values for its type", io->name);
    if (!qd_shape_elems(&out->shape, &elems) || elems > LARGEST_FILE_BYTES / (int64_t)size)
        return qd_fail(error, QD_ERR_TOO_LARGE, "input '%s' is larger than 2 GiB", io->name);
    out->data = qd_calloc((size_t)elems + 1, size);
    if (!out->data)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the input '%s'", io->name);
    fill(out, elems, state);
    return QD_OK;
}

enum qd_status qd_testdata_random(const struct qd_model *model, uint64_t seed, struct qd_testdata *out,
                                  struct qd_error *error)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u | 1;
    enum qd_status status = create(model, out, error);
    if (status)
        return status;
    for (size_t i = 0; i < out->input_count && !status; i++)
        if (!qd_model_input(model, i)->optional)
            status = make_input(qd_model_input(model, i), &state, &out->inputs[i], error);
    if (status)
        qd_testdata_clear(out);
    return status;
}

/* ------------------------------------------------------------------ running */

enum qd_status qd_testdata_infer(struct qd_model *model, const struct qd_testdata *data, struct qd_infer **out,
                                 struct qd_error *error)
{
    struct qd_infer_options options = qd_infer_defaults();
    struct qd_infer *infer = NULL;
    enum qd_status status = qd_infer_create(model, &options, &infer, error);
    for (size_t i = 0; i < data->input_count && !status; i++)
        if (data->inputs[i].dtype != QD_NONE)
            status = qd_infer_input_borrow(infer, i, &data->inputs[i], error);
    if (!status)
        status = qd_infer_prepare(infer, error);
    if (!status)
        *out = infer;
    else if (infer)
        qd_infer_destroy(&infer);
    return status;
}

/* ------------------------------------------------------------------ comparing */

static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value = exponent == 31  ? (mantissa ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

#define ELEMENT(dtype, type)                                                                                           \
    case dtype: {                                                                                                      \
        type value;                                                                                                    \
        memcpy(&value, (const uint8_t *)tensor->data + (size_t)i * sizeof value, sizeof value);                        \
        return (double)value;                                                                                          \
    }

static double element(const struct qd_tensor *tensor, int64_t i)
{
    uint32_t wide;
    uint16_t bits;
    switch (tensor->dtype) {
        ELEMENT(QD_F32, float)
        ELEMENT(QD_F64, double)
        ELEMENT(QD_U8, uint8_t)
        ELEMENT(QD_I8, int8_t)
        ELEMENT(QD_U16, uint16_t)
        ELEMENT(QD_I16, int16_t)
        ELEMENT(QD_U32, uint32_t)
        ELEMENT(QD_I32, int32_t)
        ELEMENT(QD_U64, uint64_t)
        ELEMENT(QD_I64, int64_t)
        ELEMENT(QD_BOOL, uint8_t)
    case QD_F16:
    case QD_BF16:
        memcpy(&bits, (const uint8_t *)tensor->data + (size_t)i * 2, 2);
        if (tensor->dtype == QD_F16)
            return half_value(bits);
        wide = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return (double)value;
    default:
        return NAN;
    }
}

static bool is_float(enum qd_dtype dtype)
{
    return dtype == QD_F32 || dtype == QD_F64 || dtype == QD_F16 || dtype == QD_BF16;
}

/* Results of 16 bits are computed in FP32 and rounded once, the reference's after every operator: they may differ by a
 * unit of the last place. */
static double least_rtol(enum qd_dtype dtype) { return dtype == QD_BF16 ? 0x1p-7 : dtype == QD_F16 ? 0x1p-10 : 0; }

static bool close_enough(double a, double b, double rtol, double atol)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b))
        return a == b;
    return fabs(a - b) <= atol + rtol * fabs(b);
}

static bool same_strings(const struct qd_tensor *got, const struct qd_tensor *want, int64_t i)
{
    const struct qd_string a = ((const struct qd_string *)got->data)[i], b = ((const struct qd_string *)want->data)[i];
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

/* Strings are the same or not: their cosine is the share of those that are. */
static void compare_strings(const struct qd_tensor *got, const struct qd_tensor *want, int64_t elems,
                            struct qd_difference *d)
{
    for (int64_t i = 0; i < elems; i++)
        d->different += !same_strings(got, want, i);
    d->worst = d->different ? INFINITY : 0;
    d->same = d->different == 0;
    d->cosine = elems ? 1 - (double)d->different / (double)elems : 1;
}

struct qd_difference qd_testdata_compare(const struct qd_tensor *got, const struct qd_tensor *want, double rtol,
                                         double atol)
{
    struct qd_difference d = {.cosine = 0};
    size_t size = qd_dtype_bytes(want->dtype);
    int64_t elems = 0;
    rtol = rtol > least_rtol(want->dtype) ? rtol : least_rtol(want->dtype);
    d.comparable = size && got->dtype == want->dtype && qd_shape_equal(&got->shape, &want->shape) &&
                   qd_shape_elems(&want->shape, &elems);
    if (!d.comparable)
        return d;
    if (want->dtype == QD_STR) {
        compare_strings(got, want, elems, &d);
        return d;
    }
    double dot = 0, norm_a = 0, norm_b = 0;
    for (int64_t i = 0; i < elems; i++) {
        double a = element(got, i), b = element(want, i);
        /* 64-bit integers are compared as bytes: not all of them are doubles. */
        bool same = is_float(want->dtype) ? close_enough(a, b, rtol, atol)
                                          : memcmp((const uint8_t *)got->data + (size_t)i * size,
                                                   (const uint8_t *)want->data + (size_t)i * size, size) == 0;
        d.different += !same;
        if (fabs(a - b) > d.worst)
            d.worst = fabs(a - b);
        dot += a * b;
        norm_a += a * a;
        norm_b += b * b;
    }
    d.same = d.different == 0;
    if (norm_a == 0 && norm_b == 0)
        d.cosine = 1;
    else if (norm_a > 0 && norm_b > 0 && isfinite(dot) && isfinite(norm_a) && isfinite(norm_b))
        d.cosine = dot / (sqrt(norm_a) * sqrt(norm_b));
    return d;
}
