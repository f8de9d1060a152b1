#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR MIT
#
# Prints bpfhv_config.h: what the kernel to build for offers, as compat.h asks for it. Kbuild runs
# this with the compiler and the flags that the module is built with. Versions do not tell: RHEL's
# 5.14 has interfaces of 6.x.
#
# The headers are preprocessed once, and their declarations searched, which takes a second; a
# compilation per question would take one each. What a module may call is in Module.symvers.
#
# usage: probe.sh MODULE-SYMVERS COMPILER FLAG...
set -eu
exports=$1
shift
text=$(mktemp)
trap 'rm -f "$text"' EXIT

headers() {
	for header in linux/ethtool.h linux/etherdevice.h linux/filter.h linux/hrtimer.h \
		linux/interrupt.h linux/module.h linux/netdevice.h linux/pci.h linux/skbuff.h \
		linux/virtio_net.h linux/workqueue.h net/xdp.h; do
		echo "#include <$header>"
	done
	# Those that came, moved or went.
	for header in crypto/sha2.h net/gso.h net/netdev_queues.h net/page_pool.h \
		net/page_pool/helpers.h; do
		macro=has_$(echo "$header" | tr '/.' '__')
		printf '#if __has_include(<%s>)\n#include <%s>\nprobe_%s\n#endif\n' \
			"$header" "$header" "$macro"
	done
	printf '#ifdef VIRTIO_NET_HDR_GSO_UDP_L4\nprobe_has_uso\n#endif\n'
	# The macro quotes its argument, or takes a string.
	echo 'probe_import_ns MODULE_IMPORT_NS(probe_word);'
	echo 'probe_end'
}

if ! headers | "$@" -E -P -x c - >"$text"; then
	echo "bpfhv: the kernel's headers cannot be preprocessed, for the compiler's reason above" >&2
	exit 1
fi
[ -r "$exports" ] || {
	echo "bpfhv: $exports is missing: the module is built without what only it lists" >&2
	exports=/dev/null
}

asked='^(bpf_map_get|kern_sys_bpf)$'
exported=$(awk -v "asked=$asked" '$2 ~ asked { printf "%s ", $2 }' "$exports")
namespace=$(awk '$2 == "kern_sys_bpf" && $5 ~ /^[A-Z_]+$/ { print $5 }' "$exports")

echo '/* Made by probe.sh from the headers of the kernel to build for. */'
[ -z "$namespace" ] || echo "#define BPFHV_BPF_NAMESPACE $namespace"
tr '\n' ' ' <"$text" | awk -v "exported= $exported" '
# Position after the opening parenthesis of the first use of a name, which in C is its declaration;
# 0 if there is none.
function declaration(name) {
	if (!match(text, "(^|[^A-Za-z0-9_])" name " ?[(]")) return 0
	return RSTART + RLENGTH
}
# Text from a position up to the parenthesis or brace that ends what was opened before it.
function enclosed(start, open, close_,    i, depth, one) {
	depth = 1
	for (i = start; depth > 0 && i <= length(text); i++) {
		one = substr(text, i, 1)
		if (one == open) depth++
		else if (one == close_) depth--
	}
	return substr(text, start, i - start - 1)
}
# Number of parameters of a declared function, or of a member that points to one; 0 if not declared.
function parameters(name,    start, list, depth, count, i, one) {
	if (!(start = declaration(name))) return 0
	list = enclosed(start, "(", ")")
	count = 1
	depth = 0
	for (i = 1; i <= length(list); i++) {
		one = substr(list, i, 1)
		if (one == "(") depth++
		else if (one == ")") depth--
		else if (one == "," && depth == 0) count++
	}
	return count
}
function member(type, pattern) {
	if (!match(text, "struct " type " ?[{]")) return 0
	return enclosed(RSTART + RLENGTH, "{", "}") ~ pattern
}
function is_exported(name) { return index(exported, " " name " ") }
function has(what, is) { printf "#define BPFHV_HAS_%s %d\n", what, is ? 1 : 0 }

{ text = text $0 }
END {
	if (text !~ /probe_end *$/) exit 1
	# Both, as the verifier needs the maps.
	has("KERN_SYS_BPF", is_exported("kern_sys_bpf") && is_exported("bpf_map_get"))
	has("SHA2_H", text ~ /probe_has_crypto_sha2_h/)
	has("GSO_H", text ~ /probe_has_net_gso_h/)
	has("PAGE_POOL_HELPERS_H", text ~ /probe_has_net_page_pool_helpers_h/)
	# UDP segmentation has a virtio-net header type since 6.2.
	has("USO", text ~ /probe_has_uso/)
	has("IMPORT_NS_STRING", text !~ /probe_import_ns[^;]*"probe_word"/)
	has("NAPI_WEIGHT", parameters("netif_napi_add") == 4)
	has("NAPI_ADD_TX", parameters("netif_napi_add_tx") == 3)
	has("RINGPARAM_EXTACK", parameters("[(] ?[*] ?get_ringparam ?[)]") == 4)
	has("COALESCE_EXTACK", parameters("[(] ?[*] ?get_coalesce ?[)]") == 4)
	has("RXFH_PARAM", parameters("[(] ?[*] ?set_rxfh ?[)]") == 3)
	has("RXFH_FIELDS", parameters("[(] ?[*] ?get_rxfh_fields ?[)]") == 2)
	has("RX_RING_COUNT", parameters("[(] ?[*] ?get_rx_ring_count ?[)]") == 1)
	has("AFFINITY_AND_HINT", declaration("irq_set_affinity_and_hint"))
	has("NAPI_SET_IRQ", declaration("netif_napi_set_irq"))
	has("QUEUE_SET_NAPI", parameters("netif_queue_set_napi") == 4)
	has("STAT_OPS", member("netdev_stat_ops", "get_base_stats"))
	has("STAT_STOP", member("netdev_queue_stats_tx", "u64 stop ?;"))
	# 5.14 took the page and its pool as well; it is treated as those before it.
	has("SKB_RECYCLE", parameters("skb_mark_for_recycle") == 1)
	# From 5.15 on, as recycling is.
	has("POOL_FRAGS", declaration("page_pool_dev_alloc_frag"))
	# From 5.18 on, when frames may have several buffers, and a driver that sends not all of
	# them leaves the rest to its caller.
	has("XDP", declaration("xdp_buff_has_frags") && parameters("skb_mark_for_recycle") == 1)
	has("XDP_FEATURES", declaration("xdp_set_features_flag"))
	has("FRAG_FILL_PAGE", declaration("skb_frag_fill_page_desc"))
	has("POOL_NAPI", member("page_pool_params", "struct napi_struct ?[*] ?napi ?;"))
	has("HRTIMER_SETUP", declaration("hrtimer_setup"))
	has("ETH_HW_ADDR_SET", declaration("eth_hw_addr_set"))
	has("PCIM_REQUEST_ALL", declaration("pcim_request_all_regions"))
	has("BPF_PROG_RUN", declaration("bpf_prog_run"))
	has("PERCPU_WQ", text ~ /[*] ?system_percpu_wq ?;/)
	has("NAPI_BUILD_SKB", declaration("napi_build_skb"))
}' || {
	echo 'bpfhv: the kernel headers end too early' >&2
	exit 1
}
