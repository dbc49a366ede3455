/* kept.h - a trained model that `train.keep` left beside the store (models/KEY.safetensors), found and opened again.
 *
 * The store knows what the model is (the cell's document), the plug-ins of that name build it, the file has its weights. */
#ifndef HS_KEPT_H
#define HS_KEPT_H
#include "bind.h"
#include "nn/nn.h"
#include "plugin.h"

enum { HS_KEPT_WORDS = 16 };
typedef struct hs_kept_args {
    const char *model;                  /* an experiment (file or name), the beginning of a key, or a path to KEY.safetensors */
    const char *only[HS_KEPT_WORDS];    /* "objective=next": of several models of an experiment, one */
    size_t nonly;
    const char *db;                     /* NULL: the default store, or that beside the file */
    const char *device;                 /* NULL: cpu */
    int threads;                        /* 0: as many as there are cores */
} hs_kept_args;
/* Takes one option that both commands have; 0 when it is none, -1 when there are too many of it. */
enum { HS_KEPT_ONLY = 1000, HS_KEPT_DB, HS_KEPT_DEVICE, HS_KEPT_THREADS };
#define HS_KEPT_OPTIONS { "only", 1, NULL, HS_KEPT_ONLY }, { "db", 1, NULL, HS_KEPT_DB }, { "device", 1, NULL, HS_KEPT_DEVICE }, \
                        { "threads", 1, NULL, HS_KEPT_THREADS }
int hs_kept_option(hs_kept_args *, int opt, const char *value);

/* What was found: where the weights are and what they are of. */
typedef struct hs_found {
    char key[65], weights[4096];
    json_t *doc;                        /* of the cell, as in hs_cell */
    char label[512];                    /* for people: its label and axes */
} hs_found;
/* 0, or an exit code with a sentence; to be released either way. */
int  hs_kept_find(const hs_kept_args *, hs_found *, char *why, size_t nwhy);
void hs_found_release(hs_found *);

typedef struct hs_kept {
    hs_found found;
    hs_plugin task_plugin, variant_plugin;
    hs_bound bound;
    task_host host;
    task_call call;
    k_dev *dev;
    task_model model;                   /* with its weights */
    char note[256];                     /* what is not as it was in training; "": nothing */
    char reason[512];                   /* of the task's */
} hs_kept;
/* The same. */
int  hs_kept_open(hs_kept *, const hs_kept_args *, char *why, size_t nwhy);
void hs_kept_close(hs_kept *);
/* A graph of the model, not compiled, over tokens [B,T]; decode: one token at a time and T in all.  NULL: out of memory; what
 * is wrong with it nn_graph_compile says. */
nn_graph *hs_kept_graph(hs_kept *, int64_t B, int64_t T, int decode, nn_id *tokens, nn_id *scores);
#endif
