/* Casts of which one side is strings: what cast.c hands to strings.c. Private to engine/ops. */
#ifndef QD_ENGINE_OPS_STRINGS_H
#define QD_ENGINE_OPS_STRINGS_H

#include "engine/ops/helpers.h"

/* Types that strings can be cast to and from. */
bool qd_string_cast_known(enum qd_dtype dtype);
/* Input 0 to output 0, one of which is STR and the other is not. Errors: INVALID for a word that is no number,
 * TOO_LARGE when the request may have no more memory. */
enum qd_status qd_string_cast(const struct qd_call *call, struct qd_error *error) QD_MUST_CHECK;

#endif
