/* Options: defaults, precedence of the layers, refusals that name the key and the place, schema and help from the one
 * table, and every point where memory may run out. */
#include "base/mem.h"
#include "config/config.h"
#include "config/nearest.h"
#include "config/option.h"
#include "server/quant_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <cmocka.h>

#define ARGS(...)                                                                                                      \
    (char *[]) { __VA_ARGS__, NULL }

static int count(char *const *list)
{
    int n = 0;
    while (list && list[n])
        n++;
    return n;
}

static enum qd_status load(char *const *flags, char *const *environment, struct qd_config *out, struct qd_error *error)
{
    enum qd_config_action action;
    return qd_config_load(count(flags), flags, environment, out, &action, error);
}

/* Refused, with this very sentence, and nothing is left in the struct. */
static void refused(char *const *flags, char *const *environment, const char *sentence)
{
    struct qd_config config;
    struct qd_error error = {0};
    assert_int_not_equal(load(flags, environment, &config, &error), QD_OK);
    assert_string_equal(error.text, sentence);
    assert_null(config.listen);
    assert_null(config.models);
}

static void refused_file(const char *json, const char *sentence)
{
    struct qd_config config;
    struct qd_error error = {0};
    assert_int_not_equal(qd_config_parse("quantd.json", json, strlen(json), &config, &error), QD_OK);
    assert_string_equal(error.text, sentence);
    assert_null(config.listen);
}

static void test_defaults(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    assert_int_equal(qd_config_defaults(&config, &error), QD_OK);
    assert_string_equal(config.listen, "127.0.0.1:8080");
    assert_int_equal(config.models_count, 0);
    assert_true(config.max_body_bytes == 64u << 20);
    assert_true(config.idle_timeout_s >= 75);
    assert_int_equal(config.drain_delay_ms, 5000);
    assert_int_equal(config.grace_ms, 25000);
    assert_int_equal(qd_config_log_level(&config), QD_LOG_INFO);
    qd_config_clear(&config);
}

static void test_quantization_defaults_are_the_engines(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    struct qd_quant_options mine, engines = qd_quant_defaults();
    assert_int_equal(qd_config_defaults(&config, &error), QD_OK);
    qd_config_quant(&config, &mine);
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        struct qd_quant_value a = qd_quant_option_get(&qd_quant_table[i], &mine),
                              b = qd_quant_option_get(&qd_quant_table[i], &engines);
        assert_true(a.number == b.number);
        assert_string_equal(a.word ? a.word : "", b.word ? b.word : "");
    }
    qd_config_clear(&config);
}

/* Each option of the engine has its row, and what the row allows the engine takes. */
static void test_the_engine_takes_what_the_rows_allow(void **state)
{
    (void)state;
    struct qd_quant_options q = qd_quant_defaults();
    for (size_t i = 0; i < qd_quant_table_count; i++) {
        const struct qd_quant_option *engines = &qd_quant_table[i];
        const struct qd_option *row = qd_option_by_key(engines->key, strlen(engines->key));
        assert_non_null(row);
        assert_int_equal(row->words != NULL, engines->kind == QD_QUANT_WORD);
        assert_int_equal(row->kind == QD_OPTION_IS_BOOL, engines->kind == QD_QUANT_BOOL);
        if (engines->kind == QD_QUANT_WORD || engines->kind == QD_QUANT_BOOL)
            continue;
        struct qd_error error;
        assert_true(row->low == engines->low && row->above == engines->above && row->high <= engines->high);
        assert_int_equal(qd_quant_option_set(engines, (struct qd_quant_value){.number = row->high}, &q, &error), QD_OK);
        assert_true(qd_quant_option_get(engines, &q).number == row->high);
        assert_int_equal(qd_quant_option_set(engines, (struct qd_quant_value){.number = -2}, &q, &error),
                         QD_ERR_INVALID);
        assert_non_null(strstr(error.text, engines->key));
        assert_int_equal(qd_quant_option_set(engines, (struct qd_quant_value){.word = "many"}, &q, &error),
                         QD_ERR_INVALID);
    }
}

/* Every word of the table reaches the engine as itself. */
static void test_the_engine_knows_every_word(void **state)
{
    (void)state;
    unsigned tried = 0;
    for (size_t i = 0; i < qd_option_count; i++) {
        const struct qd_option *option = &qd_options[i];
        const struct qd_quant_option *engines = option->key ? qd_quant_option_by_key(option->key) : NULL;
        if (!option->words || !engines)
            continue;
        for (const char *word = option->words; *word; word += *word == '|') {
            size_t length = strcspn(word, "|");
            char text[32], json[96];
            struct qd_config config;
            struct qd_error error;
            struct qd_quant_options q;
            snprintf(text, sizeof text, "%.*s", (int)length, word);
            snprintf(json, sizeof json, "{\"%s\":\"%s\"}", option->key, text);
            assert_int_equal(qd_config_parse("f", json, strlen(json), &config, &error), QD_OK);
            qd_config_quant(&config, &q);
            assert_string_equal(qd_quant_option_get(engines, &q).word, text);
            qd_config_clear(&config);
            word += length;
            tried++;
        }
    }
    assert_int_equal(tried, 25);
}

static void write_file(char *path, const char *text)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void test_flag_before_environment_before_file_before_default(void **state)
{
    (void)state;
    const char *folder = getenv("TMPDIR");
    char path[1024], variable[1100];
    struct qd_config config;
    struct qd_error error;
    snprintf(path, sizeof path, "%s/quantd-config-XXXXXX", folder ? folder : P_tmpdir);
    write_file(path, "{\"workers\": 1, \"threads\": 1, \"queue_size\": 1, \"models\": {\"a\": \"file\"}}");
    snprintf(variable, sizeof variable, "QUANTD_CONFIG=%s", path);
    char **environment = ARGS(variable, "QUANTD_WORKERS=2", "QUANTD_THREADS=2", "HOME=/", "QUANTD_LOG_JSON=true");
    assert_int_equal(load(ARGS("--workers", "3"), environment, &config, &error), QD_OK);
    assert_int_equal(config.workers, 3);
    assert_int_equal(config.threads, 2);
    assert_int_equal(config.queue_size, 1);
    assert_int_equal(config.batch_max, 8);
    assert_true(config.log_json);
    assert_int_equal(config.models_count, 1);
    qd_config_clear(&config);
    /* --config goes before QUANTD_CONFIG, a list of models replaces the one below. */
    assert_int_equal(load(ARGS("--config=/nowhere/quantd.json"), environment, &config, &error), QD_ERR_NOT_FOUND);
    assert_int_equal(load(ARGS("--model", "b=x=1.onnx", "--model=c=y,z"), environment, &config, &error), QD_OK);
    assert_int_equal(config.models_count, 2);
    assert_string_equal(config.models[0].name, "b");
    assert_string_equal(config.models[0].file, "x=1.onnx");
    assert_string_equal(config.models[1].file, "y,z");
    qd_config_clear(&config);
    unlink(path);
}

static void test_models_of_the_environment(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    assert_int_equal(load(NULL, ARGS("QUANTD_MODELS=a=/m/a.onnx,b=/m/b.onnx"), &config, &error), QD_OK);
    assert_int_equal(config.models_count, 2);
    assert_string_equal(config.models[1].name, "b");
    assert_string_equal(config.models[1].file, "/m/b.onnx");
    qd_config_clear(&config);
    refused(NULL, ARGS("QUANTD_MODELS=a=/m/a.onnx,b"),
            "environment variable QUANTD_MODELS: must be NAME=FILE, is \"b\"");
}

static void test_rules_of_models_and_layers(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    assert_int_equal(load(ARGS("--layer", "a:b/c=d:guard=clip", "--layer=*:mode=static"),
                          ARGS("QUANTD_LAYERS=x:mode=ema", "QUANTD_MODEL_OPTIONS=m:guard=clip,n:weight_bits=9"),
                          &config, &error),
                     QD_OK);
    assert_int_equal(config.layers_count, 2); /* a list replaces the one below */
    assert_string_equal(config.layers[0].where, "a:b/c=d");
    assert_string_equal(config.layers[0].option, "guard");
    assert_string_equal(config.layers[0].value, "clip");
    assert_int_equal(config.model_options_count, 2);
    assert_string_equal(config.model_options[1].where, "n");
    assert_string_equal(config.model_options[1].value, "9");
    qd_config_clear(&config);
    refused(ARGS("--layer", "guard=clip"), NULL, "--layer: must be NODE:OPTION=VALUE, is \"guard=clip\"");
    refused(ARGS("--layer", ":guard=clip"), NULL, "--layer: must be NODE:OPTION=VALUE, is \":guard=clip\"");
    refused(ARGS("--layer", "a:gard=clip"), NULL,
            "--layer: must be NODE:OPTION=VALUE with an option of this list, is \"gard\" for \"a\"");
    refused_file("{\"layers\": {\"a\": 1}}",
                 "quantd.json: key \"layers\": \"a\" must be an object of options, is a number");
    refused_file("{\"layers\": {\"a\": {\"guard\": null}}}",
                 "quantd.json: key \"layers\": guard of \"a\" can't be null");
}

static void test_ema_decay_is_one_minus_the_constant(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    assert_int_equal(load(ARGS("--ema-decay", "0.75"), ARGS("QUANTD_AVERAGING_CONSTANT=0.5"), &config, &error), QD_OK);
    assert_true(config.averaging_constant == 0.25);
    qd_config_clear(&config);
    refused(ARGS("--ema-decay", "1"), NULL, "--ema-decay: must be >= 0 and < 1, is 1");
    refused(ARGS("--ema-decay", "0.5", "--averaging-constant", "0.5"), NULL,
            "--averaging-constant: says the same as ema_decay, give one of them");
}

static void test_refusals_of_flags(void **state)
{
    (void)state;
    refused(ARGS("--worker", "3"), NULL, "unknown option --worker; did you mean --workers?");
    refused(ARGS("--log_level", "info"), NULL, "unknown option --log_level; did you mean --log-level?");
    refused(ARGS("--zzzzzz"), NULL, "unknown option --zzzzzz; see quantd serve --help");
    refused(ARGS("serve"), NULL, "unexpected argument \"serve\"; see quantd serve --help");
    refused(ARGS("--workers"), NULL, "--workers: needs a value");
    refused(ARGS("--help=1"), NULL, "--help: takes no value");
    refused(ARGS("--workers=-1"), NULL, "--workers: must be >= 0 and <= 1024, is -1");
    refused(ARGS("--workers=1.5"), NULL, "--workers: must be a whole number, is \"1.5\"");
    refused(ARGS("--workers="), NULL, "--workers: must be a whole number, is \"\"");
    refused(ARGS("--workers= 1"), NULL, "--workers: must be a whole number, is \" 1\"");
    refused(ARGS("--workers=99999999999999999999999"), NULL,
            "--workers: must be >= 0 and <= 1024, is 99999999999999999999999");
    refused(ARGS("--max-step=nan"), NULL, "--max-step: must be a number, is \"nan\"");
    refused(ARGS("--max-step=1e999"), NULL, "--max-step: must be a number, is \"1e999\"");
    refused(ARGS("--max-step=0x10"), NULL, "--max-step: must be a number, is \"0x10\"");
    refused(ARGS("--log-json=maybe"), NULL, "--log-json: must be true or false, is \"maybe\"");
    refused(ARGS("--mode=static"), NULL, "--mode: must be one of ema|request, is \"static\"");
    refused(ARGS("--model=a=b", "--model=a=c"), NULL, "--model: the model \"a\" is named twice");
    refused(ARGS("--model=a="), NULL, "--model: model \"a\" has no file");
    refused(NULL, ARGS("QUANTD_GUARD=none"),
            "environment variable QUANTD_GUARD: must be one of widen|clip|reject|escalate, is \"none\"");
    refused(NULL, ARGS("QUANTD_WORKER=1"),
            "environment variable QUANTD_WORKER: there is no such option; did you mean \"workers\"?");
}

static void test_foreign_and_empty_variables_are_left_alone(void **state)
{
    (void)state;
    struct qd_config config;
    struct qd_error error;
    char **environment = ARGS("QUANTD_ISA=scalar", "QUANTD_PORT=tcp://10.0.0.1:80", "QUANTD_SERVICE_HOST=10.0.0.1",
                              "QUANTD_PORT_8080_TCP_ADDR=10.0.0.1", "QUANTD_LISTEN=", "QUANTD", "=x", "QUANTD_");
    assert_int_equal(load(NULL, environment, &config, &error), QD_OK);
    assert_string_equal(config.listen, "127.0.0.1:8080");
    qd_config_clear(&config);
}

static void test_refusals_of_files(void **state)
{
    (void)state;
    refused_file("{\"averaging_constant\": 7}", "quantd.json: key \"averaging_constant\": must be > 0 and <= 1, is 7");
    refused_file("{\"averaging_constant\": 0}", "quantd.json: key \"averaging_constant\": must be > 0 and <= 1, is 0");
    refused_file("{\"worker\": 7}", "quantd.json: key \"worker\": there is no such option; did you mean \"workers\"?");
    refused_file("{\"colour\": 7}", "quantd.json: key \"colour\": there is no such option");
    refused_file("{\"workers\": \"7\"}", "quantd.json: key \"workers\": must be a whole number, is a string");
    refused_file("{\"workers\": 1.5}", "quantd.json: key \"workers\": must be a whole number, is 1.5");
    refused_file("{\"log_json\": 1}", "quantd.json: key \"log_json\": must be true or false, is a number");
    refused_file("{\"listen\": null}", "quantd.json: key \"listen\": must be a string, is null");
    refused_file("{\"models\": [\"a\"]}",
                 "quantd.json: key \"models\": must be an object of {\"name\": \"file\"}, is an array");
    refused_file("{\"models\": {\"a\": 1}}",
                 "quantd.json: key \"models\": the file of model \"a\" must be a string, is a number");
    refused_file("{\"models\": {\"a/b\": \"f\"}}",
                 "quantd.json: key \"models\": a model's name is 1 to 100 printable ASCII characters without / \\ ' \" "
                 "and space, not beginning with a dot, is \"a/b\"");
    refused_file("{\"ema_decay\": 0.5, \"averaging_constant\": 0.5}",
                 "quantd.json: key \"averaging_constant\": says the same as ema_decay, give one of them");
    refused_file("[]", "quantd.json: must be a JSON object, is an array");
    refused_file("{\n  \"workers\": 1,\n}", "quantd.json:3:1: string or '}' expected near '}'");
    refused_file("{\"workers\": 1, \"workers\": 2}", "quantd.json:1:24: duplicate object key near '\"workers\"'");
}

static void test_the_sample_holds_the_defaults(void **state)
{
    (void)state;
    static char text[16384];
    FILE *file = fopen("config/quantd.json", "rb");
    struct qd_config sample, fallback;
    struct qd_error error;
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text, file);
    fclose(file);
    assert_int_equal(qd_config_parse("config/quantd.json", text, size, &sample, &error), QD_OK);
    assert_int_equal(qd_config_defaults(&fallback, &error), QD_OK);
    for (size_t i = 0; i < qd_option_count; i++) {
        const char *a = (const char *)&sample + qd_options[i].offset,
                   *b = (const char *)&fallback + qd_options[i].offset;
        enum qd_option_kind kind = qd_options[i].kind;
        if (kind == QD_OPTION_IS_WORD || kind == QD_OPTION_IS_ANY || kind == QD_OPTION_IS_ADDRESS)
            assert_string_equal(*(char *const *)a, *(char *const *)b);
        else if (kind == QD_OPTION_IS_REAL)
            assert_true(*(const double *)a == *(const double *)b);
        else if (kind == QD_OPTION_IS_U32)
            assert_true(*(const uint32_t *)a == *(const uint32_t *)b);
        else if (kind == QD_OPTION_IS_U64)
            assert_true(*(const uint64_t *)a == *(const uint64_t *)b);
    }
    qd_config_clear(&sample);
    qd_config_clear(&fallback);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:8080", "0.0.0.0:0", "[::1]:8080", "[::]:65535", "[::ffff:1.2.3.4]:1"};
    static const char *const bad[] = {
        "",        ":80",        "localhost:80", "1.2.3.4",    "1.2.3.4:",       "1.2.3.4:65536",
        "::1:80",  "[::1]",      "[::1]80",      "[::1",       "[1.2.3.4]:80",   "1.2.3.4:-1",
        "1.2.3:1", "1.2.3.4:8x", "[]:1",         "1.2.3.4:+1", "1.2.3.4:000001", "]:1"};
    struct sockaddr_storage address;
    socklen_t length;
    struct qd_error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(qd_config_address(good[i], &address, &length, &error), QD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(qd_config_address(bad[i], &address, &length, &error), QD_ERR_INVALID);
}

static void test_help_and_schema_name_every_option(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    struct qd_error error;
    FILE *out = open_memstream(&text, &size);
    qd_config_print_help(out);
    fclose(out);
    for (size_t i = 0; i < qd_option_count; i++) {
        char flag[64], wanted[80];
        if (!qd_options[i].key)
            continue;
        snprintf(wanted, sizeof wanted, "  --%s", qd_option_flag(&qd_options[i], flag, sizeof flag));
        assert_non_null(strstr(text, wanted));
    }
    free(text);
    out = open_memstream(&text, &size);
    assert_int_equal(qd_config_print_schema(out, &error), QD_OK);
    fclose(out);
    json_t *schema = json_loadb(text, size, 0, NULL), *properties = json_object_get(schema, "properties");
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key)
            assert_non_null(json_object_get(properties, qd_options[i].key));
    assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
    json_decref(schema);
    free(text);
}

static void test_nearest(void **state)
{
    (void)state;
    struct qd_nearest near = qd_nearest_to("LISTN");
    qd_nearest_offer(&near, "models");
    qd_nearest_offer(&near, "listen");
    assert_string_equal(near.best, "listen");
    near = qd_nearest_to("port");
    for (size_t i = 0; i < qd_option_count; i++)
        if (qd_options[i].key)
            qd_nearest_offer(&near, qd_options[i].key);
    assert_null(near.best);
}

/* Whichever allocation fails, the answer is NO_MEMORY and nothing leaks (seen by the sanitizer). */
static void test_out_of_memory(void **state)
{
    (void)state;
    char **flags = ARGS("--model=a=b", "--model=c=d", "--listen=[::1]:80", "--model-repository=x", "--mode=request");
    struct qd_config config;
    struct qd_error error;
    enum qd_status status = QD_ERR_NO_MEMORY;
    uint64_t n = 0;
    while (status != QD_OK) {
        qd_mem_fail_at(++n, false);
        status = load(flags, ARGS("QUANTD_MODELS=z=y"), &config, &error);
        qd_mem_fail_at(0, false);
        if (status)
            assert_int_equal(status, QD_ERR_NO_MEMORY);
        assert_true(n < 1000);
    }
    assert_true(n > 10);
    qd_config_clear(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_quantization_defaults_are_the_engines),
        cmocka_unit_test(test_the_engine_takes_what_the_rows_allow),
        cmocka_unit_test(test_the_engine_knows_every_word),
        cmocka_unit_test(test_flag_before_environment_before_file_before_default),
        cmocka_unit_test(test_models_of_the_environment),
        cmocka_unit_test(test_rules_of_models_and_layers),
        cmocka_unit_test(test_ema_decay_is_one_minus_the_constant),
        cmocka_unit_test(test_refusals_of_flags),
        cmocka_unit_test(test_foreign_and_empty_variables_are_left_alone),
        cmocka_unit_test(test_refusals_of_files),
        cmocka_unit_test(test_the_sample_holds_the_defaults),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_help_and_schema_name_every_option),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
