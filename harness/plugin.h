/* plugin.h - loading plug-ins, in a worker or a child only, and describing them as JSON for everyone else. */
#ifndef HS_PLUGIN_H
#define HS_PLUGIN_H
#include <jansson.h>
#include "attn.h"
#include "task.h"

typedef struct hs_plugin {
    char *path;                         /* as opened */
    void *handle;
    const attn_variant *const *variants;    /* NULL-terminated, or NULL when it holds tasks only */
    const task *const *tasks;
} hs_plugin;

/* dlopen, find the symbols, check every table.  Each refusal is one sentence with the path: no such file, no
 * symbol (naming another major when that is there), bad table (which, and what is wrong). */
int  hs_plugin_open(const char *path, hs_plugin *, char *why, size_t nwhy);
void hs_plugin_close(hs_plugin *);
/* A table that plan(), the host or a reader would trip over: why says which field. */
int  hs_variant_valid(const attn_variant *, char *why, size_t nwhy);
int  hs_task_valid(const task *, char *why, size_t nwhy);
const attn_variant *hs_plugin_variant(const hs_plugin *, const char *name);
const task *hs_plugin_task(const hs_plugin *, const char *name);

/* Where plug-ins are sought: $HARNESS_PLUGIN_PATH (colon-separated), then variants/ and tasks/ beside the
 * program (build/variants, build/tasks), then $libdir/harness/plugins. */
typedef struct hs_catalog hs_catalog;   /* every plug-in found, described */
/* Describes each .so found, and each of extra[], in a child of its own with a time limit (`harness describe`),
 * so that a plug-in can crash, hang or exit without harm.  Names taken twice are refused, naming both paths. */
hs_catalog *hs_catalog_new(const char *const *extra, size_t nextra);
hs_catalog *hs_catalog_of(const char *path);    /* this file alone */
void hs_catalog_add(hs_catalog *, const char *const *paths, size_t n);      /* files that are not in it yet */
hs_catalog *hs_catalog_keep(hs_catalog *);      /* another owner: each calls hs_catalog_free */
/* The same from descriptions made elsewhere: an array of them. */
hs_catalog *hs_catalog_from_json(const json_t *descriptions);
void hs_catalog_free(hs_catalog *);
/* The JSON of one: {"kind":"variant","name","title","paper","cost","path","digest","options":[..],"gates","params",
 * "states","impls":[{name,device,dtypes,modes,rank}],"flags"} or {"kind":"task",...,"metrics":[..],"train_defaults","model_defaults"}. */
const json_t *hs_catalog_variant(const hs_catalog *, const char *name);
const json_t *hs_catalog_task(const hs_catalog *, const char *name);
const json_t *hs_catalog_path(const hs_catalog *, const char *path, const char *name_or_null, char *why, size_t nwhy);
const json_t *hs_catalog_all(const hs_catalog *);      /* array of all that loaded */
const json_t *hs_catalog_refused(const hs_catalog *);  /* array of {"path","reason","taken"}; taken: sound,
                                                          but its name belongs to another file */
json_t *hs_plugin_describe(const hs_plugin *);  /* in the child: {"variants":[..],"tasks":[..]} */
/* SHA-256 of a file's bytes as 64 hex digits. */
int hs_file_digest(const char *path, char out[65]);
#endif
