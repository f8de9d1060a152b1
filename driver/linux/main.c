// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * bpfhv: a network device whose datapath is eBPF programs shipped by the host.
 *
 * The PCI side: probe, remove, shutdown, suspend.
 */
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>
#include <linux/module.h>

#include "bpfhv.h"

bool bpfhv_allow_unverified;
module_param_named(allow_unverified, bpfhv_allow_unverified, bool, 0444);
MODULE_PARM_DESC(allow_unverified,
		 "Run programs that the kernel cannot verify, trusting the host (default: no)");

bool bpfhv_version1;
module_param_named(version1, bpfhv_version1, bool, 0444);
MODULE_PARM_DESC(version1,
		 "Use version 1 of the ABI only, as the original driver does (default: no)");

bool bpfhv_overlap = true;
module_param_named(overlap, bpfhv_overlap, bool, 0444);
MODULE_PARM_DESC(overlap,
		 "Take another set while packets flow; otherwise the interface restarts (default: yes)");

static int bpfhv_map_bars(struct bpfhv_priv *bp)
{
	struct pci_dev *pdev = bp->pdev;

	bp->regs = pcim_iomap(pdev, BPFHV_BAR_REGISTERS, 0);
	bp->doorbells = pcim_iomap(pdev, BPFHV_BAR_DOORBELLS, 0);
	bp->program = pcim_iomap(pdev, BPFHV_BAR_PROGRAM, 0);
	if (!bp->regs || !bp->doorbells || !bp->program ||
	    pci_resource_len(pdev, BPFHV_BAR_REGISTERS) < BPFHV_REG_EXT_END ||
	    pci_resource_len(pdev, BPFHV_BAR_PROGRAM) < BPFHV_MAX_INSNS * 8) {
		dev_err(&pdev->dev, "BARs are missing or too small for a bpfhv device\n");
		return -ENODEV;
	}
	return 0;
}

static int bpfhv_init_queues(struct bpfhv_priv *bp)
{
	u64 stride = bpfhv_read(bp, BPFHV_REG_DOORBELL_SIZE);
	unsigned int i, n = bpfhv_n_queues(bp);

	if (stride < 4 || stride & 3 ||
	    stride * n > pci_resource_len(bp->pdev, BPFHV_BAR_DOORBELLS)) {
		dev_err(&bp->pdev->dev, "doorbells of %llu bytes do not fit BAR %u\n", stride,
			BPFHV_BAR_DOORBELLS);
		return -EINVAL;
	}
	for (i = 0; i < n; i++) {
		struct bpfhv_queue *q = &bp->queues[i];

		q->bp = bp;
		q->index = i;
		q->tx = i >= bp->n_pairs;
		q->broken = true;
		q->doorbell = bp->doorbells + i * stride;
		u64_stats_init(&q->sync);
		if (q->tx) {
			q->patience = BPFHV_PATIENCE_MIN;
			__skb_queue_head_init(&q->held);
			bpfhv_napi_add_tx(bp->netdev, &q->napi, bpfhv_tx_poll);
			bpfhv_hrtimer_setup(&q->tx_timer, bpfhv_tx_timer);
		} else {
			bpfhv_hrtimer_setup(&q->rx_timer, bpfhv_rx_timer);
			bpfhv_napi_add(bp->netdev, &q->napi, bpfhv_rx_poll);
		}
	}
	return 0;
}

static void bpfhv_delete_queues(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++)
		netif_napi_del(&bp->queues[i].napi);
}

static void bpfhv_read_mac(struct bpfhv_priv *bp)
{
	u32 low = bpfhv_read(bp, BPFHV_REG_MAC_LO);
	u32 high = bpfhv_read(bp, BPFHV_REG_MAC_HI);
	u8 mac[ETH_ALEN] = { high >> 8, high, low >> 24, low >> 16, low >> 8, low };

	if (is_valid_ether_addr(mac))
		bpfhv_set_mac(bp->netdev, mac);
	else
		eth_hw_addr_random(bp->netdev);
}

static void bpfhv_init_netdev(struct bpfhv_priv *bp)
{
	struct net_device *dev = bp->netdev;

	SET_NETDEV_DEV(dev, &bp->pdev->dev);
	dev->netdev_ops = &bpfhv_netdev_ops;
	dev->ethtool_ops = &bpfhv_ethtool_ops;
	bpfhv_qstats_init(bp);
	dev->watchdog_timeo = 5 * HZ;
	/* Without a filter every frame passes: unicast addresses need no promiscuous mode. */
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_UNICAST_FLT;
	bpfhv_read_mac(bp);
	bpfhv_read_speed(bp);
	bpfhv_update_mtu(bp);
	bpfhv_set_features_from_selected(bp);
	netif_carrier_off(dev);
}

/* Assigns CPUs to queue pairs evenly. The user can change this by XPS settings. */
static void bpfhv_set_xps(struct bpfhv_priv *bp)
{
	cpumask_var_t mask;
	unsigned int i, cpu;

	if (bp->n_pairs == 1 || !zalloc_cpumask_var(&mask, GFP_KERNEL))
		return;
	for (i = 0; i < bp->n_pairs; i++) {
		cpumask_clear(mask);
		for_each_possible_cpu(cpu)
			if (cpu % bp->n_pairs == i)
				cpumask_set_cpu(cpu, mask);
		if (!cpumask_empty(mask))
			netif_set_xps_queue(bp->netdev, mask, i);
	}
	free_cpumask_var(mask);
}

static int bpfhv_enable_pci(struct pci_dev *pdev)
{
	int err = pcim_enable_device(pdev);

	if (!err)
		err = pcim_request_all_regions(pdev, BPFHV_NAME);
	if (!err && dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64)))
		err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
	return err;
}

static int bpfhv_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct net_device *dev;
	struct bpfhv_priv *bp;
	int err;

	err = bpfhv_enable_pci(pdev);
	if (err)
		return err;
	dev = alloc_etherdev_mqs(sizeof(*bp), BPFHV_MAX_PAIRS, BPFHV_MAX_PAIRS);
	if (!dev)
		return -ENOMEM;
	bp = netdev_priv(dev);
	bp->netdev = dev;
	bp->pdev = pdev;
	bp->dying = true;
	spin_lock_init(&bp->work_lock);
	bp->last_ctrl = jiffies - BPFHV_CTRL_GAP;
	bp->not_before = jiffies;
	bp->upgrade_next = jiffies;
	INIT_DELAYED_WORK(&bp->ctrl_work, bpfhv_ctrl_work);
	INIT_DELAYED_WORK(&bp->recover_work, bpfhv_recover_work);
	INIT_DELAYED_WORK(&bp->set_work, bpfhv_set_work);
	INIT_DELAYED_WORK(&bp->watch_work, bpfhv_watch_work);
	INIT_DELAYED_WORK(&bp->upgrade_work, bpfhv_upgrade_work);
	pci_set_drvdata(pdev, bp);

	err = bpfhv_filter_init(bp);
	if (!err)
		err = bpfhv_map_bars(bp);
	if (!err)
		err = bpfhv_discover(bp);
	if (!err)
		err = bpfhv_rss_init(bp);
	if (!err)
		err = bpfhv_init_queues(bp);
	if (err)
		goto free_netdev;
	err = bpfhv_loader_start(bp);
	if (err)
		goto delete_queues;
	bpfhv_negotiate(bp);
	bpfhv_load_start(bp);
	bpfhv_load_finish(bp);
	if (IS_ERR(bp->load.gen)) {
		err = PTR_ERR(bp->load.gen);
		goto stop_loader;
	}
	bpfhv_gen_use(bp, bp->load.gen);
	bpfhv_init_netdev(bp);
	netif_set_real_num_tx_queues(dev, bp->n_pairs);
	netif_set_real_num_rx_queues(dev, bp->n_pairs);
	err = bpfhv_request_irqs(bp);
	if (err)
		goto drop_gen;
	/* Before the NIC can be set up: a reset that its queues ask for must not be lost. */
	bpfhv_start_work(bp);
	err = register_netdev(dev);
	if (err)
		goto stop_work;
	bpfhv_set_xps(bp);
	rtnl_lock();
	/* register_netdev() or a user who switched features since may have replaced the set. */
	if (bp->gen)
		bpfhv_gen_announce(bp->gen);
	bpfhv_want_later_features(bp);
	rtnl_unlock();
	pci_save_state(pdev);
	/* Handles what came before, when the work could not. */
	bpfhv_schedule(bp, &bp->ctrl_work, 0);
	bpfhv_schedule(bp, &bp->recover_work, 0);
	return 0;

stop_work:
	bpfhv_stop_work(bp);
	bpfhv_free_irqs(bp);
drop_gen:
	bpfhv_gen_use(bp, NULL);
stop_loader:
	bpfhv_loader_stop(bp);
delete_queues:
	bpfhv_delete_queues(bp);
free_netdev:
	free_netdev(dev);
	return err;
}

static void bpfhv_remove(struct pci_dev *pdev)
{
	struct bpfhv_priv *bp = pci_get_drvdata(pdev);

	bpfhv_stop_work(bp);
	unregister_netdev(bp->netdev);
	bpfhv_abandon(bp);
	bpfhv_free_irqs(bp);
	bpfhv_set_drop(bp);
	bpfhv_loader_stop(bp);
	bpfhv_gen_use(bp, NULL);
	bpfhv_delete_queues(bp);
	bpfhv_write_sync(bp, BPFHV_REG_EXT_ACK, 0);
	pci_clear_master(pdev);
	free_netdev(bp->netdev);
}

/* Reboot and kexec: the device must not write to the next kernel's memory. */
static void bpfhv_shutdown(struct pci_dev *pdev)
{
	struct bpfhv_priv *bp = pci_get_drvdata(pdev);

	bpfhv_pause(bp);
	pci_clear_master(pdev);
	bpfhv_read(bp, BPFHV_REG_STATUS);
}

static int __maybe_unused bpfhv_suspend(struct device *dev)
{
	struct pci_dev *pdev = to_pci_dev(dev);

	bpfhv_pause(pci_get_drvdata(pdev));
	pci_clear_master(pdev);
	return 0;
}

static int __maybe_unused bpfhv_resume(struct device *dev)
{
	bpfhv_continue(dev_get_drvdata(dev));
	return 0;
}

static SIMPLE_DEV_PM_OPS(bpfhv_pm_ops, bpfhv_suspend, bpfhv_resume);

/* A reset of the function, as by writing to its file "reset". */
static void bpfhv_reset_prepare(struct pci_dev *pdev)
{
	bpfhv_pause(pci_get_drvdata(pdev));
}

static void bpfhv_reset_done(struct pci_dev *pdev)
{
	bpfhv_continue(pci_get_drvdata(pdev));
}

static pci_ers_result_t bpfhv_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	bpfhv_pause(pci_get_drvdata(pdev));
	return state == pci_channel_io_perm_failure ? PCI_ERS_RESULT_DISCONNECT :
						      PCI_ERS_RESULT_NEED_RESET;
}

static pci_ers_result_t bpfhv_slot_reset(struct pci_dev *pdev)
{
	pci_restore_state(pdev);
	/* Restoring consumes what was saved. */
	pci_save_state(pdev);
	return PCI_ERS_RESULT_RECOVERED;
}

static const struct pci_error_handlers bpfhv_error_handlers = {
	.error_detected = bpfhv_error_detected,
	.slot_reset = bpfhv_slot_reset,
	.resume = bpfhv_reset_done,
	.reset_prepare = bpfhv_reset_prepare,
	.reset_done = bpfhv_reset_done,
};

static const struct pci_device_id bpfhv_ids[] = {
	{ PCI_DEVICE(BPFHV_PCI_VENDOR, BPFHV_PCI_DEVICE) },
	/* Matched by class, too: the id is also that of a bridge. */
	{ PCI_DEVICE(BPFHV_PCI_VENDOR, BPFHV_PCI_DEVICE_ORIGINAL),
	  .class = PCI_CLASS_NETWORK_ETHERNET << 8, .class_mask = 0xffffff },
	{}
};
MODULE_DEVICE_TABLE(pci, bpfhv_ids);

static struct pci_driver bpfhv_driver = {
	.name = BPFHV_NAME,
	.id_table = bpfhv_ids,
	.probe = bpfhv_probe,
	.remove = bpfhv_remove,
	.shutdown = bpfhv_shutdown,
	.err_handler = &bpfhv_error_handlers,
	.driver.pm = &bpfhv_pm_ops,
};
module_pci_driver(bpfhv_driver);

MODULE_DESCRIPTION("Network device with a datapath of eBPF programs shipped by the host");
MODULE_AUTHOR("The bpfhv authors");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_VERSION("0.1.0");
BPFHV_IMPORT_BPF_INTERNAL;
