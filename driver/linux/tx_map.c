// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Maps, publishes and reclaims the buffers of a packet. Everything here runs under the netdev
 * transmit lock, as in tx.c.
 */
#include <linux/dma-mapping.h>
#include <linux/netdevice.h>

#include "bpfhv.h"

void bpfhv_tx_unmap(struct bpfhv_queue *q, struct bpfhv_slot *slot)
{
	struct device *dev = &q->bp->pdev->dev;

	if (slot->paged)
		dma_unmap_page(dev, slot->dma, slot->len, DMA_TO_DEVICE);
	else
		dma_unmap_single(dev, slot->dma, slot->len, DMA_TO_DEVICE);
}

static void bpfhv_tx_undo(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 done)
{
	u32 i, id;

	for (i = 0; i < done; i++) {
		/*
		 * From the private stack: the context's cookies may have been changed by the host.
		 */
		id = r->free_ids[r->n_free];
		r->slots[id].busy = false;
		r->slots[id].skb = NULL;
		bpfhv_tx_unmap(q, &r->slots[id]);
		r->n_free++;
	}
}

static int bpfhv_tx_map_one(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb,
			    int frag, u32 i)
{
	struct device *dev = &q->bp->pdev->dev;
	u32 id = r->free_ids[r->n_free - 1];
	struct bpfhv_slot *slot = &r->slots[id];
	struct bpfhv_buf *buf = &r->ctx->bufs[i];

	if (frag < 0) {
		slot->len = skb_headlen(skb);
		slot->dma = dma_map_single(dev, skb->data, slot->len, DMA_TO_DEVICE);
	} else {
		const skb_frag_t *f = &skb_shinfo(skb)->frags[frag];

		slot->len = skb_frag_size(f);
		slot->dma = skb_frag_dma_map(dev, f, 0, slot->len, DMA_TO_DEVICE);
	}
	if (unlikely(dma_mapping_error(dev, slot->dma)))
		return -ENOMEM;
	slot->paged = frag >= 0;
	slot->skb = i ? NULL : skb;
	slot->n_bufs = 0;
	bpfhv_slot_alloc(r);
	buf->cookie = cpu_to_le64(id);
	buf->paddr = cpu_to_le64(slot->dma);
	buf->vaddr = 0;
	buf->len = cpu_to_le32(slot->len);
	buf->reserved = 0;
	return 0;
}

/*
 * Fills bufs[] with the packet. Returns the number of buffers, or a negative error with nothing
 * held.
 */
static int bpfhv_tx_map(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct bpfhv_slot *first = NULL;
	int frag, used = 0, err;

	for (frag = -1; frag < skb_shinfo(skb)->nr_frags; frag++) {
		err = bpfhv_tx_map_one(q, r, skb, frag, used);
		if (unlikely(err)) {
			bpfhv_tx_undo(q, r, used);
			return err;
		}
		if (!used)
			first = &r->slots[r->free_ids[r->n_free]];
		used++;
	}
	first->n_bufs = used;
	return used;
}

/* Publishes one packet. On failure nothing is held, and the caller keeps the packet. */
int bpfhv_tx_publish(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct bpfhv_context *ctx = r->ctx;
	int used, ret;

	ret = bpfhv_tx_metadata(q, r, skb);
	if (unlikely(ret))
		return ret;
	used = bpfhv_tx_map(q, r, skb);
	if (unlikely(used < 0))
		return used;
	ctx->num_bufs = cpu_to_le32(used);
	ctx->oflags = 0;
	ret = bpfhv_run(r, BPFHV_PROG_TXP);
	if (unlikely(ret < 0)) {
		bpfhv_tx_undo(q, r, used);
		bpfhv_count(q, errors, 1);
		return ret;
	}
	if (le32_to_cpu(READ_ONCE(ctx->oflags)) & BPFHV_OFLAG_KICK_NEEDED)
		q->kick_pending = true;
	return 0;
}

/* Reclaims the buffers of one completed packet. */
int bpfhv_tx_return(struct bpfhv_queue *q, struct bpfhv_ring *r, int budget,
		    unsigned int *bytes)
{
	u32 num = le32_to_cpu(READ_ONCE(r->ctx->num_bufs));
	struct sk_buff *skb = NULL;
	u32 i, id;

	if (unlikely(!num || num > BPFHV_MAX_BUFS))
		return -EPROTO;
	for (i = 0; i < num; i++) {
		u64 cookie = le64_to_cpu(READ_ONCE(r->ctx->bufs[i].cookie));

		/* The first buffer holds the packet and the number of buffers. */
		if (unlikely(cookie >= r->n_bufs ||
			     r->slots[cookie].n_bufs != (i ? 0 : num) ||
			     !bpfhv_slot_free(r, cookie, &id)))
			goto invalid;
		bpfhv_tx_unmap(q, &r->slots[id]);
		if (!i) {
			skb = r->slots[id].skb;
			r->slots[id].skb = NULL;
		}
	}
	*bytes += skb->len;
	napi_consume_skb(skb, budget);
	return 0;
invalid:
	dev_kfree_skb_any(skb);
	return -EPROTO;
}
