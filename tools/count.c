/* Count the guest instructions that a program executes under qemu-user.
 *
 *     qemu-aarch64 -plugin libcount.so,out=FILE ...
 *
 * Writes one decimal number to FILE when the guest exits. Every translated block adds the number
 * of its instructions when it is entered; each virtual CPU (guest thread) has a counter of its
 * own, since threads run in parallel and a shared one would lose counts. A block that is left
 * early by a fault is counted whole: such blocks are rare and the same in every run.
 *
 * Debian's qemu-user of 2023 comes without qemu-plugin.h, so the few declarations that are
 * used stand here; they are QEMU's public plugin interface, version 1 (QEMU 4.2 to 8.2) and,
 * unchanged for these calls, version 2 and later.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct version_range { int min, cur; };
struct qemu_info { const char *target_name; struct version_range version; };
enum cb_flags { NO_REGISTERS = 0 };
typedef void (*block_translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*block_entered)(unsigned int cpu, void *data);
typedef void (*guest_exited)(qemu_plugin_id_t, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, block_translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, block_entered, enum cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, guest_exited, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

/* The lowest version with these calls; QEMU refuses a number outside the range that it supports. */
#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1
#endif
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

enum { CPUS = 4096 };
/* One cache line per CPU: neighbours would otherwise slow each other down. */
static struct { uint64_t count; char pad[56]; } counters[CPUS];
static char out[4096];

static void entered(unsigned int cpu, void *data) {
    counters[cpu < CPUS ? cpu : CPUS - 1].count += (uintptr_t)data;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    uintptr_t instructions = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, entered, NO_REGISTERS, (void *)instructions);
}

static void exited(qemu_plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    uint64_t total = 0;
    for (int cpu = 0; cpu < CPUS; cpu++) total += counters[cpu].count;
    FILE *file = fopen(out, "w");
    if (!file || fprintf(file, "%" PRIu64 "\n", total) < 0 || fclose(file) != 0)
        fprintf(stderr, "libcount: cannot write %s\n", out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info;
    for (int n = 0; n < argc; n++)
        if (strncmp(argv[n], "out=", 4) == 0 && strlen(argv[n] + 4) < sizeof out) strcpy(out, argv[n] + 4);
    if (!out[0]) {
        fprintf(stderr, "libcount: give out=FILE\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, exited, NULL);
    return 0;
}
