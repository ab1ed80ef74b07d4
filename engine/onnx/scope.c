/* Names of values: which name means which value where. A name belongs to the graph it stands in, or to a graph around
 * it; in a function's body to one call of that function, where inputs and outputs mean the caller's. Not for nodes. */
#include "engine/onnx/internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static enum qd_status no_memory(struct qd_import *im)
{
    return qd_fail(im->error, QD_ERR_NO_MEMORY, "no memory to import the model");
}

static struct qd_text text_of(const char *name) { return (struct qd_text){name, strlen(name)}; }

/* Is `space` a call whose body's nodes stand in this graph itself? Otherwise names are the graph's own. */
static bool is_own(const struct qd_scope *scope, const struct qd_call_space *space)
{
    return space && space->scope == scope;
}

static int position(const struct qd_text *names, int count, struct qd_text name)
{
    for (int i = 0; i < count; i++)
        if (names[i].length == name.length && memcmp(names[i].bytes, name.bytes, name.length) == 0)
            return i;
    return -1;
}

/* A value that bears `name` and that nobody finds yet. */
static enum qd_status append(struct qd_scope *scope, const char *name, int *id)
{
    if (scope->value_count == scope->value_room) {
        size_t room = scope->value_room ? (size_t)scope->value_room * 2 : 32;
        struct qd_value *values = NULL;
        if (room > INT_MAX || room / 2 * sizeof *values > scope->im->budget_bytes)
            return qd_fail(scope->im->error, QD_ERR_TOO_LARGE, "the model has too many values for its size");
        values = qd_realloc(scope->values, room, sizeof *values);
        if (!values)
            return no_memory(scope->im);
        scope->values = values;
        scope->value_room = (int)room;
    }
    *id = scope->value_count++;
    scope->values[*id] = (struct qd_value){.name = name, .info.shape.rank = -1, .producer = -1, .outer = QD_NO_VALUE};
    return QD_OK;
}

static enum qd_status add_as(struct qd_scope *scope, struct qd_text key, const char *name, int *id)
{
    enum qd_status status = append(scope, name, id);
    if (status)
        return status;
    return qd_map_put(&scope->names, key.bytes, key.length, *id) == QD_OK ? QD_OK : no_memory(scope->im);
}

enum qd_status qd_scope_add(struct qd_scope *scope, const char *name, int *id)
{
    return add_as(scope, text_of(name), name, id);
}

/* A value of the graph around, which here gets a value of its own under the name that found it. */
static enum qd_status capture(struct qd_scope *scope, struct qd_text name, int outer, int *id)
{
    enum qd_status status = add_as(scope, name, scope->parent->values[outer].name, id);
    if (status)
        return status;
    const struct qd_value *from = &scope->parent->values[outer];
    struct qd_value *value = &scope->values[*id];
    value->info = from->info;
    memcpy(value->dim_names, from->dim_names, sizeof value->dim_names);
    value->outer = outer;
    value->constant = from->constant && !from->is_input; /* a request may replace an input's default */
    if (!value->constant)
        value->info.data = NULL;
    return QD_OK;
}

enum qd_status qd_scope_find(struct qd_scope *scope, const struct qd_call_space *space, struct qd_text name, int *id,
                             bool *found)
{
    *id = QD_NO_VALUE;
    while (is_own(scope, space)) { /* as deep as calls nest */
        int input = position(space->inputs, space->input_count, name);
        *found = true;
        if (qd_map_find(&space->names, name.bytes, name.length, id))
            return QD_OK;
        *found = input >= 0;
        if (input < 0 || input >= space->given_input_count || space->given_inputs[input].length == 0)
            return QD_OK; /* nobody's, or an input that the call leaves out */
        name = space->given_inputs[input];
        space = space->caller;
    }
    *found = qd_map_find(&scope->names, name.bytes, name.length, id);
    if (*found || !scope->parent)
        return QD_OK;
    int outer;
    enum qd_status status = qd_scope_find(scope->parent, scope->space, name, &outer,
                                          found); /* as deep as graphs nest */
    return status || outer == QD_NO_VALUE ? status : capture(scope, name, outer, id);
}

/* "call/name" */
static const char *qualified(struct qd_import *im, const struct qd_call_space *space, const char *name)
{
    size_t room = strlen(space->name) + strlen(name) + 2;
    char *text = qd_import_alloc(im, room, 1);
    if (text)
        snprintf(text, room, "%s/%s", space->name, name);
    return text;
}

enum qd_status qd_scope_qualify(struct qd_import *im, const struct qd_call_space *space, const char **name)
{
    if (!space || !**name)
        return QD_OK;
    *name = qualified(im, space, *name);
    return *name ? QD_OK : im->error->status;
}

enum qd_status qd_scope_declare(struct qd_scope *scope, struct qd_call_space *space, struct qd_text name, int *id,
                                bool *taken)
{
    const char *shown;
    *taken = false;
    enum qd_status status = qd_import_name(scope->im, name, "an output's name", &shown);
    if (status)
        return status;
    if (!is_own(scope, space)) {
        *taken = qd_map_find(&scope->names, shown, strlen(shown), id);
        return *taken ? QD_OK : qd_scope_add(scope, shown, id);
    }
    *taken = qd_map_find(&space->names, name.bytes, name.length, id) ||
             position(space->inputs, space->input_count, name) >= 0;
    if (*taken)
        return QD_OK;
    int output = position(space->outputs, space->output_count, name);
    if (output >= 0 && output < space->given_output_count && space->given_outputs[output].length > 0)
        status = qd_scope_declare(scope, space->caller, space->given_outputs[output], id, taken);
    else if ((status = qd_scope_qualify(scope->im, space, &shown)) == QD_OK)
        status = append(scope, shown, id);
    if (status || *taken)
        return status;
    return qd_map_put(&space->names, name.bytes, name.length, *id) == QD_OK ? QD_OK : no_memory(scope->im);
}
