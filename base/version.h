/* The version of quantd, in one place for the C code. The Makefile passes its own (the same) number and the revision.
 */
#ifndef QD_BASE_VERSION_H
#define QD_BASE_VERSION_H

#ifndef QD_VERSION
#define QD_VERSION "0.1.0"
#endif
#ifndef QD_REVISION
#define QD_REVISION "unknown" /* built without git */
#endif

#endif
