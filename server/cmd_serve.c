/* `quantd serve`: options in, then the daemon (server/serve.h); also --help, --print-schema and --check-config. */
#include "config/config.h"
#include "server/cmd.h"
#include "server/quant_options.h"
#include "server/serve.h"

#include <stdio.h>

extern char **environ;

static int act(const struct qd_config *config, enum qd_config_action action)
{
    struct qd_error error;
    switch (action) {
    case QD_CONFIG_HELP:
        qd_config_print_help(stdout);
        return QD_EXIT_OK;
    case QD_CONFIG_SCHEMA:
        if (qd_config_print_schema(stdout, &error))
            return qd_cmd_say("serve", QD_EXIT_FAILED, "%s", error.text);
        return QD_EXIT_OK;
    case QD_CONFIG_CHECK:
        if (qd_config_check_files(config, &error) || qd_config_check_rules(config, &error))
            return qd_cmd_say("serve", QD_EXIT_FAILED, "%s", error.text);
        puts("the configuration is good");
        return QD_EXIT_OK;
    case QD_CONFIG_SERVE:
        break;
    }
    qd_log_setup(qd_config_log_level(config), config->log_json);
    return qd_serve(config);
}

int qd_cmd_serve(int argc, char **argv)
{
    struct qd_config config;
    struct qd_error error;
    enum qd_config_action action;
    if (qd_config_load(argc, argv, environ, &config, &action, &error))
        return qd_cmd_say("serve", QD_EXIT_FAILED, "%s", error.text);
    int code = act(&config, action);
    qd_config_clear(&config);
    return code;
}
