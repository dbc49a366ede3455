/* model_dump.c - Transformers in double for model_numpy.py to compute anew: model_dump SOFTMAX.so FOLDER
 *
 * Each model goes to FOLDER/N.safetensors, a checkpoint; a line of JSON on stdout tells its options, its tokens and targets,
 * and the loss that the tape computes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "harness/plugin.h"
#include "kernels/philox.h"

enum { B = 3, T = 9, V = 17 };

static const char *const MODELS[] = {
    "{\"layers\": 2, \"d_model\": 12, \"heads\": 3, \"init\": 0.5}",
    "{\"layers\": 3, \"d_model\": 16, \"heads\": 4, \"kv_heads\": 2, \"norm\": \"rms\", \"activation\": \"swiglu\", \"bias\": false,"
    " \"attention_bias\": false, \"positions\": \"none\", \"init\": 0.4}",
    "{\"layers\": 2, \"d_model\": 16, \"heads\": 2, \"d_ff\": 40, \"norm_position\": \"post\", \"activation\": \"relu\", \"attention_bias\": false,"
    " \"positions\": \"sinusoidal_reversed\", \"scale_embedding\": true, \"init\": 0.3}",
    "{\"layers\": 2, \"d_model\": 16, \"heads\": 2, \"d_head\": 5, \"activation\": \"silu\", \"positions\": \"learned\", \"tie_embeddings\": false,"
    " \"init\": 0.5, \"scale_residual_init\": true, \"norm_eps\": 1e-3}",
    "{\"layers\": 1, \"d_model\": 8, \"heads\": 1, \"kv_heads\": 1, \"activation\": \"geglu\", \"norm_position\": \"post\", \"norm\": \"rms\", \"init\": 0.7}",
    "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"activation\": \"reglu\", \"d_ff\": 6, \"init\": 0.7}",
    "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"feed_forward\": false, \"init\": 0.7}",
    "{\"layers\": 3, \"d_model\": 12, \"heads\": 2, \"reversible\": true, \"positions\": \"axial\", \"init\": 0.5}",
    "{\"layers\": 2, \"d_model\": 12, \"heads\": 2, \"positions\": \"axial\", \"axial_columns\": 5, \"axial_width\": 3, \"init\": 0.6}",
    "{\"layers\": 2, \"d_model\": 12, \"heads\": 2, \"residual\": false, \"positions_each_layer\": true, \"init\": 0.5}",
    "{\"layers\": 2, \"d_model\": 12, \"heads\": 2, \"norm_position\": \"post\", \"residual\": false, \"init\": 0.5}",
    "{\"layers\": 2, \"d_model\": 16, \"heads\": 4, \"kv_heads\": 2, \"short_conv\": 4, \"init\": 0.5}",
    "{\"layers\": 2, \"d_model\": 12, \"heads\": 2, \"short_conv\": 2, \"short_conv_activation\": \"none\", \"feed_forward_chunks\": 4,"
    " \"activation\": \"swiglu\", \"init\": 0.5}",
    "{\"layers\": 3, \"d_model\": 12, \"heads\": 2, \"reversible\": true, \"feed_forward\": false, \"init\": 0.5}" };

static void must(int rc, const char *why)
{
    if (rc == 0)
        return;
    fprintf(stderr, "model_dump: %s\n", why);
    exit(1);
}

/* Fills x [n] on the CPU with random words, some of them -1 when asked for; the same as JSON. */
static json_t *draw(int32_t *x, int n, uint32_t stream, int holes)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        x[i] = holes && i % 7 == 3 ? -1 : (int32_t)philox_below(philox_u32(1, stream, 0, (uint64_t)i), V);
        json_array_append_new(list, json_integer(x[i]));
    }
    return list;
}

/* One model: its checkpoint, and its line. */
static void dump(k_dev *dev, const nn_mixer_spec *mixer, const char *text, const char *folder, int number)
{
    char why[400], path[600];
    nn_model_opts o;
    nn_transformer t;
    json_t *options = json_loads(text, 0, NULL);
    hs_opts_defaults(nn_model_table, &o);
    must(!options || hs_opts_set_json(nn_model_table, &o, options, why, sizeof why), text);
    nn_params *params = nn_params_new(dev, K_F64, (uint64_t)number);
    nn_graph *g = nn_graph_new(params, 0);
    must(nn_transformer_init(&t, params, &o, mixer, 1, V, T + 2, why, sizeof why), why);
    nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { B, T } }), target = nn_input(g, K_I32, (attn_dims){ 1, { B * T } });
    nn_graph_set_loss(g, nn_transformer_loss(&t, g, nn_transformer_body(&t, g, tokens, ATTN_CAUSAL), target, 0));
    must(nn_params_alloc(params, why, sizeof why) || nn_graph_compile(g, why, sizeof why), why);
    json_t *words = draw(nn_data(g, tokens), B * T, 1, 0), *wanted = draw(nn_data(g, target), B * T, 2, 1);
    must(nn_forward(g), "forward failed");
    snprintf(path, sizeof path, "%s/%d.safetensors", folder, number);
    must(nn_checkpoint_save(params, path, NULL, 0, why, sizeof why), why);
    json_t *line = json_pack("{s:s, s:o, s:o, s:o, s:i, s:f}", "file", path, "options", hs_opts_to_json(nn_model_table, &t.o), "tokens", words,
                             "targets", wanted, "length", T, "loss", nn_loss(g));
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    puts("");
    json_decref(line);
    json_decref(options);
    nn_graph_free(g);
    nn_params_free(params);
}

int main(int argc, char **argv)
{
    static char opts[1024], why[400];
    hs_plugin file;
    k_dev *dev;
    must(argc != 3, "usage: model_dump SOFTMAX.so FOLDER");
    must(hs_plugin_open(argv[1], &file, why, sizeof why), why);
    must(k_dev_open("cpu", 1, &dev, why, sizeof why), why);
    const attn_variant *v = hs_plugin_variant(&file, "softmax");
    hs_opts_defaults(v->opts, opts);
    const nn_mixer_spec mixer = { .variant = v, .opts = opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    for (int i = 0; i < (int)(sizeof MODELS / sizeof *MODELS); i++)
        dump(dev, &mixer, MODELS[i], argv[2], i);
    k_dev_close(dev);
    hs_plugin_close(&file);
    return 0;
}
