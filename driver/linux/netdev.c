// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The network device: up, down, link, MTU. */
#include <linux/etherdevice.h>
#include <linux/rtnetlink.h>

#include "bpfhv_xdp.h"

static int bpfhv_register_contexts(struct bpfhv_priv *bp)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < bpfhv_n_queues(bp) && !err; i++)
		err = bpfhv_register_context(bp, i, bp->queues[i].cur);
	return err;
}

static void bpfhv_unregister_contexts(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++)
		bpfhv_unregister_context(bp, i);
}

static int bpfhv_enable_device(struct bpfhv_priv *bp)
{
	const u32 both = BPFHV_STATUS_ENABLED;

	bpfhv_write(bp, BPFHV_REG_CTRL, BPFHV_CTRL_RX_ENABLE | BPFHV_CTRL_TX_ENABLE);
	if (!bp->gone && (bpfhv_read(bp, BPFHV_REG_STATUS) & both) == both)
		return 0;
	netdev_err(bp->netdev, "the device cannot be enabled: STATUS does not show both directions\n");
	return -EIO;
}

/* Disables the device. After the return it touches neither contexts nor buffers. */
static void bpfhv_disable_device(struct bpfhv_priv *bp)
{
	bpfhv_write_sync(bp, BPFHV_REG_CTRL, BPFHV_CTRL_RX_DISABLE | BPFHV_CTRL_TX_DISABLE);
	if (bp->gone)
		pci_clear_master(bp->pdev);
}

void bpfhv_update_link(struct bpfhv_priv *bp)
{
	u32 status = bpfhv_read(bp, BPFHV_REG_STATUS);
	bool up = !bp->gone && (status & BPFHV_STATUS_LINK);

	/* Version 1 does not report link changes: the link is up while the device runs. */
	if (!(bp->abilities & BPFHV_ABILITY_EVENT))
		up = !bp->gone && bp->running;
	if (up == netif_carrier_ok(bp->netdev))
		return;
	if (up)
		netif_carrier_on(bp->netdev);
	else
		netif_carrier_off(bp->netdev);
}

static void bpfhv_disable_napi(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		napi_disable(&bp->queues[i].napi);
		/* Only a poll starts it. */
		if (!bp->queues[i].tx)
			hrtimer_cancel(&bp->queues[i].rx_timer);
	}
}

static void bpfhv_start_queue(struct bpfhv_queue *q)
{
	q->idle_polls = 0;
	q->watched = 0;
	q->idle_looks = 0;
	WRITE_ONCE(q->broken, false);
}

/* Attaching the device wakes queues of a NIC that is down: their packets are dropped. */
static void bpfhv_stop_queues(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++)
		WRITE_ONCE(bp->queues[i].broken, true);
}

/* Releases what the device used. It is disabled, and NAPI does not run. */
static void bpfhv_release(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bp->n_pairs; i++) {
		bpfhv_tx_drain(bpfhv_txq(bp, i));
		bpfhv_rx_drain(bpfhv_rxq(bp, i));
	}
	bpfhv_stop_queues(bp);
	bpfhv_unregister_contexts(bp);
	bpfhv_upgrade_stopped(bp);
	for (i = 0; i < bp->n_pairs; i++)
		bpfhv_rx_teardown(bpfhv_rxq(bp, i));
}

/*
 * Stops the device, and releases what it used. One that does not answer may go on later and write
 * to its buffers, as a host that was stopped for a while does: they stay until it answers.
 */
static void bpfhv_stop_device(struct bpfhv_priv *bp)
{
	bpfhv_disable_device(bp);
	if (!bp->gone || pci_channel_offline(bp->pdev)) {
		bpfhv_release(bp);
		return;
	}
	/* What it still completes is not looked at. */
	bpfhv_stop_queues(bp);
	bp->parked = true;
}

/* Stops a device that did not answer when it was to stop. Returns an error if it still does not. */
int bpfhv_unpark(struct bpfhv_priv *bp)
{
	if (!bp->parked)
		return 0;
	bpfhv_disable_device(bp);
	if (bp->gone)
		return -ENODEV;
	bp->parked = false;
	bpfhv_release(bp);
	return 0;
}

/* Before the driver leaves the device: what that may still write to is never freed. */
void bpfhv_abandon(struct bpfhv_priv *bp)
{
	unsigned int i;

	if (!bp->parked)
		return;
	rtnl_lock();
	WRITE_ONCE(bp->gone, false);
	if (bpfhv_unpark(bp)) {
		dev_warn(&bp->pdev->dev, "the device may still write to its buffers: they are never freed\n");
		for (i = 0; i < bp->n_pairs; i++)
			bpfhv_rx_keep(bpfhv_rxq(bp, i));
		bpfhv_gen_keep(bp->gen);
		bpfhv_gen_keep(bp->upgrade.next);
		bpfhv_release(bp);
	}
	rtnl_unlock();
}

int bpfhv_up(struct bpfhv_priv *bp)
{
	unsigned int i, pools;
	int err;

	if (!bp->gen || bp->gone || bp->parked)
		return -EIO;
	for (pools = 0; pools < bp->n_pairs; pools++) {
		err = bpfhv_rx_setup(bpfhv_rxq(bp, pools));
		if (err)
			goto no_pool;
	}
	for (i = 0; i < bp->n_pairs; i++)
		bpfhv_start_queue(bpfhv_rxq(bp, i));
	err = bpfhv_register_contexts(bp);
	if (err)
		goto stop_device;
	for (i = 0; i < bp->n_pairs; i++) {
		local_bh_disable();
		bpfhv_rx_refill(bpfhv_rxq(bp, i), bpfhv_rxq(bp, i)->cur);
		local_bh_enable();
		if (!bpfhv_outstanding(bpfhv_rxq(bp, i)->cur)) {
			err = -ENOMEM;
			goto stop_device;
		}
	}
	for (i = 0; i < bpfhv_n_queues(bp); i++)
		napi_enable(&bp->queues[i].napi);
	err = bpfhv_enable_device(bp);
	if (err)
		goto disable_napi;
	bp->running = true;
	bpfhv_show_napi(bp, true);
	for (i = 0; i < bp->n_pairs; i++)
		bpfhv_start_queue(bpfhv_txq(bp, i));
	netif_tx_wake_all_queues(bp->netdev);
	bpfhv_update_link(bp);
	/* The device may have lost it. */
	bpfhv_set_rx_mode(bp->netdev);
	bpfhv_coalesce_apply(bp);
	if (bpfhv_rss_apply(bp, bp->netdev->features))
		netdev_warn(bp->netdev, "the host refused the flow hash settings\n");
	bpfhv_watch(bp);
	/* An interrupt that came before NAPI was enabled is lost: poll once. */
	local_bh_disable();
	for (i = 0; i < bp->n_pairs; i++)
		napi_schedule(&bpfhv_rxq(bp, i)->napi);
	local_bh_enable();
	return 0;

disable_napi:
	bpfhv_disable_napi(bp);
stop_device:
	bpfhv_stop_device(bp);
	return err;

no_pool:
	while (pools)
		bpfhv_rx_teardown(bpfhv_rxq(bp, --pools));
	return err;
}

void bpfhv_down(struct bpfhv_priv *bp)
{
	if (!bp->running)
		return;
	bp->running = false;
	cancel_delayed_work_sync(&bp->watch_work);
	netif_tx_disable(bp->netdev);
	netif_carrier_off(bp->netdev);
	bpfhv_show_napi(bp, false);
	bpfhv_disable_napi(bp);
	/* Again: the last poll may have woken a queue. Nothing else does. */
	netif_tx_disable(bp->netdev);
	bpfhv_stop_device(bp);
}

static int bpfhv_open(struct net_device *dev)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	int err;

	/* The end of the load starts it. */
	if (bp->load.pending)
		return 0;
	/* The device may have been reset since the NIC was down. */
	if (!bpfhv_forgot(bp))
		return bpfhv_up(bp);
	err = bpfhv_start_over(bp);
	if (!err && bpfhv_set_wait(bp)) {
		bp->upgrade.tell = true;
		bpfhv_set_end(bp);
	}
	/* If that failed it is tried again until it succeeds. */
	return err;
}

static int bpfhv_stop(struct net_device *dev)
{
	bpfhv_down(netdev_priv(dev));
	return 0;
}

/* Another size of receive buffers takes a restart: packets on their way are lost. */
static int bpfhv_change_mtu(struct net_device *dev, int mtu)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	int before = dev->mtu, err;

	if (!bpfhv_xdp_takes_mtu(bp, mtu))
		return -EINVAL;
	WRITE_ONCE(dev->mtu, mtu);
	if (!bp->running || !bpfhv_rx_relayout(bp, mtu))
		return 0;
	bpfhv_down(bp);
	err = bpfhv_up(bp);
	if (!err)
		return 0;
	/* Most likely there was no memory for larger buffers. */
	WRITE_ONCE(dev->mtu, before);
	bpfhv_recover_later(bp, err);
	return err;
}

void bpfhv_update_mtu(struct bpfhv_priv *bp)
{
	u32 mtu = ETH_DATA_LEN;

	if (bp->abilities & BPFHV_ABILITY_EVENT)
		mtu = bpfhv_read(bp, BPFHV_REG_MTU);
	if (mtu < ETH_MIN_MTU || bp->gone)
		mtu = ETH_DATA_LEN;
	bp->netdev->min_mtu = ETH_MIN_MTU;
	bp->netdev->max_mtu = min(mtu, bpfhv_rx_max_mtu(bp));
	if (bp->netdev->mtu <= bp->netdev->max_mtu)
		return;
	if (bp->netdev->reg_state == NETREG_REGISTERED)
		dev_set_mtu(bp->netdev, bp->netdev->max_mtu);
	else
		bp->netdev->mtu = bp->netdev->max_mtu;
}

/*
 * Called about every five seconds while a queue is stopped. Mostly the host is slow, or its port is
 * blocked: a reset would lose the packets that wait for it, and help nobody. So a doorbell or an
 * interrupt that was lost is made up for, and bpfhv_watch_work() looks whether the device still
 * runs. The queue is reset if nothing completes for long, and after that ever more rarely.
 */
static void bpfhv_tx_timeout(struct net_device *dev, unsigned int txqueue)
{
	struct bpfhv_priv *bp = netdev_priv(dev);
	struct bpfhv_queue *q = bpfhv_txq(bp, txqueue);
	struct netdev_queue *txq = bpfhv_netdev_txq(q);
	u32 outstanding, n_bufs;

	__netif_tx_lock(txq, smp_processor_id());
	outstanding = bpfhv_outstanding(q->cur);
	n_bufs = q->cur->n_bufs;
	bpfhv_count(q, timeouts, 1);
	q->kick_pending = true;
	bpfhv_tx_kick(q);
	__netif_tx_unlock(txq);
	napi_schedule(&q->napi);
	if (READ_ONCE(q->idle_looks) < q->patience)
		return;
	q->patience = min(2 * q->patience, BPFHV_PATIENCE_MAX);
	netdev_err(dev, "transmit queue %u timed out: %u of %u buffers outstanding\n",
		   txqueue, outstanding, n_bufs);
	bpfhv_recover(bp, BPFHV_TROUBLE_STUCK);
}

const struct net_device_ops bpfhv_netdev_ops = {
	.ndo_open = bpfhv_open,
	.ndo_stop = bpfhv_stop,
	.ndo_start_xmit = bpfhv_start_xmit,
	.ndo_get_stats64 = bpfhv_get_stats64,
	.ndo_tx_timeout = bpfhv_tx_timeout,
	.ndo_change_mtu = bpfhv_change_mtu,
#if BPFHV_HAS_XDP
	.ndo_bpf = bpfhv_bpf,
	.ndo_xdp_xmit = bpfhv_xdp_xmit,
#endif
	.ndo_validate_addr = eth_validate_addr,
	.ndo_set_mac_address = bpfhv_set_mac_address,
	.ndo_set_rx_mode = bpfhv_set_rx_mode,
	.ndo_fix_features = bpfhv_fix_features,
	.ndo_set_features = bpfhv_set_features,
	.ndo_features_check = passthru_features_check,
};
