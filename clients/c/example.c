/*
 * The C client by example: reads handwritten digits, asks the built-in model of a quantd for each, prints the digit it
 * saw and then the ranges that it learned from them. Not part of the library.
 *
 *     build/quantd serve --listen 127.0.0.1:8080 &
 *     build/examples/client_example http://127.0.0.1:8080 server/builtin/digits.json
 *
 * In a program of your own: cc mine.c $(pkg-config --cflags --libs quantd-client)
 */
#include "clients/c/quantd_client.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

enum { PIXELS = 28 * 28, CLASSES = 10 };

/* One digit to the model, and the class with the largest logit; -1 on failure. */
static int classify(struct quantd_client *client, const float pixels[PIXELS], struct quantd_client_error *error)
{
    struct quantd_client_tensor image = {.name = "image",
                                         .datatype = QUANTD_CLIENT_FP32,
                                         .rank = 4,
                                         .shape = {1, 1, 28, 28},
                                         .data = pixels,
                                         .bytes = PIXELS * sizeof(float)};
    const char *wanted[] = {"logits"};
    struct quantd_client_request request = {
        .model = "digits", .inputs = &image, .input_count = 1, .outputs = wanted, .output_count = 1};
    struct quantd_client_answer *answer = NULL;
    int best = -1;
    if (quantd_client_infer(client, &request, &answer, error) != QUANTD_CLIENT_OK)
        return -1;
    const struct quantd_client_tensor *logits = quantd_client_answer_find(answer, "logits");
    if (logits && logits->datatype == QUANTD_CLIENT_FP32 && logits->bytes == CLASSES * sizeof(float)) {
        const float *values = logits->data;
        best = 0;
        for (int i = 1; i < CLASSES; i++)
            if (values[i] > values[best])
                best = i;
    } else
        snprintf(error->text, sizeof error->text, "the model does not answer with ten logits");
    quantd_client_answer_destroy(&answer);
    return best;
}

/* Every digit of the file; false on failure. */
static bool classify_all(struct quantd_client *client, const json_t *file, struct quantd_client_error *error)
{
    const json_t *digits = json_object_get(file, "digits");
    double scale = json_number_value(json_object_get(file, "scale"));
    size_t right = 0;
    for (size_t i = 0; i < json_array_size(digits); i++) {
        const json_t *digit = json_array_get(digits, i), *pixels = json_object_get(digit, "pixels");
        int label = (int)json_integer_value(json_object_get(digit, "label"));
        float image[PIXELS];
        for (size_t k = 0; k < PIXELS; k++)
            image[k] = (float)(json_number_value(json_array_get(pixels, k)) / scale);
        int seen = classify(client, image, error);
        if (seen < 0)
            return false;
        right += seen == label;
        printf("a %d was seen as %d\n", label, seen);
    }
    printf("%zu of %zu right\n", right, json_array_size(digits));
    return true;
}

static bool print_ranges(struct quantd_client *client, struct quantd_client_error *error)
{
    struct quantd_client_ranges *ranges = NULL;
    if (quantd_client_ranges(client, "digits", &ranges, error) != QUANTD_CLIENT_OK)
        return false;
    printf("learned from %" PRIu64 " requests, epoch %" PRIu64 ":\n", ranges->requests, ranges->epoch);
    for (size_t i = 0; i < ranges->count; i++)
        printf("  %-24s %10.4f .. %9.4f  scale %.6g\n", ranges->ranges[i].name, ranges->ranges[i].ema_min,
               ranges->ranges[i].ema_max, ranges->ranges[i].scale);
    quantd_client_ranges_destroy(&ranges);
    return true;
}

int main(int argc, char **argv)
{
    struct quantd_client *client = NULL;
    struct quantd_client_error error = {0};
    json_error_t why = {0};
    json_t *file = argc == 3 ? json_load_file(argv[2], 0, &why) : NULL;
    if (!file) {
        fprintf(stderr, "usage: client_example URL DIGITS.json %s\n", why.text);
        return 2;
    }
    bool done = quantd_client_create(&client, argv[1], NULL, &error) == QUANTD_CLIENT_OK &&
                classify_all(client, file, &error) && print_ranges(client, &error);
    if (!done)
        fprintf(stderr, "client_example: %s\n", error.text);
    quantd_client_destroy(&client);
    json_decref(file);
    return done ? 0 : 1;
}
