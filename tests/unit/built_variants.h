/* built_variants.h - for tests that try something with every variant: their files, opened before and closed after. */
#ifndef TEST_BUILT_VARIANTS_H
#define TEST_BUILT_VARIANTS_H
#include "device.h"
#include "harness/plugin.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 64 };
static hs_plugin file[MAX_FILES];
static int nfiles;

/* Opens every variant that is built. */
static int open_files(void **state)
{
    char folder[256], path[600];
    snprintf(folder, sizeof folder, "%s/variants", getenv("B") ? getenv("B") : "build");
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) && nfiles < MAX_FILES;) {
        if (!strstr(e->d_name, ".so"))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (hs_plugin_open(path, &file[nfiles], why, sizeof why)) {
            print_error("%s\n", why);
            closedir(d);
            return -1;
        }
        nfiles++;
    }
    if (d)
        closedir(d);
    return nfiles && open_device(state) == 0 ? 0 : -1;
}

static int close_files(void **state)
{
    int rc = close_device(state);
    while (nfiles > 0)
        hs_plugin_close(&file[--nfiles]);
    return rc;
}
#endif
