// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A generation: one program set, and for each queue a ring, made of a context, the programs loaded
 * for it, and the table of outstanding buffers.
 *
 * The host sees only a buffer's index in that table. What the host returns is looked up there: it
 * neither sees nor can forge a kernel address.
 */
#include <linux/fdtable.h>
#include <linux/slab.h>

#include "bpfhv.h"

/* Allocates a slot. The caller has checked that one is free. */
int bpfhv_slot_alloc(struct bpfhv_ring *r)
{
	u32 id = r->free_ids[--r->n_free];

	r->slots[id].busy = true;
	return id;
}

/* Frees a slot. Returns false if the cookie is not of an outstanding buffer. */
bool bpfhv_slot_free(struct bpfhv_ring *r, u64 cookie, u32 *id)
{
	if (cookie >= r->n_bufs || !r->slots[cookie].busy)
		return false;
	*id = cookie;
	r->slots[cookie].busy = false;
	r->free_ids[r->n_free++] = cookie;
	return true;
}

/* Frees all slots, in ascending order. The caller has released their pages and packets. */
void bpfhv_ring_reset(struct bpfhv_ring *r)
{
	u32 i;

	for (i = 0; i < r->n_bufs; i++) {
		r->slots[i].busy = false;
		r->free_ids[i] = r->n_bufs - 1 - i;
	}
	r->n_free = r->n_bufs;
}

/* What is outstanding is in this driver's own table, and it runs no packet programs. */
static bool bpfhv_is_run(enum bpfhv_prog_id id)
{
	return id != BPFHV_PROG_RXR && id != BPFHV_PROG_TXR &&
	       id != BPFHV_PROG_RXH && id != BPFHV_PROG_TXH;
}

static bool bpfhv_is_rx_prog(enum bpfhv_prog_id id)
{
	return id <= BPFHV_PROG_RXH;
}

/* Tells the host what becomes of a set. */
void bpfhv_judge(struct bpfhv_priv *bp, u32 id, u32 code, u32 info)
{
	bpfhv_write(bp, BPFHV_REG_VERDICT_INFO, info);
	bpfhv_write_sync(bp, BPFHV_REG_SET_VERDICT, id << 8 | code);
}

static void bpfhv_report_refusal(const struct bpfhv_gen *gen, enum bpfhv_prog_id id, u32 where,
			  int err)
{
	struct bpfhv_priv *bp = gen->bp;

	if (where == BPFHV_WHERE_UNKNOWN)
		netdev_err(bp->netdev, "program %s refused by the kernel: error %d\n",
			   bpfhv_prog_name(id), err);
	else
		netdev_err(bp->netdev, "program %s refused at instruction %u: error %d\n",
			   bpfhv_prog_name(id), where, err);
	if (bp->abilities)
		bpfhv_judge(bp, gen->id,
			    err == -ENOMEM ? BPFHV_VERDICT_MEMORY : BPFHV_VERDICT_REFUSED,
			    id << 24 | where);
}

/*
 * A set that is made beside another one is given up in the middle if the NIC stops, and any but the
 * first one when the driver leaves.
 */
static bool bpfhv_is_unwanted(const struct bpfhv_gen *gen)
{
	const struct bpfhv_priv *bp = gen->bp;

	if (READ_ONCE(bp->dying))
		return bp->gen;
	return gen->staged && READ_ONCE(bp->upgrade.next) != gen;
}

static int bpfhv_ring_load(struct bpfhv_gen *gen, struct bpfhv_ring *r, bool tx,
			   const struct bpfhv_code *code)
{
	struct bpfhv_priv *bp = gen->bp;
	int map_fd = -1, err, id;
	u32 where = 0;

	if (gen->verified)
		err = bpfhv_verified_context(bp, r, &map_fd);
	else
		err = bpfhv_unverified_context(bp, r);
	if (err) {
		netdev_err(bp->netdev, "no context of %u bytes: error %d\n", r->ctx_size, err);
		return err;
	}
	for (id = BPFHV_PROG_RXP; id < BPFHV_PROG_MAX && !err; id++) {
		if (!code[id].insns || bpfhv_is_rx_prog(id) == tx || !bpfhv_is_run(id))
			continue;
		if (bpfhv_is_unwanted(gen)) {
			err = -ECANCELED;
			break;
		}
		if (gen->verified)
			err = bpfhv_verified_load(r, map_fd, id, &code[id], &where);
		else
			err = bpfhv_unverified_load(r, id, &code[id], &where);
		if (err)
			bpfhv_report_refusal(gen, id, where, err);
	}
	if (map_fd >= 0)
		close_fd(map_fd);
	return err;
}

static int bpfhv_ring_create(struct bpfhv_gen *gen, struct bpfhv_ring *r, bool tx,
			     const struct bpfhv_code *code)
{
	struct bpfhv_priv *bp = gen->bp;

	r->selected = gen->terms.selected;
	r->features = gen->terms.features;
	r->n_bufs = tx ? gen->terms.tx_bufs : gen->terms.rx_bufs;
	r->ctx_size = tx ? gen->terms.tx_ctx_size : gen->terms.rx_ctx_size;
	if (r->ctx_size < sizeof(struct bpfhv_context) || r->ctx_size > BPFHV_MAX_CTX_SIZE) {
		netdev_err(bp->netdev, "contexts of %u bytes: unsupported, must be %zu to %u\n",
			   r->ctx_size, sizeof(struct bpfhv_context), BPFHV_MAX_CTX_SIZE);
		return -EINVAL;
	}
	r->slots = kvcalloc(r->n_bufs, sizeof(*r->slots), GFP_KERNEL);
	r->free_ids = kvcalloc(r->n_bufs, sizeof(*r->free_ids), GFP_KERNEL);
	if (!r->slots || !r->free_ids)
		return -ENOMEM;
	bpfhv_ring_reset(r);
	return bpfhv_ring_load(gen, r, tx, code);
}

static void bpfhv_gen_release(struct kref *ref)
{
	struct bpfhv_gen *gen = container_of(ref, struct bpfhv_gen, ref);
	unsigned int i;

	for (i = 0; i < gen->n_rings; i++) {
		struct bpfhv_ring *r = &gen->rings[i];

		if (gen->verified)
			bpfhv_verified_free(gen->bp, r);
		else
			bpfhv_unverified_free(gen->bp, r);
		kvfree(r->slots);
		kvfree(r->free_ids);
	}
	kfree(gen);
}

void bpfhv_gen_put(struct bpfhv_gen *gen)
{
	if (gen)
		kref_put(&gen->ref, bpfhv_gen_release);
}

/* Has the contexts of a generation outlive it. */
void bpfhv_gen_keep(struct bpfhv_gen *gen)
{
	unsigned int i;

	for (i = 0; gen && i < gen->n_rings; i++) {
		struct bpfhv_ring *r = &gen->rings[i];

		if (r->map)
			bpf_map_inc(r->map);
		/* Else it is coherent memory, which is freed if it is known. */
		r->ctx = NULL;
	}
}

static int bpfhv_read_sizes(struct bpfhv_priv *bp, struct bpfhv_terms *terms)
{
	u32 rx = bpfhv_read(bp, BPFHV_REG_NUM_RX_BUFS), tx = bpfhv_read(bp, BPFHV_REG_NUM_TX_BUFS);

	if (rx < BPFHV_MIN_QUEUE_BUFS || rx > BPFHV_MAX_QUEUE_BUFS ||
	    tx < BPFHV_MIN_QUEUE_BUFS || tx > BPFHV_MAX_QUEUE_BUFS) {
		netdev_err(bp->netdev, "%u receive and %u transmit buffers: unsupported, must be %u to %u\n",
			   rx, tx, BPFHV_MIN_QUEUE_BUFS, BPFHV_MAX_QUEUE_BUFS);
		return -EINVAL;
	}
	terms->rx_bufs = rx;
	terms->tx_bufs = tx;
	terms->rx_ctx_size = bpfhv_read(bp, BPFHV_REG_RX_CTX_SIZE);
	terms->tx_ctx_size = bpfhv_read(bp, BPFHV_REG_TX_CTX_SIZE);
	return 0;
}

static int bpfhv_may_run(struct bpfhv_priv *bp, bool verified)
{
	if (verified || bpfhv_allow_unverified)
		return 0;
#if BPFHV_HAS_KERN_SYS_BPF
	netdev_err(bp->netdev, "the device offers no verifiable programs; load the module with allow_unverified=1 to run them unverified\n");
#else
	netdev_err(bp->netdev, "this kernel cannot verify programs for a module; load it with allow_unverified=1 to run them unverified\n");
#endif
	return -EACCES;
}

struct bpfhv_gen *bpfhv_gen_alloc(struct bpfhv_priv *bp, u32 id)
{
	unsigned int n = bpfhv_n_queues(bp);
	struct bpfhv_gen *gen = kzalloc(struct_size(gen, rings, n), GFP_KERNEL);

	if (!gen)
		return NULL;
	kref_init(&gen->ref);
	gen->bp = bp;
	gen->id = id;
	gen->n_rings = n;
	gen->verified = bp->abilities & BPFHV_ABILITY_HELPERFREE;
	return gen;
}

/* Reads sizes and programs of the set that the registers show. The caller frees the code. */
int bpfhv_gen_read(struct bpfhv_gen *gen, struct bpfhv_code *code)
{
	int err = bpfhv_may_run(gen->bp, gen->verified);

	if (!err)
		err = bpfhv_read_sizes(gen->bp, &gen->terms);
	return err ? err : bpfhv_fetch(gen->bp, gen->id, code);
}

/* Makes the rings. In the loader's thread only. */
int bpfhv_gen_make(struct bpfhv_gen *gen, const struct bpfhv_code *code)
{
	unsigned int i, id;
	int err = 0;

	for (i = 0; i < gen->n_rings && !err; i++)
		err = bpfhv_ring_create(gen, &gen->rings[i], i >= gen->bp->n_pairs, code);
	for (id = 0; id < BPFHV_PROG_MAX; id++)
		gen->n_progs += code[id].insns && bpfhv_is_run(id);
	return err;
}

/* Fetches the device's current set and prepares it to run. In the loader's thread only. */
struct bpfhv_gen *bpfhv_gen_load(struct bpfhv_priv *bp)
{
	struct bpfhv_code code[BPFHV_PROG_MAX] = {};
	struct bpfhv_gen *gen;
	int err;

	gen = bpfhv_gen_alloc(bp, bp->abilities ? bpfhv_read(bp, BPFHV_REG_SET_CUR) : 1);
	if (!gen)
		return ERR_PTR(-ENOMEM);
	gen->terms.offered = bp->offered;
	gen->terms.selected = bp->selected;
	gen->terms.features = bp->features;
	err = bpfhv_gen_read(gen, code);
	if (!err)
		err = bpfhv_gen_make(gen, code);
	bpfhv_free_code(code);
	if (err) {
		bpfhv_gen_put(gen);
		return ERR_PTR(err);
	}
	return gen;
}

/*
 * Makes a generation the current one, and releases the previous one, of which nothing is in use any
 * more.
 */
void bpfhv_gen_use(struct bpfhv_priv *bp, struct bpfhv_gen *gen)
{
	struct bpfhv_gen *before = bp->gen;
	unsigned int i;

	bp->gen = gen;
	if (gen) {
		bp->offered = gen->terms.offered;
		bp->selected = gen->terms.selected;
		bp->features = gen->terms.features;
		bp->rx_bufs = gen->terms.rx_bufs;
		bp->tx_bufs = gen->terms.tx_bufs;
	}
	for (i = 0; i < bpfhv_n_queues(bp); i++)
		bp->queues[i].cur = gen ? &gen->rings[i] : NULL;
	bpfhv_gen_put(before);
}

void bpfhv_gen_announce(const struct bpfhv_gen *gen)
{
	struct bpfhv_priv *bp = gen->bp;

	if (gen->verified)
		netdev_info(bp->netdev, "programs verified by the kernel (%u programs, %u queues)\n",
			    gen->n_progs, gen->n_rings);
	else
		netdev_warn(bp->netdev, "programs UNVERIFIED: the host is trusted not to break this kernel (%u programs, %u queues)\n",
			    gen->n_progs, gen->n_rings);
}
