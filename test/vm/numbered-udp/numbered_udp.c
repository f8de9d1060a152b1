// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Sends or receives numbered datagrams, each with a content that follows from its number.
 *
 *   numbered_udp send ADDRESS PORT RATE BURST   until SIGTERM; prints "sent N failed N"
 *   numbered_udp receive PORT                   until SIGTERM; prints what arrived, by number
 *
 * SIGUSR1 makes the receiver begin a new measurement of the longest time without a datagram, and
 * print the one that ends: "gap MICROSECONDS".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST (1 << 22)
#define SHORTEST 64
#define LONGEST 1400

static volatile sig_atomic_t stop, tell;

static void on_term(int signal) { stop = 1; }
static void on_usr1(int signal) { tell = 1; }

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

static uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352d;
  x ^= x >> 15;
  x *= 0x846ca68b;
  return x ^ x >> 16;
}

static size_t length_of(uint32_t number) {
  return SHORTEST + mixed(number) % (LONGEST - SHORTEST);
}

static size_t fill(uint8_t *data, uint32_t number) {
  size_t length = length_of(number);
  memcpy(data, &number, 4);
  for (size_t i = 4; i < length; i++) data[i] = number + i;
  return length;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void handle(int signal, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  sigaction(signal, &action, NULL);
}

/* Sends `burst` datagrams at once, as often as makes `rate` in a second. */
static int send_all(const char *address, int port, int rate, int burst) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  uint64_t start = now_us();
  uint8_t data[LONGEST];
  uint32_t number = 0, failed = 0;
  inet_pton(AF_INET, address, &to.sin_addr);
  while (!stop && number < MOST) {
    uint64_t due = (now_us() - start) * rate / 1000000 / burst * burst;
    for (; number < due && number < MOST; number++)
      if (sendto(fd, data, fill(data, number), 0, (void *)&to, sizeof(to)) < 0) failed++;
    usleep(1000);
  }
  printf("sent %u failed %u\n", number, failed);
  return 0;
}

static int receive_all(int port) {
  struct sockaddr_in on = {.sin_family = AF_INET, .sin_port = htons(port)};
  static uint8_t seen[MOST], data[LONGEST + 1], expected[LONGEST];
  uint32_t received = 0, duplicated = 0, damaged = 0, reordered = 0, number, highest = 0;
  uint64_t last = 0, gap = 0;
  int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 32 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size))) fail("SO_RCVBUFFORCE");
  /* A signal may come just before a wait. */
  struct timeval wait = {.tv_usec = 100000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  if (bind(fd, (void *)&on, sizeof(on))) fail("bind");
  printf("ready\n");
  fflush(stdout);
  while (!stop) {
    ssize_t length = recv(fd, data, sizeof(data), 0);
    uint64_t now = now_us();
    if (tell) {
      tell = 0;
      printf("gap %llu\n", (unsigned long long)gap);
      fflush(stdout);
      gap = 0;
    }
    if (length < 0) continue;
    if (last && now - last > gap) gap = now - last;
    last = now;
    memcpy(&number, data, 4);
    if (length < 4 || number >= MOST || (size_t)length != fill(expected, number) ||
        memcmp(data, expected, length)) {
      damaged++;
      continue;
    }
    if (seen[number]++) {
      duplicated++;
      continue;
    }
    if (received++ && number < highest) reordered++;
    if (number > highest) highest = number;
  }
  printf("received %u duplicated %u damaged %u reordered %u\n", received, duplicated, damaged,
         reordered);
  for (uint32_t n = 0, told = 0; n <= highest && told < 5; n++)
    if (!seen[n]) told++, printf("missing %u\n", n);
  return 0;
}

int main(int argc, char **argv) {
  handle(SIGTERM, on_term);
  handle(SIGUSR1, on_usr1);
  if (argc == 6 && !strcmp(argv[1], "send"))
    return send_all(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
  if (argc == 3 && !strcmp(argv[1], "receive")) return receive_all(atoi(argv[2]));
  fprintf(stderr, "usage: numbered_udp send ADDRESS PORT RATE BURST | receive PORT\n");
  return 2;
}
