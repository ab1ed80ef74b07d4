/*
 * Reading the fields of a JSON object into a struct by a table, strictly: a missing field or one of another kind is an
 * error that names it. Parsing is jansson's.
 */
#include "clients/c/internal/wire.h"

#include <string.h>

static const char *const kind_names[] = {[QUANTD_CLIENT_TEXT] = "a text",
                                         [QUANTD_CLIENT_REAL] = "a number",
                                         [QUANTD_CLIENT_COUNT] = "a count",
                                         [QUANTD_CLIENT_INTEGER] = "an integer",
                                         [QUANTD_CLIENT_FLAG] = "true or false"};

static bool store(const json_t *value, enum quantd_client_kind kind, void *place)
{
    switch (kind) {
    case QUANTD_CLIENT_TEXT:
        if (json_is_string(value))
            *(const char **)place = json_string_value(value);
        return json_is_string(value);
    case QUANTD_CLIENT_REAL:
        if (json_is_number(value))
            *(double *)place = json_number_value(value);
        return json_is_number(value);
    case QUANTD_CLIENT_COUNT:
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return false;
        *(uint64_t *)place = (uint64_t)json_integer_value(value);
        return true;
    case QUANTD_CLIENT_INTEGER:
        if (json_is_integer(value))
            *(int64_t *)place = json_integer_value(value);
        return json_is_integer(value);
    case QUANTD_CLIENT_FLAG:
        if (json_is_boolean(value))
            *(bool *)place = json_is_true(value);
        return json_is_boolean(value);
    }
    return false;
}

enum quantd_client_status quantd_client_read_fields(const json_t *object, const struct quantd_client_field *fields,
                                                    size_t count, void *into, const char *what,
                                                    struct quantd_client_error *error)
{
    if (!json_is_object(object))
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%.128s is no JSON object", what);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(object, fields[i].key);
        if (fields[i].optional && (!value || json_is_null(value)))
            continue;
        if (!store(value, fields[i].kind, (char *)into + fields[i].offset))
            return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%.128s has no \"%s\" that is %s", what,
                                      fields[i].key, kind_names[fields[i].kind]);
    }
    return QUANTD_CLIENT_OK;
}

enum quantd_client_status quantd_client_read_shape(const json_t *object, int *rank,
                                                   int64_t shape[QUANTD_CLIENT_MAX_RANK], const char *what,
                                                   struct quantd_client_error *error)
{
    const json_t *list = json_object_get(object, "shape");
    size_t size = json_array_size(list);
    if (!json_is_array(list) || size > QUANTD_CLIENT_MAX_RANK)
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%.128s has no \"shape\" of at most %d dimensions",
                                  what, QUANTD_CLIENT_MAX_RANK);
    for (size_t i = 0; i < size; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < -1)
            return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%.128s has a \"shape\" of something but sizes",
                                      what);
        shape[i] = json_integer_value(value);
    }
    *rank = (int)size;
    return QUANTD_CLIENT_OK;
}

enum quantd_client_status quantd_client_read_datatype(const json_t *object, enum quantd_client_datatype *type,
                                                      const char *what, struct quantd_client_error *error)
{
    const char *name = json_string_value(json_object_get(object, "datatype"));
    if (!name || !quantd_client_datatype_find(name, type))
        return quantd_client_fail(error, QUANTD_CLIENT_PROTOCOL, "%.128s has no \"datatype\" that is known", what);
    return QUANTD_CLIENT_OK;
}
