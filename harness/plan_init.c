/* plan_init.c - train.init: the kept model that a cell begins with. */
#define _GNU_SOURCE
#include "plan_internal.h"
#include "store.h"
#include <glob.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The one file models/SAID*.safetensors beside the store, models/SAID.safetensors before all others; NULL: none, or several. */
static char *beside_store(const char *db, const char *said)
{
    char *copy = strdup(db), *path = NULL, *pattern = NULL;
    glob_t found = { 0 };
    if (copy && asprintf(&pattern, "%s/models/%s.safetensors", dirname(copy), said) < 0) pattern = NULL;
    if (pattern && access(pattern, R_OK) == 0) path = strdup(pattern);
    free(copy);
    copy = strdup(db);
    free(pattern);
    if (!copy || asprintf(&pattern, "%s/models/%s*.safetensors", dirname(copy), said) < 0) pattern = NULL;
    if (!path && pattern && glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc == 1) path = strdup(found.gl_pathv[0]);
    globfree(&found);
    free(pattern);
    free(copy);
    return path;
}

char *plan_init_path(const plan_file *f, const char *said, char digest[65])
{
    const char *db = f->args->db ? f->args->db : hs_store_default_path();
    char *path = strchr(said, '/') ? strdup(said) : strpbrk(said, "*?[\\") ? NULL : beside_store(db, said);
    if (path && hs_file_digest(path, digest)) {
        free(path);
        path = NULL;
    }
    return path;
}
