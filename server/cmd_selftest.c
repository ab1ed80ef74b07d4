/* `quantd selftest`: the engine's own comparison of its kernels with plain arithmetic, on this CPU. */
#include "engine/engine.h"
#include "server/cmd.h"

#include <stdio.h>

int qd_cmd_selftest(int argc, char **argv)
{
    double seed = 1;
    const struct qd_flag flags[] = {{.name = "seed", .number = &seed}};
    struct qd_engine_options options = {.threads = 0};
    struct qd_engine *engine = NULL;
    struct qd_error error;
    int left = qd_cmd_flags("selftest", flags, 1, argc, argv);
    if (left < 0)
        return QD_EXIT_USAGE;
    if (left > 0)
        return qd_cmd_say("selftest", QD_EXIT_USAGE, "unexpected argument \"%s\"", argv[0]);
    if (seed > 9007199254740992.0)
        return qd_cmd_say("selftest", QD_EXIT_USAGE, "--seed must be at most 2^53");
    if (qd_engine_create(&options, &engine, &error))
        return qd_cmd_say("selftest", QD_EXIT_FAILED, "%s", error.text);
    bool good = qd_engine_selftest(engine, (uint64_t)seed, &error);
    if (good)
        printf("kernels of %s agree with plain arithmetic (%u threads, seed %.0f)\n", qd_engine_isa(engine),
               qd_engine_threads(engine), seed);
    else
        qd_cmd_say("selftest", QD_EXIT_FAILED, "%s: %s (seed %.0f)", qd_engine_isa(engine), error.text, seed);
    qd_engine_destroy(&engine);
    return good ? QD_EXIT_OK : QD_EXIT_FAILED;
}
