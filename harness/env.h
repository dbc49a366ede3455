/* env.h - this machine and this build, for people and for the record. */
#ifndef HS_ENV_H
#define HS_ENV_H
#include <jansson.h>
/* Everything that a number may depend on: CPU, memory, BLAS, compiler, flags, commit, system, GPU; the caller's. */
json_t *hs_env_json(void);
const char *hs_version(void);           /* "harness 1a636a6 (ABI 1)" */
#endif
