// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Recovery. Whatever stops the NIC ends here: a queue that broke, a transmit queue that is stuck, a
 * device that is gone for a while, that was reset or forgot what was negotiated, a set or an
 * "up" that failed. A broken queue is reset: down and up. Everything else is mended by starting
 * from the device's power-on state, after a failure again and again, ever more rarely.
 *
 * While it is not mended the interface is detached. Nobody has to do anything.
 */
#include <linux/ktime.h>
#include <linux/rtnetlink.h>

#include "bpfhv.h"

/* Time before the second attempt. It doubles with each failure. */
#define BPFHV_BACKOFF_MIN	(HZ / 10)
#define BPFHV_BACKOFF_MAX	(10 * HZ)
/* Longest time between two looks at a device that is gone. */
#define BPFHV_LOOK_MAX		HZ
/* The same if a VMM stops this machine for each look, in wait for its host. */
#define BPFHV_SLOW_LOOK_MAX	(60 * HZ)
#define BPFHV_SLOW_LOOK_MS	500
/*
 * Period in which completions are expected of a transmit queue in use, and after how many the
 * device is looked at. A look is a risk, so it comes late: a VMM whose host is stopped for a while
 * may give it up for good at the first read without an answer (QEMU: after five seconds).
 */
#define BPFHV_WATCH_GAP		HZ
#define BPFHV_WATCH_LOOKS	3

/* Requests recovery, in any context. */
void bpfhv_recover(struct bpfhv_priv *bp, unsigned int trouble)
{
	set_bit(trouble, &bp->trouble);
	bpfhv_schedule(bp, &bp->recover_work, 0);
}

static void bpfhv_wait(struct bpfhv_priv *bp, unsigned long gap)
{
	bp->not_before = jiffies + gap;
	bpfhv_schedule(bp, &bp->recover_work, gap);
}

void bpfhv_detach(struct bpfhv_priv *bp)
{
	netif_device_detach(bp->netdev);
	bpfhv_down(bp);
}

/* Takes the NIC down after a failure, until an attempt to start it again succeeds. */
void bpfhv_recover_later(struct bpfhv_priv *bp, int err)
{
	unsigned long before = bp->backoff;

	bpfhv_detach(bp);
	bp->recovery_failures++;
	set_bit(BPFHV_TROUBLE_LOST, &bp->trouble);
	bp->backoff = clamp_t(unsigned long, 2 * before, BPFHV_BACKOFF_MIN, BPFHV_BACKOFF_MAX);
	/* Told until the distance no longer grows. */
	if (bp->backoff != before)
		netdev_err(bp->netdev, "start failed with error %d: trying again in %u ms\n", err,
			   jiffies_to_msecs(bp->backoff));
	bpfhv_wait(bp, bp->backoff);
}

/* Called when a set has started. */
void bpfhv_recovered(struct bpfhv_priv *bp)
{
	clear_bit(BPFHV_TROUBLE_LOST, &bp->trouble);
	bp->backoff = 0;
}

/* Returns true if the device does not have what was negotiated, as after a reset of it. */
bool bpfhv_forgot(struct bpfhv_priv *bp)
{
	if (bp->gone || bp->parked)
		return true;
	if (bp->abilities && bpfhv_read(bp, BPFHV_REG_EXT_ACK) != bp->abilities)
		return true;
	return bpfhv_read(bp, BPFHV_REG_FEATURES) != bp->selected;
}

/* Looks whether a device that was gone answers again. */
static bool bpfhv_is_back(struct bpfhv_priv *bp)
{
	ktime_t before = ktime_get();
	bool slow;

	if (readl(bp->regs + BPFHV_REG_STATUS) != ~0U) {
		WRITE_ONCE(bp->gone, false);
		return true;
	}
	slow = ktime_ms_delta(ktime_get(), before) > BPFHV_SLOW_LOOK_MS;
	bp->backoff = clamp_t(unsigned long, 2 * bp->backoff, slow ? HZ : BPFHV_BACKOFF_MIN,
			      slow ? BPFHV_SLOW_LOOK_MAX : BPFHV_LOOK_MAX);
	bpfhv_wait(bp, bp->backoff);
	return false;
}

/* Begins to start a NIC that is down from the device's power-on state. */
int bpfhv_start_over(struct bpfhv_priv *bp)
{
	int err = bpfhv_unpark(bp);

	if (!err)
		err = bpfhv_discover(bp);
	return err ? err : bpfhv_set_begin(bp, BPFHV_LOAD_START);
}

static void bpfhv_reinit(struct bpfhv_priv *bp)
{
	int err;

	bpfhv_detach(bp);
	err = bpfhv_start_over(bp);
	if (err)
		bpfhv_recover_later(bp, err);
}

/* Down and up. Returns false if more must be done. */
static bool bpfhv_reset(struct bpfhv_priv *bp)
{
	int err;

	bp->resets++;
	bp->not_before = jiffies + BPFHV_RESET_GAP;
	if (!bp->running)
		return true;
	netdev_warn(bp->netdev, "resetting\n");
	bpfhv_down(bp);
	if (bpfhv_forgot(bp))
		return false;
	err = bpfhv_up(bp);
	if (err)
		bpfhv_recover_later(bp, err);
	return true;
}

static void bpfhv_mend(struct bpfhv_priv *bp)
{
	unsigned long trouble;

	if (bp->gone && !bpfhv_is_back(bp))
		return;
	trouble = xchg(&bp->trouble, 0);
	if (!trouble)
		return;
	if (trouble & BIT(BPFHV_TROUBLE_STUCK))
		bpfhv_log_dump(bp);
	if ((trouble & BIT(BPFHV_TROUBLE_LOST)) || !bpfhv_reset(bp))
		bpfhv_reinit(bp);
}

void bpfhv_recover_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv,
					     recover_work);

	rtnl_lock();
	if (!bpfhv_may_work(bp))
		goto out;
	/* It may have been gone again since the last success cleared the bit. */
	if (bp->gone)
		set_bit(BPFHV_TROUBLE_LOST, &bp->trouble);
	if (test_bit(BPFHV_TROUBLE_LOST, &bp->trouble))
		bpfhv_detach(bp);
	if (time_before(jiffies, bp->not_before))
		bpfhv_wait(bp, bp->not_before - jiffies);
	else
		bpfhv_mend(bp);
out:
	rtnl_unlock();
}

/*
 * Looks at the device if a transmit queue has packets and had no completion for a while. Costs no
 * access to the device otherwise. Runs only while the NIC is up; bpfhv_down() waits for it.
 */
void bpfhv_watch_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv,
					     watch_work);
	bool stuck = false;
	unsigned int i;

	/* A ring that is replaced is released after a grace period. */
	rcu_read_lock();
	for (i = 0; i < bp->n_pairs; i++) {
		struct bpfhv_queue *q = bpfhv_txq(bp, i);
		struct bpfhv_ring *r = READ_ONCE(q->cur);
		u32 out = r->n_bufs - READ_ONCE(r->n_free);

		if (out && q->watched && out >= q->watched)
			q->idle_looks++;
		else
			q->idle_looks = 0;
		if (out < q->watched)
			q->patience = BPFHV_PATIENCE_MIN;
		stuck |= q->idle_looks && q->idle_looks % BPFHV_WATCH_LOOKS == 0;
		q->watched = out;
	}
	rcu_read_unlock();
	if (stuck)
		bpfhv_schedule(bp, &bp->ctrl_work, 0);
	bpfhv_watch(bp);
}

void bpfhv_watch(struct bpfhv_priv *bp)
{
	bpfhv_schedule(bp, &bp->watch_work, BPFHV_WATCH_GAP);
}

/* Before suspend, shutdown, or a reset of the device by the kernel. */
void bpfhv_pause(struct bpfhv_priv *bp)
{
	bpfhv_stop_work(bp);
	/* Mostly it has ended by now, so that RTNL is not held for long. */
	bpfhv_load_finish(bp);
	rtnl_lock();
	bpfhv_set_drop(bp);
	bpfhv_detach(bp);
	rtnl_unlock();
}

/* After it: the device may have lost its state. */
void bpfhv_continue(struct bpfhv_priv *bp)
{
	bpfhv_start_work(bp);
	rtnl_lock();
	WRITE_ONCE(bp->gone, false);
	bp->backoff = 0;
	bp->not_before = jiffies;
	rtnl_unlock();
	bpfhv_recover(bp, BPFHV_TROUBLE_LOST);
	/* Wait for the first attempt. */
	flush_delayed_work(&bp->recover_work);
	bpfhv_load_finish(bp);
	flush_delayed_work(&bp->set_work);
}
