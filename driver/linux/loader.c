// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The loader: a thread for each NIC, in which generations are made.
 *
 * A user process does not do this, for three reasons. The descriptors of maps and programs are in
 * the thread's table of open files, where no process that only switches a feature can use them. No
 * signal ends it in the middle: the verifier returns -EAGAIN if one is pending, which is meant for
 * restarted system calls. And verifying costs as much time as the host likes: the thread has the
 * priority of whoever waits for it, who may hold RTNL, and the lowest one otherwise.
 */
#include <linux/sched.h>

#include "bpfhv.h"

/* While packets flow: a tenth of a CPU that applications take all of. */
#define BPFHV_NICE_STAGED	10

struct bpfhv_load {
	struct kthread_work work;
	struct bpfhv_priv *bp;
	struct bpfhv_gen *gen;
	const struct bpfhv_code *code;
	int err;
};

static void bpfhv_load_work(struct kthread_work *work)
{
	struct bpfhv_load *load = container_of(work, struct bpfhv_load, work);

	load->gen = bpfhv_gen_load(load->bp);
}

static void bpfhv_make_work(struct kthread_work *work)
{
	struct bpfhv_load *load = container_of(work, struct bpfhv_load, work);

	load->err = bpfhv_gen_make(load->gen, load->code);
}

/* Makes a generation of the device's current set, and waits for it. */
struct bpfhv_gen *bpfhv_gen_create(struct bpfhv_priv *bp)
{
	struct bpfhv_load load = { .bp = bp };

	kthread_init_work(&load.work, bpfhv_load_work);
	set_user_nice(bp->loader->task, task_nice(current));
	kthread_queue_work(bp->loader, &load.work);
	kthread_flush_work(&load.work);
	set_user_nice(bp->loader->task, MAX_NICE);
	return load.gen;
}

/* Makes the rings of a set that is not in use yet, and waits for that: nobody else does. */
int bpfhv_gen_prepare(struct bpfhv_gen *gen, const struct bpfhv_code *code)
{
	struct bpfhv_load load = { .bp = gen->bp, .gen = gen, .code = code };

	kthread_init_work(&load.work, bpfhv_make_work);
	/* Behind applications, but not so far behind that the host's patience ends. */
	set_user_nice(gen->bp->loader->task, BPFHV_NICE_STAGED);
	kthread_queue_work(gen->bp->loader, &load.work);
	kthread_flush_work(&load.work);
	set_user_nice(gen->bp->loader->task, MAX_NICE);
	return load.err;
}

int bpfhv_loader_start(struct bpfhv_priv *bp)
{
	struct kthread_worker *loader;

	loader = kthread_run_worker(0, BPFHV_NAME "-%s", pci_name(bp->pdev));
	if (IS_ERR(loader))
		return PTR_ERR(loader);
	set_user_nice(loader->task, MAX_NICE);
	bp->loader = loader;
	return 0;
}

void bpfhv_loader_stop(struct bpfhv_priv *bp)
{
	kthread_destroy_worker(bp->loader);
}
