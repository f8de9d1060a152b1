// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A hostile guest for tests of the host: makes random accesses to a bpfhv device.
 *
 *     insmod bpfhv_chaos.ko device=0000:00:03.0 seed=1 count=100000
 *
 * No driver may be bound to the device. Buffers and contexts are the module's own memory, or
 * unmapped addresses: the guest must survive, so that the test can check the host. Loading takes as
 * long as the accesses do; the last line in the log reports their end.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/prandom.h>
#include <linux/sched.h>

#include "bpfhv_abi.h"

#define CONTEXT_PAGES	8
#define CONTEXT_SIZE	(CONTEXT_PAGES * 4096)
#define MAX_QUEUES	(2 * BPFHV_MAX_PAIRS)
/* Offset of sring's control words and descriptors. */
#define PRIVATE		sizeof(struct bpfhv_context)
#define DESCRIPTORS	(PRIVATE + 512)
#define DESCRIPTOR_SIZE	24

static char *device = "";
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "PCI address of the device, as in /sys/bus/pci/devices");
static ulong seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Same seed, same accesses");
static ulong count = 100000;
module_param(count, ulong, 0444);
MODULE_PARM_DESC(count, "Number of accesses");

struct chaos {
	struct pci_dev *pdev;
	void __iomem *bar[4];
	resource_size_t bar_size[4];
	struct rnd_state rnd;
	u8 *memory;		/* contexts, then a page list, then buffers */
	dma_addr_t dma;
	u32 queues;
};

#define LIST_OFFSET	(MAX_QUEUES * CONTEXT_SIZE)
#define BUFFER_OFFSET	(LIST_OFFSET + 4096)
/* The host may write as much as a blob or a context (of up to 1024 buffers) at any buffer. */
#define MEMORY_SIZE	(BUFFER_OFFSET + 32 * 4096)

static struct chaos chaos;

static u32 random(struct chaos *c, u32 below)
{
	return prandom_u32_state(&c->rnd) % below;
}

static u32 any(struct chaos *c)
{
	u32 value = prandom_u32_state(&c->rnd);

	switch (random(c, 4)) {
	case 0: return value;
	case 1: return value & 0xff;
	case 2: return 1U << (value & 31);
	}
	return value & 1 ? ~0U : value & 2 ? 0 : ~(value & 0xffff);
}

/* Returns an address in our buffers, or one without guest memory. */
static u64 an_address(struct chaos *c)
{
	switch (random(c, 4)) {
	case 0: return ~0ULL - random(c, 8192);
	case 1: return (u64)(prandom_u32_state(&c->rnd) | 0x80000000) << 32 | any(c);
	case 2: return 1ULL << 40 | any(c);
	}
	return c->dma + BUFFER_OFFSET + random(c, 16 * 4096 - 2048);
}

static void access_any(struct chaos *c, unsigned int bar)
{
	u32 size = 1 << random(c, 3);
	void __iomem *at = c->bar[bar] + random(c, c->bar_size[bar] / size) * size;

	switch (size) {
	case 1: random(c, 2) ? writeb(any(c), at) : (void)readb(at); break;
	case 2: random(c, 2) ? writew(any(c), at) : (void)readw(at); break;
	case 4: random(c, 2) ? writel(any(c), at) : (void)readl(at); break;
	}
}

static void write_address(struct chaos *c, u32 low, u64 address)
{
	writel(lower_32_bits(address), c->bar[0] + low);
	writel(upper_32_bits(address), c->bar[0] + low + 4);
}

/* The halves of an address are written only together: see an_address(). */
static bool is_address(u32 reg)
{
	return reg == BPFHV_REG_CTX_PADDR_LO || reg == BPFHV_REG_CTX_PADDR_HI ||
	       reg == BPFHV_REG_BLOB_LO || reg == BPFHV_REG_BLOB_HI ||
	       reg == BPFHV_REG_PAGES_LO || reg == BPFHV_REG_PAGES_HI;
}

static void write_register(struct chaos *c)
{
	u32 reg = random(c, c->bar_size[0] / 4) * 4;

	if (random(c, 4))
		reg = random(c, BPFHV_REG_EXT_END / 4 + 4) * 4;
	if (!is_address(reg))
		writel(any(c), c->bar[0] + reg);
	else
		write_address(c, reg & ~4U ? reg & ~7U : reg, an_address(c));
}

static void register_context(struct chaos *c)
{
	u32 queue = random(c, c->queues), i;
	u64 at = c->dma + queue * CONTEXT_SIZE;
	__le64 *list = (void *)(c->memory + LIST_OFFSET);

	writel(queue, c->bar[0] + BPFHV_REG_QUEUE_SELECT);
	if (random(c, 2)) {
		write_address(c, BPFHV_REG_CTX_PADDR_LO, random(c, 8) ? at : an_address(c));
		return;
	}
	for (i = 0; i < CONTEXT_PAGES; i++)
		list[i] = cpu_to_le64(random(c, 64) ? at + i * 4096 : an_address(c));
	write_address(c, BPFHV_REG_PAGES_LO,
		      random(c, 8) ? c->dma + LIST_OFFSET : an_address(c));
}

static void scribble(struct chaos *c)
{
	u8 *context = c->memory + random(c, c->queues) * CONTEXT_SIZE;
	u32 n = (CONTEXT_SIZE - DESCRIPTORS) / DESCRIPTOR_SIZE;
	u8 *descriptor = context + DESCRIPTORS + random(c, n) * DESCRIPTOR_SIZE;

	if (random(c, 2)) {
		*(u32 *)(context + PRIVATE + random(c, 128) * 4) = any(c);
		return;
	}
	*(u64 *)descriptor = any(c);
	*(u64 *)(descriptor + 8) = an_address(c);
	*(u32 *)(descriptor + 16) = random(c, 2) ? random(c, 2048) : any(c);
	/* Make the host process it: advance the producer's index. */
	*(u32 *)(context + PRIVATE) += 1 + random(c, 4);
}

static void one_access(struct chaos *c)
{
	switch (random(c, 16)) {
	case 0: access_any(c, 1); break;
	case 1: access_any(c, 3); break;
	case 2: access_any(c, 1); break;
	case 3: (void)readl(c->bar[0] + random(c, c->bar_size[0] / 4) * 4); break;
	case 4: register_context(c); break;
	case 5: writel(BPFHV_CTRL_RX_ENABLE | BPFHV_CTRL_TX_ENABLE, c->bar[0] + BPFHV_REG_CTRL);
		break;
	case 6: writel(random(c, 64), c->bar[0] + BPFHV_REG_CTRL); break;
	case 7: case 8: write_register(c); break;
	case 9: writel(0, c->bar[1] + random(c, c->queues) * 8); break;
	default: scribble(c);
	}
}

static void quiet(struct chaos *c)
{
	u32 q;

	writel(BPFHV_CTRL_RX_DISABLE | BPFHV_CTRL_TX_DISABLE, c->bar[0] + BPFHV_REG_CTRL);
	for (q = 0; q < c->queues; q++) {
		writel(q, c->bar[0] + BPFHV_REG_QUEUE_SELECT);
		write_address(c, BPFHV_REG_CTX_PADDR_LO, 0);
	}
	pci_clear_master(c->pdev);
	readl(c->bar[0] + BPFHV_REG_STATUS);
}

static void let_go(struct chaos *c)
{
	unsigned int i;

	if (c->memory)
		dma_free_coherent(&c->pdev->dev, MEMORY_SIZE, c->memory, c->dma);
	for (i = 0; i < ARRAY_SIZE(c->bar); i++)
		if (c->bar[i])
			pci_iounmap(c->pdev, c->bar[i]);
	pci_release_regions(c->pdev);
	pci_disable_device(c->pdev);
	pci_dev_put(c->pdev);
}

static int take(struct chaos *c)
{
	static const u8 bars[] = { 0, 1, 3 };	/* 2 has QEMU's interrupt table */
	unsigned int domain, bus, slot, function, i;
	int err;

	if (sscanf(device, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return -EINVAL;
	c->pdev = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, function));
	if (!c->pdev)
		return -ENODEV;
	err = pci_enable_device(c->pdev);
	if (err) {
		pci_dev_put(c->pdev);
		return err;
	}
	err = pci_request_regions(c->pdev, "bpfhv_chaos");
	if (err) {
		pci_disable_device(c->pdev);
		pci_dev_put(c->pdev);
		return err;
	}
	dma_set_mask_and_coherent(&c->pdev->dev, DMA_BIT_MASK(64));
	pci_set_master(c->pdev);
	c->memory = dma_alloc_coherent(&c->pdev->dev, MEMORY_SIZE, &c->dma, GFP_KERNEL);
	err = c->memory ? 0 : -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(bars) && !err; i++) {
		c->bar[bars[i]] = pci_iomap(c->pdev, bars[i], 0);
		c->bar_size[bars[i]] = pci_resource_len(c->pdev, bars[i]);
		if (!c->bar[bars[i]])
			err = -ENODEV;
	}
	if (err)
		let_go(c);
	return err;
}

static int __init chaos_init(void)
{
	struct chaos *c = &chaos;
	unsigned long i;
	int err = take(c);

	if (err)
		return err;
	prandom_seed_state(&c->rnd, seed);
	c->queues = clamp(2 * readl(c->bar[0] + BPFHV_REG_NUM_RX_QUEUES), 2U,
			  (u32)MAX_QUEUES);
	writel(readl(c->bar[0] + BPFHV_REG_EXT_OFFER), c->bar[0] + BPFHV_REG_EXT_ACK);
	for (i = 0; i < count; i++) {
		one_access(c);
		if (!(i & 255))
			cond_resched();
	}
	quiet(c);
	pr_info("bpfhv_chaos: %lu accesses with seed %lu are over\n", count, seed);
	return 0;
}

static void __exit chaos_exit(void)
{
	let_go(&chaos);
}

module_init(chaos_init);
module_exit(chaos_exit);

MODULE_DESCRIPTION("Random accesses to a bpfhv device, for tests of the host");
MODULE_AUTHOR("The bpfhv authors");
MODULE_LICENSE("Dual MIT/GPL");
