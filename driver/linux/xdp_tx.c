// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Transmit for XDP: frames that a program sends back (XDP_TX), and those that programs of other
 * NICs redirect to this one. They share the queues of the stack, and their locks.
 */
#include <linux/netdevice.h>

#include "bpfhv_xdp.h"

#if BPFHV_HAS_XDP

void bpfhv_xdp_release(struct xdp_frame *frame)
{
	xdp_return_frame(frame);
}

static u32 bpfhv_xdp_frags(struct xdp_frame *frame)
{
	return xdp_frame_has_frags(frame) ? xdp_get_shared_info_from_frame(frame)->nr_frags : 0;
}

static int bpfhv_xdp_map(struct bpfhv_queue *q, struct bpfhv_ring *r, struct xdp_frame *frame)
{
	struct bpfhv_slot *first = &r->slots[r->free_ids[r->n_free - 1]];
	u32 i, frags = bpfhv_xdp_frags(frame);
	int err;

	err = bpfhv_tx_map_buf(q, r, 0, frame->data, NULL, frame->len);
	for (i = 0; i < frags && !err; i++) {
		const skb_frag_t *frag = &xdp_get_shared_info_from_frame(frame)->frags[i];

		err = bpfhv_tx_map_buf(q, r, i + 1, NULL, frag, skb_frag_size(frag));
	}
	if (unlikely(err)) {
		/* The one that failed is not mapped. */
		bpfhv_tx_undo(q, r, i);
		return err;
	}
	first->frame = frame;
	first->n_bufs = 1 + frags;
	return 1 + frags;
}

/*
 * Publishes a frame. On failure the caller keeps it: there is no waiting for room here. Under the
 * transmit lock.
 */
static int bpfhv_xdp_publish(struct bpfhv_queue *q, struct xdp_frame *frame)
{
	u32 bufs = 1 + bpfhv_xdp_frags(frame), bytes = xdp_get_frame_len(frame);
	struct bpfhv_ring *r = q->cur;
	int used, err;

	/* The stack stops a queue that goes down; XDP does not look at that. */
	if (unlikely(!q->bp->running || q->broken))
		return -ENETDOWN;
	if (unlikely(bufs > 1 && !(r->selected & BPFHV_F_SG)))
		return -EOPNOTSUPP;
	if (bufs > r->n_free || bpfhv_outstanding(r) >= r->n_bufs / 2)
		bpfhv_tx_reclaim(q, r, r->n_bufs, 0);
	/* Packets that the stack waits for come first. */
	if (unlikely(bufs > r->n_free || !skb_queue_empty(&q->held)))
		return -ENOSPC;
	memset(&r->ctx->metadata, 0, sizeof(r->ctx->metadata));
	used = bpfhv_xdp_map(q, r, frame);
	if (unlikely(used < 0))
		return used;
	err = bpfhv_tx_run(q, r, used);
	if (unlikely(err))
		return err;
	bpfhv_count(q, packets, 1);
	bpfhv_count(q, bytes, bytes);
	return 0;
}

/*
 * Ends a burst: kicks the host, and ensures that the completions are reclaimed. Under the transmit
 * lock.
 */
static void bpfhv_xdp_kick(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	struct bpfhv_ring *r = q->cur;

	if (unlikely(!q->bp->running))
		return;
	/* Not bpfhv_tx_kick(): the receive poll is mostly the caller. */
	if (q->kick_pending) {
		q->kick_pending = false;
		bpfhv_kick(q);
	}
	txq_trans_cond_update(txq);
	bpfhv_tx_reclaim(q, r, BPFHV_TX_RECLAIM_XMIT, 0);
	if (unlikely(bpfhv_tx_schedule_reclaim(q, r, txq)))
		napi_schedule(&q->napi);
}

/* Sends a frame back. On failure the caller keeps it. */
int bpfhv_xdp_send(struct bpfhv_queue *q, struct xdp_frame *frame)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	int err;

	__netif_tx_lock(txq, smp_processor_id());
	err = bpfhv_xdp_publish(q, frame);
	__netif_tx_unlock(txq);
	return err;
}

/* The last frame of a burst was sent. */
void bpfhv_xdp_sent(struct bpfhv_queue *q)
{
	struct netdev_queue *txq = bpfhv_netdev_txq(q);

	__netif_tx_lock(txq, smp_processor_id());
	bpfhv_xdp_kick(q);
	__netif_tx_unlock(txq);
}

/* Sends redirected frames. The caller frees those that were not sent. */
int bpfhv_xdp_xmit(struct net_device *dev, int n, struct xdp_frame **frames, u32 flags)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	unsigned int cpu = smp_processor_id();
	struct bpfhv_queue *q = bpfhv_txq(bp, cpu % bp->n_pairs);
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	int sent;

	if (unlikely(flags & ~XDP_XMIT_FLAGS_MASK))
		return -EINVAL;
	__netif_tx_lock(txq, cpu);
	for (sent = 0; sent < n; sent++)
		if (bpfhv_xdp_publish(q, frames[sent]))
			break;
	bpfhv_count(q, xdp_xmit, sent);
	bpfhv_count(q, xdp_errors, n - sent);
	if (flags & XDP_XMIT_FLUSH)
		bpfhv_xdp_kick(q);
	__netif_tx_unlock(txq);
	return sent;
}

#endif /* BPFHV_HAS_XDP */
