/* `quantd version`: what a bug report needs. QD_REVISION and QD_BUILD_FLAGS come from the Makefile. */
#include "base/version.h"
#include "engine/engine.h"
#include "server/cmd.h"

#include <jansson.h>
#include <microhttpd.h>
#include <stdio.h>
#include <uv.h>

#ifndef QD_BUILD_FLAGS
#define QD_BUILD_FLAGS "not recorded"
#endif

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

int qd_cmd_version(int argc, char **argv)
{
    struct qd_engine_options options = {.threads = 1};
    struct qd_engine *engine = NULL;
    struct qd_error error;
    if (argc > 0)
        return qd_cmd_say("version", QD_EXIT_USAGE, "unexpected argument \"%s\"", argv[0]);
    printf("quantd %s\n", QD_VERSION);
    printf("revision       %s\n", QD_REVISION);
    printf("compiler       %s\n", COMPILER);
    printf("flags          %s\n", QD_BUILD_FLAGS);
    printf("libmicrohttpd  %s\n", MHD_get_version());
    printf("libuv          %s\n", uv_version_string());
    printf("jansson        %s\n", jansson_version_str());
    if (qd_engine_create(&options, &engine, &error))
        return qd_cmd_say("version", QD_EXIT_FAILED, "%s", error.text);
    printf("isa            %s\n", qd_engine_isa(engine));
    qd_engine_destroy(&engine);
    return QD_EXIT_OK;
}
