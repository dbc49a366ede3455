/* cmd_describe.c - `harness describe [--fd N] FILE.so`: loads one plug-in and says what it holds, as one line of
 * JSON: {"variants":[..],"tasks":[..]} or {"refused":"sentence"}.  A child of the catalog runs it.
 * `harness describe --device D [--fd N]` says what the device is, {"device":"sentence"} or {"refused":"sentence"}. */
#include "../kernels/kernels.h"
#include "command.h"
#include "plan.h"
#include "plugin.h"
#include "protocol.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the device of that name is, or why it does not open. */
static json_t *describe_device(const char *name)
{
    char text[256];
    k_dev *dev;
    if (k_dev_open(name, 1, &dev, text, sizeof text)) return json_pack("{s:o}", "refused", hs_json_text(text));
    return json_pack("{s:o}", "device", hs_json_text(k_dev_describe(dev, text, sizeof text)));
}

/* What the plug-in at path holds, or why it is none. */
static json_t *describe_plugin(const char *path)
{
    char why[PATH_MAX + 512];
    hs_plugin plugin;
    if (hs_plugin_open(path, &plugin, why, sizeof why)) return json_pack("{s:o}", "refused", hs_json_text(why));
    return hs_plugin_describe(&plugin);
}

/* Ends without running the plug-in's destructors: they may do what they like, and the answer is out. */
int cmd_describe(int argc, char **argv)
{
    const hs_command *self = hs_command_find("describe");
    const char *device = NULL;
    int fd = STDOUT_FILENO, i = 1;
    if (argc == 2 && !strcmp(argv[1], "-h")) return hs_usage(self, NULL);
    for (; i + 1 < argc && !strncmp(argv[i], "--", 2); i += 2) {
        if (!strcmp(argv[i], "--fd")) fd = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--device")) device = argv[i + 1];
        else return hs_usage(self, "an option is unknown");
    }
    if (argc - i != !device) return hs_usage(self, "one file or one device is expected");
    json_t *said = device ? describe_device(device) : describe_plugin(argv[i]);
    int refused = json_object_get(said, "refused") != NULL, written = hs_line_write(fd, said);
    _exit(refused ? (device ? HS_EXIT_DEVICE : HS_EXIT_PLUGIN) : written ? HS_EXIT_FAILED : HS_EXIT_OK);
}
