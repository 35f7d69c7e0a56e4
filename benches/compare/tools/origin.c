// origin: a backend that costs little. One thread on epoll; answers are made beforehand.
//
//   origin PORT NAME      (port 0: the kernel chooses; the port is printed)
//
// GET /16k and /1m give bodies of 16 KiB and 1 MiB, any other path 1 KiB. Bodies of POST and PUT, with a
// length or chunked, are read and answered with two bytes. Every answer says "x-backend: NAME".
#include "common.h"

enum kind { SMALL, MEDIUM, LARGE, DONE, KINDS };
static const size_t BODY_BYTES[KINDS] = {1024, 16384, 1 << 20, 2};

struct response {
    char *text;
    size_t bytes, head_bytes;
};

// What of a chunked body comes next.
enum chunked { SIZE, EXTENSION, CHUNK, CHUNK_END, TRAILER };

struct connection {
    int fd, used, closes, in_body, chunked, wants_out;
    long body_left;
    enum chunked state;
    // The rest of the answer at hand.
    const char *out;
    size_t out_bytes;
    char *buffer;
};

struct request {
    int is_head, has_body, chunked, keeps_alive;
    long length;
    enum kind answer;
};

static int epoll;
static struct response responses[2][KINDS]; // by whether the connection closes

static struct response make_response(const char *name, size_t body, int closes) {
    char head[512];
    int head_bytes = snprintf(head, sizeof head,
                              "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 14:00:00 GMT\r\n"
                              "content-type: text/plain\r\ncontent-length: %zu\r\n"
                              "cache-control: no-cache\r\netag: \"5f3c-%zx\"\r\nx-backend: %s\r\n%s\r\n",
                              body, body, name, closes ? "connection: close\r\n" : "");
    struct response response = {malloc(head_bytes + body), head_bytes + body, head_bytes};
    memcpy(response.text, head, head_bytes);
    memset(response.text + head_bytes, 'x', body);
    return response;
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->buffer);
    free(c);
}

static void watch_for(struct connection *c, int out) {
    if (c->wants_out != out) {
        struct epoll_event event = {out ? EPOLLOUT : EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->wants_out = out;
    }
}

// 1 when all is written, 0 when the client must read first, -1 when the connection is to be closed.
static int flush(struct connection *c) {
    while (c->out_bytes) {
        ssize_t written = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL);
        if (written < 0 && errno == EAGAIN) {
            watch_for(c, 1);
            return 0;
        }
        if (written < 0) {
            return -1;
        }
        c->out += written;
        c->out_bytes -= written;
    }
    watch_for(c, 0);
    return c->closes ? -1 : 1;
}

static int respond(struct connection *c, enum kind kind, int head_only) {
    struct response *response = &responses[c->closes][kind];
    c->out = response->text;
    c->out_bytes = head_only ? response->head_bytes : response->bytes;
    return flush(c);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Takes one byte of the framing of a chunked body; true when the body has ended. In trailers `body_left` says
// whether the line at hand has anything in it.
static int take_framing(struct connection *c, char byte) {
    switch (c->state) {
    case SIZE:
        if (hex_digit(byte) >= 0) {
            c->body_left = c->body_left * 16 + hex_digit(byte);
        } else if (byte == ';') {
            c->state = EXTENSION;
        }
        // fall through
    case EXTENSION:
        if (byte == '\n') {
            c->state = c->body_left ? CHUNK : TRAILER;
        }
        return 0;
    case CHUNK_END:
        if (byte == '\n') {
            c->state = SIZE;
        }
        return 0;
    default:
        if (byte == '\n') {
            int ended = c->body_left == 0;
            c->body_left = 0;
            return ended;
        }
        c->body_left |= byte != '\r';
        return 0;
    }
}

// Takes what there is of a body; how many bytes. `in_body` is cleared at its end.
static int take_body(struct connection *c, const char *from, int bytes) {
    int taken = 0;
    while (taken < bytes && c->in_body) {
        if (c->chunked && c->state != CHUNK) {
            c->in_body = !take_framing(c, from[taken++]);
            continue;
        }
        long part = bytes - taken < c->body_left ? bytes - taken : c->body_left;
        taken += part;
        c->body_left -= part;
        if (c->body_left == 0 && c->chunked) {
            c->state = CHUNK_END;
        } else if (c->body_left == 0) {
            c->in_body = 0;
        }
    }
    return taken;
}

static void read_header(struct connection *c, struct request *request, const char *line) {
    if (!strncasecmp(line, "content-length:", 15)) {
        request->length = atol(line + 15);
    } else if (!strncasecmp(line, "transfer-encoding:", 18)) {
        request->chunked = 1;
    } else if (!strncasecmp(line, "connection:", 11)) {
        const char *value = line + 11 + strspn(line + 11, " ");
        if (!strncasecmp(value, "close", 5)) {
            request->keeps_alive = 0;
        } else if (!strncasecmp(value, "keep-alive", 10)) {
            request->keeps_alive = 1;
        }
    } else if (!strncasecmp(line, "expect:", 7)) {
        ssize_t ignored = send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL);
        (void)ignored;
    }
}

// Reads the head that ends at `end`; false when it is none.
static int read_head(struct connection *c, struct request *request, char *head, char *end) {
    char *path = memchr(head, ' ', end - head), *line = memchr(head, '\n', end + 2 - head);
    if (!path || !line) {
        return 0;
    }
    path++;
    int is_old = line - head > 10 && !memcmp(line - 9, "HTTP/1.0", 8);
    int has_body = head[0] == 'P';
    *request = (struct request){.is_head = head[0] == 'H', .keeps_alive = !is_old};
    request->answer = has_body                  ? DONE
                      : !memcmp(path, "/16", 3) ? MEDIUM
                      : !memcmp(path, "/1m", 3) ? LARGE
                                                : SMALL;
    for (line++; line < end + 2; line = (char *)memchr(line, '\n', end + 4 - line) + 1) {
        // Most headers are none of these.
        if (memchr("cCtTeE", *line, 6)) {
            read_header(c, request, line);
        }
    }
    request->has_body = has_body && (request->chunked || request->length > 0);
    return 1;
}

// Begins the request whose head is in the buffer at `from`; how many bytes it takes, 0 when it is not
// complete, -1 when the connection is to be closed. `*state` becomes what `flush` said.
static int begin(struct connection *c, int from, int *state) {
    char *head = c->buffer + from, *end = memmem(head, c->used - from, END_OF_HEAD, 4);
    struct request request;
    if (!end) {
        return c->used - from >= BUFFER_BYTES ? -1 : 0;
    }
    if (!read_head(c, &request, head, end)) {
        return -1;
    }
    c->closes = !request.keeps_alive;
    if (request.has_body) {
        c->in_body = 1;
        c->chunked = request.chunked;
        c->body_left = request.chunked ? 0 : request.length;
        c->state = SIZE;
    } else {
        *state = respond(c, request.answer, request.is_head);
    }
    return end + 4 - head;
}

// Takes what is in the buffer, as far as answers can be written; -1 when the connection is to be closed.
static int process(struct connection *c) {
    int position = 0, state = 1;
    while (position < c->used && state == 1) {
        int taken;
        if (c->in_body) {
            taken = take_body(c, c->buffer + position, c->used - position);
            if (!c->in_body) {
                state = respond(c, DONE, 0);
            }
        } else {
            taken = begin(c, position, &state);
        }
        if (taken < 0) {
            return -1;
        }
        if (taken == 0) {
            break;
        }
        position += taken;
    }
    if (state < 0) {
        return -1;
    }
    memmove(c->buffer, c->buffer + position, c->used - position);
    c->used -= position;
    return 0;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        no_delay(fd);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->buffer = malloc(BUFFER_BYTES);
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void writable(struct connection *c) {
    int state = flush(c);
    if (state < 0 || (state == 1 && c->used && process(c) < 0)) {
        drop(c);
    }
}

static void readable(struct connection *c) {
    ssize_t got = read(c->fd, c->buffer + c->used, BUFFER_BYTES - c->used);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        drop(c);
        return;
    }
    c->used += got;
    if (process(c) < 0) {
        drop(c);
    }
}

static void print_port(int listener) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    getsockname(listener, (void *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "origin PORT NAME\n");
        return 2;
    }
    prepare_process();
    for (int kind = 0; kind < KINDS; kind++) {
        for (int closes = 0; closes < 2; closes++) {
            responses[closes][kind] = make_response(argv[2], BODY_BYTES[kind], closes);
        }
    }
    int listener = listen_on(atoi(argv[1]));
    epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.ptr = 0}}, events[EVENTS_MAX];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    print_port(listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
            } else if (events[i].events & EPOLLOUT) {
                writable(c);
            } else {
                readable(c);
            }
        }
    }
}
