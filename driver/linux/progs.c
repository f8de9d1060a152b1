// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Programs that the kernel's own verifier has proved.
 *
 * A context is the one value of an mmapable array map, and each program is
 * loaded as a socket filter whose first instruction puts the address of that
 * value into R1. So the verifier knows the context's exact size, and proves that
 * the program stays inside it and terminates. Nobody has to trust the host's
 * compiler. The packet argument that a socket filter gets is never looked at.
 *
 * Map values are vmalloc memory: the device learns their pages one by one.
 */
#include <linux/bpf.h>
#include <linux/dma-mapping.h>
#include <linux/fdtable.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "bpfhv.h"

#ifdef BPFHV_HAVE_KERN_SYS_BPF

static void bpfhv_unmap_pages(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	struct device *dev = &bp->pdev->dev;

	while (r->n_pages)
		dma_unmap_page(dev, r->page_dma[--r->n_pages], PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (r->page_list)
		dma_free_coherent(dev, PAGE_ALIGN(r->ctx_size) / PAGE_SIZE * sizeof(__le64),
				  r->page_list, r->page_list_dma);
	kfree(r->page_dma);
	r->page_list = NULL;
	r->page_dma = NULL;
}

static int bpfhv_map_pages(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	u32 pages = PAGE_ALIGN(r->ctx_size) / PAGE_SIZE;
	struct device *dev = &bp->pdev->dev;

	r->page_dma = kcalloc(pages, sizeof(*r->page_dma), GFP_KERNEL);
	r->page_list = dma_alloc_coherent(dev, pages * sizeof(__le64), &r->page_list_dma,
					  GFP_KERNEL);
	if (!r->page_dma || !r->page_list)
		return -ENOMEM;
	for (; r->n_pages < pages; r->n_pages++) {
		struct page *page = vmalloc_to_page((void *)r->ctx + r->n_pages * PAGE_SIZE);
		dma_addr_t dma;

		if (!page)
			return -EFAULT;
		dma = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_BIDIRECTIONAL);
		if (dma_mapping_error(dev, dma))
			return -ENOMEM;
		r->page_dma[r->n_pages] = dma;
	}
	return 0;
}

/*
 * Makes the ring's context of r->ctx_size bytes. On success *fd is the map, for
 * loading programs; the caller closes it. On failure bpfhv_verified_free() cleans up.
 */
int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(u32),
		.value_size = r->ctx_size,
		.max_entries = 1,
		.map_flags = BPF_F_MMAPABLE,
		.map_name = "bpfhv_context",
	};
	struct bpf_map *map;
	int err;

	*fd = kern_sys_bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
	if (*fd < 0)
		return *fd;
	map = bpf_map_get(*fd);
	if (IS_ERR(map)) {
		err = PTR_ERR(map);
		goto close;
	}
	r->map = map;
	r->ctx = (void *)container_of(map, struct bpf_array, map)->value;
	err = offset_in_page(r->ctx) ? -EINVAL : bpfhv_map_pages(bp, r);
	if (!err)
		return 0;
close:
	close_fd(*fd);
	*fd = -1;
	return err;
}

int bpfhv_verified_load(struct bpfhv_ring *r, int map_fd, enum bpfhv_prog_id id,
			const struct bpfhv_code *code)
{
	const struct bpf_insn prologue[] = {
		/* The second half's immediate is the offset into the value: 0. */
		BPF_LD_IMM64_RAW(BPF_REG_1, BPF_PSEUDO_MAP_VALUE, map_fd),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insn_cnt = code->len + ARRAY_SIZE(prologue),
		.license = (unsigned long)"Dual MIT/GPL",
	};
	struct bpf_insn *insns;
	struct bpf_prog *prog;
	int fd;

	insns = kvmalloc_array(attr.insn_cnt, sizeof(*insns), GFP_KERNEL);
	if (!insns)
		return -ENOMEM;
	memcpy(insns, prologue, sizeof(prologue));
	memcpy(insns + ARRAY_SIZE(prologue), code->insns, code->len * sizeof(*insns));
	attr.insns = (unsigned long)insns;
	snprintf(attr.prog_name, sizeof(attr.prog_name), "bpfhv_%s", bpfhv_prog_name(id));
	fd = kern_sys_bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
	kvfree(insns);
	if (fd < 0)
		return fd;

	prog = bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_SOCKET_FILTER, false);
	close_fd(fd);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	r->prog[id] = prog;
	return 0;
}

void bpfhv_verified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	unsigned int id;

	for (id = 0; id < BPFHV_PROG_MAX; id++) {
		if (r->prog[id])
			bpf_prog_put(r->prog[id]);
		r->prog[id] = NULL;
	}
	bpfhv_unmap_pages(bp, r);
	if (r->map)
		bpf_map_put(r->map);
	r->map = NULL;
	r->ctx = NULL;
}

#else /* no kern_sys_bpf() */

int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	return -EOPNOTSUPP;
}

int bpfhv_verified_load(struct bpfhv_ring *r, int map_fd, enum bpfhv_prog_id id,
			const struct bpfhv_code *code)
{
	return -EOPNOTSUPP;
}

void bpfhv_verified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
}

#endif
