// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The change from one program set to another while the NIC is down.
 *
 * How long a set takes to fetch and to verify is up to the host, and all interfaces share RTNL. So
 * bpfhv_set_begin() has the loader's thread make the generation, and bpfhv_set_end() takes it into
 * use, both under RTNL, which nobody holds in between for long: ethtool -K and an interface that is
 * set up wait for a moment, as mostly that is enough, and else leave the end to the work.
 *
 * In between bp->load.pending keeps registers, features and generation to the loader: no other work
 * runs, and an interface that is set up starts at the end.
 */
#include <linux/rtnetlink.h>

#include "bpfhv_xdp.h"

/* Longest wait for a generation under RTNL. */
#define BPFHV_LOAD_WAIT		(HZ / 4)

/* Returns true if work may change the NIC. Under RTNL. */
bool bpfhv_may_work(const struct bpfhv_priv *bp)
{
	/* Interrupts come before registration, too; probe queues the work again after it. */
	return !READ_ONCE(bp->dying) && bp->netdev->reg_state == NETREG_REGISTERED &&
	       !bp->load.pending;
}

/* Negotiates features, and has the device's current set loaded. The NIC is down. */
int bpfhv_set_begin(struct bpfhv_priv *bp, enum bpfhv_load_reason why)
{
	struct bpfhv_load *load = &bp->load;
	/* The set in use will be released. */
	int err = bpfhv_unpark(bp);

	if (err)
		return err;
	load->why = why;
	load->since = jiffies;
	load->replaced = bp->gen;
	load->switched_off = bp->switched_off;
	load->pending = true;
	bpfhv_negotiate(bp);
	bpfhv_load_start(bp);
	return 0;
}

/* Waits for a moment under RTNL. Returns true if the set is to be taken now. */
bool bpfhv_set_wait(struct bpfhv_priv *bp)
{
	return wait_for_completion_killable_timeout(&bp->load.made, BPFHV_LOAD_WAIT) > 0;
}

/* Takes what was made into use. On failure before that the previous generation is in its place. */
static int bpfhv_set_use(struct bpfhv_priv *bp, struct bpfhv_gen *gen)
{
	int err;

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
 * not have that set any more, or a program was attached meanwhile that cannot run with it.
 */
static bool bpfhv_set_keep(struct bpfhv_priv *bp)
{
	const struct bpfhv_terms *terms = &bp->gen->terms;
	u32 id = bp->abilities ? bpfhv_read(bp, BPFHV_REG_SET_CUR) : bp->gen->id;

	bp->offered = terms->offered;
	bp->selected = terms->selected;
	bp->features = terms->features;
	bpfhv_write_sync(bp, BPFHV_REG_FEATURES, bp->selected);
	if (id != bp->gen->id || bpfhv_forgot(bp))
		return false;
	if (rcu_access_pointer(bp->xdp_prog) && (bp->selected & BPFHV_F_LRO))
		return false;
	return !netif_running(bp->netdev) || !bpfhv_up(bp);
}

static void bpfhv_set_failed(struct bpfhv_priv *bp, int err)
{
	struct bpfhv_load *load = &bp->load;

	if (load->why != BPFHV_LOAD_FEATURES) {
		bpfhv_recover_later(bp, err);
		return;
	}
	bp->switched_off = load->switched_off_before;
	if (bp->gen != load->replaced || !bpfhv_set_keep(bp))
		bpfhv_recover_later(bp, err);
}

static void bpfhv_set_started_over(struct bpfhv_priv *bp)
{
	bp->recoveries++;
	bp->not_before = jiffies + BPFHV_RESET_GAP;
	netdev_info(bp->netdev, "recovered\n");
}

/* What had to wait for the load. */
static void bpfhv_set_catch_up(struct bpfhv_priv *bp)
{
	bpfhv_schedule(bp, &bp->ctrl_work, 0);
	bpfhv_schedule(bp, &bp->upgrade_work, 0);
	if (READ_ONCE(bp->trouble))
		bpfhv_schedule(bp, &bp->recover_work, 0);
}

/* Takes a generation into use, once it is made. */
int bpfhv_set_end(struct bpfhv_priv *bp)
{
	struct bpfhv_load *load = &bp->load;
	int err;

	load->pending = false;
	err = bpfhv_set_use(bp, load->gen);
	load->gen = NULL;
	/* An upgrade may follow after as long: a host has half of a CPU for its sets at most. */
	bp->upgrade_next = jiffies + max(BPFHV_CTRL_GAP + 0UL, jiffies - load->since);
	if (err)
		bpfhv_set_failed(bp, err);
	else if (load->why == BPFHV_LOAD_START)
		bpfhv_set_started_over(bp);
	bpfhv_set_catch_up(bp);
	return err;
}

/*
 * Replaces the set by one for other features than `before`. Returns -EINPROGRESS if that takes
 * longer. On failure the NIC goes on with the set that it had, or recovers by itself.
 */
int bpfhv_renew(struct bpfhv_priv *bp, u32 before)
{
	int err;

	bpfhv_down(bp);
	bp->load.switched_off_before = before;
	err = bpfhv_set_begin(bp, BPFHV_LOAD_FEATURES);
	if (err) {
		bp->switched_off = before;
		bpfhv_recover_later(bp, err);
		return err;
	}
	return bpfhv_set_wait(bp) ? bpfhv_set_end(bp) : -EINPROGRESS;
}

/* The end of a load that nobody waited for. */
static void bpfhv_set_end_later(struct bpfhv_priv *bp)
{
	u32 made_for = bp->load.switched_off;
	/* Features were switched meanwhile. */
	bool changed = bp->switched_off != made_for;
	int err = bpfhv_set_end(bp);

	if (!err && changed)
		err = bpfhv_renew(bp, made_for);
	if (err == -EINPROGRESS)
		return;
	if (err && bp->load.why == BPFHV_LOAD_FEATURES)
		bpfhv_restore_features(bp);
	/* Else what was refused would be tried again at once. */
	if (!err || changed)
		bpfhv_set_features_from_selected(bp);
}

void bpfhv_set_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv, set_work);

	rtnl_lock();
	/* Somebody may have waited for this load, and begun another one. */
	if (!READ_ONCE(bp->dying) && bp->load.pending && completion_done(&bp->load.made))
		bpfhv_set_end_later(bp);
	rtnl_unlock();
}

/* Ends a load without using what it made. The caller has stopped the work. */
void bpfhv_set_drop(struct bpfhv_priv *bp)
{
	if (!bp->load.pending)
		return;
	bpfhv_load_finish(bp);
	if (!IS_ERR(bp->load.gen))
		bpfhv_gen_put(bp->load.gen);
	bp->load.gen = NULL;
	bp->load.pending = false;
}
