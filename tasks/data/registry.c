/* registry.c - the data sets: where they come from, under which licence, and which of their files is which split.
 *
 * Sizes and digests are published ones; what nobody published is 0 or NULL and shown as unknown. */
#include <string.h>
#include "data.h"

const char *const data_kind_names[DATA_KINDS] = { "words", "bytes", "protein", "parallel", "music", "images", "labelled", "listops", "matched", "audio" };

#define WIKITEXT "https://s3.amazonaws.com/research.metamind.io/wikitext/"
#define STATMT "https://www.statmt.org/"
#define MILLION INT64_C(1000000)

static const data_download wikitext_103[] = {
    { WIKITEXT "wikitext-103-v1.zip", 0, "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590" }, { NULL } };
static const data_download wikitext_2[] = {
    { WIKITEXT "wikitext-2-v1.zip", 0, "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c" }, { NULL } };
static const data_file wikitext_103_files[] = {
    { "train", "wikitext-103/wiki.train.tokens|wikitext-103.train.tokens" },
    { "valid", "wikitext-103/wiki.valid.tokens|wikitext-103.valid.tokens" },
    { "test", "wikitext-103/wiki.test.tokens|wikitext-103.test.tokens" }, { NULL } };
static const data_file wikitext_2_files[] = {
    { "train", "wikitext-2/wiki.train.tokens|wikitext-2.train.tokens" },
    { "valid", "wikitext-2/wiki.valid.tokens|wikitext-2.valid.tokens" },
    { "test", "wikitext-2/wiki.test.tokens|wikitext-2.test.tokens" }, { NULL } };
static const data_file wikipedia_en_files[] = {
    { "train", "wikipedia-en.train.tokens" }, { "valid", "wikipedia-en.valid.tokens" }, { "test", "wikipedia-en.test.tokens" },
    { "wikitext-valid", "wikitext-103/wiki.valid.tokens|wikitext-103.valid.tokens", .flags = DATA_OPTIONAL },
    { "wikitext-test", "wikitext-103/wiki.test.tokens|wikitext-103.test.tokens", .flags = DATA_OPTIONAL }, { NULL } };

static const data_download enwik8[] = {
    { "http://mattmahoney.net/dc/enwik8.zip", 36445475, "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc" }, { NULL } };
static const data_download text8[] = {
    { "http://mattmahoney.net/dc/text8.zip", 31344016, "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232" }, { NULL } };
static const data_file enwik8_files[] = {
    { "train", "enwik8", .from = 0, .to = 90 * MILLION }, { "valid", "enwik8", .from = 90 * MILLION, .to = 95 * MILLION },
    { "test", "enwik8", .from = 95 * MILLION, .to = 100 * MILLION }, { NULL } };
static const data_file text8_files[] = {
    { "train", "text8", .from = 0, .to = 90 * MILLION }, { "valid", "text8", .from = 90 * MILLION, .to = 95 * MILLION },
    { "test", "text8", .from = 95 * MILLION, .to = 100 * MILLION }, { NULL } };
static const data_download tinyshakespeare[] = {
    { "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt", 1115394,
      "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", 1 }, { NULL } };
static const data_file tinyshakespeare_files[] = {
    { "train", "input.txt", .from = 0, .to = 1003854 }, { "valid", "input.txt", .from = 1003854, .to = 1115394 }, { NULL } };

static const data_file pg19_files[] = {
    { "train", "train/*.txt" }, { "valid", "validation/*.txt" }, { "test", "test/*.txt" }, { NULL } };
static const data_file books_files[] = {
    { "train", "books.train.txt" }, { "valid", "books.valid.txt" }, { "test", "books.test.txt" }, { NULL } };
static const data_file crime_files[] = {
    { "train", "crime-and-punishment.txt", .from = 0, .to = MILLION }, { "valid", "crime-and-punishment.txt", .from = MILLION, .to = 1060000 },
    { "test", "crime-and-punishment.txt", .from = 1060000, .to = 1120000 }, { NULL } };

static const data_download wmt14[] = {
    { STATMT "wmt13/training-parallel-europarl-v7.tgz", 657632379, "0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7" },
    { STATMT "wmt13/training-parallel-commoncrawl.tgz", 918311367, "c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5" },
    { STATMT "wmt14/training-parallel-nc-v9.tgz", 80418416, "cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485" },
    { STATMT "wmt14/dev.tgz", 0, NULL }, { STATMT "wmt14/test-full.tgz", 0, NULL }, { NULL } };
static const data_file wmt14_files[] = {
    { "train", "europarl-v7.de-en.en", "europarl-v7.de-en.de" }, { "train", "commoncrawl.de-en.en", "commoncrawl.de-en.de" },
    { "train", "news-commentary-v9.de-en.en", "news-commentary-v9.de-en.de" },
    { "valid", "newstest2013-src.en.sgm|newstest2013.en", "newstest2013-ref.de.sgm|newstest2013.de" },
    { "test", "newstest2014-deen-src.en.sgm|newstest2014.en", "newstest2014-deen-ref.de.sgm|newstest2014.de" }, { NULL } };
static const data_file wmt_en_de_files[] = {
    { "train", "train.tok.en-de.tsv" }, { "valid", "newstest2013.tok.en-de.tsv" }, { "test", "newstest2014-2737.tok.en-de.tsv" },
    { "newstest2012", "newstest2012.tok.en-de.tsv", .flags = DATA_OPTIONAL },
    { "multi30k-valid", "multi30k.val.tok.en-de.tsv", .flags = DATA_OPTIONAL },
    { "multi30k-test", "multi30k.test_2016_flickr.tok.en-de.tsv", .flags = DATA_OPTIONAL }, { NULL } };

#define UNIPROT "https://ftp.uniprot.org/pub/databases/uniprot/current_release/knowledgebase/complete/"
static const data_download swiss_prot[] = { { UNIPROT "uniprot_sprot.fasta.gz", 0, NULL, 1 }, { NULL } };
static const data_download trembl[] = { { UNIPROT "uniprot_trembl.fasta.gz", 0, NULL, 1 }, { NULL } };
static const data_file swiss_prot_files[] = {
    { "train", "uniprot_sprot.fasta", .from = 20, .to = 1000 }, { "valid", "uniprot_sprot.fasta", .from = 0, .to = 10 },
    { "test", "uniprot_sprot.fasta", .from = 10, .to = 20 }, { NULL } };
static const data_file trembl_files[] = {
    { "train", "uniprot_trembl.fasta", .from = 11, .to = 1000 }, { "valid", "uniprot_trembl.fasta", .from = 0, .to = 1 },
    { "test", "uniprot_trembl.fasta", .from = 1, .to = 11 }, { NULL } };
static const data_file proteins_files[] = {
    { "train", "train.fasta" }, { "valid", "valid.fasta" }, { "test", "test.fasta" }, { "ood", "ood.fasta", .flags = DATA_OPTIONAL }, { NULL } };

static const data_download cifar10[] = {
    { "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170052171,
      "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd" }, { NULL } };
static const data_file cifar10_files[] = {
    { "train", "data_batch_[1-5].bin" }, { "test", "test_batch.bin" }, { NULL } };
static const data_file cifar10_part_files[] = {
    { "train", "cifar10.train-first8000.hwc", "cifar10.train-first8000.labels" },
    { "test", "cifar10.test.hwc", "cifar10.test.labels" }, { NULL } };

#define JSB "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d/"
static const data_download jsb[] = {
    { JSB "jsb-chorales-16th.json", 0, "8730aca7b64e7d29493733d1cf19fad4a5b351d8f1845e57dac27728104fd39f", 1 }, { NULL } };
static const data_file jsb_files[] = {
    { "train", "jsb-chorales-16th.json" }, { "valid", "jsb-chorales-16th.json" }, { "test", "jsb-chorales-16th.json" }, { NULL } };

static const data_file imagenet64_files[] = {
    { "train", "imagenet64.train.hwc" }, { "valid", "imagenet64.valid.hwc" }, { NULL } };
static const data_file audio_files[] = {
    { "train", "train/*.wav|*-08[789]0.wav" }, { "valid", "valid/*.wav|*-0930.wav" }, { "test", "test/*.wav|*-0920.wav" }, { NULL } };

static const data_download imdb[] = {
    { "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", 84125825,
      "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe" }, { NULL } };
static const data_file imdb_files[] = {
    { "train", "train/neg/*.txt|imdb.train.tsv", .label = 1 }, { "train", "train/pos/*.txt", .label = 2, .flags = DATA_OPTIONAL },
    { "test", "test/neg/*.txt|imdb.test.tsv", .label = 1 }, { "test", "test/pos/*.txt", .label = 2, .flags = DATA_OPTIONAL }, { NULL } };
static const data_download lra_release[] = { { "https://storage.googleapis.com/long-range-arena/lra_release.gz", 0, NULL }, { NULL } };
static const data_file listops_files[] = {
    { "train", "listops-1000/basic_train.tsv" }, { "valid", "listops-1000/basic_val.tsv" }, { "test", "listops-1000/basic_test.tsv" }, { NULL } };
static const data_file aan_files[] = {
    { "train", "new_aan_pairs.train.tsv" }, { "valid", "new_aan_pairs.eval.tsv" }, { "test", "new_aan_pairs.test.tsv" }, { NULL } };
static const data_file listops_short_files[] = {
    { "test", "listops.test_d20s.tsv|test_d20s.tsv" }, { "test-d20", "listops.test_d20.tsv", .flags = DATA_OPTIONAL }, { NULL } };

static const data_file generated_text_files[] = {
    { "train", "generated.train.txt" }, { "valid", "generated.valid.txt" }, { "test", "generated.test.txt" }, { NULL } };
static const data_file generated_proteins_files[] = {
    { "train", "generated.train.fasta" }, { "valid", "generated.valid.fasta" }, { "test", "generated.test.fasta" }, { NULL } };

static const data_file generated_pairs_files[] = {
    { "train", "generated.train.tsv" }, { "valid", "generated.valid.tsv" }, { "test", "generated.test.tsv" }, { NULL } };

#define CC_BY_SA "CC BY-SA 3.0"
#define WIKITEXT_HOME "https://arxiv.org/abs/1609.07843"
const data_set data_sets[] = {
    { "wikitext-103", "103 M words of Wikipedia, the vocabulary of 267,735 words",
      CC_BY_SA, WIKITEXT_HOME, DATA_WORDS, 3, NULL, wikitext_103, wikitext_103_files },
    { "wikitext-2", "2 M words of Wikipedia",
      CC_BY_SA, WIKITEXT_HOME, DATA_WORDS, 3, NULL, wikitext_2, wikitext_2_files },
    { "wikipedia-en", "any text in WikiText's form to train on, evaluated on WikiText-103's valid and test too",
      CC_BY_SA, "a local copy", DATA_WORDS, 3, NULL, NULL, wikipedia_en_files },
    { "enwik8", "the first 10^8 bytes of a Wikipedia dump: 90, 5 and 5 million",
      "CC BY-SA", "http://mattmahoney.net/dc/textdata.html", DATA_BYTES, 0, NULL, enwik8, enwik8_files },
    { "text8", "the same in 27 letters",
      "CC BY-SA", "http://mattmahoney.net/dc/textdata.html", DATA_BYTES, 0, NULL, text8, text8_files },
    { "tinyshakespeare", "1.1 MB of plays, a toy",
      "public domain", "https://github.com/karpathy/char-rnn", DATA_BYTES, 0, NULL, tinyshakespeare, tinyshakespeare_files },
    { "pg19", "28,602 books before 1919, one a file",
      "Apache 2.0; books in the public domain", "https://github.com/google-deepmind/pg19", DATA_BYTES, 0, NULL, NULL, pg19_files },
    { "books", "books one behind the other, each begun by a form feed",
      "public domain", "a local copy", DATA_BYTES, 0, NULL, NULL, books_files, 1 },
    { "crime-and-punishment", "one long book: its first million bytes, and its end to judge by",
      "public domain", "https://www.gutenberg.org/ebooks/2554", DATA_BYTES, 0, NULL, NULL, crime_files },
    { "wmt14-en-de", "4.5 M sentence pairs; newstest2013 and newstest2014",
      "free for research", STATMT "wmt14/translation-task.html", DATA_PARALLEL, 0, "en,de", wmt14, wmt14_files },
    { "wmt-en-de", "any English-German pairs to train on, evaluated on WMT's newstests",
      "see the copy", "a local copy", DATA_PARALLEL, 0, "en,de", NULL, wmt_en_de_files },
    { "swiss-prot", "reviewed protein sequences, 1 % valid and 1 % test by name",
      "CC BY 4.0", "https://www.uniprot.org", DATA_PROTEIN, 0, NULL, swiss_prot, swiss_prot_files },
    { "trembl", "unreviewed protein sequences, 0.1 % valid and 1 % test by name",
      "CC BY 4.0", "https://www.uniprot.org", DATA_PROTEIN, 0, NULL, trembl, trembl_files },
    { "proteins", "any train, valid, test and ood .fasta",
      "see the copy", "a local copy", DATA_PROTEIN, 0, NULL, NULL, proteins_files },
    { "cifar10", "60,000 images of 32 x 32 x 3 bytes, 10 classes",
      "none stated; published for research", "https://www.cs.toronto.edu/~kriz/cifar.html", DATA_IMAGES, 0, NULL, cifar10, cifar10_files },
    { "cifar10-part", "the test images of CIFAR-10 and 8,000 of its training images",
      "none stated; published for research", "a local copy", DATA_IMAGES, 0, NULL, NULL, cifar10_part_files },
    { "jsb-chorales", "382 chorales of Bach in 16th notes",
      "public domain; none stated for the set", "https://github.com/czhuang/JSB-Chorales-dataset", DATA_MUSIC, 0, NULL, jsb, jsb_files },
    { "imagenet64", "images of 64 x 64 x 3 bytes in raster order, one behind the other",
      "none stated; published for research", "https://www.image-net.org", DATA_IMAGES, 0, NULL, NULL, imagenet64_files, .side = 64 },
    { "audio", "any recordings in WAV, 16 bits, below train, valid and test",
      "see the copy", "a local copy", DATA_AUDIO, 0, NULL, NULL, audio_files },
    { "imdb", "50,000 film reviews, good or bad, as bytes",
      "none stated; published for research", "https://ai.stanford.edu/~amaas/data/sentiment", DATA_LABELLED, 0, NULL, imdb, imdb_files },
    { "listops", "nested list operations of 500 to 2,000 tokens (Long Range Arena)",
      "Apache 2.0", "https://github.com/google-research/long-range-arena", DATA_LISTOPS, 0, NULL, lra_release, listops_files },
    { "listops-short", "the test sets of the original ListOps",
      "MIT", "https://github.com/nyu-mll/spinn", DATA_LISTOPS, 0, NULL, NULL, listops_short_files },
    { "aan", "pairs of papers, one of which cites the other or not (Long Range Arena)",
      "none stated for the pairs", "https://github.com/google-research/long-range-arena", DATA_MATCHED, 0, NULL, lra_release,
      aan_files },
    { "generated-text", "1 MB of words by Zipf's law, made from a seed",
      "none needed", "made here", DATA_WORDS, 3, NULL, NULL, generated_text_files, 0, data_generate_text },
    { "generated-proteins", "2,000 sequences of a Markov chain, made from a seed",
      "none needed", "made here", DATA_PROTEIN, 0, NULL, NULL, generated_proteins_files, 0, data_generate_proteins },
    { "generated-pairs", "8,000 pairs of two made-up languages, made from a seed",
      "none needed", "made here", DATA_PARALLEL, 0, "aa,bb", NULL, generated_pairs_files, 0, data_generate_pairs },
    { "generated-matches", "4,000 pairs of made-up texts, which share their subject or not, made from a seed",
      "none needed", "made here", DATA_MATCHED, 0, NULL, NULL, generated_pairs_files, 0, data_generate_matches },
    { NULL } };

const data_set *data_set_find(const char *name)
{
    for (const data_set *s = data_sets; s->name; s++)
        if (!strcmp(s->name, name)) return s;
    return NULL;
}
