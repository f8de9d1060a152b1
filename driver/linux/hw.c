// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Registers, doorbells, contexts.
 *
 * A write may be posted: over vfio-user the VMM does not wait for the device. It has taken effect
 * when a later read returns.
 *
 * A device that is gone reads as all ones. A VMM may wait for seconds before it answers so in place
 * of a host that does not respond. The first such answer makes the driver read STATUS, for which
 * all ones is not a valid value, and detach; recover.c looks whether it comes back.
 */
#include <linux/ethtool.h>
#include <linux/io.h>

#include "bpfhv.h"

/*
 * Queues work to run after `delay` jiffies, whether it was queued before or not, in any context.
 * All work of a NIC is queued here. Once bpfhv_stop_work() was called nothing is: an interrupt, a
 * failing program or a read of a device that is gone may still ask for it while the NIC is removed.
 */
void bpfhv_schedule(struct bpfhv_priv *bp, struct delayed_work *work, unsigned long delay)
{
	unsigned long flags;

	spin_lock_irqsave(&bp->work_lock, flags);
	if (!bp->dying)
		mod_delayed_work(system_percpu_wq, work, delay);
	spin_unlock_irqrestore(&bp->work_lock, flags);
}

static void bpfhv_allow_work(struct bpfhv_priv *bp, bool allow)
{
	unsigned long flags;

	spin_lock_irqsave(&bp->work_lock, flags);
	WRITE_ONCE(bp->dying, !allow);
	spin_unlock_irqrestore(&bp->work_lock, flags);
}

void bpfhv_start_work(struct bpfhv_priv *bp)
{
	bpfhv_allow_work(bp, true);
}

/* Waits for the work, which takes RTNL: the caller must not hold it. */
void bpfhv_stop_work(struct bpfhv_priv *bp)
{
	/* First: the work queues itself and each other. */
	bpfhv_allow_work(bp, false);
	cancel_delayed_work_sync(&bp->ctrl_work);
	cancel_delayed_work_sync(&bp->recover_work);
	cancel_delayed_work_sync(&bp->set_work);
	cancel_delayed_work_sync(&bp->upgrade_work);
	cancel_delayed_work_sync(&bp->filter_work);
}

u32 bpfhv_read(struct bpfhv_priv *bp, u32 reg)
{
	u32 value;

	if (READ_ONCE(bp->gone))
		return ~0U;
	value = readl(bp->regs + reg);
	if (likely(value != ~0U))
		return value;
	/* That read alone was not answered, or that is the register's value. */
	if (readl(bp->regs + BPFHV_REG_STATUS) != ~0U)
		return readl(bp->regs + reg);
	if (!bp->gone) {
		WRITE_ONCE(bp->gone, true);
		bp->losses++;
		netdev_err(bp->netdev, "the device is gone\n");
		bpfhv_recover(bp, BPFHV_TROUBLE_LOST);
	}
	return value;
}

void bpfhv_write(struct bpfhv_priv *bp, u32 reg, u32 value)
{
	if (!READ_ONCE(bp->gone))
		writel(value, bp->regs + reg);
}

void bpfhv_write_sync(struct bpfhv_priv *bp, u32 reg, u32 value)
{
	bpfhv_write(bp, reg, value);
	bpfhv_read(bp, BPFHV_REG_STATUS);
}

void bpfhv_kick(struct bpfhv_queue *q)
{
	writel(0, q->doorbell);
	bpfhv_count(q, kicks, 1);
}

void bpfhv_write_address(struct bpfhv_priv *bp, u32 low, u64 address)
{
	bpfhv_write(bp, low, lower_32_bits(address));
	bpfhv_write_sync(bp, low + 4, upper_32_bits(address));
}

/*
 * Registers a ring's context with the host, which initialises its private area before the read that
 * follows the last write returns.
 */
int bpfhv_register_context(struct bpfhv_priv *bp, unsigned int queue, struct bpfhv_ring *r)
{
	unsigned int i;

	if (!r->map) {
		memset(r->ctx, 0, r->ctx_size);
		r->ctx->min_completed_bufs = cpu_to_le32(1);
		bpfhv_write(bp, BPFHV_REG_QUEUE_SELECT, queue);
		bpfhv_write_address(bp, BPFHV_REG_CTX_PADDR_LO, r->ctx_dma);
		return bp->gone ? -ENODEV : 0;
	}

	memset(r->ctx, 0, r->n_pages * BPFHV_PAGE);
	r->ctx->min_completed_bufs = cpu_to_le32(1);
	for (i = 0; i < r->n_pages; i++)
		r->page_list[i] = cpu_to_le64(r->page_dma[i]);
	dma_wmb();
	bpfhv_write(bp, BPFHV_REG_QUEUE_SELECT, queue);
	bpfhv_write_address(bp, BPFHV_REG_PAGES_LO, r->page_list_dma);
	return bp->gone ? -ENODEV : 0;
}

void bpfhv_unregister_context(struct bpfhv_priv *bp, unsigned int queue)
{
	bpfhv_write(bp, BPFHV_REG_QUEUE_SELECT, queue);
	bpfhv_write_address(bp, BPFHV_REG_CTX_PADDR_LO, 0);
}

/*
 * Stops a queue after a violation of the ABI, as a completion that was not outstanding or a failing
 * program, and schedules a reset. The queue stays idle until then.
 */
void bpfhv_request_reset(struct bpfhv_queue *q, const char *why)
{
	bpfhv_count(q, errors, 1);
	if (q->broken)
		return;
	WRITE_ONCE(q->broken, true);
	if (net_ratelimit())
		netdev_err(q->bp->netdev, "queue %u stopped: %s\n", q->index, why);
	bpfhv_recover(q->bp, BPFHV_TROUBLE_QUEUE);
}

/*
 * Returns true if the poll must run again: the program that arms the interrupt returned ret != 0,
 * so there is work and no interrupt will come. `found` is the number of packets of this poll. A
 * host that repeatedly promises work and delivers none is reset, so that it cannot take the CPU.
 */
bool bpfhv_work_pending(struct bpfhv_queue *q, int ret, unsigned int found)
{
	if (likely(!ret) || q->broken) {
		q->idle_polls = 0;
		return false;
	}
	if (found)
		q->idle_polls = 0;
	else
		q->idle_polls++;
	if (unlikely(ret < 0 || q->idle_polls > BPFHV_MAX_IDLE_POLLS)) {
		bpfhv_request_reset(q, "the host promised work and delivered none");
		return false;
	}
	return true;
}

/* Acknowledges the abilities that this driver uses. A device reset clears them. */
static void bpfhv_acknowledge(struct bpfhv_priv *bp)
{
	u32 ability;

	bp->abilities = 0;
	if (bpfhv_read(bp, BPFHV_REG_EXT_ID) != BPFHV_EXT_ID)
		return;
	if (bpfhv_version1) {
		/* Those of a driver before this one. */
		bpfhv_write_sync(bp, BPFHV_REG_EXT_ACK, 0);
		return;
	}
	ability = bpfhv_read(bp, BPFHV_REG_EXT_OFFER);
	ability &= BPFHV_ABILITY_BLOB | BPFHV_ABILITY_EVENT | BPFHV_ABILITY_QUEUE_PAIRS |
		   BPFHV_ABILITY_HELPERFREE | BPFHV_ABILITY_CTX_PAGES |
		   BPFHV_ABILITY_FILTER | BPFHV_ABILITY_COALESCE | BPFHV_ABILITY_OVERLAP |
		   BPFHV_ABILITY_RSS;
	if (!bpfhv_overlap)
		ability &= ~BPFHV_ABILITY_OVERLAP;
#if !BPFHV_HAS_KERN_SYS_BPF
	ability &= ~BPFHV_ABILITY_HELPERFREE;
#endif
	/* HELPERFREE needs CTX_PAGES: map values are not physically contiguous. */
	if (!(ability & BPFHV_ABILITY_CTX_PAGES))
		ability &= ~BPFHV_ABILITY_HELPERFREE;
	bpfhv_write_sync(bp, BPFHV_REG_EXT_ACK, ability);
	bp->abilities = bpfhv_read(bp, BPFHV_REG_EXT_ACK) & ability;
	/* A driver before this one may have left it at the next set. */
	if (bp->abilities & BPFHV_ABILITY_OVERLAP)
		bpfhv_write(bp, BPFHV_REG_SET_VIEW, 0);
}

/*
 * Reads what is constant for the life of the device, and brings it into a known state: it may run
 * for a driver of which nothing is left, as when a crashed kernel starts another one.
 */
int bpfhv_discover(struct bpfhv_priv *bp)
{
	struct device *dev = &bp->pdev->dev;
	u32 version = bpfhv_read(bp, BPFHV_REG_VERSION);
	u32 rx, tx;

	if (version != BPFHV_VERSION) {
		dev_err(dev, "ABI version %u: unsupported, this driver needs %u\n",
			version, BPFHV_VERSION);
		return -ENODEV;
	}
	rx = bpfhv_read(bp, BPFHV_REG_NUM_RX_QUEUES);
	tx = bpfhv_read(bp, BPFHV_REG_NUM_TX_QUEUES);
	if (!rx || !tx || rx != tx || rx > BPFHV_MAX_PAIRS) {
		dev_err(dev, "%u receive and %u transmit queues: unsupported, must be equal and 1 to %u\n",
			rx, tx, BPFHV_MAX_PAIRS);
		return -EINVAL;
	}
	if (bp->n_pairs && bp->n_pairs != rx) {
		dev_err(dev, "%u queue pairs in place of %u: unbind the driver and bind it again\n",
			rx, bp->n_pairs);
		return -EINVAL;
	}
	bp->n_pairs = rx;

	/*
	 * While it is enabled, it refuses abilities and features. It may write to memory only after
	 * that: the contexts that it has may be of memory that was freed.
	 */
	bpfhv_write_sync(bp, BPFHV_REG_CTRL, BPFHV_CTRL_RX_DISABLE | BPFHV_CTRL_TX_DISABLE);
	if (bp->gone)
		return -ENODEV;
	pci_set_master(bp->pdev);
	bpfhv_acknowledge(bp);
	return 0;
}

/* Once: what the user has set since stays. */
void bpfhv_read_speed(struct bpfhv_priv *bp)
{
	bp->speed = bp->abilities ? bpfhv_read(bp, BPFHV_REG_LINK_SPEED) : 0;
	if (!bp->speed || !ethtool_validate_speed(bp->speed))
		bp->speed = SPEED_UNKNOWN;
	bp->duplex = DUPLEX_FULL;
}

/* Agrees on features of the set that the registers show. */
void bpfhv_agree(struct bpfhv_priv *bp, struct bpfhv_terms *terms)
{
	u32 wanted = bpfhv_wanted_features(bp), offered;

	offered = bpfhv_read(bp, bp->abilities ? BPFHV_REG_OFFERED : BPFHV_REG_FEATURES);
	if (bp->gone)
		offered = 0;
	bpfhv_write_sync(bp, BPFHV_REG_FEATURES, offered & wanted);
	terms->offered = offered;
	terms->selected = bpfhv_read(bp, BPFHV_REG_FEATURES) & offered & wanted;
	terms->features = bpfhv_netdev_features(terms->selected);
}

/* Negotiates features. The programs depend on them, so this comes before they are fetched. */
void bpfhv_negotiate(struct bpfhv_priv *bp)
{
	struct bpfhv_terms terms;

	bpfhv_agree(bp, &terms);
	bp->offered = terms.offered;
	bp->selected = terms.selected;
	bp->features = terms.features;
}

/* Logs the device's queue dump. Characters that are not printable ASCII are left out. */
void bpfhv_log_dump(struct bpfhv_priv *bp)
{
	char line[80];
	u32 at, len, word = 0, used = 0;

	bpfhv_write_sync(bp, BPFHV_REG_CTRL, BPFHV_CTRL_QUEUES_DUMP);
	len = min_t(u32, bpfhv_read(bp, BPFHV_REG_DUMP_LEN), PAGE_SIZE);
	for (at = 0; at < len && !bp->gone; at++, word >>= 8) {
		char c;

		if (!(at & 3)) {
			bpfhv_write(bp, BPFHV_REG_DUMP_OFS, at);
			word = bpfhv_read(bp, BPFHV_REG_DUMP_INPUT);
		}
		c = word & 0xff;
		if (c >= ' ' && c <= '~')
			line[used++] = c;
		if (used && (c == '\n' || at == len - 1 || used == sizeof(line))) {
			netdev_err(bp->netdev, "device: %.*s\n", (int)used, line);
			used = 0;
		}
	}
}
