/* sentencepiece.cc - the sentencepiece library behind subwords.h, in an object of its own: it is C++, and a build on a
 * machine without it is whole. */
#include "subwords.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <sstream>

namespace {

using sentencepiece::SentencePieceProcessor;

/* The sentence of a status that is not ok. */
void tell(const sentencepiece::util::Status &status, const char *path, char *why, size_t nwhy)
{
    snprintf(why, nwhy, "%s: sentencepiece: %s", path, status.error_message());
}

void *open_model(const char *path, char *why, size_t nwhy)
{
    auto *model = new (std::nothrow) SentencePieceProcessor;
    if (!model) return snprintf(why, nwhy, "%s: out of memory", path), nullptr;
    auto status = model->Load(path);
    if (status.ok()) return model;
    tell(status, path, why, nwhy);
    delete model;
    return nullptr;
}

void close_model(void *model) { delete static_cast<SentencePieceProcessor *>(model); }

char *split(const void *model, const char *line)
{
    std::vector<std::string> piece;
    std::string out;
    if (!static_cast<const SentencePieceProcessor *>(model)->Encode(line, &piece).ok()) return nullptr;
    for (const auto &p : piece) {
        if (!out.empty()) out += ' ';
        out += p;
    }
    return strdup(out.c_str());
}

char *join(const void *model, const char *units)
{
    std::vector<std::string> piece;
    std::istringstream in(units);
    for (std::string p; std::getline(in, p, ' ');)
        if (!p.empty()) piece.push_back(p);
    std::string out;
    return static_cast<const SentencePieceProcessor *>(model)->Decode(piece, &out).ok() ? strdup(out.c_str()) : nullptr;
}

/* path without ".model", which the trainer appends. */
std::string prefix_of(const char *path)
{
    std::string prefix = path;
    size_t at = prefix.rfind(".model");
    return at != std::string::npos && at + 6 == prefix.size() ? prefix.substr(0, at) : prefix;
}

int train(const subwords_training *t, const char *path, char *why, size_t nwhy)
{
    std::unordered_map<std::string, std::string> option = {
        { "model_prefix", prefix_of(path) }, { "vocab_size", std::to_string(t->vocabulary) }, { "model_type", t->kind },
        { "character_coverage", std::to_string(t->coverage) }, { "input_sentence_size", std::to_string(t->sentences) },
        { "num_threads", "1" }, { "shuffle_input_sentence", "false" }, { "minloglevel", "2" } };
    std::string files;
    for (int i = 0; i < t->nfiles; i++) {
        if (strchr(t->file[i], ',')) return snprintf(why, nwhy, "%s: sentencepiece reads no path with a comma", t->file[i]), -1;
        files += (i ? "," : "") + std::string(t->file[i]);
    }
    option["input"] = files;
    auto status = sentencepiece::SentencePieceTrainer::Train(option);
    if (status.ok()) return 0;
    tell(status, path, why, nwhy);
    return -1;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const subwords_library subwords_sentencepiece_v1;
const subwords_library subwords_sentencepiece_v1 = { sizeof(subwords_library), open_model, close_model, split, join, train };
