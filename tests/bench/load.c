/* Asks again and again: CONNECTIONS in a closed loop on one thread, and one JSON object of results.
 *
 *     cc -O2 -o load load.c && ./load PORT REQUEST CONNECTIONS MOST SECONDS RAMP
 *
 * REQUEST is a file with a whole HTTP request, head and body.  Requests begin until MOST were started or
 * SECONDS are over; those under way are finished.  RAMP: microseconds between the first requests of two
 * connections.  Times are in microseconds; a chunk's is from the stamp in it (see provider.c) to here.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct { float *values; size_t count, room; } series;

enum { SIZE, EXTENSION, DATA, DATA_END, TRAILER };

typedef struct conn {
    int fd, active, used, status, in_body, chunked, closes, state, trailer_line;
    size_t sent, head_size, chunk;
    long body_left;                 /* -1: not known */
    long long began, first;
    int stamp_state;                /* how much of T=, then how many digits */
    long long stamp;
    char head[16384], error[200];
    size_t error_size;
} conn;

static struct sockaddr_in address;
static int poller, running;
static char *request;
static size_t request_size;
static unsigned long long started, most, good, bad, stamps;
static long long deadline;
static series latency, first_byte, chunks;
static char first_error[300];

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void note(series *s, long long ns) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 4096;
        s->values = realloc(s->values, s->room * sizeof(float));
    }
    s->values[s->count++] = ns / 1e3;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, series *s) {
    if (!s->count) { printf("\"%s\": null, ", name); return; }
    qsort(s->values, s->count, sizeof(float), ascending);
    printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"most\": %.1f}, ", name, s->values[s->count / 2],
           s->values[(size_t)(s->count * 0.99)], s->values[s->count - 1]);
}

static void hang_up(conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void send_more(conn *c) {
    while (c->sent < request_size) {
        ssize_t sent = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (sent < 0) return;
        c->sent += sent;
    }
}

static void begin(conn *c) {
    int one = 1;
    running += !c->active;
    c->active = 1;
    if (started >= most || now() >= deadline) {
        hang_up(c);
        c->active = 0;
        running--;
        return;
    }
    started++;
    c->status = c->in_body = c->chunked = c->closes = c->state = c->trailer_line = c->stamp_state = 0;
    c->sent = c->head_size = c->chunk = c->error_size = 0;
    c->body_left = -1;
    c->first = 0;
    c->began = now();
    c->used = c->fd >= 0;
    if (c->fd < 0) {
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connect(c->fd, (void *)&address, sizeof address);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    }
    send_more(c);
}

static void failed(conn *c, const char *why) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s, status %d %.*s", why, c->status, (int)c->error_size, c->error);
    if (++bad > 1000) deadline = 0;
}

static void done(conn *c) {
    if (c->status == 200) {
        good++;
        note(&latency, now() - c->began);
        if (c->first) note(&first_byte, c->first - c->began);
    } else {
        failed(c, "answered");
    }
    if (c->closes) hang_up(c);
    begin(c);
}

static void broke(conn *c, const char *why) {
    int stale = c->used && !c->head_size; /* a kept connection that was just closed: ask again */
    if (stale) started--; else failed(c, why);
    hang_up(c);
    begin(c);
}

static void take_body(conn *c, const char *data, size_t size) {
    if (!c->first) c->first = now();
    if (c->status != 200) {
        size_t room = sizeof c->error - c->error_size;
        memcpy(c->error + c->error_size, data, size < room ? size : room);
        c->error_size += size < room ? size : room;
        return;
    }
    for (size_t i = 0; i < size; i++) {
        char byte = data[i];
        if (c->stamp_state >= 2 && byte >= '0' && byte <= '9') {
            c->stamp = c->stamp * 10 + (byte - '0');
            if (++c->stamp_state < 21) continue;
            note(&chunks, now() - c->stamp);
            stamps++;
            c->stamp_state = 0;
        } else if (c->stamp_state == 1 && byte == '=') {
            c->stamp_state = 2;
            c->stamp = 0;
        } else {
            c->stamp_state = byte == 'T';
        }
    }
}

/* The bytes that were taken of a head; its meaning once it is whole. */
static size_t take_head(conn *c, const char *data, size_t size) {
    size_t before = c->head_size, room = sizeof c->head - 1 - before;
    if (size > room) size = room;
    memcpy(c->head + before, data, size);
    c->head_size += size;
    c->head[c->head_size] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return size;
    *end = 0;
    c->status = atoi(c->head + 9);
    c->in_body = 1;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (length) c->body_left = atol(length + 17);
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->closes = strcasestr(c->head, "\r\nconnection: close") != NULL || (!c->chunked && !length);
    return end - c->head + 4 - before;
}

/* The bytes taken of a chunked body; negative at its end. */
static long take_chunked(conn *c, const char *data, size_t size) {
    char byte = *data;
    int digit = byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10;
    switch (c->state) {
    case DATA: {
        size_t part = c->chunk < size ? c->chunk : size;
        take_body(c, data, part);
        if (!(c->chunk -= part)) c->state = DATA_END;
        return part;
    }
    case DATA_END:
        if (byte == '\n') c->state = SIZE;
        return 1;
    case TRAILER:
        if (byte == '\n' && !c->trailer_line) return -1;
        c->trailer_line = byte != '\n' && (c->trailer_line || byte != '\r');
        return 1;
    default:
        if (byte == '\n') c->state = c->chunk ? DATA : TRAILER;
        else if (byte == ';') c->state = EXTENSION;
        else if (byte != '\r' && c->state == SIZE) c->chunk = c->chunk * 16 + digit;
        return 1;
    }
}

/* 1 when the answer is whole. */
static int take(conn *c, const char *data, size_t size) {
    while (size) {
        if (!c->in_body) {
            size_t taken = take_head(c, data, size);
            data += taken; size -= taken;
            if (c->in_body && !c->chunked && !c->body_left) return 1;
        } else if (c->chunked) {
            long taken = take_chunked(c, data, size);
            if (taken < 0) return 1;
            data += taken; size -= taken;
        } else {
            take_body(c, data, size);
            if (c->body_left >= 0 && !(c->body_left -= size)) return 1;
            return 0;
        }
    }
    return 0;
}

static void receive(conn *c) {
    static char data[1 << 18];
    int fd = c->fd;
    for (;;) {
        ssize_t got = recv(fd, data, sizeof data, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got > 0) {
            if (take(c, data, got)) { done(c); if (c->fd != fd) return; }
        } else if (c->in_body && !c->chunked && c->body_left < 0) {
            c->closes = 1; done(c); return;
        } else {
            broke(c, got ? "reset" : "closed"); return;
        }
    }
}

int main(int count, char **arguments) {
    if (count != 7) { fprintf(stderr, "load PORT REQUEST CONNECTIONS MOST SECONDS RAMP\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(arguments[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FILE *file = fopen(arguments[2], "rb");
    if (!file) { perror(arguments[2]); return 2; }
    fseek(file, 0, SEEK_END);
    request = malloc(ftell(file) + 1);
    request_size = ftell(file);
    rewind(file);
    request_size = fread(request, 1, request_size, file);
    int connections = atoi(arguments[3]), awake = 0;
    most = strtoull(arguments[4], NULL, 10);
    long long ramp = atoll(arguments[6]) * 1000, start = now(), next = start;
    deadline = start + (long long)(atof(arguments[5]) * 1e9);
    long long patience = deadline + 60000000000LL;
    conn *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) all[i].fd = -1;
    poller = epoll_create1(0);
    struct epoll_event events[256];
    while (awake < connections || running) {
        while (awake < connections && now() >= next) { begin(&all[awake++]); next += ramp; if (ramp) break; }
        if (now() > patience) { bad += running; snprintf(first_error, sizeof first_error, "%d never ended", running); break; }
        int ready = epoll_wait(poller, events, 256, awake < connections ? 1 : 1000);
        for (int i = 0; i < ready; i++) {
            conn *c = events[i].data.ptr;
            if (c->fd < 0 || !c->active) continue;
            if (events[i].events & EPOLLOUT) send_more(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
    }
    double wall = (now() - start) / 1e9;
    for (char *byte = first_error; *byte; byte++) if (*byte < 32 || *byte == '"' || *byte == '\\' || *byte > 126) *byte = ' ';
    printf("{");
    print_series("latency", &latency);
    print_series("first_byte", &first_byte);
    print_series("chunk", &chunks);
    printf("\"good\": %llu, \"bad\": %llu, \"stamps\": %llu, \"wall\": %.4f, \"error\": \"%s\"}\n", good, bad, stamps, wall, first_error);
    return 0;
}
