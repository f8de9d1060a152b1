/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Flow hashes: rss.c, and what ethtool.c calls of it. */
#ifndef BPFHV_RSS_H
#define BPFHV_RSS_H

#include <linux/ethtool.h>
#include <linux/netdevice.h>

#include "bpfhv_abi.h"
#include "compat.h"

struct bpfhv_priv;
struct bpfhv_ring;

/* Settings. Under RTNL. */
struct bpfhv_flow_hash {
	struct bpfhv_rss rss;
	struct bpfhv_rss *block;	/* the copy that the host reads */
	dma_addr_t dma;
};

int bpfhv_rss_init(struct bpfhv_priv *bp);
int bpfhv_rss_apply(struct bpfhv_priv *bp, netdev_features_t features);
void bpfhv_rx_hash(struct bpfhv_priv *bp, struct bpfhv_ring *r, struct sk_buff *skb);
u32 bpfhv_get_rxfh_key_size(struct net_device *dev);
u32 bpfhv_get_rxfh_indir_size(struct net_device *dev);
#if BPFHV_HAS_RXFH_PARAM
int bpfhv_get_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh);
int bpfhv_set_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh,
		   struct netlink_ext_ack *extack);
#else
int bpfhv_get_rxfh(struct net_device *dev, u32 *indir, u8 *key, u8 *hfunc);
int bpfhv_set_rxfh(struct net_device *dev, const u32 *indir, const u8 *key, const u8 hfunc);
#endif
#if BPFHV_HAS_RXFH_FIELDS
int bpfhv_get_rxfh_fields(struct net_device *dev, struct ethtool_rxfh_fields *fields);
int bpfhv_set_rxfh_fields(struct net_device *dev, const struct ethtool_rxfh_fields *fields,
			  struct netlink_ext_ack *extack);
#endif
#if BPFHV_HAS_RX_RING_COUNT
u32 bpfhv_get_rx_ring_count(struct net_device *dev);
#endif
int bpfhv_get_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info, u32 *rule_locs);
int bpfhv_set_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info);

#endif /* BPFHV_RSS_H */
