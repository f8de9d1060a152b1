// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What the device reports (link, MTU, upgrades, requests for a reset), and the change from one
 * program set to another. All of it runs under RTNL.
 */
#include <linux/rtnetlink.h>

#include "bpfhv.h"

/*
 * Negotiates features, fetches the device's current set and starts it. The NIC is down meanwhile.
 * If this fails before the new set is in use, the previous one stays in its place.
 */
int bpfhv_load_set(struct bpfhv_priv *bp)
{
	struct bpfhv_gen *gen;
	int err;

	/* The set in use is about to be released. */
	err = bpfhv_unpark(bp);
	if (err)
		return err;
	bpfhv_negotiate(bp);
	gen = bpfhv_gen_create(bp);
	if (IS_ERR(gen)) {
		netdev_err(bp->netdev, "program set failed: error %ld\n", PTR_ERR(gen));
		return PTR_ERR(gen);
	}
	bpfhv_gen_use(bp, gen);
	bpfhv_gen_announce(gen);
	err = netif_running(bp->netdev) ? bpfhv_up(bp) : 0;
	if (err)
		return err;
	bpfhv_recovered(bp);
	/* Last: it wakes all queues. */
	netif_device_attach(bp->netdev);
	bpfhv_update_mtu(bp);
	return 0;
}

/*
 * Goes on with the set in use after another could not be loaded. Returns false if the device does
 * not have that set any more.
 */
static bool bpfhv_keep_set(struct bpfhv_priv *bp)
{
	const struct bpfhv_terms *terms = &bp->gen->terms;
	u32 id = bp->abilities ? bpfhv_read(bp, BPFHV_REG_SET_CUR) : bp->gen->id;

	bp->offered = terms->offered;
	bp->selected = terms->selected;
	bp->features = terms->features;
	bpfhv_write_sync(bp, BPFHV_REG_FEATURES, bp->selected);
	if (id != bp->gen->id || bpfhv_forgot(bp))
		return false;
	return !netif_running(bp->netdev) || !bpfhv_up(bp);
}

/*
 * Replaces the set by one for other features. The NIC is down meanwhile. On failure it goes on with
 * the set that it had, or recovers by itself.
 */
int bpfhv_renew(struct bpfhv_priv *bp)
{
	struct bpfhv_gen *before;
	int err;

	bpfhv_down(bp);
	/* It may have ended the replacement of another one. */
	before = bp->gen;
	err = bpfhv_load_set(bp);
	if (err && (bp->gen != before || !bpfhv_keep_set(bp)))
		bpfhv_recover_later(bp, err);
	return err;
}

/* The original's handshake: close with the old programs, report that, fetch the new set, open. */
static void bpfhv_upgrade(struct bpfhv_priv *bp)
{
	int err;

	bp->upgrades++;
	bpfhv_down(bp);
	bpfhv_write_sync(bp, BPFHV_REG_CTRL, BPFHV_CTRL_UPGRADE_READY);
	err = bpfhv_load_set(bp);
	if (err)
		bpfhv_recover_later(bp, err);
	else
		bpfhv_set_features_from_selected(bp);
}

/* Limits upgrades, so that a host that ships one set after the other cannot take the CPU. */
static bool bpfhv_may_upgrade(struct bpfhv_priv *bp)
{
	if (!bp->upgrade_count || time_after(jiffies, bp->upgrade_window + HZ)) {
		bp->upgrade_window = jiffies;
		bp->upgrade_count = 0;
	}
	if (++bp->upgrade_count <= BPFHV_MAX_UPGRADES)
		return true;
	bp->upgrades_delayed++;
	return false;
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
	if ((status & BPFHV_STATUS_UPGRADE) && bpfhv_may_upgrade(bp))
		bpfhv_upgrade(bp);
	else if (status & BPFHV_STATUS_UPGRADE)
		bpfhv_schedule(bp, &bp->ctrl_work, HZ);
	if (events & BPFHV_EVENT_NEEDS_RESET)
		bpfhv_recover(bp, BPFHV_TROUBLE_QUEUE);
	if (events & BPFHV_EVENT_LINK_OR_MTU)
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
	/* Interrupts come before registration, too; probe queues this again after it. */
	if (READ_ONCE(bp->dying) || bp->netdev->reg_state != NETREG_REGISTERED)
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
