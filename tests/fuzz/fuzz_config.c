/* The configuration file's parser on arbitrary bytes. What it accepts must lie within the table's bounds; what it
 * refuses must say so in one line and own nothing. */
#include "config/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qd_config config;
    struct qd_error error = {0};
    struct sockaddr_storage address;
    socklen_t length;
    if (qd_config_parse("fuzz.json", (const char *)data, size, &config, &error)) {
        if (!error.text[0] || strchr(error.text, '\n') || config.listen || config.models)
            abort();
        return 0;
    }
    if (!(config.averaging_constant > 0 && config.averaging_constant <= 1) || config.epochs_kept < 1 ||
        config.epochs_kept > 64 || config.max_body_bytes < 1024)
        abort();
    if (qd_config_address(config.listen, &address, &length, &error))
        abort();
    qd_config_clear(&config);
    return 0;
}
