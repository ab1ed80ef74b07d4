/*
 * The tables a daemon can be asked for: models, metadata, ranges, the quantization plan. Each report keeps the parsed
 * JSON that its texts live in, behind the public struct.
 */
#include "clients/c/internal/wire.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])
#define FIELD(type, member, kind)                                                                                      \
    {                                                                                                                  \
#member, QUANTD_CLIENT_##kind, offsetof(struct type, member), false                                            \
    }
#define FIELD_AS(type, member, key, kind)                                                                              \
    {                                                                                                                  \
        key, QUANTD_CLIENT_##kind, offsetof(struct type, member), false                                                \
    }
#define FIELD_IF(type, member, kind)                                                                                   \
    {                                                                                                                  \
#member, QUANTD_CLIENT_##kind, offsetof(struct type, member), true                                             \
    }

/* A list of objects into a new array, by a table. A text that may be missing begins as "". */
struct rows {
    const struct quantd_client_field *fields;
    size_t field_count, row_bytes;
    const char *what;
};

static enum quantd_client_status read_rows(const json_t *list, const struct rows *rows, void **out, size_t *count,
                                           struct quantd_client_error *error)
{
    size_t size = json_array_size(list);
    if (!json_is_array(list))
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "the answer has no list of %ss", rows->what);
    char *array = calloc(size + 1, rows->row_bytes);
    if (!array)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for %zu %ss", size, rows->what);
    *out = array;
    *count = size;
    for (size_t i = 0; i < size; i++) {
        char *row = array + i * rows->row_bytes;
        for (size_t k = 0; k < rows->field_count; k++)
            if (rows->fields[k].kind == QUANTD_CLIENT_TEXT)
                *(const char **)(row + rows->fields[k].offset) = "";
        enum quantd_client_status status = quantd_client_read_fields(json_array_get(list, i), rows->fields,
                                                                     rows->field_count, row, rows->what, error);
        if (status != QUANTD_CLIENT_OK)
            return status;
    }
    return QUANTD_CLIENT_OK;
}

/* ------------------------------------------------------------------ models */

struct models {
    struct quantd_client_models shown;
    json_t *root;
};

enum quantd_client_status quantd_client_models(struct quantd_client *client, struct quantd_client_models **out,
                                               struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {
        FIELD(quantd_client_model, name, TEXT), FIELD_IF(quantd_client_model, version, TEXT),
        FIELD(quantd_client_model, state, TEXT), FIELD_IF(quantd_client_model, reason, TEXT)};
    static const struct rows rows = {fields, COUNT(fields), sizeof(struct quantd_client_model), "model"};
    static const struct quantd_client_exchange exchange = {.method = "POST", .path = "/v2/repository/index"};
    struct quantd_client_reply reply;
    *out = NULL;
    enum quantd_client_status status = quantd_client_ask(client, &exchange, &reply, error);
    if (status != QUANTD_CLIENT_OK)
        return status;
    struct models *models = calloc(1, sizeof *models);
    status = models ? quantd_client_parse(reply.body.bytes, reply.body.length, &models->root, error)
                    : quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the models");
    quantd_client_text_free(&reply.body);
    if (status == QUANTD_CLIENT_OK)
        status = read_rows(models->root, &rows, (void **)&models->shown.models, &models->shown.count, error);
    struct quantd_client_models *shown = models ? &models->shown : NULL;
    if (status != QUANTD_CLIENT_OK)
        quantd_client_models_destroy(&shown);
    *out = shown;
    return status;
}

void quantd_client_models_destroy(struct quantd_client_models **models)
{
    if (!models || !*models)
        return;
    struct models *whole = (struct models *)(void *)*models;
    free(whole->shown.models);
    json_decref(whole->root);
    free(whole);
    *models = NULL;
}

/* ------------------------------------------------------------------ metadata */

struct metadata {
    struct quantd_client_metadata shown;
    json_t *root;
};

static enum quantd_client_status read_signatures(const json_t *list, struct quantd_client_signature **out,
                                                 size_t *count, struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {FIELD(quantd_client_signature, name, TEXT)};
    static const struct rows rows = {fields, COUNT(fields), sizeof(struct quantd_client_signature), "tensor"};
    enum quantd_client_status status = read_rows(list, &rows, (void **)out, count, error);
    for (size_t i = 0; status == QUANTD_CLIENT_OK && i < *count; i++) {
        struct quantd_client_signature *one = &(*out)[i];
        const json_t *object = json_array_get(list, i);
        status = quantd_client_read_datatype(object, &one->datatype, one->name, error);
        if (status == QUANTD_CLIENT_OK)
            status = quantd_client_read_shape(object, &one->rank, one->shape, one->name, error);
    }
    return status;
}

enum quantd_client_status quantd_client_metadata(struct quantd_client *client, const char *model,
                                                 struct quantd_client_metadata **out, struct quantd_client_error *error)
{
    static const struct quantd_client_field fields[] = {FIELD(quantd_client_metadata, name, TEXT),
                                                        FIELD(quantd_client_metadata, platform, TEXT)};
    *out = NULL;
    struct metadata *metadata = calloc(1, sizeof *metadata);
    if (!metadata)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the metadata");
    struct quantd_client_metadata *shown = &metadata->shown;
    enum quantd_client_status status = quantd_client_ask_json(client, "GET", model, "", &metadata->root, error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(metadata->root, fields, COUNT(fields), shown, "the metadata", error);
    if (status == QUANTD_CLIENT_OK)
        status = read_signatures(json_object_get(metadata->root, "inputs"), &shown->inputs, &shown->input_count, error);
    if (status == QUANTD_CLIENT_OK)
        status = read_signatures(json_object_get(metadata->root, "outputs"), &shown->outputs, &shown->output_count,
                                 error);
    if (status != QUANTD_CLIENT_OK)
        quantd_client_metadata_destroy(&shown);
    *out = shown;
    return status;
}

void quantd_client_metadata_destroy(struct quantd_client_metadata **metadata)
{
    if (!metadata || !*metadata)
        return;
    struct metadata *whole = (struct metadata *)(void *)*metadata;
    free(whole->shown.inputs);
    free(whole->shown.outputs);
    json_decref(whole->root);
    free(whole);
    *metadata = NULL;
}

/* ------------------------------------------------------------------ ranges */

struct ranges {
    struct quantd_client_ranges shown;
    json_t *root;
};

enum quantd_client_status quantd_client_ranges(struct quantd_client *client, const char *model,
                                               struct quantd_client_ranges **out, struct quantd_client_error *error)
{
#define RANGE(member, kind) FIELD(quantd_client_range, member, kind)
    static const struct quantd_client_field whole[] = {
        FIELD(quantd_client_ranges, model, TEXT),  FIELD(quantd_client_ranges, mode, TEXT),
        FIELD(quantd_client_ranges, epoch, COUNT), FIELD(quantd_client_ranges, requests, COUNT),
        FIELD(quantd_client_ranges, frozen, FLAG), FIELD_IF(quantd_client_ranges, averaging_constant, REAL)};
    static const struct quantd_client_field fields[] = {
        RANGE(name, TEXT),          RANGE(mode, TEXT),
        RANGE(scheme, TEXT),        RANGE(dtype, TEXT),
        RANGE(granularity, TEXT),   RANGE(ema_min, REAL),
        RANGE(ema_max, REAL),       RANGE(observed_min, REAL),
        RANGE(observed_max, REAL),  RANGE(last_min, REAL),
        RANGE(last_max, REAL),      RANGE(scale, REAL),
        RANGE(zero_point, INTEGER), RANGE(observations, COUNT),
        RANGE(elements, COUNT),     RANGE(clipped_low, COUNT),
        RANGE(clipped_high, COUNT), RANGE(clipped_ratio, REAL),
        RANGE(nonfinite, COUNT),    RANGE(guarded, COUNT),
        RANGE(utilization, REAL),   FIELD_IF(quantd_client_range, updated, TEXT)};
#undef RANGE
    static const struct rows rows = {fields, COUNT(fields), sizeof(struct quantd_client_range), "range"};
    *out = NULL;
    struct ranges *ranges = calloc(1, sizeof *ranges);
    if (!ranges)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the ranges");
    struct quantd_client_ranges *shown = &ranges->shown;
    enum quantd_client_status status = quantd_client_ask_json(client, "GET", model, "/ranges", &ranges->root, error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(ranges->root, whole, COUNT(whole), shown, "the answer", error);
    if (status == QUANTD_CLIENT_OK)
        status = read_rows(json_object_get(ranges->root, "tensors"), &rows, (void **)&shown->ranges, &shown->count,
                           error);
    if (status != QUANTD_CLIENT_OK)
        quantd_client_ranges_destroy(&shown);
    *out = shown;
    return status;
}

void quantd_client_ranges_destroy(struct quantd_client_ranges **ranges)
{
    if (!ranges || !*ranges)
        return;
    struct ranges *whole = (struct ranges *)(void *)*ranges;
    free(whole->shown.ranges);
    json_decref(whole->root);
    free(whole);
    *ranges = NULL;
}

/* ------------------------------------------------------------------ the plan */

struct quantization {
    struct quantd_client_quantization shown;
    json_t *root;
};

enum quantd_client_status quantd_client_quantization(struct quantd_client *client, const char *model,
                                                     struct quantd_client_quantization **out,
                                                     struct quantd_client_error *error)
{
    static const struct quantd_client_field whole[] = {FIELD(quantd_client_quantization, model, TEXT),
                                                       FIELD(quantd_client_quantization, plan, TEXT)};
    static const struct quantd_client_field totals[] = {FIELD(quantd_client_quantization, model_file_bytes, COUNT),
                                                        FIELD(quantd_client_quantization, packed_bytes, COUNT)};
    static const struct quantd_client_field fields[] = {
        FIELD(quantd_client_step, node, TEXT), FIELD(quantd_client_step, op, TEXT),
        FIELD(quantd_client_step, precision, TEXT), FIELD_IF(quantd_client_step, reason, TEXT),
        FIELD_AS(quantd_client_step, multiply_adds, "macs", COUNT)};
    static const struct rows rows = {fields, COUNT(fields), sizeof(struct quantd_client_step), "step"};
    *out = NULL;
    struct quantization *plan = calloc(1, sizeof *plan);
    if (!plan)
        return quantd_client_fail(error, QUANTD_CLIENT_MEMORY, "no memory for the plan");
    struct quantd_client_quantization *shown = &plan->shown;
    enum quantd_client_status status = quantd_client_ask_json(client, "GET", model, "/quantization", &plan->root,
                                                              error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(plan->root, whole, COUNT(whole), shown, "the answer", error);
    if (status == QUANTD_CLIENT_OK)
        status = quantd_client_read_fields(json_object_get(plan->root, "totals"), totals, COUNT(totals), shown,
                                           "\"totals\"", error);
    if (status == QUANTD_CLIENT_OK)
        status = read_rows(json_object_get(plan->root, "steps"), &rows, (void **)&shown->steps, &shown->count, error);
    if (status != QUANTD_CLIENT_OK)
        quantd_client_quantization_destroy(&shown);
    *out = shown;
    return status;
}

void quantd_client_quantization_destroy(struct quantd_client_quantization **quantization)
{
    if (!quantization || !*quantization)
        return;
    struct quantization *whole = (struct quantization *)(void *)*quantization;
    free(whole->shown.steps);
    json_decref(whole->root);
    free(whole);
    *quantization = NULL;
}
