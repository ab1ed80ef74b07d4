/* The table of commands. What each does stands in its own file, server/cmd_*.c. */
#include "config/nearest.h"
#include "server/cmd.h"

#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "[options]", "the daemon; without a model it serves the one built in (quantd serve --help)",
     qd_cmd_serve},
    {"check", "FILE [--precision P] [--shapes INPUT=N,N,...;...] [--json]",
     "operators, types, memory, multiply-adds and the plan of a model; exit 1 with the reason if it can't run",
     qd_cmd_check},
    {"test", "[--precision P] [--rtol R] [--atol A] [--cosine C] DIR...",
     "run folders of the ONNX backend-test layout; exit 1 on a failure", qd_cmd_test},
    {"quantize", "FILE --calibrate DIR [--method M] [--percentile N] [--scheme S] [--out FILE]",
     "ranges from DIR's data sets, run in full precision; M: minmax, ema, percentile, entropy, mse", qd_cmd_quantize},
    {"export", "FILE --calibrate DIR|--state-dir DIR [--name MODEL] [--format F] --out FILE",
     "what was learned as a QDQ model or a table; F: qdq, quantd, ort-calibration, torch, tf", qd_cmd_export},
    {"bench", "[--precision P,P] [--threads N] [--seconds S] [--json] DIR-or-FILE...",
     "median and p99 per precision, on real inputs where the folder has them", qd_cmd_bench},
    {"selftest", "[--seed N]", "compare every kernel in use with plain arithmetic on this CPU", qd_cmd_selftest},
    {"healthcheck", "URL", "exit 0 when URL answers 200 within 3 seconds, for containers", qd_cmd_healthcheck},
    {"version", "", "version, revision, compiler, instruction set, libraries", qd_cmd_version},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_usage(FILE *out)
{
    fputs("quantd serves ONNX models in INT8 with quantization ranges learned while serving.\n\nusage:\n", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  quantd %s%s%s\n      %s\n", commands[i].name, *commands[i].arguments ? " " : "",
                commands[i].arguments, commands[i].help);
    fputs("\nP: auto, int8 or fp32. QUANTD_ISA=scalar|avx2|... narrows what the CPU offers.\n"
          "Exit codes: 0 done, 1 failed, 2 called wrongly.\n",
          out);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    struct qd_nearest nearest = qd_nearest_to(name);
    for (size_t i = 0; i < COMMANDS; i++)
        qd_nearest_offer(&nearest, commands[i].name);
    fprintf(stderr, "quantd: there is no command \"%s\"%s%s%s; see quantd --help\n", name,
            nearest.best ? "; did you mean \"" : "", nearest.best ? nearest.best : "", nearest.best ? "\"?" : "");
    return QD_EXIT_USAGE;
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return QD_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return QD_EXIT_OK;
    }
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    const struct command *command = find(name);
    if (!command)
        return unknown(name);
    if (command->run != qd_cmd_serve && asks_help(argc - 2, argv + 2)) {
        printf("usage: quantd %s %s\n  %s\n", command->name, command->arguments, command->help);
        return QD_EXIT_OK;
    }
    int code = command->run(argc - 2, argv + 2);
    /* A full disk or a closed pipe must not look like success. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("quantd: standard output could not be written\n", stderr);
        code = code ? code : QD_EXIT_FAILED;
    }
    return code;
}
