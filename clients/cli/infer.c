/*
 * `quantctl infer`: inputs from files, one request, outputs to the terminal, to .npy files or as JSON.
 */
#include "clients/cli/quantctl.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHOWN = 40 };

static const struct quantd_ctl_pair *find(const struct quantd_ctl_pair *pairs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (pairs[i].name && strcmp(pairs[i].name, name) == 0)
            return &pairs[i];
    return NULL;
}

static const struct quantd_client_signature *signature_of(const struct quantd_client_signature *list, size_t count,
                                                          const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

/* --shape NAME=.. for that input; without a name it is meant for the only one */
static const char *shape_for(const struct quantd_ctl_arguments *arguments, const char *name)
{
    const struct quantd_ctl_pair *named = find(arguments->shapes, arguments->shape_count, name);
    if (named)
        return named->value;
    return arguments->shape_count == 1 && !arguments->shapes[0].name ? arguments->shapes[0].value : NULL;
}

static int read_inputs(const struct quantd_ctl_arguments *arguments, const struct quantd_client_metadata *metadata,
                       struct quantd_client_tensor *inputs)
{
    for (size_t i = 0; i < arguments->input_count; i++) {
        const struct quantd_ctl_pair *given = &arguments->inputs[i];
        const struct quantd_client_signature *signature = given->name ? signature_of(metadata->inputs,
                                                                                     metadata->input_count, given->name)
                                                                      : NULL;
        if (!given->name && metadata->input_count == 1)
            signature = &metadata->inputs[0];
        if (!signature)
            return given->name
                       ? quantd_ctl_say(QUANTD_CTL_USAGE, "model '%s' has no input '%s'", arguments->model, given->name)
                       : quantd_ctl_say(QUANTD_CTL_USAGE, "'%s' is not NAME=FILE", given->value);
        int status = quantd_ctl_read_tensor(given->value, shape_for(arguments, signature->name), signature, &inputs[i]);
        if (status != QUANTD_CTL_OK)
            return status;
    }
    return QUANTD_CTL_OK;
}

/* ------------------------------------------------------------------ printing */

static void print_number(struct quantd_ctl_number number, enum quantd_client_datatype type, bool json)
{
    if (number.kind == QUANTD_CTL_SIGNED)
        printf("%" PRId64, number.whole);
    else if (number.kind == QUANTD_CTL_UNSIGNED)
        printf("%" PRIu64, number.natural);
    else if (!isfinite(number.real) && json)
        printf("null"); /* JSON has no word for it */
    else
        printf("%.*g", !json ? 6 : type == QUANTD_CLIENT_FP64 ? 17 : 9, number.real);
}

static void print_values(const struct quantd_client_tensor *tensor, size_t limit, bool json)
{
    size_t item = quantd_client_datatype_bytes(tensor->datatype), count = item ? tensor->bytes / item : 0;
    struct quantd_ctl_number number;
    for (size_t i = 0; i < count && i < limit; i++) {
        quantd_ctl_number_load(tensor->datatype, (const char *)tensor->data + i * item, &number);
        printf("%s", i == 0 ? "" : json ? "," : "  ");
        print_number(number, tensor->datatype, json);
    }
    if (count > limit)
        printf("  ... %zu more", count - limit);
}

static void print_json_text(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == '"' || *text == '\\' || *text == 0x7f)
            printf("\\u%04x", (unsigned char)*text);
        else
            putchar(*text);
    putchar('"');
}

static void print_shape(const struct quantd_client_tensor *tensor)
{
    putchar('[');
    for (int i = 0; i < tensor->rank; i++)
        printf("%s%" PRId64, i ? "," : "", tensor->shape[i]);
    putchar(']');
}

static void print_json(const struct quantd_client_answer *answer)
{
    printf("{\"model\":");
    print_json_text(answer->model);
    printf(",\"epoch\":%" PRIu64 ",\"plan\":", answer->epoch);
    print_json_text(answer->plan);
    printf(",\"precision\":");
    print_json_text(answer->precision);
    printf(",\"guarded\":%" PRId64 ",\"outputs\":[", answer->guarded);
    for (size_t i = 0; i < answer->output_count; i++) {
        const struct quantd_client_tensor *tensor = &answer->outputs[i];
        printf("%s{\"name\":", i ? "," : "");
        print_json_text(tensor->name);
        printf(",\"datatype\":\"%s\",\"shape\":", quantd_client_datatype_name(tensor->datatype));
        print_shape(tensor);
        printf(",\"data\":[");
        print_values(tensor, SIZE_MAX, true);
        printf("]}");
    }
    printf("]}\n");
}

static void print_text(const struct quantd_client_answer *answer)
{
    for (size_t i = 0; i < answer->output_count; i++) {
        const struct quantd_client_tensor *tensor = &answer->outputs[i];
        quantd_ctl_print(stdout, tensor->name);
        printf("  %s ", quantd_client_datatype_name(tensor->datatype));
        print_shape(tensor);
        printf("\n  ");
        if (tensor->datatype == QUANTD_CLIENT_BYTES)
            printf("%zu bytes", tensor->bytes);
        print_values(tensor, MAX_SHOWN, false);
        putchar('\n');
    }
    printf("epoch %" PRIu64 ", plan ", answer->epoch);
    quantd_ctl_print(stdout, answer->plan);
    printf(", ");
    quantd_ctl_print(stdout, answer->precision);
    printf(", %" PRId64 " guarded\n", answer->guarded);
}

/* Those with a file into it; if no output has one, all of them to the terminal. */
static int write_outputs(const struct quantd_ctl_arguments *arguments, const struct quantd_client_answer *answer)
{
    bool to_file = false;
    for (size_t i = 0; i < answer->output_count; i++) {
        const struct quantd_ctl_pair *wanted = find(arguments->outputs, arguments->output_count,
                                                    answer->outputs[i].name);
        if (!wanted || !wanted->value)
            continue;
        int status = quantd_ctl_npy_write(wanted->value, &answer->outputs[i]);
        if (status != QUANTD_CTL_OK)
            return status;
        to_file = true;
    }
    if (arguments->json)
        print_json(answer);
    else if (!to_file)
        print_text(answer);
    return QUANTD_CTL_OK;
}

int quantd_ctl_infer(struct quantd_client *client, const struct quantd_ctl_arguments *arguments)
{
    struct quantd_client_error error;
    struct quantd_client_metadata *metadata = NULL;
    struct quantd_client_answer *answer = NULL;
    struct quantd_client_tensor inputs[QUANTD_CTL_MAX_TENSORS] = {{0}};
    const char *outputs[QUANTD_CTL_MAX_TENSORS];
    int status = QUANTD_CTL_OK;
    if (arguments->input_count == 0)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "infer needs --input NAME=FILE");
    if (quantd_client_metadata(client, arguments->model, &metadata, &error) != QUANTD_CLIENT_OK)
        return quantd_ctl_failed(&error);
    status = read_inputs(arguments, metadata, inputs);
    for (size_t i = 0; i < arguments->output_count; i++)
        outputs[i] = arguments->outputs[i].name;
    struct quantd_client_request request = {.model = arguments->model,
                                            .inputs = inputs,
                                            .input_count = arguments->input_count,
                                            .outputs = outputs,
                                            .output_count = arguments->output_count,
                                            .epoch = arguments->epoch,
                                            .precision = arguments->precision,
                                            .unobserved = arguments->unobserved};
    if (status == QUANTD_CTL_OK && quantd_client_infer(client, &request, &answer, &error) != QUANTD_CLIENT_OK)
        status = quantd_ctl_failed(&error);
    if (status == QUANTD_CTL_OK)
        status = write_outputs(arguments, answer);
    for (size_t i = 0; i < arguments->input_count; i++)
        free((void *)(uintptr_t)inputs[i].data);
    quantd_client_answer_destroy(&answer);
    quantd_client_metadata_destroy(&metadata);
    return status;
}
