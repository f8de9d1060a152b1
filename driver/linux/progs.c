// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Programs that the kernel's own verifier proves.
 *
 * A context is the only value of an mmapable array map. Each program is loaded as a socket filter
 * whose first instruction loads that value's address into R1. So the verifier knows the context's
 * exact size, and proves that the program stays inside it and terminates. The host's compiler need
 * not be trusted. The socket filter's packet argument is not used.
 *
 * bpf() hands out descriptors. All of this runs in the loader's thread, whose table no user process
 * shares: a process that mapped a context could change live descriptors, and with them have the
 * host write anywhere in the guest's memory.
 *
 * Map values are vmalloc memory, so the device gets the list of their pages.
 */
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/dma-mapping.h>
#include <linux/fdtable.h>
#include <linux/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "bpfhv.h"

#if BPFHV_HAS_KERN_SYS_BPF

#define BPFHV_PROLOGUE	2	/* instructions before the host's own */

/*
 * Calls bpf() with the capabilities that it needs and no others, whatever the loading task has.
 * Without CAP_PERFMON the verifier also follows each loop past its end, as a CPU may speculatively,
 * and refuses most loops. With it a program may store the address of its context or stack. The host
 * maps all of the guest's memory, so it learns nothing from that.
 */
static int bpfhv_sys_bpf(int cmd, union bpf_attr *attr)
{
	struct cred *cred = prepare_kernel_cred(&init_task);
	const struct cred *before;
	int ret;

	if (!cred)
		return -ENOMEM;
	cap_clear(cred->cap_effective);
	cap_raise(cred->cap_effective, CAP_BPF);
	cap_raise(cred->cap_effective, CAP_PERFMON);
	before = override_creds(cred);
	ret = kern_sys_bpf(cmd, attr, sizeof(*attr));
	revert_creds(before);
	put_cred(cred);
	return ret;
}

static void bpfhv_unmap_pages(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	struct device *dev = &bp->pdev->dev;

	while (r->n_pages)
		dma_unmap_page(dev, r->page_dma[--r->n_pages], BPFHV_PAGE, DMA_BIDIRECTIONAL);
	if (r->page_list)
		dma_free_coherent(dev, DIV_ROUND_UP(r->ctx_size, BPFHV_PAGE) * sizeof(__le64),
				  r->page_list, r->page_list_dma);
	kfree(r->page_dma);
	r->page_list = NULL;
	r->page_dma = NULL;
}

static int bpfhv_map_pages(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
	u32 pages = DIV_ROUND_UP(r->ctx_size, BPFHV_PAGE);
	struct device *dev = &bp->pdev->dev;

	r->page_dma = kcalloc(pages, sizeof(*r->page_dma), GFP_KERNEL);
	r->page_list = dma_alloc_coherent(dev, pages * sizeof(__le64), &r->page_list_dma,
					  GFP_KERNEL);
	if (!r->page_dma || !r->page_list)
		return -ENOMEM;
	for (; r->n_pages < pages; r->n_pages++) {
		void *at = (void *)r->ctx + r->n_pages * BPFHV_PAGE;
		struct page *page = vmalloc_to_page(at);
		dma_addr_t dma;

		if (!page)
			return -EFAULT;
		dma = dma_map_page(dev, page, offset_in_page(at), BPFHV_PAGE, DMA_BIDIRECTIONAL);
		if (dma_mapping_error(dev, dma))
			return -ENOMEM;
		r->page_dma[r->n_pages] = dma;
		/*
		 * The context is shared word by word: bounce buffers and cache maintenance break
		 * that.
		 */
		if (dma_need_sync(dev, dma)) {
			r->n_pages++;
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

/*
 * Refuses writes from user space for the map's whole life. Root, who can get any map by its id, is
 * left with programs of its own: they are not restricted by this. -EBUSY: somebody has already
 * mapped it writable.
 */
static int bpfhv_freeze(int fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = fd;
	return bpfhv_sys_bpf(BPF_MAP_FREEZE, &attr);
}

/* Returns true if the map behind the descriptor is the one that was created. */
static bool bpfhv_is_context(const struct bpf_map *map, u32 size)
{
	return map->map_type == BPF_MAP_TYPE_ARRAY && map->key_size == sizeof(u32) &&
	       map->value_size == size && map->max_entries == 1 &&
	       map->map_flags == BPF_F_MMAPABLE && READ_ONCE(map->frozen);
}

static int bpfhv_create_map(struct bpfhv_ring *r)
{
	union bpf_attr attr;
	int fd, err;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = sizeof(u32);
	attr.value_size = r->ctx_size;
	attr.max_entries = 1;
	attr.map_flags = BPF_F_MMAPABLE;
	strscpy(attr.map_name, "bpfhv_context", sizeof(attr.map_name));
	fd = bpfhv_sys_bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0)
		return fd;
	err = bpfhv_freeze(fd);
	if (!err)
		return fd;
	close_fd(fd);
	return err;
}

/*
 * Creates the ring's context of r->ctx_size bytes. On success *fd is the map, which programs are
 * loaded with; the caller closes it. On failure bpfhv_verified_free() cleans up.
 */
int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	struct bpf_map *map;
	int err;

	*fd = bpfhv_create_map(r);
	if (*fd < 0)
		return *fd;
	map = bpf_map_get(*fd);
	if (IS_ERR(map)) {
		err = PTR_ERR(map);
		goto close;
	}
	r->map = map;
	err = -EBADF;
	if (!bpfhv_is_context(map, r->ctx_size))
		goto close;
	r->ctx = (void *)container_of(map, struct bpf_array, map)->value;
	err = offset_in_page(r->ctx) ? -EINVAL : bpfhv_map_pages(bp, r);
	if (!err)
		return 0;
close:
	close_fd(*fd);
	*fd = -1;
	return err;
}

static struct bpf_insn *bpfhv_add_prologue(const struct bpfhv_code *code, int map_fd)
{
	const struct bpf_insn prologue[BPFHV_PROLOGUE] = {
		/* The second slot's immediate is the offset into the value: 0. */
		BPF_LD_IMM64_RAW(BPF_REG_1, BPF_PSEUDO_MAP_VALUE, map_fd),
	};
	struct bpf_insn *insns;

	insns = kvmalloc_array(BPFHV_PROLOGUE + code->len, sizeof(*insns), GFP_KERNEL);
	if (!insns)
		return NULL;
	memcpy(insns, prologue, sizeof(prologue));
	memcpy(insns + BPFHV_PROLOGUE, code->insns, code->len * sizeof(*insns));
	return insns;
}

/* Returns true if the program was verified against the ring's context, and knows no other map. */
static bool bpfhv_uses_context(const struct bpf_prog *prog, const struct bpfhv_ring *r)
{
	return prog->aux->used_map_cnt == 1 && prog->aux->used_maps[0] == r->map;
}

/*
 * On failure *where is the offending instruction, or BPFHV_WHERE_UNKNOWN: the verifier writes its
 * log to user memory only, and this thread has none.
 */
int bpfhv_verified_load(struct bpfhv_ring *r, int map_fd, enum bpfhv_prog_id id,
			const struct bpfhv_code *code, u32 *where)
{
	struct bpf_insn *insns;
	struct bpf_prog *prog;
	union bpf_attr attr;
	int fd, err;

	err = bpfhv_check_pure(code, where);
	if (err)
		return err;
	*where = BPFHV_WHERE_UNKNOWN;
	insns = bpfhv_add_prologue(code, map_fd);
	if (!insns)
		return -ENOMEM;
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insn_cnt = BPFHV_PROLOGUE + code->len;
	attr.insns = (unsigned long)insns;
	attr.license = (unsigned long)"Dual MIT/GPL";
	snprintf(attr.prog_name, sizeof(attr.prog_name), "bpfhv_%s", bpfhv_prog_name(id));
	fd = bpfhv_sys_bpf(BPF_PROG_LOAD, &attr);
	kvfree(insns);
	if (fd < 0)
		return fd;

	prog = bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_SOCKET_FILTER, false);
	close_fd(fd);
	if (IS_ERR(prog))
		return PTR_ERR(prog);
	r->prog[id] = prog;
	return bpfhv_uses_context(prog, r) ? 0 : -EBADF;
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

#else /* without kern_sys_bpf() */

int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	return -EOPNOTSUPP;
}

int bpfhv_verified_load(struct bpfhv_ring *r, int map_fd, enum bpfhv_prog_id id,
			const struct bpfhv_code *code, u32 *where)
{
	return -EOPNOTSUPP;
}

void bpfhv_verified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
}

#endif
