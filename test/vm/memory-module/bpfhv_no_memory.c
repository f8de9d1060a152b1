// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Lets allocations of the bpfhv driver fail, for tests on kernels without fault injection:
 *
 *     insmod bpfhv_no_memory.ko
 *     echo Y >/sys/module/bpfhv_no_memory/parameters/fail
 *
 * While `fail` is set, no page pool is made and no page is taken from one, by any driver, and the
 * driver's threads that load programs get no memory for their tables.
 */
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/sched.h>

static bool fail;
module_param(fail, bool, 0644);
MODULE_PARM_DESC(fail, "Let allocations fail");
static uint failed;
module_param(failed, uint, 0444);
MODULE_PARM_DESC(failed, "Allocations that failed");

/* Runs in place of a function that fails. */
asmlinkage void bpfhv_return_at_once(void);
asm(".pushsection .text\n"
    ".type bpfhv_return_at_once, @function\n"
    "bpfhv_return_at_once:\n"
    ANNOTATE_NOENDBR "\n"
    ASM_RET
    ".size bpfhv_return_at_once, .-bpfhv_return_at_once\n"
    ".popsection\n");

static int bpfhv_fail(struct pt_regs *regs, long result)
{
	failed++;
	regs_set_return_value(regs, result);
	instruction_pointer_set(regs, (unsigned long)bpfhv_return_at_once);
	return 1;
}

static int bpfhv_before_pool(struct kprobe *p, struct pt_regs *regs)
{
	return fail ? bpfhv_fail(regs, -ENOMEM) : 0;
}

static int bpfhv_before_page(struct kprobe *p, struct pt_regs *regs)
{
	return fail ? bpfhv_fail(regs, 0) : 0;
}

static int bpfhv_before_table(struct kprobe *p, struct pt_regs *regs)
{
	return fail && !strncmp(current->comm, "bpfhv-", 6) ? bpfhv_fail(regs, 0) : 0;
}

static struct kprobe probes[] = {
	{ .symbol_name = "page_pool_create", .pre_handler = bpfhv_before_pool },
	{ .symbol_name = "page_pool_alloc_pages", .pre_handler = bpfhv_before_page },
	{ .symbol_name = "__kvmalloc_node_noprof", .pre_handler = bpfhv_before_table },
};

static int __init bpfhv_no_memory_init(void)
{
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		err = register_kprobe(&probes[i]);
		if (err) {
			pr_err("%s: no probe: error %d\n", probes[i].symbol_name, err);
			goto undo;
		}
	}
	return 0;

undo:
	while (i)
		unregister_kprobe(&probes[--i]);
	return err;
}

static void __exit bpfhv_no_memory_exit(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(probes); i++)
		unregister_kprobe(&probes[i]);
}

module_init(bpfhv_no_memory_init);
module_exit(bpfhv_no_memory_exit);
MODULE_DESCRIPTION("Lets allocations of the bpfhv driver fail");
MODULE_LICENSE("Dual MIT/GPL");
