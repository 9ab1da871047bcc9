/*
 * TCP requests and answers of one byte, one at a time: what a round trip costs. Static, so that guests need nothing for it; the same program answers.
 *   pingpong listen ADDRESS PORT    answers for ever, one connection after the other; says "PP LISTEN port" (PORT 0: any)
 *   pingpong ADDRESS PORT SECONDS   asks that long; says "PP END requests seconds"
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void need(int ok, const char *what) {
  if (!ok) { perror(what); exit(1); }
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static struct sockaddr_in address(const char *host, const char *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (inet_pton(AF_INET, host, &a.sin_addr) != 1) { fprintf(stderr, "pingpong: \"%s\" is not an IPv4 address\n", host); exit(2); }
  return a;
}

static void answer(const char *host, const char *port) {
  struct sockaddr_in a = address(host, port);
  socklen_t size = sizeof a;
  int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  need(s >= 0 && !setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) && !bind(s, (struct sockaddr *)&a, size) && !listen(s, 8), "listen");
  need(!getsockname(s, (struct sockaddr *)&a, &size), "getsockname");
  printf("PP LISTEN %d\n", ntohs(a.sin_port));
  fflush(stdout);
  for (;;) {
    int c = accept(s, NULL, NULL);
    char byte;
    if (c < 0) continue;
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (read(c, &byte, 1) == 1 && write(c, &byte, 1) == 1) {}
    close(c);
  }
}

static void ask(const char *host, const char *port, double seconds) {
  struct sockaddr_in a = address(host, port);
  int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  char byte = 'x';
  long requests = 0;
  need(s >= 0 && !setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) && !connect(s, (struct sockaddr *)&a, sizeof a), "connect");
  double begun = now(), passed;
  do {
    need(write(s, &byte, 1) == 1, "write");
    need(read(s, &byte, 1) == 1, "read");
    requests++;
    passed = now() - begun;
  } while (passed < seconds);
  printf("PP END %ld %.6f\n", requests, passed);
}

int main(int argc, char **argv) {
  if (argc != 4) { fprintf(stderr, "pingpong listen ADDRESS PORT | pingpong ADDRESS PORT SECONDS\n"); return 2; }
  signal(SIGPIPE, SIG_IGN);
  if (!strcmp(argv[1], "listen")) answer(argv[2], argv[3]);
  else ask(argv[1], argv[2], atof(argv[3]));
  return 0;
}
