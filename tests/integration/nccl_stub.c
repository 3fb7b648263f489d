/* A stand-in for NCCL without GPUs: the functions that vLLM binds, over loopback sockets and host memory.

   As NCCL does, it waits for ever: for a peer that does not come, and for one that has gone, until ncclCommAbort.
   Every rank talks to rank 0 alone. A call blocks until it is done; streams are ignored. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OK = 0, SYSTEM = 2, INTERNAL = 3, USAGE = 5, MOST = 64, TYPES = 12 };
typedef struct { char internal[128]; } ncclUniqueId;
typedef struct comm { int rank, n, fd[MOST]; volatile int aborted; } *ncclComm_t;

static const size_t size_of[TYPES] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
static int listener_of[65536];

static int move(ncclComm_t c, int fd, void *data, size_t left, int out) {
  char *at = data;
  while (left > 0 && !c->aborted) {
    struct pollfd p = {fd, out ? POLLOUT : POLLIN, 0};
    if (poll(&p, 1, 5) < 1) continue;
    ssize_t done = out ? send(fd, at, left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, at, left, MSG_DONTWAIT);
    if (done > 0) { at += done; left -= done; }
    else usleep(2000); /* a peer that is gone is waited for */
  }
  return left ? INTERNAL : OK;
}

const char *ncclGetErrorString(int result) { return result == OK ? "no error" : "stub error"; }
int ncclGetVersion(int *version) { *version = 99900; return OK; }

int ncclGetUniqueId(ncclUniqueId *id) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (void *)&a, sizeof a) || listen(fd, MOST) || getsockname(fd, (void *)&a, &length)) return SYSTEM;
  memset(id, 0, sizeof *id);
  memcpy(id->internal, &a.sin_port, sizeof a.sin_port);
  listener_of[ntohs(a.sin_port)] = fd;
  return OK;
}

int ncclCommInitRank(ncclComm_t *out, int n, ncclUniqueId id, int rank) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  memcpy(&a.sin_port, id.internal, sizeof a.sin_port);
  ncclComm_t c = calloc(1, sizeof *c);
  char go = 1;
  if (n > MOST) return USAGE;
  c->rank = rank, c->n = n;
  if (rank == 0) {
    int listener = listener_of[ntohs(a.sin_port)];
    for (int i = 1; i < n; i++) {
      int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), who = 0;
      if (fd < 0 || move(c, fd, &who, sizeof who, 0)) return SYSTEM;
      c->fd[who] = fd;
    }
    close(listener);
    for (int i = 1; i < n; i++) move(c, c->fd[i], &go, 1, 1);
  } else {
    c->fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd[0], (void *)&a, sizeof a) || move(c, c->fd[0], &rank, sizeof rank, 1)) return SYSTEM;
    move(c, c->fd[0], &go, 1, 0);
  }
  *out = c;
  return OK;
}

int ncclCommAbort(ncclComm_t c) {
  c->aborted = 1;
  usleep(20000); /* who waits in `move` sees it */
  for (int i = 0; i < c->n; i++) if (c->fd[i]) close(c->fd[i]);
  return OK;
}
int ncclCommDestroy(ncclComm_t c) { return ncclCommAbort(c); }

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, ncclComm_t c, void *stream) {
  size_t bytes = count * size_of[type];
  int result = OK;
  if (root != 0) return USAGE;
  if (c->rank != 0) return move(c, c->fd[0], to, bytes, 0);
  for (int i = 1; i < c->n && result == OK; i++) result = move(c, c->fd[i], (void *)from, bytes, 1);
  if (to != from) memcpy(to, from, bytes);
  return result;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, ncclComm_t c, void *stream) {
  size_t bytes = count * 4;
  int result = OK;
  if (type != 7 || op != 0) return USAGE; /* sums of float32: what vLLM warms a communicator up with */
  memmove(to, from, bytes);
  if (c->rank != 0) {
    result = move(c, c->fd[0], to, bytes, 1);
    return result ? result : move(c, c->fd[0], to, bytes, 0);
  }
  float *sum = to, *other = malloc(bytes);
  for (int i = 1; i < c->n && result == OK; i++) {
    result = move(c, c->fd[i], other, bytes, 0);
    for (size_t k = 0; k < count; k++) sum[k] += other[k];
  }
  free(other);
  return result ? result : ncclBroadcast(to, to, count, type, 0, c, stream);
}

int ncclSend(const void *from, size_t count, int type, int to, ncclComm_t c, void *stream) {
  if (c->rank != 0 && to != 0) return USAGE;
  return move(c, c->fd[to], (void *)from, count * size_of[type], 1);
}
int ncclRecv(void *to, size_t count, int type, int from, ncclComm_t c, void *stream) {
  if (c->rank != 0 && from != 0) return USAGE;
  return move(c, c->fd[from], to, count * size_of[type], 0);
}
int ncclGroupStart(void) { return OK; }
int ncclGroupEnd(void) { return OK; }

/* Bound by vLLM, and not called by a weight transfer. */
int ncclReduce(void) { return USAGE; }
int ncclAllGather(void) { return USAGE; }
int ncclReduceScatter(void) { return USAGE; }
int ncclCommSuspend(void) { return USAGE; }
int ncclCommResume(void) { return USAGE; }
int ncclCommWindowRegister(void) { return USAGE; }
int ncclCommWindowDeregister(void) { return USAGE; }
int ncclCommQueryProperties(void) { return USAGE; }
