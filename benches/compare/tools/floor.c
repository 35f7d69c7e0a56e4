// floor: what the kernel alone costs. A forwarder of one thread on epoll that looks for the end of the head
// and for content-length, and for nothing else: wait, read client, write upstream, read upstream, write
// client.
//
//   floor HTTP_PORT HTTPS_PORT CERTIFICATE KEY BLUE_PORT GREEN_PORT GREEN_PERCENT
//
// A yardstick, not a proxy: each request must come in one read, and writes block.
#include "common.h"
#include <openssl/ssl.h>
#include <poll.h>

enum kind { LISTENER, TLS_LISTENER, CLIENT, UPSTREAM, DEAD };

struct connection {
    enum kind kind;
    int fd, side, in_body;
    long left;
    // The other side of the request at hand.
    struct connection *peer;
    // The next in a pool, or the next of the dead.
    struct connection *next;
    SSL *ssl;
};

static int epoll, upstream_ports[2];
static unsigned green_percent, random_state = 12345;
static struct connection *pool[2], *dead;
static SSL_CTX *tls;
static char buffer[BUFFER_BYTES];

static struct connection *watch(enum kind kind, int fd) {
    struct connection *c = calloc(1, sizeof *c);
    c->kind = kind;
    c->fd = fd;
    struct epoll_event event = {EPOLLIN | EPOLLET, {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return c;
}

// Freed after the turn: events of the same turn may still point to it.
static void end(struct connection *c) {
    if (c->ssl) {
        SSL_free(c->ssl);
    }
    close(c->fd);
    c->kind = DEAD;
    c->next = dead;
    dead = c;
}

static void free_dead(void) {
    while (dead) {
        struct connection *c = dead;
        dead = c->next;
        free(c);
    }
}

static void end_client(struct connection *c) {
    if (c->peer) {
        end(c->peer);
    }
    end(c);
}

static struct connection *take_upstream(int side) {
    struct connection *u = pool[side];
    if (u) {
        pool[side] = u->next;
        return u;
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(upstream_ports[side]);
    if (connect(fd, (void *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    no_delay(fd);
    u = watch(UPSTREAM, fd);
    u->side = side;
    return u;
}

static void wait_writable(int fd) {
    struct pollfd wait = {fd, POLLOUT, 0};
    poll(&wait, 1, 1000);
}

static void write_plain(int fd, const char *from, long bytes) {
    while (bytes > 0) {
        ssize_t written = send(fd, from, bytes, MSG_NOSIGNAL);
        if (written < 0 && errno != EAGAIN) {
            return;
        }
        if (written < 0) {
            wait_writable(fd);
            continue;
        }
        from += written;
        bytes -= written;
    }
}

static void write_tls(SSL *ssl, const char *from, long bytes) {
    while (bytes > 0) {
        int written = SSL_write(ssl, from, bytes);
        if (written <= 0 && SSL_get_error(ssl, written) != SSL_ERROR_WANT_WRITE) {
            return;
        }
        if (written <= 0) {
            wait_writable(SSL_get_fd(ssl));
            continue;
        }
        from += written;
        bytes -= written;
    }
}

static void accept_all(struct connection *listener) {
    int fd;
    while ((fd = accept4(listener->fd, 0, 0, SOCK_NONBLOCK)) >= 0) {
        no_delay(fd);
        struct connection *c = watch(CLIENT, fd);
        if (listener->kind == TLS_LISTENER) {
            c->ssl = SSL_new(tls);
            SSL_set_fd(c->ssl, fd);
            SSL_set_accept_state(c->ssl);
        }
    }
}

// Bytes read from a client; 0 when there is nothing yet, -1 when the connection has ended.
static long read_client(struct connection *c) {
    if (c->ssl) {
        int got = SSL_read(c->ssl, buffer, BUFFER_BYTES);
        if (got > 0) {
            return got;
        }
        int error = SSL_get_error(c->ssl, got);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    ssize_t got = read(c->fd, buffer, BUFFER_BYTES);
    if (got < 0 && errno == EAGAIN) {
        return 0;
    }
    return got > 0 ? got : -1;
}

static void on_client(struct connection *c) {
    long got = read_client(c);
    if (got == 0) {
        return;
    }
    if (got < 0 || !memmem(buffer, got, END_OF_HEAD, 4)) {
        end_client(c);
        return;
    }
    random_state = random_state * 1103515245 + 12345;
    struct connection *u = take_upstream((random_state >> 16) % 100 < green_percent);
    c->peer = u;
    u->peer = c;
    u->in_body = 0;
    write_plain(u->fd, buffer, got);
}

static void end_upstream(struct connection *u) {
    if (u->peer) {
        u->peer->peer = 0;
        end(u->peer);
    } else {
        struct connection **place = &pool[u->side];
        while (*place && *place != u) {
            place = &(*place)->next;
        }
        if (*place) {
            *place = u->next;
        }
    }
    end(u);
}

// How much of the response is still to come, head included; -1 when the head is not complete.
static long response_bytes(long got) {
    char *head_end = memmem(buffer, got, END_OF_HEAD, 4);
    if (!head_end) {
        return -1;
    }
    char *length = memmem(buffer, head_end - buffer, "content-length:", 15);
    return (length ? atol(length + 15) : 0) + (head_end + 4 - buffer);
}

static void on_upstream(struct connection *u) {
    long got;
    do {
        got = recv(u->fd, buffer, BUFFER_BYTES, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            end_upstream(u);
            return;
        }
        struct connection *client = u->peer;
        if (!client) {
            return;
        }
        if (!u->in_body) {
            u->left = response_bytes(got);
            if (u->left < 0) {
                end_upstream(u);
                return;
            }
            u->in_body = 1;
        }
        u->left -= got;
        if (client->ssl) {
            write_tls(client->ssl, buffer, got);
        } else {
            write_plain(client->fd, buffer, got);
        }
        if (u->left <= 0) {
            client->peer = u->peer = 0;
            u->next = pool[u->side];
            pool[u->side] = u;
            return;
        }
        // Edge-triggered: after a full read more is waiting, after a short one the kernel tells.
    } while (got == BUFFER_BYTES);
}

static void prepare_tls(const char *certificate, const char *key) {
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "floor: cannot read %s and %s\n", certificate, key);
        exit(1);
    }
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(tls, 1);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "floor HTTP_PORT HTTPS_PORT CERTIFICATE KEY BLUE_PORT GREEN_PORT GREEN_PERCENT\n");
        return 2;
    }
    prepare_process();
    prepare_tls(argv[3], argv[4]);
    upstream_ports[0] = atoi(argv[5]);
    upstream_ports[1] = atoi(argv[6]);
    green_percent = atoi(argv[7]);
    epoll = epoll_create1(0);
    watch(LISTENER, listen_on(atoi(argv[1])));
    watch(TLS_LISTENER, listen_on(atoi(argv[2])));
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->kind == CLIENT) {
                on_client(c);
            } else if (c->kind == UPSTREAM) {
                on_upstream(c);
            } else if (c->kind != DEAD) {
                accept_all(c);
            }
        }
        free_dead();
    }
}
