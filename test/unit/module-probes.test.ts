/**
 * The module's build asks the kernel's headers, not its version: small headers in the form of real
 * ones, with an interface moved from one version to another as distributions do.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const DRIVER = fileURLToPath(new URL("../../../driver/linux/", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-probes-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const withoutCompiler = spawnSync("cc", ["--version"]).error && "there is no C compiler";

/** Debian's 5.10: nothing that the probes look for. */
const V5_10: Record<string, string> = {
  "linux/ethtool.h": `struct ethtool_ops {
	void	(*get_ringparam)(struct net_device *,
				 struct ethtool_ringparam *);
	int	(*get_coalesce)(struct net_device *, struct ethtool_coalesce *);
	int	(*set_rxfh)(struct net_device *, const u32 *indir,
			    const u8 *key, const u8 hfunc);
};`,
  "linux/etherdevice.h": "",
  "linux/filter.h": "",
  "linux/hrtimer.h": "void hrtimer_init(struct hrtimer *timer, clockid_t c, enum hrtimer_mode m);",
  "linux/interrupt.h":
    "extern int irq_set_affinity_hint(unsigned int irq, const struct cpumask *m);",
  "linux/module.h": `#define MODULE_INFO(tag, info) MODULE_INFO_ tag info
#define STRING(x) #x
#define MODULE_IMPORT_NS(ns) MODULE_INFO(import_ns, STRING(ns))`,
  "linux/netdevice.h": `void netif_napi_add(struct net_device *dev, struct napi_struct *napi,
		    int (*poll)(struct napi_struct *, int), int weight);`,
  "linux/pci.h": "int pci_request_regions(struct pci_dev *, const char *);",
  "linux/skbuff.h": "struct sk_buff *build_skb(void *data, unsigned int frag_size);",
  "linux/virtio_net.h": "",
  "linux/workqueue.h": "extern struct workqueue_struct *system_wq;",
  "net/page_pool.h": "struct page_pool_params { unsigned int flags; struct device *dev; };",
  "net/xdp.h": "struct xdp_rxq_info { struct net_device *dev; };",
};

/** Debian's 6.12, as far as the probes look. */
const V6_12: Record<string, string> = {
  "linux/hrtimer.h": V5_10["linux/hrtimer.h"],
  "linux/module.h": V5_10["linux/module.h"],
  "crypto/sha2.h": "",
  "linux/ethtool.h": `struct ethtool_ops {
	void	(*get_ringparam)(struct net_device *, struct ethtool_ringparam *,
				 struct kernel_ethtool_ringparam *, struct netlink_ext_ack *);
	int	(*get_coalesce)(struct net_device *, struct ethtool_coalesce *,
				struct kernel_ethtool_coalesce *, struct netlink_ext_ack *);
	int	(*set_rxfh)(struct net_device *, struct ethtool_rxfh_param *,
			    struct netlink_ext_ack *extack);
};`,
  "linux/etherdevice.h": "",
  "linux/filter.h": "static inline u32 bpf_prog_run(const struct bpf_prog *p, const void *c) {}",
  "linux/interrupt.h":
    "static inline int irq_set_affinity_and_hint(unsigned int irq, const struct cpumask *m) {}",
  "linux/netdevice.h": `void netif_queue_set_napi(struct net_device *dev, unsigned int queue_index,
	enum netdev_queue_type type, struct napi_struct *napi);
static inline void netif_napi_set_irq(struct napi_struct *napi, int irq) {}
static inline void netif_napi_add(struct net_device *dev,
	struct napi_struct *napi, int (*poll)(struct napi_struct *, int)) {}
static inline void netif_napi_add_tx(struct net_device *dev, struct napi_struct *napi,
	int (*poll)(struct napi_struct *, int)) {}
static inline void eth_hw_addr_set(struct net_device *dev, const u8 *addr) {}`,
  "linux/pci.h": "int pcim_request_all_regions(struct pci_dev *pdev, const char *name);",
  "linux/skbuff.h": `static inline void skb_mark_for_recycle(struct sk_buff *skb) {}
static inline void skb_frag_fill_page_desc(skb_frag_t *frag, struct page *page, int off, int n) {}
struct sk_buff *napi_build_skb(void *data, unsigned int frag_size);`,
  "linux/virtio_net.h": "#define VIRTIO_NET_HDR_GSO_UDP_L4 5",
  "linux/workqueue.h": "extern struct workqueue_struct *system_percpu_wq;",
  "net/gso.h": "",
  "net/netdev_queues.h": `struct netdev_queue_stats_tx { u64 bytes; u64 stop; u64 wake; };
struct netdev_stat_ops { void (*get_base_stats)(struct net_device *dev); };`,
  "net/page_pool/helpers.h": `struct page_pool_params {
	union { struct { unsigned int flags; struct napi_struct *napi; }; } fast;
};
static inline struct page *page_pool_dev_alloc_frag(struct page_pool *pool,
	unsigned int *offset, unsigned int size) {}`,
  "net/xdp.h": `static __always_inline bool xdp_buff_has_frags(const struct xdp_buff *xdp) {}
void xdp_set_features_flag(struct net_device *dev, xdp_features_t val);`,
};

const EXPORTS_6_12 = `0x1\tbpf_map_get\tvmlinux\tEXPORT_SYMBOL_NS\tBPF_INTERNAL
0x2\tkern_sys_bpf\tvmlinux\tEXPORT_SYMBOL_NS\tBPF_INTERNAL
`;

let count = 0;
/** Runs probe.sh on these headers and exported symbols, and returns its defines and its status. */
function probe(headers: Record<string, string>, exported = "") {
  const root = join(folder, `${count++}`);
  for (const [file, content] of Object.entries(headers)) {
    mkdirSync(join(root, dirname(file)), { recursive: true });
    writeFileSync(join(root, file), `${content}\n`);
  }
  const symbols = join(root, "Module.symvers");
  writeFileSync(symbols, exported);
  const words = [join(DRIVER, "probe.sh"), symbols, "cc", "-nostdinc", `-I${root}`];
  const run = spawnSync("sh", words, { encoding: "utf8" });
  const defines = [...run.stdout.matchAll(/^#define BPFHV_(?:HAS_)?(\w+) (\w+)$/gm)];
  return {
    status: run.status,
    stderr: run.stderr,
    has: Object.fromEntries(defines.map(([, name, value]) => [name, value])),
  };
}

const names = (has: Record<string, string>, value: string): string[] =>
  Object.keys(has)
    .filter((name) => has[name] === value)
    .sort();

test("probes find nothing new when the headers are those of 5.10", {
  skip: withoutCompiler,
}, () => {
  const { status, stderr, has } = probe(V5_10);
  assert.equal(status, 0, stderr);
  assert.deepEqual(names(has, "1"), ["NAPI_WEIGHT"]);
  assert.ok(names(has, "0").length >= 15);
});

test("probes find all but later interfaces when the headers are those of 6.12", {
  skip: withoutCompiler,
}, () => {
  const { has } = probe(V6_12, EXPORTS_6_12);
  const later = ["HRTIMER_SETUP", "IMPORT_NS_STRING", "RXFH_FIELDS", "RX_RING_COUNT"];
  assert.deepEqual(names(has, "0"), [...later, "NAPI_WEIGHT"].sort());
  assert.equal(has.BPF_NAMESPACE, "BPF_INTERNAL");
});

test("probes decide each by itself when a 5.14 has interfaces of later versions", {
  skip: withoutCompiler,
}, () => {
  const { has } = probe(
    {
      ...V5_10,
      "linux/netdevice.h": V6_12["linux/netdevice.h"],
      "linux/skbuff.h": `static inline void skb_mark_for_recycle(struct sk_buff *skb,
	struct page *page, struct page_pool *pp) {}`,
    },
    "0x1\tbpf_map_get\tvmlinux\tEXPORT_SYMBOL_GPL\t\n0x2\tkern_sys_bpf\tvmlinux\tEXPORT_SYMBOL\t\n",
  );
  const backported = ["NAPI_ADD_TX", "NAPI_SET_IRQ", "QUEUE_SET_NAPI"];
  assert.deepEqual(names(has, "1"), ["ETH_HW_ADDR_SET", "KERN_SYS_BPF", ...backported]);
  assert.equal(has.BPF_NAMESPACE, undefined);
});

test("probes offer the verifier only when both symbols are exported", {
  skip: withoutCompiler,
}, () => {
  const [first] = EXPORTS_6_12.split("\n");
  assert.equal(probe(V6_12, `${first}\n`).has.KERN_SYS_BPF, "0");
});

test("probes take MODULE_IMPORT_NS with a string from 6.13 on", { skip: withoutCompiler }, () => {
  const string = "#define MODULE_IMPORT_NS(ns) MODULE_INFO_ import_ns ns";
  const { has } = probe({ ...V6_12, "linux/module.h": string }, EXPORTS_6_12);
  assert.equal(has.IMPORT_NS_STRING, "1");
});

test("probes fail when a header is missing", { skip: withoutCompiler }, () => {
  const { "linux/pci.h": _, ...others } = V6_12;
  const { status, stderr, has } = probe(others);
  assert.equal(status, 1);
  assert.match(stderr, /pci\.h/);
  assert.match(stderr, /^bpfhv: the kernel's headers cannot be preprocessed/m);
  assert.deepEqual(has, {});
});

test("the driver asks for what the probes define, and for no version", () => {
  const sources = readdirSync(DRIVER).filter((name) => /\.[ch]$/.test(name));
  const text = sources.map((name) => readFileSync(join(DRIVER, name), "utf8")).join("\n");
  const script = readFileSync(join(DRIVER, "probe.sh"), "utf8");
  const defined = [...script.matchAll(/\bhas\("(\w+)"/g)].map(([, name]) => `BPFHV_HAS_${name}`);
  const asked = new Set(text.match(/\bBPFHV_HAS_\w+/g));
  assert.ok(asked.size >= 20);
  assert.deepEqual([...asked].sort(), [...new Set(defined)].sort());
  assert.doesNotMatch(text, /LINUX_VERSION_CODE|KERNEL_VERSION/);
});
