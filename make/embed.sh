#!/bin/sh
# Writes a file as a C array: sh make/embed.sh NAME FILE > FILE.c  ->  NAME[], NAME_size.
# For the models built into the daemon; needs od and awk only, so that a build needs no interpreter.
set -eu
name=$1
file=$2
size=$(wc -c < "$file" | tr -d ' ')
printf '/* Made from %s by make/embed.sh. */\n#include <stddef.h>\n\n' "$file"
printf 'extern const unsigned char %s[];\nextern const size_t %s_size;\n' "$name" "$name"
printf '_Alignas(64) const unsigned char %s[] = {\n' "$name"
od -An -v -tu1 "$file" | awk '{gsub(/^ +| +$/, ""); gsub(/ +/, ","); print $0 ","}'
printf '};\nconst size_t %s_size = %s;\n' "$name" "$size"
