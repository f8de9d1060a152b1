// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Builds packets from received buffers. A small packet is copied, so that its page stays in its
 * slot; others are built in the page that they arrived in.
 */
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>

#include "bpfhv.h"

static const struct bpfhv_rx_layout *bpfhv_rx_layout(const struct bpfhv_queue *q,
						     const struct bpfhv_slot *slot)
{
	return &q->bp->rx_layout[slot->roomy];
}

void *bpfhv_rx_data(const struct bpfhv_queue *q, const struct bpfhv_slot *slot)
{
	return page_address(slot->page) + slot->offset + bpfhv_rx_layout(q, slot)->headroom;
}

struct sk_buff *bpfhv_rx_copy(struct bpfhv_queue *q, const void *data, u32 len)
{
	struct sk_buff *skb = napi_alloc_skb(&q->napi, len);

	if (skb)
		skb_put_data(skb, data, len);
	return skb;
}

static struct sk_buff *bpfhv_rx_build(struct bpfhv_queue *q, struct bpfhv_slot *slot, u32 len)
{
	const struct bpfhv_rx_layout *layout = bpfhv_rx_layout(q, slot);
	struct sk_buff *skb;

	skb = napi_build_skb(bpfhv_rx_data(q, slot) - layout->headroom, layout->size);
	if (!skb)
		return NULL;
	skb_reserve(skb, layout->headroom);
	skb_put(skb, len);
	bpfhv_mark_for_recycle(skb);
	bpfhv_release_page(q->pool, slot->page);
	slot->page = NULL;
	return skb;
}

/*
 * Appends a buffer to a packet whose last skb is *tail. The largest packets need more than
 * MAX_SKB_FRAGS buffers, so skbs are chained by frag_list.
 */
static bool bpfhv_rx_append(struct bpfhv_queue *q, struct sk_buff *skb, struct sk_buff **tail,
			    struct bpfhv_slot *slot, u32 len)
{
	const struct bpfhv_rx_layout *layout = bpfhv_rx_layout(q, slot);

	if (unlikely(skb_shinfo(*tail)->nr_frags == MAX_SKB_FRAGS)) {
		struct sk_buff *next = alloc_skb(0, GFP_ATOMIC);

		if (!next)
			return false;
		bpfhv_mark_for_recycle(next);
		skb->truesize += next->truesize;
		if (*tail == skb)
			skb_shinfo(skb)->frag_list = next;
		else
			(*tail)->next = next;
		*tail = next;
	}
	/* The recycling mark covers the whole packet, so its head must be a pool page, too. */
	skb_add_rx_frag(*tail, skb_shinfo(*tail)->nr_frags, slot->page,
			slot->offset + layout->headroom, len, layout->size);
	if (*tail != skb) {
		skb->len += len;
		skb->data_len += len;
		skb->truesize += layout->size;
	}
	bpfhv_release_page(q->pool, slot->page);
	slot->page = NULL;
	return true;
}

/*
 * Builds a packet from the buffers that rxc left in the context. Returns 1 if *out is a packet, 0
 * if it was dropped for lack of memory, or a negative error if the host broke the ABI.
 */
int bpfhv_rx_packet(struct bpfhv_queue *q, struct bpfhv_ring *r, struct sk_buff **out)
{
	u32 num = le32_to_cpu(READ_ONCE(r->ctx->num_bufs));
	struct sk_buff *skb = NULL, *tail = NULL;
	bool failed = false;
	u32 i, id;

	*out = NULL;
	if (unlikely(!num || num > BPFHV_MAX_BUFS))
		return -EPROTO;
	for (i = 0; i < num; i++) {
		u64 cookie = le64_to_cpu(READ_ONCE(r->ctx->bufs[i].cookie));
		u32 len = le32_to_cpu(READ_ONCE(r->ctx->bufs[i].len));
		struct bpfhv_slot *slot;

		if (unlikely(!bpfhv_slot_free(r, cookie, &id) || len > r->slots[id].len)) {
			kfree_skb(skb);
			return -EPROTO;
		}
		slot = &r->slots[id];
		/* A length of 0: the host skipped this buffer. Its page stays in the slot. */
		if (unlikely(!len || failed))
			continue;
		if (unlikely(len < ETH_HLEN && !skb)) {
			failed = true;
			continue;
		}
		dma_sync_single_for_cpu(&q->bp->pdev->dev, slot->dma, len, DMA_FROM_DEVICE);
		if (skb)
			failed = !bpfhv_rx_append(q, skb, &tail, slot, len);
		else if (num == 1 && len <= BPFHV_COPYBREAK)
			skb = bpfhv_rx_copy(q, bpfhv_rx_data(q, slot), len);
		else
			skb = tail = bpfhv_rx_build(q, slot, len);
		failed |= !skb;
	}
	if (unlikely(failed)) {
		kfree_skb(skb);
		skb = NULL;
	}
	*out = skb;
	return skb ? 1 : 0;
}
