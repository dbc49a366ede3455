/* options.h - option tables (attn_opt) as data: text and JSON in, structs and canonical JSON out.
 *
 * One code path serves a table compiled into a plug-in and a table that a child described as JSON, so that
 * the runner checks options without loading a plug-in.  Nested YAML maps arrive flattened: "stop.loss". */
#ifndef HS_OPTIONS_H
#define HS_OPTIONS_H
#include <jansson.h>
#include "attn.h"

size_t hs_opts_count(const attn_opt *table);
const attn_opt *hs_opts_find(const attn_opt *table, const char *name);
/* The nearest name within an edit distance that a typo explains, or NULL. */
const char *hs_nearest(const char *name, const char *const *names, size_t n);
void hs_opts_defaults(const attn_opt *table, void *opts);
/* Sets one option from text ("elu1", "3", "true", "[8,16]") or JSON.  0, or -1 with a sentence in why that
 * says what was expected and names the nearest choice. */
int  hs_opt_set_text(const attn_opt *, void *opts, const char *text, char *why, size_t nwhy);
int  hs_opt_set_json(const attn_opt *, void *opts, const json_t *value, char *why, size_t nwhy);
int  hs_opts_set_json(const attn_opt *table, void *opts, const json_t *object, char *why, size_t nwhy); /* unknown names refused */
/* Every option with its value, types kept (int, real, true/false, choice as string, list); keys sorted on dumping. */
json_t *hs_opts_to_json(const attn_opt *table, const void *opts);
/* A value checked and brought to canonical type without a struct; NULL with a sentence in why. */
json_t *hs_opt_canonical(const attn_opt *, const json_t *value, char *why, size_t nwhy);
/* Tables across a process border: describe, and rebuild (offsets made anew, *size the struct's size). */
json_t *hs_opts_describe(const attn_opt *table);
attn_opt *hs_opts_rebuild(const json_t *described, size_t *size);
void hs_opts_rebuilt_free(attn_opt *);
/* Plain text as YAML and the command line write it: 3, 1e-3, true, else a string ("010", "0x1", "yes", "nan" stay text;
 * "inf" and ".inf" become "inf", the form that an infinite value has in JSON). */
json_t *hs_scalar_json(const char *text);
/* [a-z0-9_]+, with dots between words when dots is nonzero. */
int  hs_name_valid(const char *name, int dots);
/* A range for people: "> 0", "0..1", "none|rms". */
void hs_opt_range(const attn_opt *, char *out, size_t n);
#endif
