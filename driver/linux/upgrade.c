// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Replaces the set of a running NIC without losing a packet (ability OVERLAP):
 *
 *     idle -> stage -> prime -> drain -> idle
 *
 * Stage: the next set is fetched, and verified by the loader's thread, at low priority and
 * without RTNL. Prime: NAPI fills its receive rings. Then the host gets the verdict, and if it
 * agrees, packets are sent to the next rings, and the old ones are emptied. Until the host agrees,
 * everything can be dropped, and nothing has changed. After that the next set is the current one.
 *
 * A work does all of this, a step at a time, under RTNL: so each step is complete when the NIC
 * goes down, is reset or removed. RTNL also protects the registers that show one set, queue or
 * program at a time.
 */
#include <linux/rtnetlink.h>
#include <linux/slab.h>

#include "bpfhv.h"

/* Longest time in which memory for the next receive rings must be found. */
#define BPFHV_PRIME_LIMIT	(2 * HZ)
/* Longest time between two looks at old rings that the host still sends from. */
#define BPFHV_DRAIN_GAP		(HZ / 10)

/* What was agreed for the next set, if that will be in use, or NULL. */
const struct bpfhv_terms *bpfhv_next_terms(const struct bpfhv_priv *bp)
{
	const struct bpfhv_upgrade *up = &bp->upgrade;

	return up->phase == BPFHV_DRAIN ? &up->next->terms : NULL;
}

static void bpfhv_set_phase(struct bpfhv_priv *bp, enum bpfhv_phase phase)
{
	bp->upgrade.phase = phase;
	bp->upgrade.since = jiffies;
	bp->upgrade.wait = 1;
	bp->upgrade.retired = 0;
}

static void bpfhv_step_later(struct bpfhv_priv *bp)
{
	struct bpfhv_upgrade *up = &bp->upgrade;

	bpfhv_schedule(bp, &bp->upgrade_work, up->wait);
	up->wait = min_t(unsigned long, 2 * up->wait, BPFHV_DRAIN_GAP);
}

static bool bpfhv_is_staged(struct bpfhv_priv *bp, u32 id)
{
	return bpfhv_read(bp, BPFHV_REG_SET_NEXT) == id && !bp->gone;
}

/* Forgets the next set. The host does not use its rings. */
static void bpfhv_drop_next(struct bpfhv_priv *bp)
{
	bool primed = bp->upgrade.phase == BPFHV_PRIME;
	struct bpfhv_gen *next = bp->upgrade.next;
	unsigned int i;

	for (i = 0; i < bp->n_pairs && primed; i++)
		WRITE_ONCE(bpfhv_rxq(bp, i)->next, NULL);
	/* Polls may be filling them. */
	if (primed)
		synchronize_net();
	for (i = 0; i < bp->n_pairs && primed; i++)
		bpfhv_rx_release(bpfhv_rxq(bp, i), &next->rings[i]);
	bpfhv_gen_put(next);
	WRITE_ONCE(bp->upgrade.next, NULL);
	bpfhv_set_phase(bp, BPFHV_IDLE);
	/* Another set may be staged by now. */
	bpfhv_schedule(bp, &bp->upgrade_work, BPFHV_CTRL_GAP);
}

static u32 bpfhv_verdict(int err)
{
	if (err == -ENOMEM)
		return BPFHV_VERDICT_MEMORY;
	/* The MTU needs packets that are spread over several buffers. */
	return err == -EMSGSIZE ? BPFHV_VERDICT_FEATURE : BPFHV_VERDICT_ABORT;
}

/* Drops the next set, and tells the host why if it does not know. */
static void bpfhv_give_up(struct bpfhv_priv *bp, int err)
{
	u32 id = bp->upgrade.next->id;

	netdev_warn(bp->netdev, "set %u not taken: error %d; the one before goes on\n", id, err);
	if (bpfhv_is_staged(bp, id))
		bpfhv_judge(bp, id, bpfhv_verdict(err), 0);
	bpfhv_drop_next(bp);
}

/*
 * Shows registers of the next set. Returns false if another one is staged by now. The registers
 * stay at the set that was shown first: if it is withdrawn meanwhile, they read 0.
 */
static bool bpfhv_view_next(struct bpfhv_priv *bp, u32 id)
{
	bpfhv_write_sync(bp, BPFHV_REG_SET_VIEW, 1);
	return bpfhv_is_staged(bp, id);
}

static int bpfhv_read_next(struct bpfhv_priv *bp, struct bpfhv_gen *gen, struct bpfhv_code *code)
{
	int err = -ECANCELED;

	if (bpfhv_view_next(bp, gen->id)) {
		bpfhv_agree(bp, &gen->terms);
		err = bpfhv_gen_read(gen, code);
	}
	bpfhv_write_sync(bp, BPFHV_REG_SET_VIEW, 0);
	return err;
}

static int bpfhv_register_next(struct bpfhv_priv *bp, struct bpfhv_gen *gen)
{
	int err = -ECANCELED;
	unsigned int i;

	if (bpfhv_view_next(bp, gen->id)) {
		err = 0;
		for (i = 0; i < gen->n_rings && !err; i++)
			err = bpfhv_register_context(bp, i, &gen->rings[i]);
	}
	bpfhv_write_sync(bp, BPFHV_REG_SET_VIEW, 0);
	return err;
}

/* Fetches the set, and has it verified meanwhile without RTNL. Returns false if the NIC stopped. */
static bool bpfhv_load_next(struct bpfhv_priv *bp, struct bpfhv_gen *gen, int *err)
{
	struct bpfhv_code code[BPFHV_PROG_MAX] = {};

	WRITE_ONCE(bp->upgrade.next, gen);
	bpfhv_set_phase(bp, BPFHV_STAGE);
	gen->staged = true;
	*err = bpfhv_read_next(bp, gen, code);
	rtnl_unlock();
	if (!*err)
		*err = bpfhv_gen_prepare(gen, code);
	bpfhv_free_code(code);
	rtnl_lock();
	return bp->upgrade.next == gen;
}

static void bpfhv_stage(struct bpfhv_priv *bp)
{
	u32 id = bpfhv_read(bp, BPFHV_REG_SET_NEXT);
	struct bpfhv_gen *gen;
	unsigned int i;
	int err;

	if (!id || bp->gone)
		return;
	gen = bpfhv_gen_alloc(bp, id);
	if (!gen) {
		bpfhv_judge(bp, id, BPFHV_VERDICT_MEMORY, 0);
		return;
	}
	if (!bpfhv_load_next(bp, gen, &err)) {
		bpfhv_gen_put(gen);
		return;
	}
	if (!err && !bpfhv_rx_fits(bp, &gen->terms))
		err = -EMSGSIZE;
	if (!err)
		err = bpfhv_register_next(bp, gen);
	if (err) {
		bpfhv_give_up(bp, err);
		return;
	}
	for (i = 0; i < bp->n_pairs; i++)
		bpfhv_rx_start_next(bpfhv_rxq(bp, i), &gen->rings[i]);
	bpfhv_set_phase(bp, BPFHV_PRIME);
	bpfhv_schedule(bp, &bp->upgrade_work, 0);
}

/* Returns true if the next receive rings are full, else has polls fill them. */
static bool bpfhv_is_primed(struct bpfhv_priv *bp)
{
	bool full = true;
	unsigned int i;

	local_bh_disable();
	for (i = 0; i < bp->n_pairs; i++) {
		struct bpfhv_queue *q = bpfhv_rxq(bp, i);

		/* Before the host is told: pairs with bpfhv_rx_fill_next(). */
		if (smp_load_acquire(&q->next_state) == BPFHV_NEXT_FILLED)
			continue;
		full = false;
		napi_schedule(&q->napi);
	}
	local_bh_enable();
	return full;
}

/* The next set is the current one. Nothing of the one before is in use. */
static void bpfhv_adopt(struct bpfhv_priv *bp)
{
	struct bpfhv_gen *next = bp->upgrade.next;

	bp->upgrades++;
	next->staged = false;
	WRITE_ONCE(bp->upgrade.next, NULL);
	bpfhv_set_phase(bp, BPFHV_IDLE);
	bp->upgrade.tell = true;
	bpfhv_gen_use(bp, next);
	bpfhv_gen_announce(next);
}

static void bpfhv_drain(struct bpfhv_priv *bp)
{
	const u32 all = (1U << bpfhv_n_queues(bp)) - 1;
	struct bpfhv_upgrade *up = &bp->upgrade;
	/* It also answers the cuts: what it says of a receive ring comes after its last packet. */
	u32 drained = bpfhv_read(bp, BPFHV_REG_Q_DRAINED) & all & ~up->retired;
	unsigned int i;

	if (bp->gone)
		return;
	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		struct bpfhv_queue *q = &bp->queues[i];

		if (!(drained & BIT(i)) || !(q->tx ? bpfhv_tx_retire(q) : bpfhv_rx_retire(q)))
			continue;
		bpfhv_write(bp, BPFHV_REG_Q_CMD, BPFHV_Q_RETIRE << 16 | i);
		up->retired |= BIT(i);
	}
	if (up->retired != all) {
		bpfhv_step_later(bp);
		return;
	}
	if (bpfhv_read(bp, BPFHV_REG_SET_CUR) != up->next->id)
		bpfhv_recover(bp, BPFHV_TROUBLE_LOST);
	/* Others may still look at an old ring. */
	synchronize_net();
	bpfhv_adopt(bp);
	bpfhv_schedule(bp, &bp->upgrade_work, 0);
}

/* The host has agreed: packets are sent to the next rings. */
static void bpfhv_cut(struct bpfhv_priv *bp)
{
	struct bpfhv_gen *next = bp->upgrade.next;
	unsigned int i;

	bpfhv_set_phase(bp, BPFHV_DRAIN);
	/* The stack does without what the next set lacks. Older packets are finished here. */
	netdev_update_features(bp->netdev);
	/* That can take the NIC down. */
	if (bp->upgrade.next != next)
		return;
	for (i = bp->n_pairs; i < next->n_rings; i++) {
		bpfhv_tx_cut(&bp->queues[i], &next->rings[i]);
		bpfhv_write(bp, BPFHV_REG_Q_CMD, BPFHV_Q_TX_CUT << 16 | i);
	}
	for (i = 0; i < bp->n_pairs; i++)
		bpfhv_write(bp, BPFHV_REG_Q_CMD, BPFHV_Q_RX_CUT << 16 | i);
	bpfhv_drain(bp);
}

static void bpfhv_prime(struct bpfhv_priv *bp)
{
	u32 id = bp->upgrade.next->id;
	/* An XDP program may have been attached meanwhile, or the MTU changed. */
	bool fits = bpfhv_rx_fits(bp, &bp->upgrade.next->terms);

	if (!fits || !bpfhv_is_staged(bp, id)) {
		bpfhv_give_up(bp, fits ? -ECANCELED : -EMSGSIZE);
		return;
	}
	if (!bpfhv_is_primed(bp)) {
		if (time_after(jiffies, bp->upgrade.since + BPFHV_PRIME_LIMIT))
			bpfhv_give_up(bp, -ENOMEM);
		else
			bpfhv_schedule(bp, &bp->upgrade_work, 1);
		return;
	}
	bpfhv_judge(bp, id, BPFHV_VERDICT_READY, 0);
	if (bpfhv_is_staged(bp, id) && bpfhv_read(bp, BPFHV_REG_SET_VERDICT) == BPFHV_ANSWER_GO)
		bpfhv_cut(bp);
	else
		bpfhv_give_up(bp, -ECANCELED);
}

static void bpfhv_step(struct bpfhv_priv *bp)
{
	if (bp->upgrade.tell) {
		bp->upgrade.tell = false;
		bpfhv_set_features_from_selected(bp);
		bpfhv_update_mtu(bp);
	}
	if (!bp->running || bp->gone || !(bp->abilities & BPFHV_ABILITY_OVERLAP))
		return;
	switch (bp->upgrade.phase) {
	case BPFHV_IDLE:
		bpfhv_stage(bp);
		break;
	case BPFHV_STAGE:
		break;
	case BPFHV_PRIME:
		bpfhv_prime(bp);
		break;
	case BPFHV_DRAIN:
		bpfhv_drain(bp);
		break;
	}
}

void bpfhv_upgrade_work(struct work_struct *work)
{
	struct bpfhv_priv *bp = container_of(to_delayed_work(work), struct bpfhv_priv,
					     upgrade_work);

	rtnl_lock();
	if (bpfhv_may_work(bp))
		bpfhv_step(bp);
	rtnl_unlock();
}

/*
 * The NIC has stopped: the device is disabled, the rings are drained, and NAPI does not run. The
 * host did the same: a set that it had agreed to is the current one, another is withdrawn.
 */
void bpfhv_upgrade_stopped(struct bpfhv_priv *bp)
{
	struct bpfhv_gen *next = bp->upgrade.next;
	enum bpfhv_phase phase = bp->upgrade.phase;
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		bp->queues[i].old = NULL;
		bp->queues[i].next = NULL;
	}
	if (phase == BPFHV_IDLE)
		return;
	if (phase == BPFHV_DRAIN) {
		bpfhv_adopt(bp);
		bpfhv_schedule(bp, &bp->upgrade_work, 0);
		return;
	}
	WRITE_ONCE(bp->upgrade.next, NULL);
	bpfhv_set_phase(bp, BPFHV_IDLE);
	/* While it is being verified it is the work's. */
	if (phase == BPFHV_PRIME)
		bpfhv_gen_put(next);
}
