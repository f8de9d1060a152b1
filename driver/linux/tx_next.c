// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Transmit rings: the change from one to the next, and the end of one. */
#include <linux/netdevice.h>

#include "bpfhv.h"

/* Frees what the host has not completed. Returns the number of packets of the stack. */
static u32 bpfhv_tx_drop_outstanding(struct bpfhv_queue *q, struct bpfhv_ring *r,
				     unsigned int *bytes)
{
	u32 i, packets = 0;

	for (i = 0; i < r->n_bufs; i++) {
		struct bpfhv_slot *slot = &r->slots[i];

		if (!slot->busy)
			continue;
		bpfhv_tx_unmap(q, slot);
		if (slot->skb) {
			packets++;
			*bytes += slot->skb->len;
		}
		if (bpfhv_tx_drop(slot))
			bpfhv_count(q, dropped, 1);
	}
	bpfhv_ring_reset(r);
	return packets;
}

/*
 * Publishes to the next ring from here on. What was published to the current one is visible to the
 * host when the lock is released: the caller's command comes after that.
 */
void bpfhv_tx_cut(struct bpfhv_queue *q, struct bpfhv_ring *next)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	struct sk_buff_head held;
	struct sk_buff *skb;

	__skb_queue_head_init(&held);
	__netif_tx_lock_bh(txq);
	bpfhv_tx_kick(q);
	q->old = q->cur;
	WRITE_ONCE(q->cur, next);
	/* They were finished for the features and buffers of the old ring. */
	skb_queue_splice_init(&q->held, &held);
	while ((skb = __skb_dequeue(&held)))
		bpfhv_tx_hold(q, next, skb);
	bpfhv_tx_continue(q);
	__netif_tx_unlock_bh(txq);
}

/*
 * Takes the last completions of the old ring, which the host does not touch any more. Returns true
 * if nothing uses that ring from here on.
 */
bool bpfhv_tx_retire(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	unsigned int bytes = 0, packets;

	__netif_tx_lock_bh(txq);
	if (q->old && !q->broken) {
		bpfhv_tx_reclaim_old(q, 0);
		packets = bpfhv_tx_drop_outstanding(q, q->old, &bytes);
		if (packets)
			netdev_tx_completed_queue(txq, packets, bytes);
		q->old = NULL;
		bpfhv_tx_continue(q);
	}
	__netif_tx_unlock_bh(txq);
	return !q->old;
}

/*
 * Releases everything outstanding and held. The device is disabled, so no buffer is in use. What
 * was completed before is counted as sent, the rest as dropped.
 *
 * The lock: a receive poll on another CPU may still be in bpfhv_tx_reclaim_from_rx().
 */
void bpfhv_tx_drain(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	unsigned int bytes = 0;

	/* No transmit runs any more, so nothing starts the timer again. */
	hrtimer_cancel(&q->tx_timer);
	__netif_tx_lock_bh(txq);
	if (!q->bp->gone) {
		bpfhv_tx_reclaim_old(q, 0);
		bpfhv_tx_reclaim(q, q->cur, q->cur->n_bufs, 0);
	}
	if (q->old)
		bpfhv_tx_drop_outstanding(q, q->old, &bytes);
	bpfhv_tx_drop_outstanding(q, q->cur, &bytes);
	bpfhv_tx_drop_held(q);
	q->kick_pending = false;
	netdev_tx_reset_queue(txq);
	__netif_tx_unlock_bh(txq);
}
