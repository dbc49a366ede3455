/* similarity.h - how alike amino acids are to a model, by what its attention gives to them (Vig et al. 2021, arXiv:2006.15222;
 * Choromanski et al. 2021, arXiv:2009.14794, C.4).
 *
 * An amino acid is the vector, over all heads of all layers, of its share of the head's attention over many sequences; two are as
 * alike as Pearson's correlation of their vectors says.  Attention is what heads give out for values that are one-hot in the amino
 * acid, so that a variant needs no explicit matrix. */
#ifndef HS_SIMILARITY_H
#define HS_SIMILARITY_H
#include "blosum62.h"
#include "nn/nn.h"

typedef struct hs_similarity {
    int64_t features;                   /* heads of all calls */
    double (*mass)[HS_AMINO + 1];       /* [features] what a head gave to each amino acid, and last to all else */
    int64_t residues;                   /* amino acids looked at: the caller counts */
} hs_similarity;
int  hs_similarity_init(hs_similarity *, int64_t features);    /* of zeros; 0, or -1: out of memory */
void hs_similarity_release(hs_similarity *);
/* Adds what the heads of a call give to its keys, whose kinds are 0..19 or 20, as heads `feature` and following.  0, or -1 with a
 * sentence. */
int  hs_similarity_add(hs_similarity *, k_dev *, nn_seen, const signed char *kind, int64_t feature, char *why, size_t nwhy);

enum { HS_LEAST_MASS = 100 };           /* heads that gave less in all are left out */
typedef struct hs_likeness {
    double of[HS_AMINO][HS_AMINO];      /* 1 on the diagonal */
    int64_t heads;                      /* that were not left out; with fewer than two there is none */
    double pearson, spearman;           /* with BLOSUM62, over the 190 pairs */
} hs_likeness;
void hs_similarity_likeness(const hs_similarity *, hs_likeness *);
/* BLOSUM62 with ones on its diagonal: b(x,y) / sqrt(b(x,x) b(y,y)). */
double hs_blosum62_normalised(int x, int y);
#endif
