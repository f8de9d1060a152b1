// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Prints what the kernel's generic netlink family "netdev" tells of an interface's queues:
 *
 *   netdev_family INTERFACE
 *
 *   queue rx 0 napi 8193
 *   napi 8193 irq 27
 *   qstats rx 0 packets 12 bytes 1200 stops -1        (-1: not told)
 *   qstats device rx packets 30 bytes 3000
 *
 * The numbers are those of Documentation/netlink/specs/netdev.yaml, as older headers lack them.
 */
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_GET = 10, NAPI_GET = 11, QSTATS_GET = 12 };
enum { IFINDEX = 1, NAPI_IFINDEX = 1, QUEUE_IFINDEX = 2 };
enum { QUEUE_ID = 1, QUEUE_TYPE = 3, QUEUE_NAPI = 4 };
enum { NAPI_ID = 2, NAPI_IRQ = 3 };
enum {
  QSTATS_TYPE = 2,
  QSTATS_ID,
  QSTATS_SCOPE,
  RX_PACKETS = 8,
  RX_BYTES,
  TX_PACKETS,
  TX_BYTES,
  TX_STOP = 33,
  MOST = 64
};

struct request {
  struct nlmsghdr header;
  struct genlmsghdr generic;
  char attributes[64];
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void add(struct request *request, int type, const void *value, int size) {
  struct nlattr *attribute = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

  attribute->nla_type = type;
  attribute->nla_len = NLA_HDRLEN + size;
  memcpy((char *)attribute + NLA_HDRLEN, value, size);
  request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + NLA_ALIGN(NLA_HDRLEN + size);
}

/* An unsigned number of 2, 4 or 8 bytes; -1 if there is none. */
static long long number(const struct nlattr *attribute) {
  const char *value = (const char *)attribute + NLA_HDRLEN;
  uint16_t two;
  uint32_t four;
  uint64_t eight;

  switch (attribute ? attribute->nla_len - NLA_HDRLEN : 0) {
  case 2:
    return memcpy(&two, value, 2), two;
  case 4:
    return memcpy(&four, value, 4), four;
  case 8:
    return memcpy(&eight, value, 8), (long long)eight;
  }
  return -1;
}

static long long family;

static void on_family(long long value[]) {
  family = value[CTRL_ATTR_FAMILY_ID];
}

static const char *way(long long type) {
  return type == 0 ? "rx" : "tx";
}

static void on_queue(long long value[]) {
  printf("queue %s %lld napi %lld\n", way(value[QUEUE_TYPE]), value[QUEUE_ID], value[QUEUE_NAPI]);
}

static void on_napi(long long value[]) {
  printf("napi %lld irq %lld\n", value[NAPI_ID], value[NAPI_IRQ]);
}

static void on_qstats(long long value[]) {
  if (value[QSTATS_SCOPE] == -1 && value[QSTATS_ID] == -1) {
    printf("qstats device rx packets %lld bytes %lld\n", value[RX_PACKETS], value[RX_BYTES]);
    printf("qstats device tx packets %lld bytes %lld\n", value[TX_PACKETS], value[TX_BYTES]);
  } else if (value[QSTATS_TYPE] == 0) {
    printf("qstats rx %lld packets %lld bytes %lld stops -1\n", value[QSTATS_ID],
           value[RX_PACKETS], value[RX_BYTES]);
  } else {
    printf("qstats tx %lld packets %lld bytes %lld stops %lld\n", value[QSTATS_ID],
           value[TX_PACKETS], value[TX_BYTES], value[TX_STOP]);
  }
}

static void handle(const struct nlmsghdr *message, void (*on)(long long value[])) {
  const char *at = (const char *)NLMSG_DATA(message) + GENL_HDRLEN;
  const char *end = (const char *)message + message->nlmsg_len;
  long long value[MOST];

  for (int i = 0; i < MOST; i++) value[i] = -1;
  while (at + NLA_HDRLEN <= end) {
    const struct nlattr *attribute = (const void *)at;
    int type = attribute->nla_type & NLA_TYPE_MASK;

    if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > end) break;
    if (type < MOST) value[type] = number(attribute);
    at += NLA_ALIGN(attribute->nla_len);
  }
  on(value);
}

/* Sends a request, and handles each message of the answer, up to the end of a dump. */
static void ask(int fd, struct request *request, void (*on)(long long value[])) {
  static char buffer[1 << 16];
  int dump = request->header.nlmsg_flags & NLM_F_DUMP;

  if (send(fd, request, request->header.nlmsg_len, 0) < 0) fail("send");
  for (;;) {
    int got = recv(fd, buffer, sizeof(buffer), 0);

    if (got < 0) fail("recv");
    for (struct nlmsghdr *m = (void *)buffer; NLMSG_OK(m, got); m = NLMSG_NEXT(m, got)) {
      if (m->nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *error = NLMSG_DATA(m);

        fprintf(stderr, "the kernel refused: %s\n", strerror(-error->error));
        exit(1);
      }
      if (m->nlmsg_type == NLMSG_DONE) return;
      handle(m, on);
      if (!dump) return;
    }
  }
}

static void start(struct request *request, int type, int flags, int command) {
  memset(request, 0, sizeof(*request));
  request->header.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
  request->header.nlmsg_type = type;
  request->header.nlmsg_flags = NLM_F_REQUEST | flags;
  request->generic.cmd = command;
  request->generic.version = 1;
}

/* Scope 0 is the device, which the kernel tells one answer of; 1 is each queue. */
static void dump(int fd, int command, int attribute, uint32_t index, int scope,
                 void (*on)(long long value[])) {
  struct request request;
  uint32_t wanted = scope;

  start(&request, family, NLM_F_DUMP, command);
  add(&request, attribute, &index, sizeof(index));
  if (scope) add(&request, QSTATS_SCOPE, &wanted, sizeof(wanted));
  ask(fd, &request, on);
}

int main(int argc, char **argv) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  uint32_t index = argc == 2 ? if_nametoindex(argv[1]) : 0;
  struct request request;

  if (fd < 0) fail("socket");
  if (!index) fail("usage: netdev_family INTERFACE");
  start(&request, GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY);
  add(&request, CTRL_ATTR_FAMILY_NAME, "netdev", sizeof("netdev"));
  ask(fd, &request, on_family);
  dump(fd, QUEUE_GET, QUEUE_IFINDEX, index, 0, on_queue);
  dump(fd, NAPI_GET, NAPI_IFINDEX, index, 0, on_napi);
  dump(fd, QSTATS_GET, IFINDEX, index, 1, on_qstats);
  dump(fd, QSTATS_GET, IFINDEX, index, 0, on_qstats);
  return 0;
}
