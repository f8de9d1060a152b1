// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Statistics of the NIC, and what the kernel's netdev family shows of queues
 * (Documentation/netlink/specs/netdev.yaml): their statistics, and which NAPI instance serves a
 * receive queue.
 */
#include "bpfhv.h"

static void bpfhv_read_stats(struct bpfhv_queue *q, struct bpfhv_stats *now)
{
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&q->sync);
		*now = q->stats;
	} while (u64_stats_fetch_retry(&q->sync, start));
}

void bpfhv_get_stats64(struct net_device *dev, struct rtnl_link_stats64 *s)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		struct bpfhv_queue *q = &bp->queues[i];
		struct bpfhv_stats now;

		bpfhv_read_stats(q, &now);
		if (q->tx) {
			s->tx_packets += now.packets;
			s->tx_bytes += now.bytes;
			s->tx_dropped += now.dropped;
			s->tx_errors += now.errors;
		} else {
			s->rx_packets += now.packets;
			s->rx_bytes += now.bytes;
			s->rx_dropped += now.dropped;
			s->rx_errors += now.errors;
		}
	}
}

#if BPFHV_HAS_STAT_OPS
#include <net/netdev_queues.h>

static void bpfhv_set_stop(struct netdev_queue_stats_tx *stats, u64 stops)
{
#if BPFHV_HAS_STAT_STOP
	stats->stop = stops;
#endif
}

static void bpfhv_get_queue_stats_rx(struct net_device *dev, int i,
				     struct netdev_queue_stats_rx *stats)
{
	struct bpfhv_stats now;

	bpfhv_read_stats(bpfhv_rxq(netdev_priv(dev), i), &now);
	stats->packets = now.packets;
	stats->bytes = now.bytes;
	stats->alloc_fail = now.no_memory;
}

static void bpfhv_get_queue_stats_tx(struct net_device *dev, int i,
				     struct netdev_queue_stats_tx *stats)
{
	struct bpfhv_stats now;

	bpfhv_read_stats(bpfhv_txq(netdev_priv(dev), i), &now);
	stats->packets = now.packets;
	stats->bytes = now.bytes;
	bpfhv_set_stop(stats, now.stops);
}

/* Queues live as long as the device: nothing was counted besides theirs. */
static void bpfhv_get_base_stats(struct net_device *dev, struct netdev_queue_stats_rx *rx,
				 struct netdev_queue_stats_tx *tx)
{
	rx->packets = 0;
	rx->bytes = 0;
	rx->alloc_fail = 0;
	tx->packets = 0;
	tx->bytes = 0;
	bpfhv_set_stop(tx, 0);
}

static const struct netdev_stat_ops bpfhv_stat_ops = {
	.get_queue_stats_rx = bpfhv_get_queue_stats_rx,
	.get_queue_stats_tx = bpfhv_get_queue_stats_tx,
	.get_base_stats = bpfhv_get_base_stats,
};
#endif

void bpfhv_qstats_init(struct bpfhv_priv *bp)
{
#if BPFHV_HAS_STAT_OPS
	bp->netdev->stat_ops = &bpfhv_stat_ops;
#endif
}

/* Under RTNL. The kernel gives no id to the NAPI of a transmit queue, as no task polls it. */
void bpfhv_show_napi(struct bpfhv_priv *bp, bool up)
{
#if BPFHV_HAS_QUEUE_SET_NAPI
	unsigned int i;

	for (i = 0; i < bp->n_pairs; i++)
		netif_queue_set_napi(bp->netdev, i, NETDEV_QUEUE_TYPE_RX,
				     up ? &bpfhv_rxq(bp, i)->napi : NULL);
#endif
}
