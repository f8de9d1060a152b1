/**
 * Offloads of a TUN/TAP interface, TUN_F_* of linux/if_tun.h: what the kernel may leave to the
 * reader in frames that it delivers. Constants only: whoever names an offload loads no libc for it.
 */
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_UFO = 0x10;
/** TUN_F_USO4 and TUN_F_USO6, from Linux 6.2, which takes only both together. */
export const TUN_F_USO = 0x60;
