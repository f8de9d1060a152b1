// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Interrupts: a vector for each queue and one for the device, or fewer. */
#include <linux/interrupt.h>
#include <linux/module.h>

#include "bpfhv.h"

static unsigned int bpfhv_max_vectors = 2 * BPFHV_MAX_PAIRS + 1;
module_param_named(vectors, bpfhv_max_vectors, uint, 0444);
MODULE_PARM_DESC(vectors,
		 "Maximum number of interrupt vectors of a device; timers replace the others (default: all)");

static irqreturn_t bpfhv_queue_irq(int irq, void *data)
{
	struct bpfhv_queue *q = data;

	bpfhv_count(q, interrupts, 1);
	napi_schedule_irqoff(&q->napi);
	return IRQ_HANDLED;
}

static irqreturn_t bpfhv_ctrl_irq(int irq, void *data)
{
	struct bpfhv_priv *bp = data;
	unsigned long next = READ_ONCE(bp->last_ctrl) + BPFHV_CTRL_GAP;

	/*
	 * The work waits for the host several times, under RTNL: its rate must not be the host's
	 * choice.
	 */
	bpfhv_schedule(bp, &bp->ctrl_work, time_before(jiffies, next) ? next - jiffies : 0);
	return IRQ_HANDLED;
}

static void bpfhv_free_queue_irq(struct bpfhv_queue *q)
{
	netif_napi_set_irq(&q->napi, -1);
	irq_set_affinity_and_hint(q->irq, NULL);
	free_irq(q->irq, q);
	q->irq = 0;
}

void bpfhv_free_irqs(struct bpfhv_priv *bp)
{
	unsigned int i;

	for (i = 0; i < bpfhv_n_queues(bp); i++) {
		if (bp->queues[i].irq)
			bpfhv_free_queue_irq(&bp->queues[i]);
	}
	if (bp->ctrl_irq)
		free_irq(bp->ctrl_irq, bp);
	bp->ctrl_irq = 0;
	pci_free_irq_vectors(bp->pdev);
}

/*
 * Interrupts a CPU that sends on the queue's pair (bpfhv_set_xps), near the device, so that both
 * queues of a pair run there. A NIC with one pair, or with a vector for all queues, stays where the
 * kernel puts it: there may be many of these, and the first CPU would serve all.
 */
static void bpfhv_hint_irq(struct bpfhv_queue *q)
{
	struct bpfhv_priv *bp = q->bp;
	unsigned int pair = q->index % bp->n_pairs, cpu, i;

	if (bp->n_pairs == 1 || bp->pdev->msi_enabled)
		return;
	for (i = 0; i < num_online_cpus(); i++) {
		cpu = cpumask_local_spread(i, dev_to_node(&bp->pdev->dev));
		if (cpu % bp->n_pairs == pair) {
			irq_set_affinity_and_hint(q->irq, cpumask_of(cpu));
			return;
		}
	}
}

static int bpfhv_request_queue_irq(struct bpfhv_queue *q)
{
	struct bpfhv_priv *bp = q->bp;
	/* Plain MSI with fewer messages than queues: the first one is shared. */
	bool own = q->index < bp->n_vectors;
	int irq = pci_irq_vector(bp->pdev, own ? q->index : 0), err;

	snprintf(q->irq_name, sizeof(q->irq_name), BPFHV_NAME "-%s-%u@pci:%s",
		 q->tx ? "tx" : "rx", q->tx ? q->index - bp->n_pairs : q->index,
		 pci_name(bp->pdev));
	err = request_irq(irq, bpfhv_queue_irq, bp->pdev->msi_enabled ? IRQF_SHARED : 0,
			  q->irq_name, q);
	if (err)
		return err;
	q->irq = irq;
	netif_napi_set_irq(&q->napi, irq);
	bpfhv_hint_irq(q);
	return 0;
}

/*
 * Requests one vector for each queue and one for the device, numbered as in the ABI. If there are
 * fewer, the last ones go without: a timer polls their queues, and the device is polled once a
 * second. Guests without interrupt remapping get one vector of plain MSI: there all queues share
 * the first vector.
 */
int bpfhv_request_irqs(struct bpfhv_priv *bp)
{
	unsigned int n = bpfhv_n_queues(bp), i;
	unsigned int most = clamp(bpfhv_max_vectors, 1U, n + 1);
	struct pci_dev *pdev = bp->pdev;
	int got, err = 0;

	got = pci_alloc_irq_vectors(pdev, 1, most, PCI_IRQ_MSIX | PCI_IRQ_MSI);
	if (got < 0) {
		dev_err(&pdev->dev, "no MSI-X or MSI vectors: error %d\n", got);
		return got;
	}
	bp->n_vectors = got;
	if (got <= n && !pdev->msi_enabled)
		dev_warn(&pdev->dev, "%d of %u vectors: timers replace the others\n", got, n + 1);
	if (got > n) {
		snprintf(bp->irq_name, sizeof(bp->irq_name), BPFHV_NAME "-ctrl@pci:%s",
			 pci_name(pdev));
		err = request_irq(pci_irq_vector(pdev, n), bpfhv_ctrl_irq, 0, bp->irq_name, bp);
		if (!err)
			bp->ctrl_irq = pci_irq_vector(pdev, n);
	}
	for (i = 0; i < (pdev->msi_enabled ? n : min_t(unsigned int, got, n)) && !err; i++)
		err = bpfhv_request_queue_irq(&bp->queues[i]);
	if (err)
		bpfhv_free_irqs(bp);
	return err;
}
