/* command.h - one row per command; main.c dispatches and prints the help from this table. */
#ifndef HS_COMMAND_H
#define HS_COMMAND_H
typedef struct hs_command {
    const char *name;
    int (*run)(int argc, char **argv);  /* argv[0] is the command's name; returns the exit code */
    const char *args, *help;            /* help == NULL: not listed (describe, worker) */
} hs_command;
int cmd_run(int, char **);      int cmd_status(int, char **);  int cmd_show(int, char **);
int cmd_compare(int, char **);  int cmd_plot(int, char **);     int cmd_list(int, char **);    int cmd_env(int, char **);
int cmd_check(int, char **);    int cmd_apply(int, char **);   int cmd_new(int, char **);
int cmd_sample(int, char **);   int cmd_attend(int, char **);
int cmd_bleu(int, char **);     int cmd_data(int, char **);     int cmd_subwords(int, char **);
int cmd_describe(int, char **); int cmd_worker(int, char **);
/* Every command answers -h with its args and help and exits 0; a wrong option exits HS_EXIT_USAGE. */
int hs_usage(const hs_command *, const char *complaint);
const hs_command *hs_command_find(const char *name);
int hs_help(void);                      /* the list of commands, on stdout */
int hs_unknown_command(const char *name);   /* says so, with the nearest name; HS_EXIT_USAGE */
#endif
