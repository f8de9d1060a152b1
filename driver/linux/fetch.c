// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Fetches the program set, as one blob that the device writes into memory, or word by word through
 * BAR 3. The blob is copied to private memory before it is parsed: the host can change shared
 * memory at any time.
 */
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "bpfhv.h"

static const char * const bpfhv_prog_names[BPFHV_PROG_MAX] = {
	"none", "rxp", "rxc", "rxi", "rxr", "rxh", "txp", "txc", "txi", "txr", "txh",
};

const char *bpfhv_prog_name(enum bpfhv_prog_id id)
{
	return id < BPFHV_PROG_MAX ? bpfhv_prog_names[id] : "?";
}

void bpfhv_free_code(struct bpfhv_code *code)
{
	unsigned int id;

	for (id = 0; id < BPFHV_PROG_MAX; id++) {
		kvfree(code[id].insns);
		code[id].insns = NULL;
	}
}

/* Copies memory to a private buffer. kvmemdup() is newer than the oldest supported kernel. */
static void *bpfhv_copy(const void *from, size_t size)
{
	void *copy = kvmalloc(size, GFP_KERNEL);

	return copy ? memcpy(copy, from, size) : NULL;
}

/* Returns true if the SHA-256 of the programs matches the header, or if it is not checked. */
static bool bpfhv_hash_ok(const struct bpfhv_blob *header, u32 length)
{
#if BPFHV_HAVE_SHA256
	u8 hash[SHA256_DIGEST_SIZE];

	sha256((const u8 *)(header + 1), length - sizeof(*header), hash);
	return !memcmp(hash, header->hash, sizeof(hash));
#else
	return true;
#endif
}

static int bpfhv_parse_blob(struct bpfhv_priv *bp, u32 generation, const u8 *blob, u32 length,
			    struct bpfhv_code *code)
{
	const struct bpfhv_blob *header = (const void *)blob;
	u32 programs = le32_to_cpu(header->programs);
	u32 at = sizeof(*header);
	u32 i;

	if (le32_to_cpu(header->magic) != BPFHV_BLOB_MAGIC ||
	    le32_to_cpu(header->length) != length || programs >= BPFHV_PROG_MAX)
		return -EBADMSG;
	/* The sizes read so far are of another generation: the caller retries. */
	if (le32_to_cpu(header->generation) != generation)
		return -EAGAIN;
	if (!bpfhv_hash_ok(header, length)) {
		netdev_err(bp->netdev, "program blob: SHA-256 mismatch\n");
		return -EBADMSG;
	}

	for (i = 0; i < programs; i++) {
		const struct bpfhv_blob_program *p = (const void *)(blob + at);
		u32 id, len;

		if (length - at < sizeof(*p))
			return -EBADMSG;
		id = le32_to_cpu(p->id);
		len = le32_to_cpu(p->instructions);
		at += sizeof(*p);
		if (!id || id >= BPFHV_PROG_MAX || code[id].insns || !len ||
		    len > BPFHV_MAX_INSNS || (length - at) / sizeof(struct bpf_insn) < len)
			return -EBADMSG;
		code[id].insns = bpfhv_copy(blob + at, len * sizeof(struct bpf_insn));
		if (!code[id].insns)
			return -ENOMEM;
		code[id].len = len;
		at += len * sizeof(struct bpf_insn);
	}
	return 0;
}

static int bpfhv_fetch_blob(struct bpfhv_priv *bp, u32 generation, struct bpfhv_code *code)
{
	u32 length = bpfhv_read(bp, BPFHV_REG_BLOB_LEN);
	dma_addr_t dma;
	void *shared, *copy;
	int err;

	if (length < sizeof(struct bpfhv_blob) || length > BPFHV_BLOB_MAX)
		return -EBADMSG;
	shared = dma_alloc_coherent(&bp->pdev->dev, length, &dma, GFP_KERNEL);
	if (!shared)
		return -ENOMEM;
	bpfhv_write(bp, BPFHV_REG_BLOB_LO, lower_32_bits(dma));
	bpfhv_write_sync(bp, BPFHV_REG_BLOB_HI, upper_32_bits(dma));
	copy = bpfhv_copy(shared, length);
	dma_free_coherent(&bp->pdev->dev, length, shared, dma);
	if (!copy)
		return -ENOMEM;
	err = bpfhv_parse_blob(bp, generation, copy, length, code);
	kvfree(copy);
	return err;
}

static int bpfhv_fetch_window(struct bpfhv_priv *bp, struct bpfhv_code *code)
{
	unsigned int id;
	u32 i, len;

	for (id = BPFHV_PROG_RXP; id < BPFHV_PROG_MAX; id++) {
		bpfhv_write(bp, BPFHV_REG_PROG_SELECT, id);
		len = bpfhv_read(bp, BPFHV_REG_PROG_SIZE);
		if (len > BPFHV_MAX_INSNS)
			return -EBADMSG;
		if (!len)
			continue;
		code[id].insns = kvmalloc_array(len, sizeof(struct bpf_insn), GFP_KERNEL);
		if (!code[id].insns)
			return -ENOMEM;
		code[id].len = len;
		for (i = 0; i < 2 * len; i++)
			((u32 *)code[id].insns)[i] = readl(bp->program + 4 * i);
	}
	bpfhv_write(bp, BPFHV_REG_PROG_SELECT, 0);
	return 0;
}

/* Fills code[BPFHV_PROG_MAX]. The caller frees it, also on failure. */
int bpfhv_fetch(struct bpfhv_priv *bp, u32 generation, struct bpfhv_code *code)
{
	unsigned int id;
	int err;

	if (bp->abilities & BPFHV_ABILITY_BLOB)
		err = bpfhv_fetch_blob(bp, generation, code);
	else
		err = bpfhv_fetch_window(bp, code);
	if (err) {
		netdev_err(bp->netdev, "fetching the programs failed: error %d\n", err);
		return err;
	}
	for (id = BPFHV_PROG_RXP; id < BPFHV_PROG_MAX; id++) {
		if (code[id].insns || id == BPFHV_PROG_RXH || id == BPFHV_PROG_TXH)
			continue;
		netdev_err(bp->netdev, "the device has no program %s\n", bpfhv_prog_name(id));
		return -ENOENT;
	}
	return 0;
}
