/* cmd_describe.c - `harness describe [--fd N] FILE.so`: loads one plug-in and says what it holds, as one line of
 * JSON: {"variants":[..],"tasks":[..]} or {"refused":"sentence"}.  A child of the catalog runs it.
 * `harness describe --device D [--fd N]` says what the device is and how many of its kind there are,
 * {"device":"sentence","count":N} or {"refused":"sentence"}. */
#include "command.h"
#include "gpu.h"
#include "plan.h"
#include "plugin.h"
#include "protocol.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    json_t *said = device ? hs_device_json(device) : describe_plugin(argv[i]);
    int refused = json_object_get(said, "refused") != NULL, written = hs_line_write(fd, said);
    _exit(refused ? (device ? HS_EXIT_DEVICE : HS_EXIT_PLUGIN) : written ? HS_EXIT_FAILED : HS_EXIT_OK);
}
