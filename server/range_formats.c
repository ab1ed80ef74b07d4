/* Ranges as others write them. See range_formats.h. */
#include "server/range_formats.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/repository.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ writing */

static const char *dtype_name(enum qd_dtype dtype)
{
    return dtype == QD_I16 ? "int16" : dtype == QD_I8 ? "int8" : "uint8";
}

static void put_number(struct qd_text *out, const char *before, double value)
{
    qd_text_puts(out, before);
    qd_text_json_double(out, value);
}

static void put_scale(struct qd_text *out, const struct qd_export_range *row)
{
    char text[QD_NUMBER_TEXT_BYTES];
    text[qd_format_float(text, row->scale)] = 0;
    qd_text_printf(out, "\"scale\":%s,\"zero_point\":%" PRId32, text, row->zero_point);
}

static void put_name(struct qd_text *out, const char *name, bool first)
{
    qd_text_puts(out, first ? "\n" : ",\n");
    qd_text_json_string(out, name);
    qd_text_puts(out, ":");
}

static void put_quantd(struct qd_text *out, const struct qd_export_range *row, bool first)
{
    qd_text_puts(out, first ? "\n{\"name\":" : ",\n{\"name\":");
    qd_text_json_string(out, row->name);
    put_number(out, ",\"min\":", row->lo);
    put_number(out, ",\"max\":", row->hi);
    qd_text_puts(out, ",");
    put_scale(out, row);
    qd_text_printf(out, ",\"dtype\":\"%s\"}", dtype_name(row->dtype));
}

static void put_ort(struct qd_text *out, const struct qd_export_range *row, bool first)
{
    put_name(out, row->name, first);
    put_number(out,
               "{\"CLS\":\"TensorData\",\"lowest\":{\"CLS\":\"numpy.array\",\"dtype\":\"float32\",\"data\":", row->lo);
    put_number(out, "},\"highest\":{\"CLS\":\"numpy.array\",\"dtype\":\"float32\",\"data\":", row->hi);
    qd_text_puts(out, "}}");
}

/* eps: a buffer of every observer, which load_state_dict wants. */
static void put_torch_state(struct qd_text *out, const struct qd_export_range *row, bool first)
{
    put_name(out, row->name, first);
    put_number(out, "{\"eps\":[1.1920928955078125e-07],\"min_val\":", row->lo);
    put_number(out, ",\"max_val\":", row->hi);
    qd_text_puts(out, "}");
}

static void put_torch_qparams(struct qd_text *out, const struct qd_export_range *row, bool first)
{
    put_name(out, row->name, first);
    qd_text_puts(out, "{");
    put_scale(out, row);
    qd_text_printf(out, ",\"quant_min\":%" PRId32 ",\"quant_max\":%" PRId32 ",\"dtype\":\"%s\",\"qscheme\":\"%s\"}",
                   row->qmin, row->qmax,
                   row->dtype == QD_U8   ? "quint8"
                   : row->dtype == QD_I8 ? "qint8"
                                         : "int16",
                   row->dtype == QD_U8 ? "per_tensor_affine" : "per_tensor_symmetric");
}

/* The range that the integers reach, so that TensorFlow's nudging leaves it alone. */
static void put_tf(struct qd_text *out, const struct qd_export_range *row, bool first)
{
    put_name(out, row->name, first);
    put_number(out, "{\"min\":", (double)row->scale * (row->qmin - row->zero_point));
    put_number(out, ",\"max\":", (double)row->scale * (row->qmax - row->zero_point));
    qd_text_printf(out, ",\"num_bits\":%d,\"narrow_range\":%s}", row->dtype == QD_I16 ? 16 : 8,
                   row->dtype == QD_U8 ? "false" : "true");
}

static size_t put_rows(struct qd_text *out, const struct qd_export *export,
                       void (*put)(struct qd_text *, const struct qd_export_range *, bool))
{
    struct qd_export_range row;
    size_t written = 0;
    for (size_t i = 0; i < qd_export_range_count(export); i++) {
        qd_export_range(export, i, &row);
        if (row.ready)
            put(out, &row, written++ == 0);
    }
    return written;
}

static size_t write_quantd(struct qd_text *out, const struct qd_export *export)
{
    struct qd_export_report report;
    qd_export_report(export, &report);
    qd_text_puts(out, "{\"model\":");
    qd_text_json_string(out, report.model);
    qd_text_printf(out, ",\"digest\":\"%016" PRIx64 "\",\"epoch\":%" PRIu64 ",\"tensors\":[", report.digest,
                   report.epoch);
    size_t written = put_rows(out, export, put_quantd);
    qd_text_puts(out, "]}");
    return written;
}

static size_t write_ort(struct qd_text *out, const struct qd_export *export)
{
    qd_text_puts(out, "{\"CLS\":\"TensorsData\",\"calibration_method\":{\"CLS\":\"CalibrationMethod\",\"value\":"
                      "\"CalibrationMethod.MinMax\"},\"data\":{");
    size_t written = put_rows(out, export, put_ort);
    qd_text_puts(out, "}}");
    return written;
}

static size_t write_torch(struct qd_text *out, const struct qd_export *export)
{
    qd_text_puts(out, "{\"state\":{");
    size_t written = put_rows(out, export, put_torch_state);
    qd_text_puts(out, "},\"qparams\":{");
    put_rows(out, export, put_torch_qparams);
    qd_text_puts(out, "}}");
    return written;
}

static size_t write_tf(struct qd_text *out, const struct qd_export *export)
{
    qd_text_puts(out, "{");
    size_t written = put_rows(out, export, put_tf);
    qd_text_puts(out, "}");
    return written;
}

static const struct {
    const char *name;
    size_t (*write)(struct qd_text *out, const struct qd_export *export); /* returns how many tensors */
} formats[] = {[QD_RANGES_QDQ] = {"qdq", NULL},
               [QD_RANGES_QUANTD] = {"quantd", write_quantd},
               [QD_RANGES_ORT] = {"ort-calibration", write_ort},
               [QD_RANGES_TORCH] = {"torch", write_torch},
               [QD_RANGES_TF] = {"tf", write_tf}};

bool qd_range_format_from(const char *name, enum qd_range_format *out)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0) {
            *out = (enum qd_range_format)i;
            return true;
        }
    return false;
}

enum qd_status qd_range_format_write(struct qd_text *out, const struct qd_export *export, enum qd_range_format format,
                                     struct qd_error *error)
{
    return formats[format].write(out, export)
               ? QD_OK
               : qd_fail(error, QD_ERR_CONFLICT, "no tensor has a range yet: send requests, calibrate, or give one");
}

/* ------------------------------------------------------------------ reading */

struct reading {
    struct qd_model *model;
    struct qd_range_given *entries;
    size_t count;
    bool cuts;
    struct qd_ranges_taken *taken;
    struct qd_error *error;
};

/* A number, a list of one, or an array as ONNX Runtime writes it; NaN: none of these. */
static double number_of(const json_t *value)
{
    if (json_is_object(value))
        value = json_object_get(value, "data");
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* The first of the spellings that is there. */
static const json_t *either(const json_t *entry, const char *const *keys)
{
    const json_t *value = NULL;
    for (; *keys && !value; keys++)
        value = json_object_get(entry, *keys);
    return value;
}

/* Whether a type's name, if any, is that of the site: "uint8", "quint8", "torch.quint8"... */
static bool same_type(const json_t *entry, enum qd_dtype dtype)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return dtype != QD_I16;
    const bool unsigned_byte = strstr(name, "uint8") != NULL, byte = strstr(name, "int8") != NULL && !unsigned_byte;
    return (dtype == QD_U8 && unsigned_byte) || (dtype == QD_I8 && byte);
}

static bool site_named(const struct qd_model *model, const char *name, struct qd_range_report *out)
{
    struct qd_ranges_summary summary;
    qd_model_ranges(model, &summary);
    for (size_t i = 0; i < summary.sites; i++) {
        qd_model_range(model, i, out);
        if (strcmp(out->name, name) == 0)
            return true;
    }
    return false;
}

/* `more`: a second object about the tensor, or NULL. */
static enum qd_status take(struct reading *r, const char *name, const json_t *entry, const json_t *more)
{
    static const char *const lows[] = {"min", "min_val", "lowest", "ema_min", NULL}, *const highs[] = {"max", "max_val",
                                                                                                       "highest",
                                                                                                       "ema_max", NULL};
    struct qd_range_report site;
    struct qd_range_given given = {.tensor = name, .cuts = r->cuts};
    const json_t *exact = more ? more : entry, *low = either(entry, lows), *high = either(entry, highs);
    if (!site_named(r->model, name, &site) || site.granularity == QD_PER_ROW) {
        r->taken->ignored++;
        return QD_OK;
    }
    if (json_is_array(entry) && json_array_size(entry) == 2) {
        low = json_array_get(entry, 0);
        high = json_array_get(entry, 1);
    }
    const json_t *scale = json_object_get(exact, "scale"), *zero = json_object_get(exact, "zero_point");
    if (json_is_null(entry)) {
        given.learn = true;
    } else if (scale && (same_type(exact, site.dtype) || !low || !high)) {
        const double s = number_of(scale), z = zero ? number_of(zero) : 0;
        if (!(s > 0) || !isfinite((float)s) || !(fabs(z) < 65536) || z != floor(z))
            return qd_fail(r->error, QD_ERR_INVALID,
                           "tensor '%.128s': scale and zero_point must be numbers, above 0 and "
                           "whole",
                           name);
        given.scale = (float)s;
        given.zero_point = (int32_t)z;
    } else {
        given.lo = number_of(low);
        given.hi = number_of(high);
        if (!isfinite(given.lo) || !isfinite(given.hi))
            return qd_fail(r->error, QD_ERR_INVALID,
                           "tensor '%.128s': a range is [min, max], an object with min and max or with scale and "
                           "zero_point, or null",
                           name);
    }
    r->taken->set += !given.learn;
    r->taken->taken_back += given.learn;
    r->entries[r->count++] = given;
    return QD_OK;
}

static enum qd_status take_list(struct reading *r, const json_t *list)
{
    enum qd_status status = QD_OK;
    for (size_t i = 0; i < json_array_size(list) && !status; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        status = name ? take(r, name, entry, NULL)
                      : qd_fail(r->error, QD_ERR_INVALID, "entry %zu of \"tensors\" has no name", i);
    }
    return status;
}

static enum qd_status take_object(struct reading *r, const json_t *object, const json_t *more)
{
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)object, name, entry)
    {
        enum qd_status status = take(r, name, entry, json_object_get(more, name));
        if (status)
            return status;
    }
    return QD_OK;
}

enum qd_status qd_range_format_read(const json_t *root, struct qd_model *model, bool cuts,
                                    struct qd_ranges_taken *taken, struct qd_error *error)
{
    const json_t *list = json_object_get(root, "tensors"), *state = json_object_get(root, "state"),
                 *data = json_object_get(root, "data");
    *taken = (struct qd_ranges_taken){0};
    if (!json_is_object(root))
        return qd_fail(error, QD_ERR_INVALID, "ranges are a JSON object by tensor name");
    const json_t *entries = json_is_array(list)                                         ? list
                            : json_is_object(state) && json_object_get(root, "qparams") ? state
                            : json_is_object(data) && json_object_get(root, "CLS")      ? data
                                                                                        : root;
    const size_t room = json_is_array(entries) ? json_array_size(entries) : json_object_size(entries);
    struct reading r = {model, qd_calloc(room + 1, sizeof *r.entries), 0, cuts, taken, error};
    if (!r.entries)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the ranges");
    enum qd_status status = json_is_array(entries)
                                ? take_list(&r, entries)
                                : take_object(&r, entries, entries == state ? json_object_get(root, "qparams") : NULL);
    if (!status && r.count == 0 && room > 0)
        status = qd_fail(error, QD_ERR_NOT_FOUND, "model '%.128s' observes none of the %zu tensors",
                         qd_model_name(model), room);
    if (!status)
        status = qd_model_ranges_set(model, r.entries, r.count, error);
    qd_free(r.entries);
    return status;
}

enum qd_status qd_range_format_read_file(const char *path, struct qd_model *model, struct qd_ranges_taken *taken,
                                         struct qd_error *error)
{
    enum { MOST_BYTES = 64 << 20 };
    json_error_t where;
    FILE *file = fopen(path, "rb");
    if (!file)
        return qd_fail(error, QD_ERR_IO, "the ranges in %.200s: %s", path, strerror(errno));
    const bool small = fseek(file, 0, SEEK_END) == 0 && ftell(file) <= MOST_BYTES && fseek(file, 0, SEEK_SET) == 0;
    json_t *root = small ? json_loadf(file, JSON_REJECT_DUPLICATES, &where) : NULL;
    fclose(file);
    if (!root)
        return qd_fail(error, QD_ERR_INVALID, "the ranges in %.200s are no JSON%s", path,
                       small ? "" : ", or more than 64 MiB of it");
    enum qd_status status = qd_range_format_read(root, model, false, taken, error);
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------ the option */

static enum qd_status start_one(struct qd_repository *repository, const char *text, size_t length,
                                struct qd_error *error)
{
    char path[4096];
    struct qd_ranges_taken taken;
    const char *equals = memchr(text, '=', length), *file = equals ? equals + 1 : text;
    const size_t file_length = length - (size_t)(file - text);
    struct qd_model_entry *entry = equals ? qd_repository_find(repository, text, (size_t)(equals - text))
                                   : qd_repository_count(repository) == 1 ? qd_repository_at(repository, 0)
                                                                          : NULL;
    if (!entry || !entry->model)
        return qd_fail(error, QD_ERR_NOT_FOUND, "option ranges, '%.*s': %s", (int)(length < 200 ? length : 200), text,
                       equals ? "no model of that name is ready" : "NAME=FILE is needed where there isn't one model");
    if (file_length >= sizeof path)
        return qd_fail(error, QD_ERR_INVALID, "option ranges: a path is too long");
    memcpy(path, file, file_length);
    path[file_length] = 0;
    enum qd_status status = qd_range_format_read_file(path, entry->model, &taken, error);
    if (!status)
        qd_log(QD_LOG_INFO, "model '%s': %zu ranges given, %zu of other tensors passed over", entry->name, taken.set,
               taken.ignored);
    return status;
}

enum qd_status qd_range_format_start(struct qd_repository *repository, const char *option, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (size_t length; *option && !status; option += length + (option[length] == ',')) {
        length = strcspn(option, ",");
        if (length)
            status = start_one(repository, option, length, error);
    }
    return status;
}
