// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Programs that the kernel's own verifier proves.
 *
 * A context is the only value of an mmapable array map. Each program is loaded as a socket filter
 * whose first instruction loads that value's address into R1. So the verifier knows the context's
 * exact size, and proves that the program stays inside it and terminates. The host's compiler need
 * not be trusted. The socket filter's packet argument is not used.
 *
 * Map values are vmalloc memory, so the device gets the list of their pages.
 */
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/dma-mapping.h>
#include <linux/fdtable.h>
#include <linux/mman.h>
#include <linux/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "bpfhv.h"

#ifdef BPFHV_HAVE_KERN_SYS_BPF

#define BPFHV_PROLOGUE	2	/* instructions before the host's own */
#define BPFHV_LOG_SIZE	(256 * 1024)
#define BPFHV_LOG_LINES	6

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
 * Creates the ring's context of r->ctx_size bytes. On success *fd is the map, which programs are
 * loaded with; the caller closes it. On failure bpfhv_verified_free() cleans up.
 */
int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	union bpf_attr attr;
	struct bpf_map *map;
	int err;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = sizeof(u32);
	attr.value_size = r->ctx_size;
	attr.max_entries = 1;
	attr.map_flags = BPF_F_MMAPABLE;
	strscpy(attr.map_name, "bpfhv_context", sizeof(attr.map_name));
	*fd = bpfhv_sys_bpf(BPF_MAP_CREATE, &attr);
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

/*
 * Rejects what a HELPERFREE program must not contain, although the verifier allows it to root:
 * calls (helpers reach into the kernel), and wide loads that stand for maps, BTF objects or kernel
 * symbols of the loading task.
 */
static int bpfhv_check_helperfree(const struct bpfhv_code *code, u32 *where)
{
	u32 i;

	for (i = 0; i < code->len; i++) {
		const struct bpf_insn *insn = &code->insns[i];
		u8 class = BPF_CLASS(insn->code);

		*where = i;
		if ((class == BPF_JMP || class == BPF_JMP32) && BPF_OP(insn->code) == BPF_CALL)
			return -EPERM;
		if (class != BPF_LD)
			continue;
		if (insn->code != (BPF_LD | BPF_IMM | BPF_DW) || insn->src_reg ||
		    i + 1 >= code->len)
			return -EPERM;
		i++;
	}
	return 0;
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

/* Logs the end of the verifier's log, and finds the last instruction it checked. */
static void bpfhv_print_log(struct bpfhv_priv *bp, char *log, u32 *where)
{
	char *line, *lines[BPFHV_LOG_LINES] = {};
	unsigned int n = 0, i, insn;

	while ((line = strsep(&log, "\n"))) {
		if (!*line || !strncmp(line, "processed ", 10))
			continue;
		if (sscanf(line, "%u: (", &insn) == 1 && insn >= BPFHV_PROLOGUE)
			*where = insn - BPFHV_PROLOGUE;
		lines[n++ % BPFHV_LOG_LINES] = line;
	}
	for (i = n > BPFHV_LOG_LINES ? n - BPFHV_LOG_LINES : 0; i < n; i++)
		netdev_err(bp->netdev, "verifier: %.200s\n", lines[i % BPFHV_LOG_LINES]);
}

/*
 * Loads a refused program again, to get the log. The verifier writes it to user memory only. A
 * worker has no user memory: there only the error code is reported.
 */
static void bpfhv_log_refusal(struct bpfhv_priv *bp, union bpf_attr *attr, u32 *where)
{
	unsigned long user;
	char *log;
	int fd;

	if (!current->mm)
		return;
	log = kvzalloc(BPFHV_LOG_SIZE, GFP_KERNEL);
	if (!log)
		return;
	user = vm_mmap(NULL, 0, BPFHV_LOG_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!IS_ERR_VALUE(user)) {
		attr->log_buf = user;
		attr->log_size = BPFHV_LOG_SIZE;
		attr->log_level = 1;
		fd = bpfhv_sys_bpf(BPF_PROG_LOAD, attr);
		if (fd >= 0)
			close_fd(fd);
		else if (!copy_from_user(log, (void __user *)user, BPFHV_LOG_SIZE - 1))
			bpfhv_print_log(bp, log, where);
		vm_munmap(user, BPFHV_LOG_SIZE);
	}
	kvfree(log);
}

/* On failure *where is the offending instruction, if known. */
int bpfhv_verified_load(struct bpfhv_priv *bp, struct bpfhv_ring *r, int map_fd,
			enum bpfhv_prog_id id, const struct bpfhv_code *code, u32 *where)
{
	struct bpf_insn *insns;
	struct bpf_prog *prog;
	union bpf_attr attr;
	int fd, err;

	err = bpfhv_check_helperfree(code, where);
	if (err)
		return err;
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
	*where = 0;
	if (fd < 0)
		bpfhv_log_refusal(bp, &attr, where);
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

#else /* without kern_sys_bpf() */

int bpfhv_verified_context(struct bpfhv_priv *bp, struct bpfhv_ring *r, int *fd)
{
	return -EOPNOTSUPP;
}

int bpfhv_verified_load(struct bpfhv_priv *bp, struct bpfhv_ring *r, int map_fd,
			enum bpfhv_prog_id id, const struct bpfhv_code *code, u32 *where)
{
	return -EOPNOTSUPP;
}

void bpfhv_verified_free(struct bpfhv_priv *bp, struct bpfhv_ring *r)
{
}

#endif
