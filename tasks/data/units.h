/* units.h - a prepared set of sentence pairs, in bytes, made into one of subword units. */
#ifndef DATA_UNITS_H
#define DATA_UNITS_H
#include "data.h"

/* Learns `vocabulary` units (byte pairs by sentencepiece) from train of both languages of the set at `path` and writes the set
 * NAME-VOCABULARY beside it: the same splits in units, and all but train once more as they are, as SPLIT.text, to be judged by.
 * Its vocabulary: 256 bytes, <eos>, and the units that train has; what they do not cover is spelled in bytes, so that nothing is
 * unknown.  0, or -1 with a sentence. */
int data_units(const data_set *, const char *path, int vocabulary, data_prepared *, char *why, size_t nwhy);
#endif
