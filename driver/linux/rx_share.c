// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Shares a CPU between reception and the tasks. A softirq runs before every task: a host that sends
 * faster than this CPU receives would starve the applications, and their sockets would drop nearly
 * all packets (receive livelock). Here polls take the CPU from a task at most about half of the
 * time; the host's packets wait in the ring meanwhile, or are dropped before they cost anything.
 *
 * "used" grows while the queue is polled and falls while it is not. If it is above a limit and a
 * task wants the CPU, the next poll waits as long. Threaded NAPI and busy polling are weighed by
 * the scheduler: nothing waits there.
 */
#include <linux/sched.h>

#include "bpfhv.h"

/* Four polls of 64 small packets on a fast CPU: a quarter of a ring. */
#define BPFHV_SHARE_LIMIT_NS	(250 * NSEC_PER_USEC)
#define BPFHV_SHARE_MAX_NS	(2 * NSEC_PER_MSEC)

/* A poll starts. */
void bpfhv_share_begin(struct bpfhv_share *share)
{
	u64 now = ktime_get_ns(), unused = now - share->since;

	share->used -= min(share->used, unused);
	share->since = now;
}

/*
 * A task is ready to run on this CPU: the interrupted one, or one that woke up meanwhile. The idle
 * task and ksoftirqd are kernel threads.
 */
static bool bpfhv_task_waits(void)
{
	return !(current->flags & PF_KTHREAD) || need_resched();
}

/* A poll ends. Returns the time in ns for which the next one is to wait, or 0. */
u64 bpfhv_share_end(struct bpfhv_share *share)
{
	u64 now = ktime_get_ns();

	share->used = min_t(u64, share->used + now - share->since, BPFHV_SHARE_MAX_NS);
	share->since = now;
	if (likely(share->used < BPFHV_SHARE_LIMIT_NS) || !in_serving_softirq())
		return 0;
	return bpfhv_task_waits() ? share->used : 0;
}
