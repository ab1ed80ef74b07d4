/* Runs a fuzz target on files instead of on made-up input: the main of tests/fuzz/fuzz_*.c when no fuzzer is linked, so
 * that the collected inputs run in every build and under every compiler.
 * Usage: fuzz_x [--mutants N] [--flips FILE]... FILE-or-FOLDER...
 * --mutants N: each model file that follows also with N structural changes, the same in every run
 * --flips FILE: the file with each of its bits turned, each byte 0 and 255, and cut off at each place */
#include "tests/fuzz/mutate.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUTANT_ROOM (64u << 10) /* bytes that a mutant may have more than its model */

static unsigned long inputs;
static unsigned mutants;
static bool flip;

/* A copy that is exactly sized, so that a sanitizer sees a read past the end. */
static void run_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    inputs++;
    free(copy);
}

static void run_mutants(const uint8_t *data, size_t size)
{
    uint8_t *changed = malloc(size + MUTANT_ROOM);
    if (!changed)
        abort();
    for (unsigned seed = 1; seed <= mutants; seed++) {
        if (size)
            memcpy(changed, data, size);
        run_copy(changed, qd_mutate_model(changed, size, size + MUTANT_ROOM, seed));
    }
    free(changed);
}

static void run_flips(uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const uint8_t was = data[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            data[i] = (uint8_t)(was ^ 1u << bit);
            run_copy(data, size);
        }
        data[i] = 0;
        run_copy(data, size);
        data[i] = 255;
        run_copy(data, size);
        data[i] = was;
        run_copy(data, i);
    }
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat about;
    if (!file || fstat(fileno(file), &about) != 0) {
        perror(path);
        return 1;
    }
    size_t size = (size_t)about.st_size;
    uint8_t *data = malloc(size ? size : 1);
    int failed = !data || fread(data, 1, size, file) != size;
    if (!failed) {
        printf("%s\n", path); /* before the run: a crash is then easy to place */
        fflush(stdout);
        run_copy(data, size);
        run_mutants(data, size);
        if (flip)
            run_flips(data, size);
    }
    free(data);
    fclose(file);
    return failed;
}

static int replay(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return replay_file(path);
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        failed |= replay_file(name);
    }
    closedir(folder);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        flip = more && strcmp(argv[i], "--flips") == 0;
        if (more && strcmp(argv[i], "--mutants") == 0)
            mutants = (unsigned)strtoul(argv[++i], NULL, 10);
        else
            failed |= replay(argv[i += flip]);
    }
    printf("%lu inputs replayed\n", inputs);
    return failed;
}
