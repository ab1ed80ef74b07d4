#!/bin/sh
# The engine as a library: `make install` into an empty folder, a small C program of somebody else's compiled and linked by
# pkg-config alone, and that program loads a model. Proves that the public header and archive need nothing of the server.
# builds: plain
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
make --no-print-directory -s install DESTDIR="$place" PREFIX=/usr
sed -i "s|^prefix=|prefix=$place|" "$place"/usr/lib/pkgconfig/*.pc

cat >"$place/user.c" <<'USER'
#include "engine/engine.h"
#include <stdio.h>
int main(int argc, char **argv)
{
    struct qd_engine_options options = {.threads = 1};
    struct qd_quant_options quant = qd_quant_defaults();
    struct qd_engine *engine = NULL;
    struct qd_model *model = NULL;
    struct qd_error error;
    if (argc != 2 || qd_engine_create(&options, &engine, &error) != QD_OK ||
        qd_model_load_file(engine, "mine", argv[1], &quant, &model, &error) != QD_OK) {
        printf("failed: %s\n", error.text);
        return 1;
    }
    printf("%s: input %s, output %s\n", qd_model_name(model), qd_model_input(model, 0)->name, qd_model_output(model, 0)->name);
    qd_model_unref(&model);
    qd_engine_destroy(&engine);
    return model || engine;
}
USER
# shellcheck disable=SC2046 # a list of flags
(cd "$place" && PKG_CONFIG_PATH="$place/usr/lib/pkgconfig" && export PKG_CONFIG_PATH &&
    gcc -std=c11 -Wall -Wextra -Werror user.c -o user $(pkg-config --cflags --libs quantd-engine))
said=$("$place/user" server/builtin/digits.onnx)
echo "$said"
case $said in
"mine: input image, output "*) ;;
*) echo "FAIL: a model loaded by the installed library says otherwise"; exit 1 ;;
esac
if "$place/user" Makefile; then
    echo "FAIL: a Makefile is no model"
    exit 1
fi
"$place/usr/bin/quantd" version
[ ! -e "$place/usr/bin/quantctl" ] || [ -f "$place/usr/include/quantd/clients/c/$(cd clients/c && ls ./*.h | head -1)" ]
if grep -rn '@PREFIX@\|@VERSION@' "$place/usr/lib/pkgconfig" "$place/usr/lib/systemd"; then
    echo "FAIL: a template was not filled in"
    exit 1
fi
echo "ok: the installed library loads a model, the installed daemon starts"
