/* An HTTP/1.1 load generator on one thread. Closed: N keep-alive connections, each sends its next request when its
 * answer is complete. Open, with a RATE: a request is due every 1/RATE s whatever the server does; it takes a free
 * connection or waits for one, and its time counts from when it was due. It must cost less than any server it
 * measures, hence C.
 *
 *   loadgen PORT CONNECTIONS SECONDS FRAMES EXPECTED_STATUS SEED [RATE]
 *
 * FRAMES: for each request a little-endian u32 length, an i32 offset of a 16-byte field to fill with a fresh key
 * (-1: none), and the bytes. Prints one JSON object. An answer with another status is counted as bad and the first
 * one is printed to stderr. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1 << 20)
#define MAX_SAMPLES (1 << 21)
#define LINGER_S 5.0

struct frame { char *bytes; uint32_t length; int32_t key_at; };
struct connection { int fd; char *in; size_t have; double sent_at; int busy; };

static struct frame *frames;
static size_t frame_count, next_frame;
static uint64_t key_counter;
static uint32_t *samples;
static size_t sample_count;
static long good, bad, broken;
static int port, expected;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void read_frames(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t length;
    int32_t key_at;
    if (!file) die(path);
    while (fread(&length, 4, 1, file) == 1 && fread(&key_at, 4, 1, file) == 1) {
        frames = realloc(frames, (frame_count + 1) * sizeof *frames);
        struct frame *f = &frames[frame_count++];
        f->length = length;
        f->key_at = key_at;
        f->bytes = malloc(length);
        if (fread(f->bytes, 1, length, file) != length) die("short frame file");
    }
    fclose(file);
    if (!frame_count) { errno = EINVAL; die("no frames"); }
}

static void open_connection(struct connection *c, int poll_fd) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    c->have = 0;
}

static void send_next(struct connection *c, double due) {
    struct frame *f = &frames[next_frame++ % frame_count];
    if (f->key_at >= 0) {
        char key[17];
        snprintf(key, sizeof key, "%016llx", (unsigned long long)key_counter++);
        memcpy(f->bytes + f->key_at, key, 16);
    }
    c->busy = 1;
    c->sent_at = due;
    for (uint32_t at = 0; at < f->length;) {
        ssize_t wrote = send(c->fd, f->bytes + at, f->length - at, MSG_NOSIGNAL);
        if (wrote < 0 && errno != EINTR) return; /* the close is seen when reading */
        if (wrote > 0) at += (uint32_t)wrote;
    }
}

/* Length of the complete answer at the start of the buffer, 0 if more must be read, -1 if it cannot be measured. */
static long answer_length(struct connection *c, int *status) {
    c->in[c->have] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    *status = atoi(c->in + 9);
    long head = end - c->in + 4;
    if (*status == 304 || *status == 204) return head;
    *end = 0;
    char *field = strcasestr(c->in, "\r\ncontent-length:");
    *end = '\r';
    if (!field) return -1;
    long body = atol(field + 17);
    if (head + body >= BUFFER) return -1;
    return (long)c->have >= head + body ? head + body : 0;
}

static void account(struct connection *c, int status, long length) {
    double took = now() - c->sent_at;
    if (sample_count < MAX_SAMPLES) samples[sample_count++] = (uint32_t)(took * 1e6);
    if (status == expected) { good++; return; }
    if (!bad++) fprintf(stderr, "loadgen: expected %d, got: %.*s\n", expected, (int)(length > 900 ? 900 : length), c->in);
}

/* True when the connection's answer is complete. */
static int receive(struct connection *c, int poll_fd) {
    ssize_t got = recv(c->fd, c->in + c->have, BUFFER - 1 - c->have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) {
        broken += c->busy;
        close(c->fd);
        open_connection(c, poll_fd);
        return 1;
    }
    c->have += (size_t)got;
    int status = 0;
    long length = answer_length(c, &status);
    if (length == 0) return 0;
    if (length < 0) { errno = EPROTO; die("an answer without Content-Length, or too long"); }
    account(c, status, length);
    c->have = 0;
    return 1;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t percentile(double share) {
    if (!sample_count) return 0;
    return samples[(size_t)((double)(sample_count - 1) * share)];
}

/* Open only: wakes the loop when the next request is due. */
static void wake_at(int timer, double moment) {
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)moment, .tv_nsec = (long)((moment - (double)(time_t)moment) * 1e9) + 1}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) < 0) die("timerfd_settime");
}

static struct connection *free_one(struct connection *all, int count) {
    for (int i = 0; i < count; i++) if (!all[i].busy) return &all[i];
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 7 && argc != 8) { fprintf(stderr, "usage: loadgen PORT CONNECTIONS SECONDS FRAMES EXPECTED_STATUS SEED [RATE]\n"); return 2; }
    port = atoi(argv[1]);
    int count = atoi(argv[2]);
    double seconds = atof(argv[3]), rate = argc == 8 ? atof(argv[7]) : 0;
    read_frames(argv[4]);
    expected = atoi(argv[5]);
    key_counter = strtoull(argv[6], NULL, 16) << 24;
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    int poll_fd = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), open_requests = 0;
    for (int i = 0; i < count; i++) {
        connections[i].in = malloc(BUFFER);
        open_connection(&connections[i], poll_fd);
    }
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer, &tick) < 0) die("epoll_ctl");
    double begin = now(), deadline = begin + seconds, last = begin, due = begin;
    long wanted = rate > 0 ? (long)(seconds * rate) : 0, sent = 0;
    if (rate <= 0) for (int i = 0; i < count; i++, open_requests++) send_next(&connections[i], now());
    while (open_requests || sent < wanted) {
        struct connection *idle;
        while (sent < wanted && due <= now() && (idle = free_one(connections, count))) {
            send_next(idle, due);
            open_requests++;
            due = begin + (double)++sent / rate;
        }
        if (sent < wanted && due > now()) wake_at(timer, due); /* else an answer frees a connection first */
        struct epoll_event events[64];
        int ready = epoll_wait(poll_fd, events, 64, 100);
        double moment = now();
        if (moment > deadline + LINGER_S) { broken += open_requests + wanted - sent; break; }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            uint64_t ticks;
            if (!c) { if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) die("timer"); continue; }
            if (!receive(c, poll_fd) || !c->busy) continue;
            c->busy = 0;
            open_requests--;
            last = moment;
            if (rate <= 0 && moment < deadline) { send_next(c, now()); open_requests++; }
        }
    }
    qsort(samples, sample_count, sizeof *samples, by_value);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    long cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    printf("{\"good\": %ld, \"bad\": %ld, \"broken\": %ld, \"seconds\": %.6f, \"p50_us\": %u, \"p99_us\": %u, \"cpu_us\": %ld}\n",
           good, bad, broken, last - begin, percentile(0.50), percentile(0.99), cpu_us);
    return 0;
}
