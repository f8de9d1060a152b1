// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Offloads: the stack's features of a set, the metadata of a packet, and software for packets that
 * the stack prepared for an earlier set.
 */
#include <linux/etherdevice.h>
#include <linux/virtio_net.h>

#include "bpfhv_xdp.h"

/* Features that this driver uses. */
u32 bpfhv_wanted_features(const struct bpfhv_priv *bp)
{
	u32 wanted = BPFHV_F_SG | BPFHV_F_TX_CSUM | BPFHV_F_TSO_V4 | BPFHV_F_TSO_V6 |
		     BPFHV_F_UFO | BPFHV_F_RX_CSUM | BPFHV_F_LRO;

	/* An XDP program sees packets as they were sent. */
	if (rcu_access_pointer(bp->xdp_prog))
		wanted &= ~BPFHV_F_LRO;
	return wanted & ~bp->switched_off;
}

/*
 * Returns the stack's flags for device features. Large packets need checksums in both directions.
 */
netdev_features_t bpfhv_netdev_features(u32 features)
{
	netdev_features_t to = NETIF_F_HIGHDMA;

	if (features & BPFHV_F_SG)
		to |= NETIF_F_SG | NETIF_F_FRAGLIST;
	if (features & BPFHV_F_TX_CSUM) {
		to |= NETIF_F_HW_CSUM;
		if (features & BPFHV_F_TSO_V4)
			to |= NETIF_F_TSO | NETIF_F_TSO_ECN;
		if (features & BPFHV_F_TSO_V6)
			to |= NETIF_F_TSO6 | NETIF_F_TSO_ECN;
		if ((features & BPFHV_F_UFO) && BPFHV_HAS_USO)
			to |= NETIF_F_GSO_UDP_L4;
		/* The host trusts the metadata of no packet, so a forwarded one may have any. */
		if (to & NETIF_F_GSO_MASK)
			to |= NETIF_F_GSO_ROBUST;
	}
	if (features & BPFHV_F_RX_CSUM) {
		to |= NETIF_F_RXCSUM;
		if (features & BPFHV_F_LRO)
			to |= NETIF_F_GRO_HW;
	}
	return to;
}

/* Flags that depend on the set. The core owns all others. */
static netdev_features_t bpfhv_managed_features(void)
{
	return bpfhv_netdev_features(~0U) & ~NETIF_F_HIGHDMA;
}

/* Flags that the current set supports, including those that the user disabled. */
static netdev_features_t bpfhv_supported_features(const struct bpfhv_priv *bp)
{
	const struct bpfhv_terms *next = bpfhv_next_terms(bp);
	u32 off = bp->offered & bp->switched_off;
	netdev_features_t features = bpfhv_netdev_features(bp->selected | off);

	if (next) {
		off = next->offered & bp->switched_off;
		features &= bpfhv_netdev_features(next->selected | off);
	}
	return features & bpfhv_managed_features();
}

/* The user's choice outlives sets. Returns the part that the current set supports. */
netdev_features_t bpfhv_fix_features(struct net_device *dev, netdev_features_t features)
{
	struct bpfhv_priv *bp = netdev_priv(dev);

	if (rcu_access_pointer(bp->xdp_prog))
		features &= ~NETIF_F_GRO_HW;
	return features & (bpfhv_supported_features(bp) | ~bpfhv_managed_features());
}

static void bpfhv_show_features(struct bpfhv_priv *bp)
{
	netdev_features_t managed = bpfhv_managed_features();
	netdev_features_t fixed = NETIF_F_GSO_ROBUST;
	netdev_features_t sent = bp->features & ~(NETIF_F_RXCSUM | NETIF_F_GRO_HW);
	struct net_device *dev = bp->netdev;

	dev->hw_features = (dev->hw_features & ~managed) | (bpfhv_supported_features(bp) & ~fixed);
	dev->vlan_features = (dev->vlan_features & ~managed) | sent;
}

/* Called under RTNL, after features were negotiated. */
void bpfhv_set_features_from_selected(struct bpfhv_priv *bp)
{
	struct net_device *dev = bp->netdev;

	bpfhv_show_features(bp);
	bpfhv_xdp_show(bp);
	if (dev->reg_state == NETREG_REGISTERED)
		netdev_update_features(dev);
	else
		dev->features |= bp->features;
}

/* Called under RTNL, after registration: requests also what only later sets support. */
void bpfhv_want_later_features(struct bpfhv_priv *bp)
{
	struct net_device *dev = bp->netdev;

	/* The user may have disabled some of the others by now. */
	dev->wanted_features |= bpfhv_managed_features() & ~dev->hw_features;
}

/* Shows the receive features in use again, after the set for others failed behind ethtool -K. */
void bpfhv_restore_features(struct bpfhv_priv *bp)
{
	const netdev_features_t receive = NETIF_F_RXCSUM | NETIF_F_GRO_HW;
	struct net_device *dev = bp->netdev;

	bpfhv_show_features(bp);
	dev->features = (dev->features & ~receive) | (bp->features & receive);
	netdev_features_change(dev);
}

/*
 * ethtool -K. Transmit features concern only the stack. Receive features concern the host: they are
 * negotiated again, and the programs are fetched again. If that takes longer it ends without the
 * caller, who holds RTNL.
 */
int bpfhv_set_features(struct net_device *dev, netdev_features_t features)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	u32 before = bp->switched_off, off = 0, offered = bp->offered;
	const struct bpfhv_terms *next = bpfhv_next_terms(bp);
	netdev_features_t able;
	int err;

	if ((features ^ dev->features) & NETIF_F_RXHASH) {
		err = bpfhv_rss_apply(bp, features);
		if (err)
			return err;
		/* A new set, below, is started with what is there. */
		dev->features ^= NETIF_F_RXHASH;
	}
	if (!(features & NETIF_F_RXCSUM))
		off = BPFHV_F_RX_CSUM | BPFHV_F_LRO;
	else if (!(features & NETIF_F_GRO_HW))
		off = BPFHV_F_LRO;
	if (next)
		offered &= next->offered;
	/* Features that this set does not offer keep their earlier setting. */
	off = (off & offered) | (before & ~offered);
	if (off == before)
		return 0;
	bp->switched_off = off;
	/* The end of the load sees it. */
	if (bp->load.pending)
		return 0;
	err = bpfhv_renew(bp, before);
	if (err)
		return err == -EINPROGRESS ? 0 : err;
	/* The new set may support less than was requested. */
	bpfhv_show_features(bp);
	bpfhv_xdp_show(bp);
	able = bpfhv_fix_features(dev, features);
	if (able == features)
		return 0;
	dev->features = able;
	return 1;
}

int bpfhv_tx_metadata(struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct virtio_net_hdr hdr = {};

	if ((r->selected & BPFHV_F_TX_CSUM) &&
	    virtio_net_hdr_from_skb(skb, &hdr, true, false, 0))
		return -EINVAL;
	memcpy(&r->ctx->metadata, &hdr, sizeof(r->ctx->metadata));
	return 0;
}

/* Returns true if the ring's set can send the packet as it is, which the stack mostly ensures. */
bool bpfhv_tx_can_send(const struct bpfhv_ring *r, struct sk_buff *skb)
{
	netdev_features_t features = r->features;

	/* The host refuses large packets whose checksum is finished, and those of more segments. */
	if (skb_is_gso(skb) &&
	    (!skb_gso_ok(skb, features) || skb->ip_summed != CHECKSUM_PARTIAL ||
	     skb->len > (u32)skb_shinfo(skb)->gso_size * BPFHV_MAX_SEGMENTS))
		return false;
	return (skb->ip_summed != CHECKSUM_PARTIAL || (features & NETIF_F_HW_CSUM)) &&
	       (!skb_is_nonlinear(skb) || (features & NETIF_F_SG));
}

/*
 * Finishes in software a packet that the set cannot send, most often because it was validated
 * before features were lost. Returns a list of packets that the set can send, or NULL if memory ran
 * out and the packet was dropped.
 */
struct sk_buff *bpfhv_tx_sw_fallback(const struct bpfhv_ring *r, struct sk_buff *skb)
{
	netdev_features_t features = r->features & ~NETIF_F_GSO_MASK;
	struct sk_buff *segments, *one;

	if (skb_is_gso(skb)) {
		segments = skb_gso_segment(skb, features);
		if (IS_ERR_OR_NULL(segments))
			goto drop;
		consume_skb(skb);
		skb = segments;
	}
	for (one = skb; one; one = one->next) {
		if (one->ip_summed == CHECKSUM_PARTIAL && !(features & NETIF_F_HW_CSUM) &&
		    skb_checksum_help(one))
			goto drop;
		if (skb_is_nonlinear(one) && !(features & NETIF_F_SG) && __skb_linearize(one))
			goto drop;
	}
	return skb;
drop:
	kfree_skb_list(skb);
	return NULL;
}

/* Returns the feature that allows the host to send such a large packet, or 0. */
static u32 bpfhv_lro_feature(u8 gso_type)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return BPFHV_F_TCP_V4_LRO;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return BPFHV_F_TCP_V6_LRO;
	case VIRTIO_NET_HDR_GSO_UDP:
#if BPFHV_HAS_USO
	case VIRTIO_NET_HDR_GSO_UDP_L4:
#endif
		return BPFHV_F_UDP_LRO;
	}
	return 0;
}

/* Applies the host's checksum and segmentation metadata, if negotiated. */
int bpfhv_rx_metadata(struct bpfhv_ring *r, struct sk_buff *skb)
{
	struct virtio_net_hdr hdr = {};

	if (!(r->selected & BPFHV_F_RX_CSUM))
		return 0;
	memcpy(&hdr, &r->ctx->metadata, sizeof(r->ctx->metadata));
	/* It is the lower half of a hash then. */
	if (hdr.flags & BPFHV_METADATA_HASH)
		hdr.hdr_len = 0;
	hdr.flags &= ~(BPFHV_METADATA_HASH | BPFHV_METADATA_HASH_PORTS);
	if (hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE &&
	    !(r->selected & bpfhv_lro_feature(hdr.gso_type)))
		return -EPROTO;
	if (hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	return virtio_net_hdr_to_skb(skb, &hdr, true);
}
