/*
 * The context of a queue for programs in C (ABI version 1), and their common macros. BUFS, a power
 * of two, is set on the command line. Every access to a context is volatile, as in src/devices: one
 * access in the source is one in the program.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MAX_BUFS 64
#define MASK (BUFS - 1)

struct buf { u64 cookie, paddr, vaddr; u32 len, reserved; };
/* virtio_net_hdr without num_buffers, in the bytes 36 to 45 of the context. */
struct header { u8 flags, gso_type; u16 hdr_len, gso_size, csum_start, csum_offset; };

#define PUBLIC \
	u64 guest_priv, packet; \
	u32 num_bufs, iflags, oflags, min_completed_bufs, min_intr_nsecs; \
	struct header header; \
	u16 reserved; \
	struct buf bufs[MAX_BUFS]

/* The control words of sring and sring_gso. */
#define SRING \
	u32 prod, intr, barrier, pad0[29]; \
	u32 cons, kick_enabled, pad1[30]; \
	u32 qmask, pad2[31]; \
	u32 clear, pad3[31]

#define SECTION(name) __attribute__((section(#name), used))
#define INLINE static inline __attribute__((always_inline))
/* An address dependency that the compiler must not see through. */
#define AFTER(value, loaded) ({ u32 x_ = (value) ^ (loaded); asm volatile("" : "+r"(x_)); x_ ^ (loaded); })

/*
 * With V1 defined: programs like the original's, which call the driver's helpers
 * by the constant address of a function, with the header on the stack. CSUM_ONLY:
 * the reduced variant, with checksums only.
 */
#define HELPER(n) ((void *)(0x4b8f0000 + (n)))
static int (*const rx_pkt_alloc)(volatile void *ctx) = HELPER(0);
static int (*const pkt_l4_csum_md_get)(volatile void *ctx, u16 *start, u16 *offset) = HELPER(1);
static int (*const pkt_l4_csum_md_set)(volatile void *ctx, u16 start, u16 offset) = HELPER(2);
static int (*const pkt_virtio_net_md_get)(volatile void *ctx, struct header *out) = HELPER(3);
static int (*const pkt_virtio_net_md_set)(volatile void *ctx, const struct header *in) = HELPER(4);
static void (*const smp_mb_full)(void) = HELPER(9);
