// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Maps, publishes and reclaims the buffers of a packet. Everything here runs under the netdev
 * transmit lock, as in tx.c.
 */
#include <linux/dma-mapping.h>
#include <linux/netdevice.h>

#include "bpfhv_xdp.h"

/*
 * Returns the buffers that a packet takes; more than BPFHV_MAX_BUFS if it cannot be mapped as it
 * is. Ring formats may have 16 bits for a length.
 */
u32 bpfhv_tx_bufs(const struct sk_buff *skb)
{
	u32 n = 1 + skb_shinfo(skb)->nr_frags;
	const struct sk_buff *part;

	if (unlikely(skb_headlen(skb) > U16_MAX))
		return BPFHV_MAX_BUFS + 1;
	if (likely(!skb_has_frag_list(skb)))
		return n;
	skb_walk_frags(skb, part) {
		if (skb_has_frag_list(part))
			return BPFHV_MAX_BUFS + 1;
		n += !!skb_headlen(part) + skb_shinfo(part)->nr_frags;
	}
	return n;
}

void bpfhv_tx_unmap(struct bpfhv_queue *q, struct bpfhv_slot *slot)
{
	struct device *dev = &q->bp->pdev->dev;

	if (slot->paged)
		dma_unmap_page(dev, slot->dma, slot->len, DMA_TO_DEVICE);
	else
		dma_unmap_single(dev, slot->dma, slot->len, DMA_TO_DEVICE);
}

/* Releases the buffers that were mapped last. */
void bpfhv_tx_undo(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 done)
{
	u32 i, id;

	for (i = 0; i < done; i++) {
		/*
		 * From the private stack: the context's cookies may have been changed by the host.
		 */
		id = r->free_ids[r->n_free];
		r->slots[id].busy = false;
		r->slots[id].skb = NULL;
		r->slots[id].frame = NULL;
		bpfhv_tx_unmap(q, &r->slots[id]);
		r->n_free++;
	}
}

/* Maps a piece of a packet, of its head or a fragment, as buffer i. */
int bpfhv_tx_map_buf(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 i, const void *head,
		     const skb_frag_t *frag, u32 len)
{
	struct device *dev = &q->bp->pdev->dev;
	u32 id = r->free_ids[r->n_free - 1];
	struct bpfhv_slot *slot = &r->slots[id];
	struct bpfhv_buf *buf = &r->ctx->bufs[i];

	if (frag)
		slot->dma = skb_frag_dma_map(dev, frag, 0, len, DMA_TO_DEVICE);
	else
		slot->dma = dma_map_single(dev, (void *)head, len, DMA_TO_DEVICE);
	if (unlikely(dma_mapping_error(dev, slot->dma)))
		return -ENOMEM;
	slot->len = len;
	slot->paged = frag;
	slot->skb = NULL;
	slot->frame = NULL;
	slot->n_bufs = 0;
	bpfhv_slot_alloc(r);
	buf->cookie = cpu_to_le64(id);
	buf->paddr = cpu_to_le64(slot->dma);
	buf->vaddr = 0;
	buf->len = cpu_to_le32(len);
	buf->reserved = 0;
	return 0;
}

/* Appends the head and the fragments of one skb. Its head may be empty in a frag_list. */
static int bpfhv_tx_map_part(struct bpfhv_queue *q, struct bpfhv_ring *r,
			     const struct sk_buff *part, u32 *used)
{
	int i, err = 0;

	if (likely(skb_headlen(part))) {
		err = bpfhv_tx_map_buf(q, r, *used, part->data, NULL, skb_headlen(part));
		*used += !err;
	}
	for (i = 0; i < skb_shinfo(part)->nr_frags && !err; i++) {
		const skb_frag_t *frag = &skb_shinfo(part)->frags[i];

		err = bpfhv_tx_map_buf(q, r, *used, NULL, frag, skb_frag_size(frag));
		*used += !err;
	}
	return err;
}

/*
 * Fills bufs[] with the packet, for which the ring has room. Returns the number of buffers, or a
 * negative error with nothing held.
 */
static int bpfhv_tx_map(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct bpfhv_slot *first = &r->slots[r->free_ids[r->n_free - 1]];
	struct sk_buff *part;
	u32 used = 0;
	int err;

	err = bpfhv_tx_map_part(q, r, skb, &used);
	if (unlikely(skb_has_frag_list(skb))) {
		skb_walk_frags(skb, part) {
			if (err)
				break;
			err = bpfhv_tx_map_part(q, r, part, &used);
		}
	}
	if (unlikely(err)) {
		bpfhv_tx_undo(q, r, used);
		return err;
	}
	first->skb = skb;
	first->n_bufs = used;
	return used;
}

/* Publishes what was mapped. On failure nothing is held. */
int bpfhv_tx_run(struct bpfhv_queue *q, struct bpfhv_ring *r, u32 used)
{
	struct bpfhv_context *ctx = r->ctx;
	int ret;

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

/* Publishes one packet. On failure nothing is held, and the caller keeps the packet. */
int bpfhv_tx_publish(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff *skb)
{
	int used, ret;

	ret = bpfhv_tx_metadata(r, skb);
	if (unlikely(ret))
		return ret;
	used = bpfhv_tx_map(q, r, skb);
	if (unlikely(used < 0))
		return used;
	return bpfhv_tx_run(q, r, used);
}

/* Frees a packet that was not sent, of the stack or of XDP. Returns false if the slot has none. */
bool bpfhv_tx_drop(struct bpfhv_slot *slot)
{
	if (slot->skb)
		dev_kfree_skb_any(slot->skb);
	else if (slot->frame)
		bpfhv_xdp_release(slot->frame);
	else
		return false;
	slot->skb = NULL;
	slot->frame = NULL;
	return true;
}

/* Reclaims the buffers of one completed packet. Counts the bytes of packets of the stack. */
int bpfhv_tx_return(struct bpfhv_queue *q, struct bpfhv_ring *r, int budget,
		    unsigned int *bytes)
{
	u32 num = le32_to_cpu(READ_ONCE(r->ctx->num_bufs));
	struct bpfhv_slot *first = NULL;
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
		if (!i)
			first = &r->slots[id];
	}
	if (unlikely(first->frame)) {
		bpfhv_xdp_release(first->frame);
		first->frame = NULL;
		return 0;
	}
	*bytes += first->skb->len;
	napi_consume_skb(first->skb, budget);
	first->skb = NULL;
	return 0;
invalid:
	if (first)
		bpfhv_tx_drop(first);
	return -EPROTO;
}
