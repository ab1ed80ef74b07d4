/* Pins and rules of single layers: put, replaced, taken back; from the body of a PATCH, the configuration and a state
 * file, and to it. */
#include "server/layers.h"
#include "server/quant_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static json_t *parse(const char *text)
{
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);
    assert_non_null(json);
    return json;
}

/* Takes {"NODE": {...}, ...}; the names stay with *body. */
static enum qd_status take(struct qd_layers *layers, json_t *body, struct qd_error *error)
{
    enum qd_status status = QD_OK;
    for (void *at = json_object_iter(body); at && !status; at = json_object_iter_next(body, at))
        status = qd_layers_take(layers, json_object_iter_key(at), json_object_iter_value(at), error);
    return status;
}

static void assert_layers(const struct qd_layers *layers, const char *text)
{
    struct qd_quant_options options = qd_quant_defaults();
    qd_layers_use(layers, &options);
    json_t *want = parse(text), *got = qd_layers_json(&options);
    assert_true(json_equal(want, got));
    json_decref(want);
    json_decref(got);
}

static void test_said_shown_and_taken_back(void **state)
{
    (void)state;
    static const char *const said =
        "{\"conv1\": {\"guard\": \"clip\", \"precision\": \"int16\", \"weights\": {\"bits\": 9}},"
        " \"fc*\": {\"mode\": \"static\", \"activation\": {\"scheme\": \"symmetric\", \"granularity\": \"row\"}}}";
    const struct qd_quant_options options = qd_quant_defaults();
    struct qd_layers layers;
    struct qd_error error;
    assert_int_equal(qd_layers_begin(&layers, &options, &error), QD_OK);
    json_t *body = parse(said), *more = parse("{\"conv1\": {\"guard\": \"reject\", \"weights\": {\"bits\": null}}}"),
           *none = parse("{\"conv1\": {\"precision\": null}, \"fc*\": null, \"never\": null}");
    assert_int_equal(take(&layers, body, &error), QD_OK);
    assert_int_equal(layers.rule_count, 5);
    assert_int_equal(layers.pin_count, 1);
    assert_layers(&layers, said);
    assert_int_equal(take(&layers, body, &error), QD_OK); /* again: the same */
    assert_int_equal(layers.rule_count, 5);
    assert_int_equal(take(&layers, more, &error), QD_OK);
    assert_string_equal(layers.rules[layers.rule_count - 1].node, "conv1"); /* what is said last counts most */
    assert_int_equal(take(&layers, none, &error), QD_OK);
    assert_layers(&layers, "{\"conv1\": {\"guard\": \"reject\"}}");
    qd_layers_free(&layers);
    json_decref(body);
    json_decref(more);
    json_decref(none);
}

static void test_refusals_name_the_layer(void **state)
{
    (void)state;
    static const struct {
        const char *body, *word;
    } cases[] = {
        {"{\"a\": {\"guard\": \"maybe\"}}",
         "layer 'a': guard must be one of widen, clip, reject, escalate, is 'maybe'"},
        {"{\"a\": {\"weights\": {\"bits\": 7}}}", "layer 'a': weight_bits must lie in 8..16"},
        {"{\"a\": {\"weights\": {\"granularity\": \"row\"}}}", "one of tensor, channel, is 'row'"},
        {"{\"a\": {\"averaging_constant\": 0.5}}", "an option of the whole model"},
        {"{\"a\": {\"smoothing\": true}}", "an option of the whole model"},
        {"{\"a\": {\"max_step\": 1}}", "'max_step' is no option that can be changed"},
        {"{\"a\": []}", "layer 'a' must be an object of options, or null"},
    };
    const struct qd_quant_options options = qd_quant_defaults();
    struct qd_layers layers;
    struct qd_error error;
    assert_int_equal(qd_layers_begin(&layers, &options, &error), QD_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *body = parse(cases[i].body);
        assert_int_equal(take(&layers, body, &error), QD_ERR_INVALID);
        assert_non_null(strstr(error.text, cases[i].word));
        json_decref(body);
    }
    assert_int_equal(layers.rule_count + layers.pin_count, 0);
    qd_layers_free(&layers);
}

/* A state file has what differs from the configuration, also what of it was taken back. */
static void test_overrides_there_and_back(void **state)
{
    (void)state;
    struct qd_quant_options base = qd_quant_defaults(), now = qd_quant_defaults();
    struct qd_layers of_base, of_now, read;
    struct qd_error error;
    json_t *config = parse("{\"a\": {\"guard\": \"clip\", \"mode\": \"request\"}, \"b\": {\"mode\": \"ema\"}}"),
           *body = parse("{\"a\": {\"guard\": null, \"mode\": \"static\"}, \"c\": {\"weights\": {\"bits\": 12}}}");
    assert_int_equal(qd_layers_begin(&of_base, &base, &error), QD_OK);
    assert_int_equal(take(&of_base, config, &error), QD_OK);
    qd_layers_use(&of_base, &base);
    assert_int_equal(qd_layers_begin(&of_now, &base, &error), QD_OK);
    assert_int_equal(take(&of_now, body, &error), QD_OK);
    qd_layers_use(&of_now, &now);
    json_t *list = qd_layers_overrides(&base, &now), *nothing = qd_layers_overrides(&base, &base);
    assert_int_equal(json_array_size(list), 3); /* b's rule is the configuration's */
    assert_int_equal(json_array_size(nothing), 0);
    assert_int_equal(qd_layers_begin(&read, &base, &error), QD_OK);
    assert_int_equal(qd_layers_overrides_read(&read, list, &error), QD_OK);
    assert_layers(&read,
                  "{\"a\": {\"mode\": \"static\"}, \"b\": {\"mode\": \"ema\"}, \"c\": {\"weights\": {\"bits\": 12}}}");
    json_t *bad = parse("[{\"node\": \"a\", \"option\": \"colour\", \"value\": \"red\"}]");
    assert_int_equal(qd_layers_overrides_read(&read, bad, &error), QD_ERR_INVALID);
    json_decref(bad);
    qd_layers_free(&of_base);
    qd_layers_free(&of_now);
    qd_layers_free(&read);
    json_decref(config);
    json_decref(body);
    json_decref(list);
    json_decref(nothing);
}

static bool is_m(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "m") == 0;
}

static void test_the_configuration_of_one_model(void **state)
{
    (void)state;
    static const char *const text =
        "{\"guard\": \"reject\", \"model_options\": {\"m\": {\"guard\": \"clip\", \"smoothing\": false, "
        "\"weight_bits\": 10}},"
        " \"layers\": {\"m=conv1\": {\"mode\": \"static\"}, \"other=conv1\": {\"mode\": \"ema\"},"
        " \"/x/y\": {\"precision\": \"fp32\"}, \"*=p=q\": {\"guard\": \"widen\"}}}";
    struct qd_config config;
    struct qd_error error;
    struct qd_layers layers;
    struct qd_quant_options options;
    assert_int_equal(qd_config_parse("f", text, strlen(text), &config, &error), QD_OK);
    qd_config_quant(&config, &options);
    assert_int_equal(options.guard, QD_GUARD_REJECT);
    assert_int_equal(qd_config_quant_of(&config, "m", &layers, &options, &error), QD_OK);
    assert_int_equal(options.guard, QD_GUARD_CLIP);
    assert_true(!options.smoothing && options.weight_bits == 10);
    assert_layers(
        &layers,
        "{\"conv1\": {\"mode\": \"static\"}, \"/x/y\": {\"precision\": \"fp32\"}, \"p=q\": {\"guard\": \"widen\"}}");
    assert_int_equal(qd_config_check_rules(&config, &error), QD_OK);
    assert_int_equal(qd_config_check_models(&config, is_m, NULL, &error), QD_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "'other'"));
    qd_layers_free(&layers);
    qd_config_clear(&config);
    static const char *const bad = "{\"layers\": {\"m=conv1\": {\"weight_bits\": \"many\"}}}";
    assert_int_equal(qd_config_parse("f", bad, strlen(bad), &config, &error), QD_OK);
    assert_int_equal(qd_config_check_rules(&config, &error), QD_ERR_INVALID);
    assert_string_equal(error.text, "option for layer 'conv1': weight_bits must be a whole number");
    qd_config_clear(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_said_shown_and_taken_back),
        cmocka_unit_test(test_refusals_name_the_layer),
        cmocka_unit_test(test_overrides_there_and_back),
        cmocka_unit_test(test_the_configuration_of_one_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
