// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What the device reports: link, MTU, upgrades, requests for a reset. It runs under RTNL. */
#include <linux/rtnetlink.h>

#include "bpfhv.h"

/* The original's handshake: close with the old programs, report that, fetch the new set, open. */
static void bpfhv_upgrade(struct bpfhv_priv *bp)
{
	int err;

	/* A host that ships one set after the other must not take the CPU. */
	if (time_before(jiffies, bp->upgrade_next)) {
		bp->upgrades_delayed++;
		bpfhv_schedule(bp, &bp->ctrl_work, bp->upgrade_next - jiffies);
		return;
	}
	bp->upgrades++;
	bpfhv_down(bp);
	bpfhv_write_sync(bp, BPFHV_REG_CTRL, BPFHV_CTRL_UPGRADE_READY);
	err = bpfhv_set_begin(bp, BPFHV_LOAD_UPGRADE);
	if (err)
		bpfhv_recover_later(bp, err);
}

static void bpfhv_handle_status(struct bpfhv_priv *bp, u32 status, u32 events)
{
	/* After a reset that this driver did not see, nothing else that it says is of use. */
	if (bp->running && (status & BPFHV_STATUS_ENABLED) != BPFHV_STATUS_ENABLED) {
		netdev_err(bp->netdev, "the device is not enabled any more\n");
		bpfhv_recover(bp, BPFHV_TROUBLE_LOST);
		return;
	}
	if (events & (BPFHV_EVENT_STAGED | BPFHV_EVENT_WITHDRAWN))
		bpfhv_schedule(bp, &bp->upgrade_work, 0);
	/* With it no set is replaced in this way. */
	if (bp->abilities & BPFHV_ABILITY_OVERLAP)
		status &= ~BPFHV_STATUS_UPGRADE;
	if (status & BPFHV_STATUS_UPGRADE)
		bpfhv_upgrade(bp);
	if (events & BPFHV_EVENT_NEEDS_RESET)
		bpfhv_recover(bp, BPFHV_TROUBLE_QUEUE);
	/* The end of a load looks at the MTU, too. */
	if ((events & BPFHV_EVENT_LINK_OR_MTU) && !bp->load.pending)
		bpfhv_update_mtu(bp);
	if (bp->running)
		bpfhv_update_link(bp);
	if (!bp->ctrl_irq)
		bpfhv_schedule(bp, &bp->ctrl_work, HZ);
}

/* The device's vector. A device that is gone is left to bpfhv_recover_work(). */
void bpfhv_ctrl_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv,
					     ctrl_work);
	u32 status, events = 0;

	rtnl_lock();
	if (!bpfhv_may_work(bp))
		goto out;
	if (bp->abilities & BPFHV_ABILITY_EVENT) {
		events = bpfhv_read(bp, BPFHV_REG_EVENT);
		bpfhv_write(bp, BPFHV_REG_EVENT, events);
	}
	status = bpfhv_read(bp, BPFHV_REG_STATUS);
	if (!bp->gone)
		bpfhv_handle_status(bp, status, events);
out:
	WRITE_ONCE(bp->last_ctrl, jiffies);
	rtnl_unlock();
}
