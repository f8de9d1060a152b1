/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The contract between this driver and a bpfhv device: registers, contexts,
 * program ids, the program blob. Little endian throughout.
 */
#ifndef BPFHV_ABI_H
#define BPFHV_ABI_H

#include <linux/types.h>
#include <linux/build_bug.h>

#define BPFHV_PCI_VENDOR		0x1b36
#define BPFHV_PCI_DEVICE		0x0b9f
/* The original's id, which QEMU's PCIe-to-PCI bridge also has. */
#define BPFHV_PCI_DEVICE_ORIGINAL	0x000e

#define BPFHV_BAR_REGISTERS	0
#define BPFHV_BAR_DOORBELLS	1
#define BPFHV_BAR_PROGRAM	3

/* BAR 0. Aligned 32-bit accesses only. */
#define BPFHV_REG_STATUS		0
#define BPFHV_REG_CTRL			4
#define BPFHV_REG_MAC_LO		8
#define BPFHV_REG_MAC_HI		12
#define BPFHV_REG_NUM_RX_QUEUES		16
#define BPFHV_REG_NUM_TX_QUEUES		20
#define BPFHV_REG_NUM_RX_BUFS		24
#define BPFHV_REG_NUM_TX_BUFS		28
#define BPFHV_REG_RX_CTX_SIZE		32
#define BPFHV_REG_TX_CTX_SIZE		36
#define BPFHV_REG_DOORBELL_SIZE		40
#define BPFHV_REG_QUEUE_SELECT		44
#define BPFHV_REG_CTX_PADDR_LO		48
#define BPFHV_REG_CTX_PADDR_HI		52
#define BPFHV_REG_PROG_SELECT		56
#define BPFHV_REG_PROG_SIZE		60
#define BPFHV_REG_DOORBELL_GVA_LO	64
#define BPFHV_REG_DOORBELL_GVA_HI	68
#define BPFHV_REG_VERSION		72
#define BPFHV_REG_FEATURES		76
#define BPFHV_REG_DUMP_LEN		80
#define BPFHV_REG_DUMP_INPUT		84
#define BPFHV_REG_DUMP_OFS		88
/* Extension 1 */
#define BPFHV_REG_EXT_ID		92
#define BPFHV_REG_EXT_OFFER		96
#define BPFHV_REG_EXT_ACK		100
#define BPFHV_REG_EVENT			104
#define BPFHV_REG_SET_CUR		108
#define BPFHV_REG_SET_NEXT		112
#define BPFHV_REG_SET_VIEW		116
#define BPFHV_REG_SET_VERDICT		120
#define BPFHV_REG_VERDICT_INFO		124
#define BPFHV_REG_Q_CMD			128
#define BPFHV_REG_Q_DRAINED		132
#define BPFHV_REG_BLOB_LO		136
#define BPFHV_REG_BLOB_HI		140
#define BPFHV_REG_BLOB_LEN		144
#define BPFHV_REG_OFFERED		148
#define BPFHV_REG_MTU			152
#define BPFHV_REG_RX_GEOM		156
#define BPFHV_REG_PAGES_LO		160
#define BPFHV_REG_PAGES_HI		164
#define BPFHV_REG_LINK_SPEED		168
#define BPFHV_REG_FILTER_LO		172
#define BPFHV_REG_FILTER_HI		176
#define BPFHV_REG_FILTER_STATE		180
#define BPFHV_REG_COALESCE		184
#define BPFHV_REG_RSS_LO		188
#define BPFHV_REG_RSS_HI		192
#define BPFHV_REG_RSS_STATE		196
#define BPFHV_REG_EXT_END		200

#define BPFHV_VERSION			1
#define BPFHV_EXT_ID			0x31585642	/* "BVX1" */

#define BPFHV_STATUS_LINK		BIT(0)
#define BPFHV_STATUS_UPGRADE		BIT(1)
#define BPFHV_STATUS_RX_ENABLED		BIT(2)
#define BPFHV_STATUS_TX_ENABLED		BIT(3)
#define BPFHV_STATUS_ENABLED		(BPFHV_STATUS_RX_ENABLED | BPFHV_STATUS_TX_ENABLED)

#define BPFHV_CTRL_RX_ENABLE		BIT(0)
#define BPFHV_CTRL_TX_ENABLE		BIT(1)
#define BPFHV_CTRL_RX_DISABLE		BIT(2)
#define BPFHV_CTRL_TX_DISABLE		BIT(3)
#define BPFHV_CTRL_UPGRADE_READY	BIT(4)
#define BPFHV_CTRL_QUEUES_DUMP		BIT(5)

#define BPFHV_ABILITY_OVERLAP		BIT(0)
#define BPFHV_ABILITY_BLOB		BIT(1)
#define BPFHV_ABILITY_EVENT		BIT(2)
#define BPFHV_ABILITY_GEOMETRY		BIT(3)
#define BPFHV_ABILITY_HELPERFREE	BIT(4)
#define BPFHV_ABILITY_CTX_PAGES		BIT(5)
#define BPFHV_ABILITY_QUEUE_PAIRS	BIT(6)
#define BPFHV_ABILITY_FILTER		BIT(10)
#define BPFHV_ABILITY_COALESCE		BIT(11)
#define BPFHV_ABILITY_RSS		BIT(12)

#define BPFHV_EVENT_LINK_OR_MTU		BIT(0)
#define BPFHV_EVENT_STAGED		BIT(1)
#define BPFHV_EVENT_WITHDRAWN		BIT(2)
#define BPFHV_EVENT_NEEDS_RESET		BIT(3)

#define BPFHV_FILTER_ALL		0
#define BPFHV_FILTER_LIST		1
#define BPFHV_FILTER_ALL_MULTICAST	3

/* FILTER_STATE: result of the last request in bits 8 to 15 */
#define BPFHV_FILTER_OK			0
#define BPFHV_FILTER_INVALID		1
#define BPFHV_FILTER_ADDRESS		2

/* What the guest wants of flow hashes */
#define BPFHV_RSS_STEER			1
#define BPFHV_RSS_REPORT		2

/* RSS_STATE: result of the last request in bits 8 to 15 */
#define BPFHV_RSS_OK			0
#define BPFHV_RSS_INVALID		1

/* Packets that are hashed; TCP and UDP: with ports */
#define BPFHV_HASH_IPV4			BIT(0)
#define BPFHV_HASH_TCP_V4		BIT(1)
#define BPFHV_HASH_UDP_V4		BIT(2)
#define BPFHV_HASH_IPV6			BIT(3)
#define BPFHV_HASH_TCP_V6		BIT(4)
#define BPFHV_HASH_UDP_V6		BIT(5)

/* In each half of COALESCE: receive in the low one, transmit in the high one */
#define BPFHV_COALESCE_ADAPTIVE		0x8000
#define BPFHV_MAX_COALESCE_US		10000

#define BPFHV_VERDICT_READY		0
#define BPFHV_VERDICT_REFUSED		1
#define BPFHV_VERDICT_MEMORY		2
#define BPFHV_VERDICT_FEATURE		3
#define BPFHV_VERDICT_ABORT		4

#define BPFHV_ANSWER_GO			1

#define BPFHV_Q_TX_CUT			1
#define BPFHV_Q_RX_CUT			2
#define BPFHV_Q_RETIRE			4

#define BPFHV_F_SG		BIT(0)
#define BPFHV_F_TX_CSUM		BIT(1)
#define BPFHV_F_RX_CSUM		BIT(2)
#define BPFHV_F_TSO_V4		BIT(3)
#define BPFHV_F_TCP_V4_LRO	BIT(4)
#define BPFHV_F_TSO_V6		BIT(5)
#define BPFHV_F_TCP_V6_LRO	BIT(6)
#define BPFHV_F_UFO		BIT(7)
#define BPFHV_F_UDP_LRO		BIT(8)
#define BPFHV_F_RX_OUT_OF_ORDER	BIT(9)
#define BPFHV_F_TX_OUT_OF_ORDER	BIT(10)

enum bpfhv_prog_id {
	BPFHV_PROG_NONE,
	BPFHV_PROG_RXP,
	BPFHV_PROG_RXC,
	BPFHV_PROG_RXI,
	BPFHV_PROG_RXR,
	BPFHV_PROG_RXH,
	BPFHV_PROG_TXP,
	BPFHV_PROG_TXC,
	BPFHV_PROG_TXI,
	BPFHV_PROG_TXR,
	BPFHV_PROG_TXH,
	BPFHV_PROG_MAX,
};

#define BPFHV_MAX_INSNS		16384
#define BPFHV_MAX_BUFS		64
/* Segments of one large packet: the host drops packets of more. */
#define BPFHV_MAX_SEGMENTS	2048
#define BPFHV_MIN_QUEUE_BUFS	16
#define BPFHV_MAX_QUEUE_BUFS	8192
#define BPFHV_MAX_PAIRS		8
/* Bytes of each page of a page list, whatever the guest's pages are. */
#define BPFHV_PAGE		4096
#define BPFHV_MAX_CTX_SIZE	(16 << 20)

#define BPFHV_OFLAG_KICK_NEEDED		BIT(0)
#define BPFHV_OFLAG_RESCHED_NEEDED	BIT(1)

struct bpfhv_buf {
	__le64 cookie;
	__le64 paddr;
	__le64 vaddr;
	__le32 len;
	__le32 reserved;
};

/* Metadata flags of a received packet with a hash: hash_high, and hdr_len below it */
#define BPFHV_METADATA_HASH		0x40
#define BPFHV_METADATA_HASH_PORTS	0x80

/* virtio_net_hdr without num_buffers, little endian */
struct bpfhv_metadata {
	__u8 flags;
	__u8 gso_type;
	__le16 hdr_len;
	__le16 gso_size;
	__le16 csum_start;
	__le16 csum_offset;
};

/* The public part; the private area of programs and host follows. */
struct bpfhv_context {
	__le64 guest_priv;
	__le64 packet;
	__le32 num_bufs;
	__le32 iflags;
	__le32 oflags;
	__le32 min_completed_bufs;
	__le32 min_intr_nsecs;
	struct bpfhv_metadata metadata;
	__le16 hash_high;
	struct bpfhv_buf bufs[BPFHV_MAX_BUFS];
};

/* A receive filter. The first address is the guest's own. */
struct bpfhv_filter {
	__le16 mode;
	__le16 count;
	__le32 reserved;
	struct {
		__u8 address[6];
		__u8 zero[2];
	} entries[];
};

#define BPFHV_MAX_FILTER_ADDRESSES	511

#define BPFHV_RSS_KEY_SIZE		40
#define BPFHV_MAX_RSS_TABLE		128

/* Settings of flow hashes */
struct bpfhv_rss {
	__le16 flags;
	__le16 entries;		/* a power of two; 0 without STEER */
	__le16 types;
	__le16 zero;
	__u8 key[BPFHV_RSS_KEY_SIZE];
	__le16 table[BPFHV_MAX_RSS_TABLE];
};

struct bpfhv_blob {
	__le32 magic;
	__le32 length;
	__le32 generation;
	__le32 programs;
	__u8 hash[32];
};

#define BPFHV_BLOB_MAGIC	0x4c425642	/* "BVBL" */
#define BPFHV_BLOB_MAX		(48 + 10 * (24 + BPFHV_MAX_INSNS * 8))

struct bpfhv_blob_program {
	__le32 id;
	__le32 instructions;
	char name[16];
};

static_assert(sizeof(struct bpfhv_buf) == 32);
static_assert(sizeof(struct bpfhv_metadata) == 10);
static_assert(offsetof(struct bpfhv_context, metadata) == 36);
static_assert(offsetof(struct bpfhv_context, bufs) == 48);
static_assert(sizeof(struct bpfhv_context) == 2096);
static_assert(sizeof(struct bpfhv_filter) == 8);
static_assert(sizeof(struct bpfhv_rss) == 304);
static_assert(sizeof(struct bpfhv_blob) == 48);
static_assert(sizeof(struct bpfhv_blob_program) == 24);

/* Numbers of the helpers that version 1 programs may call. */
#define BPFHV_HELPER_BASE	0x4b8f0000
enum bpfhv_helper {
	BPFHV_HELPER_RX_PKT_ALLOC,
	BPFHV_HELPER_PKT_L4_CSUM_MD_GET,
	BPFHV_HELPER_PKT_L4_CSUM_MD_SET,
	BPFHV_HELPER_PKT_VIRTIO_NET_MD_GET,
	BPFHV_HELPER_PKT_VIRTIO_NET_MD_SET,
	BPFHV_HELPER_RX_BUF_DMA_MAP,
	BPFHV_HELPER_RX_BUF_DMA_UNMAP,
	BPFHV_HELPER_TX_BUF_DMA_MAP,
	BPFHV_HELPER_TX_BUF_DMA_UNMAP,
	BPFHV_HELPER_SMP_MB_FULL,
	BPFHV_HELPER_PRINT_NUM,
	BPFHV_HELPER_MAX,
};

#endif /* BPFHV_ABI_H */
