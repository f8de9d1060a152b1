// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Receive: pages from a page pool, mapped once and recycled; small packets are
 * copied out so that their page stays in its slot; the rest are built in place.
 *
 *     page:  | headroom | frame ...            | skb_shared_info |
 */
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>

#include "bpfhv.h"

#define BPFHV_REFILL_RETRY	(HZ / 10)
/* Packets in a row that are taken in a softirq. */
#define BPFHV_RX_BURST		64

int bpfhv_rx_setup(struct bpfhv_queue *q)
{
	struct page_pool_params params = {
		.flags = PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV,
		.pool_size = min_t(u32, q->cur->n_bufs, 1024),
		.nid = NUMA_NO_NODE,
		.dev = &q->bp->pdev->dev,
		BPFHV_POOL_NAPI(&q->napi)
		.dma_dir = DMA_FROM_DEVICE,
		.offset = BPFHV_RX_HEADROOM,
		.max_len = BPFHV_RX_LEN,
	};

	q->pool = page_pool_create(&params);
	if (IS_ERR(q->pool)) {
		int err = PTR_ERR(q->pool);

		q->pool = NULL;
		return err;
	}
	return 0;
}

void bpfhv_rx_teardown(struct bpfhv_queue *q)
{
	if (q->pool)
		page_pool_destroy(q->pool);
	q->pool = NULL;
}

/* Gives the slot on top of the stack a page, if it has none. */
static struct bpfhv_slot *bpfhv_rx_prepare(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 *id)
{
	struct bpfhv_slot *slot;

	*id = r->free_ids[r->n_free - 1];
	slot = &r->slots[*id];
	if (slot->page) {
		dma_sync_single_for_device(&q->bp->pdev->dev, slot->dma, BPFHV_RX_LEN,
					   DMA_FROM_DEVICE);
		return slot;
	}
	slot->page = page_pool_dev_alloc_pages(q->pool);
	if (!slot->page)
		return NULL;
	slot->dma = page_pool_get_dma_addr(slot->page) + BPFHV_RX_HEADROOM;
	slot->len = BPFHV_RX_LEN;
	return slot;
}

static u32 bpfhv_rx_fill(struct bpfhv_queue *q, struct bpfhv_ring *r)
{
	struct bpfhv_context *ctx = r->ctx;
	u32 n, id, want = min_t(u32, r->n_free, BPFHV_MAX_BUFS);

	for (n = 0; n < want; n++) {
		struct bpfhv_slot *slot = bpfhv_rx_prepare(q, r, &id);

		if (!slot)
			break;
		bpfhv_ring_take(r);
		ctx->bufs[n].cookie = cpu_to_le64(id);
		ctx->bufs[n].paddr = cpu_to_le64(slot->dma);
		ctx->bufs[n].vaddr = 0;
		ctx->bufs[n].len = cpu_to_le32(slot->len);
		ctx->bufs[n].reserved = 0;
	}
	return n;
}

/* Takes back the n slots taken last. */
static void bpfhv_rx_unfill(struct bpfhv_ring *r, u32 n)
{
	while (n--)
		r->slots[r->free_ids[r->n_free++]].busy = false;
}

/* Publishes buffers for all free slots. False where memory ran out. */
bool bpfhv_rx_refill(struct bpfhv_queue *q)
{
	struct bpfhv_ring *r = q->cur;
	bool kick = false;
	u32 n = 0;

	while (r->n_free && !q->broken) {
		n = bpfhv_rx_fill(q, r);
		if (!n)
			break;
		r->ctx->num_bufs = cpu_to_le32(n);
		r->ctx->oflags = 0;
		if (unlikely(bpfhv_run(r, BPFHV_PROG_RXP) < 0)) {
			bpfhv_rx_unfill(r, n);
			bpfhv_request_reset(q, "program rxp failed");
			break;
		}
		if (le32_to_cpu(READ_ONCE(r->ctx->oflags)) & BPFHV_OFLAG_KICK_NEEDED)
			kick = true;
	}
	if (kick)
		bpfhv_kick(q);
	if (r->n_free && !q->broken) {
		bpfhv_count(q, no_memory, 1);
		return false;
	}
	return true;
}

/* Runs the poll, in a context that the scheduler can weigh against others. */
void bpfhv_rx_poll_work(struct work_struct *work)
{
	struct bpfhv_queue *q = container_of(to_delayed_work(work), struct bpfhv_queue,
					     poll_work);

	local_bh_disable();
	napi_schedule(&q->napi);
	local_bh_enable();
}

enum hrtimer_restart bpfhv_rx_timer(struct hrtimer *timer)
{
	struct bpfhv_queue *q = container_of(timer, struct bpfhv_queue, rx_timer);

	napi_schedule_irqoff(&q->napi);
	return HRTIMER_NORESTART;
}

/* The poll ends. A queue without a vector comes back by itself. */
static void bpfhv_rx_complete(struct bpfhv_queue *q, int done)
{
	if (unlikely(!q->irq) && !hrtimer_is_queued(&q->rx_timer))
		hrtimer_start(&q->rx_timer, ns_to_ktime(BPFHV_RX_LOOK_NS), HRTIMER_MODE_REL_PINNED);
	napi_complete_done(&q->napi, done);
}

static void bpfhv_rx_deliver(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb,
			     bool polling)
{
	unsigned int len = skb->len;

	if (unlikely(bpfhv_rx_metadata(q, r, skb))) {
		bpfhv_count(q, dropped, 1);
		kfree_skb(skb);
		return;
	}
	skb_record_rx_queue(skb, q->index);
	skb->protocol = eth_type_trans(skb, q->bp->netdev);
	bpfhv_count(q, packets, 1);
	bpfhv_count(q, bytes, len);
	if (likely(polling))
		napi_gro_receive(&q->napi, skb);
	else
		netif_receive_skb(skb);
}

/*
 * Takes one packet from the ring and passes it on. @return 1; 0 where there is
 * none; -EAGAIN where the program wants to run once more before it is armed.
 */
static int bpfhv_rx_one(struct bpfhv_queue *q, struct bpfhv_ring *r, bool polling)
{
	struct sk_buff *skb;
	int ret;

	r->ctx->oflags = 0;
	if (unlikely(r->run_ctx))	/* a helper fills it, or does not */
		memset(&r->ctx->metadata, 0, sizeof(r->ctx->metadata));
	ret = bpfhv_run(r, BPFHV_PROG_RXC);
	if (!ret) {
		u32 oflags = le32_to_cpu(READ_ONCE(r->ctx->oflags));

		return oflags & BPFHV_OFLAG_RESCHED_NEEDED ? -EAGAIN : 0;
	}
	ret = ret == 1 ? bpfhv_rx_packet(q, r, &skb) : -EPROTO;
	if (unlikely(ret < 0)) {
		bpfhv_request_reset(q, "a received packet makes no sense");
		return ret;
	}
	if (likely(skb))
		bpfhv_rx_deliver(q, r, skb, polling);
	else
		bpfhv_count(q, dropped, 1);
	return 1;
}

/* Free slots from which on it pays to publish buffers. */
static u32 bpfhv_rx_enough(const struct bpfhv_ring *r)
{
	return min_t(u32, BPFHV_MAX_BUFS, r->n_bufs / 4);
}

/* Takes up to max packets from the ring. @return how many; *ret as bpfhv_rx_one(). */
static int bpfhv_rx_clean(struct bpfhv_queue *q, int max, int *ret)
{
	struct bpfhv_ring *r = q->cur;
	int done = 0;

	*ret = 0;
	while (done < max && bpfhv_outstanding(r) && !q->broken) {
		*ret = bpfhv_rx_one(q, r, true);
		if (*ret != 1)
			break;
		done++;
		if (r->n_free >= bpfhv_rx_enough(r))
			bpfhv_rx_refill(q);
	}
	return done;
}

/* Learns whether it pays to look for answers right after a doorbell. */
static void bpfhv_rx_sought(struct bpfhv_queue *q, int done)
{
	if (!READ_ONCE(q->answer_sought))
		return;
	WRITE_ONCE(q->answer_sought, false);
	if (done)
		WRITE_ONCE(q->answer_looks, BPFHV_ANSWER_LOOKS);
	else if (q->answer_looks)
		WRITE_ONCE(q->answer_looks, q->answer_looks - 1);
}

/* Arms the interrupt. True where there is work instead, so that none will come. */
static bool bpfhv_rx_more(struct bpfhv_queue *q, struct bpfhv_ring *r, int ret, int done)
{
	if (ret == -EAGAIN)
		ret = 1;
	else
		ret = q->broken ? 0 : bpfhv_run_intr(r, BPFHV_PROG_RXI, 1);
	return bpfhv_promised_work(q, ret, done);
}

/*
 * The interrupt is armed while the queue is still ours: no other CPU can run a
 * program of this ring meanwhile, and an interrupt that comes before the poll is
 * complete makes it run again.
 *
 * A burst is polled here, in a softirq, for the sake of latency. What goes on
 * for longer moves to a worker. Softirqs come before every task: a host that
 * sends faster than this CPU can take would leave nothing to the programs that
 * the packets are for, which would all be dropped at their sockets.
 */
int bpfhv_rx_poll(struct napi_struct *napi, int budget)
{
	struct bpfhv_queue *q = container_of(napi, struct bpfhv_queue, napi);
	struct bpfhv_ring *r = q->cur;
	int done, ret;

	/* Netpoll, with a budget of 0, is about transmitting only. */
	if (!budget)
		return 0;
	bpfhv_run_intr(r, BPFHV_PROG_RXI, 0);
	done = bpfhv_rx_clean(q, budget, &ret);
	bpfhv_rx_sought(q, done);
	bpfhv_tx_clean_beside(bpfhv_txq(q->bp, q->index));
	/* Memory ran out. Without buffers for the next packet no interrupt would bring us back here. */
	if (unlikely(r->n_free >= bpfhv_rx_enough(r)) && !bpfhv_rx_refill(q))
		schedule_delayed_work(&q->poll_work, BPFHV_REFILL_RETRY);
	q->burst += done;
	if (done < budget && !bpfhv_rx_more(q, r, ret, done)) {
		q->burst = 0;
		bpfhv_rx_complete(q, done);
		/* After the packets are where they are wanted: nobody waits for this. */
		bpfhv_tx_clean_beside(bpfhv_txq(q->bp, q->index));
		return done;
	}
	bpfhv_tx_clean_beside(bpfhv_txq(q->bp, q->index));
	if (q->burst < BPFHV_RX_BURST)
		return budget;
	q->burst = 0;
	napi_complete_done(napi, budget - 1);
	mod_delayed_work(system_unbound_wq, &q->poll_work, 0);
	return budget - 1;
}

/*
 * Lets go of every page. The device is disabled, and NAPI does not run. What
 * the host had completed by then is still delivered.
 */
void bpfhv_rx_drain(struct bpfhv_queue *q)
{
	struct bpfhv_ring *r = q->cur;
	u32 i;

	local_bh_disable();
	while (bpfhv_outstanding(r) && !q->broken && !q->bp->gone)
		if (bpfhv_rx_one(q, r, false) != 1)
			break;
	local_bh_enable();
	for (i = 0; i < r->n_bufs; i++) {
		struct bpfhv_slot *slot = &r->slots[i];

		if (slot->page)
			page_pool_put_full_page(q->pool, slot->page, false);
		slot->page = NULL;
	}
	bpfhv_ring_reset(r);
}
