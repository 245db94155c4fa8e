/* A provider that costs next to nothing: one thread, epoll, answers read from files.
 *
 *     cc -O2 -o provider provider.c && ./provider PORT
 *
 * It does not look at what it is asked, but answers every request as the last
 *     GET /control?stream=0&deltas=300&pause=10000&dir=/some/where
 * said: with the file `whole` of that directory, or with a stream of `opening`, `deltas` times `delta`,
 * `pause` microseconds apart, and `ending`, each in an HTTP chunk and a send() of its own.  Where the
 * delta holds T= and 19 digits, these become CLOCK_MONOTONIC in nanoseconds, right before the send().
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

typedef struct conn {
    int fd, broken, streaming, waits_for_room, chunked, queued, said;
    char head[65536];
    size_t head_size;
    long body_left;          /* -1: still in the head */
    char tail[5];            /* the last bytes of a chunked body */
    char *out;
    size_t out_size, out_done, out_room;
    long long due;           /* when the next delta goes out, ns */
    struct conn *before, *after;
} conn;

typedef struct { char *data; size_t size; long stamp; } text;

static text whole, opening, delta, ending;
static int stream_wanted, deltas = 100;
static long long pause_ns;
static int poller;
static conn *first_due, *last_due;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Connections in the order they are due; mostly one goes to the end. */

static void unqueue(conn *c) {
    if (!c->queued) return;
    if (c->before) c->before->after = c->after; else first_due = c->after;
    if (c->after) c->after->before = c->before; else last_due = c->before;
    c->queued = 0;
}

static void enqueue(conn *c) {
    conn *place = last_due;
    while (place && place->due > c->due) place = place->before;
    c->before = place;
    c->after = place ? place->after : first_due;
    if (c->after) c->after->before = c; else last_due = c;
    if (place) place->after = c; else first_due = c;
    c->queued = 1;
}

static void watch(conn *c, int room) {
    if (c->waits_for_room == room) return;
    c->waits_for_room = room;
    struct epoll_event event = {.events = EPOLLIN | (room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void drop(conn *c) {
    if (c->broken) return;
    unqueue(c);
    close(c->fd);
    c->broken = 1;
}

/* 1 when all of it has gone out. */
static int flush(conn *c) {
    while (c->out_done < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_done, c->out_size - c->out_done, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) watch(c, 1); else drop(c);
            return 0;
        }
        c->out_done += sent;
    }
    c->out_size = c->out_done = 0;
    watch(c, 0);
    return 1;
}

static char *put(conn *c, const char *data, size_t size) {
    if (c->out_size + size > c->out_room) {
        c->out_room = (c->out_size + size) * 2;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
    return c->out + c->out_size - size;
}

static void put_chunk(conn *c, text *said) {
    char line[32], digits[20];
    if (!said->size) return;
    put(c, line, sprintf(line, "%zx\r\n", said->size));
    char *place = put(c, said->data, said->size);
    if (said->stamp >= 0) {
        sprintf(digits, "%019lld", now());
        memcpy(place + said->stamp, digits, 19);
    }
    put(c, "\r\n", 2);
}

/* What is due of a stream. */
static void go_on(conn *c) {
    while (c->streaming && !c->broken) {
        if (c->out_size && !flush(c)) return;
        if (pause_ns && c->due > now()) { enqueue(c); return; }
        c->due += pause_ns;
        if (c->said == 0) put_chunk(c, &opening);
        if (c->said < deltas) put_chunk(c, &delta);
        if (c->said++ >= deltas) {
            put_chunk(c, &ending);
            put(c, "0\r\n\r\n", 5);
            c->streaming = 0;
        }
        if (!flush(c)) return;
    }
}

static text read_file(const char *directory, const char *name) {
    char path[4096];
    text found = {NULL, 0, -1};
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file) return found;
    fseek(file, 0, SEEK_END);
    found.size = ftell(file);
    rewind(file);
    found.data = malloc(found.size + 1);
    found.size = fread(found.data, 1, found.size, file);
    fclose(file);
    char *mark = memmem(found.data, found.size, "T=0000000000000000000", 21);
    found.stamp = mark ? mark - found.data + 2 : -1;
    return found;
}

static long number(const char *head, const char *name) {
    const char *found = strstr(head, name);
    return found ? atol(found + strlen(name)) : 0;
}

static void answer_whole(conn *c, const char *kind, const char *data, size_t size) {
    char head[256];
    put(c, head, sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", kind, size));
    put(c, data, size);
    flush(c);
}

static void control(conn *c) {
    char directory[2048] = "";
    stream_wanted = number(c->head, "stream=");
    deltas = number(c->head, "deltas=");
    pause_ns = number(c->head, "pause=") * 1000LL;
    char *place = strstr(c->head, "dir=");
    if (place) sscanf(place + 4, "%2047[^ &]", directory);
    whole = read_file(directory, "whole");
    opening = read_file(directory, "opening");
    delta = read_file(directory, "delta");
    ending = read_file(directory, "ending");
    answer_whole(c, "text/plain", "ok", 2);
}

static void answer(conn *c) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"provider-model\",\"object\":\"model\"}]}";
    if (!strncmp(c->head, "GET /control?", 13)) { control(c); return; }
    if (!strncmp(c->head, "GET ", 4)) { answer_whole(c, "application/json", models, sizeof models - 1); return; }
    if (!stream_wanted) { answer_whole(c, "application/json", whole.data, whole.size); return; }
    put(c, head, sizeof head - 1);
    c->streaming = 1;
    c->said = 0;
    c->due = now();
    go_on(c);
}

/* Some more of a request; its body is counted, not kept. */
static void take(conn *c, char *data, size_t size) {
    if (c->body_left < 0) {
        size_t before = c->head_size, room = sizeof c->head - 1 - before;
        if (size > room) { drop(c); return; }
        memcpy(c->head + before, data, size);
        c->head_size += size;
        char *end = memmem(c->head, c->head_size, "\r\n\r\n", 4);
        if (!end) return;
        size_t head_size = end - c->head + 4;
        data += head_size - before;
        size -= head_size - before;
        *end = 0;
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
        c->body_left = c->chunked ? 1 : length ? atol(length + 17) : 0;
        if (strcasestr(c->head, "\r\nexpect: 100")) {
            static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
            if (send(c->fd, go, sizeof go - 1, MSG_NOSIGNAL) < 0) { drop(c); return; }
        }
    }
    if (c->chunked) {
        for (size_t i = size > 5 ? size - 5 : 0; i < size; i++) {
            memmove(c->tail, c->tail + 1, 4);
            c->tail[4] = data[i];
        }
        if (!memcmp(c->tail, "0\r\n\r\n", 5)) c->body_left = 0;
    } else {
        c->body_left -= (long)size;
    }
    if (c->body_left > 0) return;
    c->head_size = 0;
    c->body_left = -1;
    memset(c->tail, 0, 5);
    answer(c);
}

static void receive(conn *c) {
    static char data[1 << 18];
    for (;;) {
        ssize_t got = recv(c->fd, data, c->body_left < 0 ? sizeof c->head - 1 - c->head_size : sizeof data, 0);
        if (got > 0) take(c, data, got);
        else if (!(got < 0 && errno == EAGAIN)) drop(c);
        if (c->broken || got <= 0 || got < 4096) return;
    }
}

static void welcome(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->body_left = -1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) { perror("listen"); exit(1); }
    return fd;
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(count > 1 ? atoi(arguments[1]) : 0);
    poller = epoll_create1(0);
    struct epoll_event events[512], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct timespec wait = {0}, *timeout = NULL;
        if (first_due) {
            long long left = first_due->due - now();
            if (left > 0) wait = (struct timespec){left / 1000000000, left % 1000000000};
            timeout = &wait;
        }
        int ready = epoll_pwait2(poller, events, 512, timeout, NULL);
        conn *broken[512];
        int lost = 0;
        for (int i = 0; i < ready; i++) {
            conn *c = events[i].data.ptr;
            if (!c) { welcome(listener); continue; }
            if (events[i].events & EPOLLOUT && flush(c)) go_on(c);
            if (!c->broken && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
            if (c->broken) broken[lost++] = c;
        }
        for (long long t = now(); first_due && first_due->due <= t;) {
            conn *c = first_due;
            unqueue(c);
            go_on(c);
            if (c->broken) { free(c->out); free(c); }
        }
        for (int i = 0; i < lost; i++) { free(broken[i]->out); free(broken[i]); }
    }
}
