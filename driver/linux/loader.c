// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The loader: a thread for each NIC, in which generations are made.
 *
 * A user process does not do this, for three reasons. The descriptors of maps and programs are in
 * the thread's table of open files, where no process that only switches a feature can use them. No
 * signal ends it in the middle: the verifier returns -EAGAIN if one is pending, which is meant for
 * restarted system calls. And verifying costs as much time as the host likes, in which RTNL is
 * free: the thread has the priority of whoever asked for the set, who may wait for it.
 */
#include <linux/sched.h>

#include "bpfhv.h"

/* While packets flow: a tenth of a CPU that applications take all of. */
#define BPFHV_NICE_STAGED	10

struct bpfhv_making {
	struct kthread_work work;
	struct bpfhv_gen *gen;
	const struct bpfhv_code *code;
	int err;
};

static void bpfhv_load_work(struct kthread_work *work)
{
	struct bpfhv_load *load = container_of(work, struct bpfhv_load, work);
	struct bpfhv_priv *bp = container_of(load, struct bpfhv_priv, load);

	set_user_nice(current, load->nice);
	load->gen = bpfhv_gen_load(bp);
	set_user_nice(current, MAX_NICE);
	complete_all(&load->made);
	bpfhv_schedule(bp, &bp->set_work, 0);
}

static void bpfhv_make_work(struct kthread_work *work)
{
	struct bpfhv_making *making = container_of(work, struct bpfhv_making, work);

	/* Behind applications, but not so far behind that the host's patience ends. */
	set_user_nice(current, BPFHV_NICE_STAGED);
	making->err = bpfhv_gen_make(making->gen, making->code);
	set_user_nice(current, MAX_NICE);
}

/* Makes a generation of the device's current set: bp->load.gen, when bp->load.made is complete. */
void bpfhv_load_start(struct bpfhv_priv *bp)
{
	reinit_completion(&bp->load.made);
	bp->load.nice = task_nice(current);
	kthread_queue_work(bp->loader, &bp->load.work);
}

/* Waits until it is made, however long that takes. */
void bpfhv_load_finish(struct bpfhv_priv *bp)
{
	kthread_flush_work(&bp->load.work);
}

/* Makes the rings of a set that is not in use yet, and waits for that: nobody else does. */
int bpfhv_gen_prepare(struct bpfhv_gen *gen, const struct bpfhv_code *code)
{
	struct bpfhv_making making = { .gen = gen, .code = code };

	kthread_init_work(&making.work, bpfhv_make_work);
	kthread_queue_work(gen->bp->loader, &making.work);
	kthread_flush_work(&making.work);
	return making.err;
}

int bpfhv_loader_start(struct bpfhv_priv *bp)
{
	struct kthread_worker *loader;

	loader = kthread_run_worker(0, BPFHV_NAME "-%s", pci_name(bp->pdev));
	if (IS_ERR(loader))
		return PTR_ERR(loader);
	set_user_nice(loader->task, MAX_NICE);
	init_completion(&bp->load.made);
	kthread_init_work(&bp->load.work, bpfhv_load_work);
	bp->loader = loader;
	return 0;
}

void bpfhv_loader_stop(struct bpfhv_priv *bp)
{
	kthread_destroy_worker(bp->loader);
}
