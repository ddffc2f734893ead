/* Count the guest instructions that a program executes under qemu-user.
 *
 *     qemu-aarch64 -plugin libcount.so,out=FILE ...
 *
 * Writes one line to FILE each time the guest asks for the process group of MARK, a process number
 * beyond any that Linux gives: "mark", and the instructions of the asking thread so far. So a
 * program can count a part of itself: what start-up costs varies from run to run by more than a
 * small network. When the guest exits comes "total" and the sum over all threads.
 *
 * Every translated block adds the number of its instructions when it is entered; each virtual CPU
 * (guest thread) has a counter of its own, since threads run in parallel and a shared one would
 * lose counts. A block that is left early by a fault is counted whole: such blocks are rare.
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
typedef void (*system_called)(qemu_plugin_id_t, unsigned int cpu, int64_t number, uint64_t, uint64_t, uint64_t,
                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, block_translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, block_entered, enum cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, guest_exited, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, system_called);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

/* The lowest version with these calls; QEMU refuses a number outside the range that it supports. */
#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1
#endif
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

enum { CPUS = 4096 };
/* One cache line per CPU: neighbours would otherwise slow each other down. */
static struct { uint64_t count; char pad[56]; } counters[CPUS];
static FILE *out;

enum { GETPGID = 155, MARK = 0x7ED90DE }; /* getpgid(2) on aarch64; the runner's MARK */

static uint64_t *counter_of(unsigned int cpu) { return &counters[cpu < CPUS ? cpu : CPUS - 1].count; }

static void entered(unsigned int cpu, void *data) { *counter_of(cpu) += (uintptr_t)data; }

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    uintptr_t instructions = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, entered, NO_REGISTERS, (void *)instructions);
}

static void called(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t first, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == GETPGID && first == MARK) fprintf(out, "mark %" PRIu64 "\n", *counter_of(cpu));
}

static void exited(qemu_plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    uint64_t total = 0;
    for (int cpu = 0; cpu < CPUS; cpu++) total += counters[cpu].count;
    if (fprintf(out, "total %" PRIu64 "\n", total) < 0 || fclose(out) != 0)
        fprintf(stderr, "libcount: cannot write the counts\n");
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info;
    for (int n = 0; n < argc && !out; n++)
        if (strncmp(argv[n], "out=", 4) == 0) out = fopen(argv[n] + 4, "w");
    if (!out) {
        fprintf(stderr, "libcount: give out=FILE, a file that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, exited, NULL);
    return 0;
}
