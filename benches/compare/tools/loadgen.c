// loadgen: an HTTP/1.1 load generator where the rate is fixed or each request must be known.
//
//   loadgen -p PORT [-H HOST] [-u PATH] [-c CONNECTIONS] [-d SECONDS] [-r RATE] [-l LOG] [-i]
//
// Without a rate it is a closed loop: each connection sends its next request when it has its answer. With
// one, requests are due at even distances, and latency counts from when a request was due: a proxy that
// stalls cannot hide it by holding the generator up. SIGTERM ends it early, with its figures and its log.
//
//   -i  opens all connections, makes one request on each, prints "ready", and holds them until stdin ends.
//   -l  writes a record for each request: u64 due, u64 sent, u64 done (CLOCK_MONOTONIC, ns), u32 status (0:
//   no
//       answer), u32 backend (1 blue, 2 green, 0 another).
#include "common.h"
#include <sys/prctl.h>

#define TURN_NS 20000000ull
#define IDLE_OPEN_NS 60000000000ull
#define IDLE_DIALS_AT_ONCE 64

struct connection {
    int fd, busy, connecting, in_body, used, status, backend, closes;
    long left;
    uint64_t due, sent;
    char *buffer;
};

struct record {
    uint64_t due, sent, done;
    uint32_t status, backend;
};

static struct {
    int port, connections, idle;
    double seconds, rate;
    const char *host, *path, *log;
} options = {.connections = 64, .seconds = 5, .host = "localhost", .path = "/1k"};

static struct connection *connections;
static int epoll;
static char request[1024];
static int request_bytes;
static volatile sig_atomic_t stopped;

static struct {
    uint64_t ok, bad_status, broken, refused, closed_idle, unsent;
} count;

static uint32_t *latencies;
static size_t latencies_used, latencies_room;
static struct record *records;
static size_t records_used, records_room;

// Connections without a request, in the order in which they became free (open loop only).
static int *waiting;
static unsigned waiting_head, waiting_tail;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static void keep_latency(uint64_t ns) {
    if (latencies_used == latencies_room) {
        latencies_room = latencies_room ? latencies_room * 2 : 65536;
        latencies = realloc(latencies, latencies_room * sizeof *latencies);
    }
    latencies[latencies_used++] = ns > UINT32_MAX ? UINT32_MAX : ns;
}

static void keep_record(struct connection *c, uint64_t done, int status, int backend) {
    if (!options.log) {
        return;
    }
    if (records_used == records_room) {
        records_room = records_room ? records_room * 2 : 65536;
        records = realloc(records, records_room * sizeof *records);
    }
    records[records_used++] = (struct record){c->due, c->sent, done, status, backend};
}

static void wait_for_work(struct connection *c) {
    waiting[waiting_tail++ % (options.connections + 1)] = c - connections;
}

static int dial(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    no_delay(c->fd);
    struct sockaddr_in address = loopback(options.port);
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) {
        close(c->fd);
        c->fd = -1;
        count.refused++;
        return -1;
    }
    c->connecting = 1;
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {.u32 = c - connections}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    return 0;
}

// Failures to write are seen as errors of the next read.
static void write_request(struct connection *c) {
    ssize_t ignored = send(c->fd, request, request_bytes, MSG_NOSIGNAL);
    (void)ignored;
}

static void send_request(struct connection *c, uint64_t due) {
    c->sent = now_ns();
    c->due = due ? due : c->sent;
    c->used = c->in_body = 0;
    if (c->fd < 0) {
        // The request is written when the connection is there.
        c->busy = dial(c) == 0;
        if (!c->busy) {
            keep_record(c, now_ns(), 0, 0);
        }
        return;
    }
    c->busy = 1;
    if (!c->connecting) {
        write_request(c);
    }
}

// What a connection does when its request has ended.
static void go_on(struct connection *c) {
    if (options.idle) {
        return;
    }
    if (options.rate > 0) {
        wait_for_work(c);
    } else {
        send_request(c, 0);
    }
}

static void answered(struct connection *c) {
    uint64_t done = now_ns();
    c->busy = 0;
    keep_latency(done - c->due);
    keep_record(c, done, c->status, c->backend);
    if (c->status == 200) {
        count.ok++;
    } else {
        count.bad_status++;
    }
    if (c->closes) {
        close(c->fd);
        c->fd = -1;
    }
    go_on(c);
}

static void broke(struct connection *c) {
    int was_busy = c->busy;
    close(c->fd);
    c->fd = -1;
    c->busy = 0;
    if (!was_busy) {
        count.closed_idle++;
    } else {
        if (c->connecting) {
            count.refused++;
        } else {
            count.broken++;
        }
        keep_record(c, now_ns(), 0, 0);
    }
    c->connecting = 0;
    // An idle connection of an open loop is waiting already.
    if (was_busy || options.rate <= 0) {
        go_on(c);
    }
}

static int backend_of(const char *value) {
    value += strspn(value, " ");
    return *value == 'b' ? 1 : *value == 'g' ? 2 : 0;
}

// Reads the head of a response; what of the body came with it is taken off.
static void read_head(struct connection *c, char *end) {
    long body = -1;
    c->status = atoi(c->buffer + 9);
    c->backend = c->closes = 0;
    *end = 0;
    for (char *line = strchr(c->buffer, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (!strncasecmp(line, "content-length:", 15)) {
            body = atol(line + 15);
        } else if (!strncasecmp(line, "x-backend:", 10)) {
            c->backend = backend_of(line + 10);
        } else if (!strncasecmp(line, "connection: close", 17)) {
            c->closes = 1;
        }
    }
    if (body < 0) {
        // Chunked or until the connection closes, as error pages are: counted, and the connection dropped.
        body = 0;
        c->closes = 1;
    }
    c->in_body = 1;
    c->left = body ? body - (c->used - (end + 4 - c->buffer)) : 0;
}

// Takes what was received; true when the response is complete.
static int take(struct connection *c, ssize_t received) {
    if (c->in_body) {
        c->left -= received;
    } else {
        c->used += received;
        c->buffer[c->used] = 0;
        char *end = memmem(c->buffer, c->used, END_OF_HEAD, 4);
        if (!end) {
            return 0;
        }
        read_head(c, end);
    }
    c->used = 0;
    return c->left <= 0;
}

// Edge-triggered: reads until a read falls short of its room.
static void readable(struct connection *c) {
    for (;;) {
        ssize_t room = BUFFER_BYTES - 1 - c->used;
        ssize_t received = recv(c->fd, c->buffer + c->used, room, 0);
        if (received < 0 && errno == EAGAIN) {
            return;
        }
        if (received <= 0) {
            broke(c);
            return;
        }
        if (c->busy && take(c, received)) {
            answered(c);
            if (c->fd < 0 || c->connecting) {
                return;
            }
        }
        if (received < room) {
            return;
        }
    }
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        broke(c);
        return;
    }
    c->connecting = 0;
    if (c->busy) {
        write_request(c);
    }
}

// Handles what happens until the deadline, or until something has happened.
static void turn(uint64_t deadline) {
    struct epoll_event events[EVENTS_MAX];
    uint64_t now = now_ns(), left = deadline > now ? deadline - now : 0;
    struct timespec timeout = {left / 1000000000ull, left % 1000000000ull};
    int ready = epoll_pwait2(epoll, events, EVENTS_MAX, &timeout, 0);
    for (int i = 0; i < ready; i++) {
        struct connection *c = &connections[events[i].data.u32];
        if (c->fd >= 0 && c->connecting && events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
            connected(c);
        }
        if (c->fd >= 0 && !c->connecting && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
            readable(c);
        }
    }
}

static void run_closed_loop(uint64_t end) {
    while (!stopped && now_ns() < end) {
        for (int i = 0; i < options.connections; i++) {
            if (!connections[i].busy) {
                send_request(&connections[i], 0);
            }
        }
        uint64_t next = now_ns() + TURN_NS;
        turn(next < end ? next : end);
    }
}

static void run_open_loop(uint64_t began, uint64_t end) {
    uint64_t sent = 0, distance = 1e9 / options.rate;
    for (int i = 0; i < options.connections; i++) {
        wait_for_work(&connections[i]);
    }
    while (!stopped && now_ns() < end) {
        uint64_t now = now_ns(), due = began + sent * distance;
        while (due <= now && waiting_head != waiting_tail) {
            send_request(&connections[waiting[waiting_head++ % (options.connections + 1)]], due);
            due = began + ++sent * distance;
        }
        turn(waiting_head == waiting_tail ? now + 1000000 : due);
    }
    uint64_t wanted = (now_ns() - began) / distance;
    count.unsent = wanted > sent ? wanted - sent : 0;
}

static void open_idle_connections(void) {
    uint64_t wanted = options.connections, end = now_ns() + IDLE_OPEN_NS, next = 0, ended = 0;
    while (ended < wanted && now_ns() < end) {
        while (next < wanted && next < ended + IDLE_DIALS_AT_ONCE) {
            send_request(&connections[next++], 0);
        }
        turn(now_ns() + TURN_NS);
        ended = count.ok + count.bad_status + count.broken + count.refused;
    }
}

// Holds the connections until stdin ends, then counts those that the other side has closed.
static void hold_idle_connections(void) {
    char byte;
    open_idle_connections();
    printf("ready\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {
    }
    for (int i = 0; i < options.connections; i++) {
        int fd = connections[i].fd;
        count.closed_idle += fd >= 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(double share) {
    if (!latencies_used) {
        return 0;
    }
    size_t place = share * latencies_used;
    return latencies[place < latencies_used ? place : latencies_used - 1] / 1000.0;
}

static void print_figures(double seconds) {
    if (latencies_used) {
        qsort(latencies, latencies_used, sizeof *latencies, by_size);
    }
    printf("{\"requests\": %zu, \"opened\": %zu, \"rps\": %.1f, ", latencies_used, (size_t)count.ok,
           latencies_used / seconds);
    printf("\"bad_status\": %zu, \"broken\": %zu, \"refused\": %zu, \"closed_idle\": %zu, \"unsent\": %zu, ",
           (size_t)count.bad_status, (size_t)count.broken, (size_t)count.refused, (size_t)count.closed_idle,
           (size_t)count.unsent);
    printf("\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}\n", percentile_us(.5),
           percentile_us(.9), percentile_us(.99), percentile_us(.999), percentile_us(1));
}

static void write_log(void) {
    FILE *file = fopen(options.log, "wb");
    if (!file || fwrite(records, sizeof *records, records_used, file) != records_used || fclose(file)) {
        perror(options.log);
        exit(1);
    }
}

static void read_options(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "p:H:u:c:d:r:l:i")) != -1) {
        switch (option) {
        case 'p':
            options.port = atoi(optarg);
            break;
        case 'H':
            options.host = optarg;
            break;
        case 'u':
            options.path = optarg;
            break;
        case 'c':
            options.connections = atoi(optarg);
            break;
        case 'd':
            options.seconds = atof(optarg);
            break;
        case 'r':
            options.rate = atof(optarg);
            break;
        case 'l':
            options.log = optarg;
            break;
        case 'i':
            options.idle = 1;
            break;
        default:
            exit(2);
        }
    }
}

static void prepare(void) {
    prepare_process();
    signal(SIGTERM, stop);
    // Wake up when a request is due, not up to 50 us later.
    prctl(PR_SET_TIMERSLACK, 1);
    const char *form = "GET %s HTTP/1.1\r\nhost: %s\r\nuser-agent: loadgen\r\naccept: */*\r\n\r\n";
    request_bytes = snprintf(request, sizeof request, form, options.path, options.host);
    epoll = epoll_create1(0);
    connections = calloc(options.connections, sizeof *connections);
    waiting = calloc(options.connections + 1, sizeof *waiting);
    for (int i = 0; i < options.connections; i++) {
        connections[i].fd = -1;
        connections[i].buffer = malloc(BUFFER_BYTES);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    prepare();
    uint64_t began = now_ns(), end = began + options.seconds * 1e9;
    if (options.idle) {
        hold_idle_connections();
    } else if (options.rate > 0) {
        run_open_loop(began, end);
    } else {
        run_closed_loop(end);
    }
    print_figures((now_ns() - began) / 1e9);
    if (options.log) {
        write_log();
    }
}
