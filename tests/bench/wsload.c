/*
 * wsload - a load generator for WebSocket fan-out: one thread, epoll.
 *
 *     gcc -O2 -Wall -o wsload wsload.c
 *     gcc -O2 -Wall -DWITH_TLS -o wsload wsload.c -lssl -lcrypto      (wss://, too)
 *
 * Opens N subscribers, sends setup frames on each and waits until each has got K messages. Then messages come: from one
 * more connection (--publish), or by another program (--external E: E messages for each subscriber). Every
 * message is searched for "T:<CLOCK_MONOTONIC ns>" and "S:<sequence number>", so that what is lost, doubled or out of
 * order is known, and how long each took. One JSON object on stdout says it.
 *
 * Placeholders: {i} the connection, {token} its line of --tokens, in --url and --send; {seq} {ts_ns}, zero-padded, and
 * {pad}, filler up to --payload bytes, in --publish.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* ------------------------------------------------------------------ settings */
#define MAXSEND 32
static struct {
    char host[64], path[8192];
    const char *url, *send[MAXSEND], *publish, *tokens;
    int port, tls, n, nsend, expect_setup, conn_batch, src_ips, window, warmup, payload, wait_stdin, slow;
    long messages, external, churn;
    double duration, rate, stall_s, max_s, connect_s;
} C = {.conn_batch = 128, .messages = 100, .stall_s = 5, .max_s = 120, .connect_s = 90};

static char **token;
static int ntokens;

/* --------------------------------------------------------------------- state */
enum { CS_NONE, CS_CONNECTING, CS_TLS, CS_HANDSHAKE, CS_OPEN, CS_CLOSED };
enum { KIND_SUB, KIND_PUB, KIND_TIMER };

struct conn {
    int fd, idx;
    u8 kind, st, retries, ready, deaf, in_msg, have_seq, any;
    u32 setup;
    u8 *in; u32 in_n, in_cap;           /* the rest of what was read */
    u8 *msg; u32 msg_n, msg_cap;        /* a message in fragments */
    u8 *out; u32 out_n, out_cap;
    u64 begun, cur_seq, got, last_seq;
    u64 win[16];                        /* which of the last 1024 sequence numbers came */
#ifdef WITH_TLS
    SSL *ssl;
#endif
};

static struct conn *subs, pub;
static int ep, alive, opened, ready, failed, retried, disconnected, protocol_errors, timed_out;
static u64 setup_in, delivered, duplicate, out_of_order, sent, done_seq, measured_from, stalls, pings;
static u64 t_first, t_last_rx, t_last_any, churned;
static char first_error[300];
#define RBUF (512 * 1024)
static u8 rbuf[RBUF];
#define RING (1u << 20)
static u32 *ring;                       /* deliveries of each sequence number */
#ifdef WITH_TLS
static SSL_CTX *tls_context;
#endif

static u64 now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

static void die(const char *fmt, ...) {
    va_list a;
    va_start(a, fmt);
    fputs("wsload: ", stderr);
    vfprintf(stderr, fmt, a);
    fputs("\n", stderr);
    va_end(a);
    exit(2);
}

static void *xalloc(void *p, size_t n) {
    if (!(p = realloc(p, n))) die("out of memory");
    return p;
}

static void note(const char *fmt, ...) {
    va_list a;
    if (first_error[0]) return;
    va_start(a, fmt);
    vsnprintf(first_error, sizeof first_error, fmt, a);
    va_end(a);
}

/* ----------------------------------------------- durations (log histograms) */
#define HSUB 256
struct hist { u64 bucket[64 * HSUB], n, max; double sum; };
static struct hist each, last, ready_in;

static void h_add(struct hist *h, u64 ns) {
    int e = ns < HSUB ? 0 : 63 - __builtin_clzll(ns);
    h->bucket[ns < HSUB ? (int)ns : (e - 7) * HSUB + (int)((ns >> (e - 8)) & (HSUB - 1))]++;
    h->n++;
    h->sum += (double)ns;
    if (ns > h->max) h->max = ns;
}

static double h_ms(const struct hist *h, double p) {
    u64 want = (u64)(p * (double)h->n + 0.999999), acc = 0;
    int i;
    if (!h->n) return 0;
    for (i = 0; i < 64 * HSUB; i++) {
        acc += h->bucket[i];
        if (acc >= want && acc) {
            double v = i;
            if (i >= HSUB) {
                int e = i / HSUB + 7;
                v = (double)((1ull << e) + ((u64)(i % HSUB) << (e - 8)) + (1ull << (e - 8)) / 2);
            }
            return (v > (double)h->max ? (double)h->max : v) / 1e6;
        }
    }
    return (double)h->max / 1e6;
}

static void h_print(const char *name, const struct hist *h) {
    printf("\"%s\":{\"n\":%llu,\"mean\":%.4f,\"p50\":%.4f,\"p99\":%.4f,\"max\":%.4f},", name, (unsigned long long)h->n,
           h->n ? h->sum / (double)h->n / 1e6 : 0.0, h_ms(h, .5), h_ms(h, .99), (double)h->max / 1e6);
}

/* ----------------------------------------------------------------- templates */
static size_t expand(const char *t, u8 *dst, size_t cap, int idx, u64 seq, u64 ts) {
    size_t o = 0, padpos = 0;
    int padded = 0;
    while (*t && o + 64 < cap) {
        if (*t == '{') {
            if (!strncmp(t, "{i}", 3)) { o += (size_t)sprintf((char *)dst + o, "%d", idx); t += 3; continue; }
            if (!strncmp(t, "{token}", 7) && ntokens) {
                const char *w = token[idx % ntokens];
                size_t l = strlen(w);
                if (o + l + 64 >= cap) die("a token is too long");
                memcpy(dst + o, w, l);
                o += l; t += 7;
                continue;
            }
            if (!strncmp(t, "{seq}", 5)) { o += (size_t)sprintf((char *)dst + o, "%010llu", (unsigned long long)seq); t += 5; continue; }
            if (!strncmp(t, "{ts_ns}", 7)) { o += (size_t)sprintf((char *)dst + o, "%019llu", (unsigned long long)ts); t += 7; continue; }
            if (!strncmp(t, "{pad}", 5)) { padpos = o; padded = 1; t += 5; continue; }
        }
        dst[o++] = (u8)*t++;
    }
    if (padded && C.payload > (int)o && (size_t)C.payload < cap) {
        size_t add = (size_t)C.payload - o;
        memmove(dst + padpos + add, dst + padpos, o - padpos);
        memset(dst + padpos, 'x', add);
        o += add;
    }
    return o;
}

/* ------------------------------------------------------------------------ I/O */
static void conn_closed(struct conn *c, const char *why);

/* Like recv and send: -1 with EAGAIN when it would block. */
static ssize_t io_read(struct conn *c, u8 *p, size_t n) {
#ifdef WITH_TLS
    if (c->ssl) {
        int r = SSL_read(c->ssl, p, (int)n), e;
        if (r > 0) return r;
        e = SSL_get_error(c->ssl, r);
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) { errno = EAGAIN; return -1; }
        return 0;
    }
#endif
    return recv(c->fd, p, n, 0);
}

static ssize_t io_write(struct conn *c, const u8 *p, size_t n) {
#ifdef WITH_TLS
    if (c->ssl) {
        int r = SSL_write(c->ssl, p, (int)n), e;
        if (r > 0) return r;
        e = SSL_get_error(c->ssl, r);
        errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
        return -1;
    }
#endif
    return send(c->fd, p, n, MSG_NOSIGNAL);
}

static void flush_out(struct conn *c) {        /* edge triggered: EPOLLOUT tells when there is room again */
    u32 off = 0;
    while (off < c->out_n) {
        ssize_t r = io_write(c, c->out + off, c->out_n - off);
        if (r > 0) { off += (u32)r; continue; }
        if (errno == EINTR) continue;
        if (errno == EAGAIN) break;
        conn_closed(c, "send");
        return;
    }
    memmove(c->out, c->out + off, c->out_n - off);
    c->out_n -= off;
    if (!c->out_n) { free(c->out); c->out = NULL; c->out_cap = 0; }
}

static u8 *out_room(struct conn *c, size_t n) {
    if (c->out_n + n > c->out_cap) {
        c->out_cap = (u32)(c->out_n + n) * 2;
        c->out = xalloc(c->out, c->out_cap);
    }
    return c->out + c->out_n;
}

static void put_frame(struct conn *c, int op, const u8 *p, size_t n) {
    static u32 rng = 0x9e3779b9u;
    u8 *o = out_room(c, n + 14), m[4];
    size_t h = 0, i;
    rng = rng * 1664525u + 1013904223u;
    memcpy(m, &rng, 4);
    o[h++] = (u8)(0x80 | op);
    if (n < 126) o[h++] = (u8)(0x80 | n);
    else if (n < 65536) { o[h++] = 0x80 | 126; o[h++] = (u8)(n >> 8); o[h++] = (u8)n; }
    else for (o[h++] = 0x80 | 127, i = 0; i < 8; i++) o[h++] = (u8)((u64)n >> (56 - 8 * i));
    memcpy(o + h, m, 4);
    h += 4;
    for (i = 0; i < n; i++) o[h + i] = p[i] ^ m[i & 3];
    c->out_n += (u32)(h + n);
}

/* ------------------------------------------------------------------- messages */
static void on_delivery(struct conn *c, u64 seq, u64 ts, u64 rx) {
    int late = 0;
    t_last_any = rx;
    if (!c->any || seq > c->last_seq) {
        u64 adv = c->any ? seq - c->last_seq : 1024, k;
        if (adv >= 1024) memset(c->win, 0, sizeof c->win);
        else for (k = 1; k <= adv; k++) c->win[((c->last_seq + k) >> 6) & 15] &= ~(1ull << ((c->last_seq + k) & 63));
        c->last_seq = seq;
        c->any = 1;
    } else if (c->last_seq - seq < 1024 && (c->win[(seq >> 6) & 15] >> (seq & 63) & 1)) {
        duplicate++;
        return;
    } else late = 1;
    c->win[(seq >> 6) & 15] |= 1ull << (seq & 63);
    c->got++;
    if (C.external && !t_first) t_first = ts;
    if (++ring[seq & (RING - 1)] == (u32)(alive - C.slow) && seq >= measured_from) h_add(&last, rx > ts ? rx - ts : 0);
    while (done_seq < sent && (int)ring[done_seq & (RING - 1)] >= alive - C.slow) done_seq++;
    if (seq < measured_from) return;
    delivered++;
    out_of_order += (u64)late;
    t_last_rx = rx;
    h_add(&each, rx > ts ? rx - ts : 0);
}

static const u8 *number(const u8 *p, const u8 *end, const char *mark, u64 *v) {
    const u8 *m = p;
    while ((m = memmem(m, (size_t)(end - m), mark, 2))) {
        m += 2;
        if (m < end && *m >= '0' && *m <= '9') break;
    }
    if (!m) return NULL;
    for (*v = 0; m < end && *m >= '0' && *m <= '9'; m++) *v = *v * 10 + (u64)(*m - '0');
    return m;
}

static void message(struct conn *c, const u8 *p, size_t n, u64 rx) {
    u64 seq, ts;
    const u8 *m;
    if (memmem(p, n, "\"EventType\":\"error\"", 19)) note("%.*s", (int)(n > 250 ? 250 : n), p);
    if (c->kind == KIND_PUB) { c->setup++; return; }
    if ((m = number(p, p + n, "S:", &seq)) && number(m, p + n, "T:", &ts)) { on_delivery(c, seq, ts, rx); return; }
    setup_in++;
    if ((int)++c->setup == C.expect_setup) { c->ready = 1; ready++; h_add(&ready_in, rx - c->begun); }
}

static void frame(struct conn *c, int b0, const u8 *p, size_t n, u64 rx) {
    int op = b0 & 15, fin = b0 & 128;
    if (b0 & 0x70) { protocol_errors++; return; }
    if (op == 8) {
        if (n > 2) note("close %d %.*s", p[0] << 8 | p[1], (int)(n - 2), p + 2);
        put_frame(c, 8, p, n < 125 ? n : 0);
        flush_out(c);
        conn_closed(c, "close frame");
    } else if (op == 9) { pings++; put_frame(c, 10, p, n); flush_out(c); }
    else if (op == 10) return;
    else if (op <= 2) {
        if (fin && op) { message(c, p, n, rx); return; }
        if (op) c->msg_n = 0;
        else if (!c->in_msg) { protocol_errors++; return; }
        c->in_msg = !fin;
        if (c->msg_n + n > c->msg_cap) c->msg = xalloc(c->msg, c->msg_cap = (u32)(c->msg_n + n) * 2);
        memcpy(c->msg + c->msg_n, p, n);
        c->msg_n += (u32)n;
        if (fin) message(c, c->msg, c->msg_n, rx);
    } else protocol_errors++;
}

static size_t frames(struct conn *c, const u8 *p, size_t n, u64 rx) {
    size_t o = 0;
    while (c->st == CS_OPEN && n - o >= 2) {
        const u8 *q = p + o;
        size_t h = 2, i;
        u64 l = q[1] & 127;
        if (q[1] & 128) { protocol_errors++; conn_closed(c, "a masked frame of the server"); return n; }
        if (l == 126) {
            if (n - o < 4) break;
            l = (u64)q[2] << 8 | q[3];
            h = 4;
        } else if (l == 127) {
            if (n - o < 10) break;
            for (l = 0, i = 0; i < 8; i++) l = l << 8 | q[2 + i];
            h = 10;
        }
        if (n - o < h + l) break;
        frame(c, q[0], q + h, (size_t)l, rx);
        o += h + (size_t)l;
    }
    return o;
}

/* ---------------------------------------------------------------- connections */
#define WSKEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WSACC "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static void connect_start(struct conn *c);

static void release(struct conn *c) {
#ifdef WITH_TLS
    if (c->ssl) { SSL_free(c->ssl); c->ssl = NULL; }
#endif
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->in_n = c->out_n = 0;
}

static void conn_closed(struct conn *c, const char *why) {
    int was = c->st;
    if (was == CS_CLOSED) return;
    release(c);
    if (was != CS_OPEN) {
        note("connect: %s", why);
        if (c->retries++ < 5) { retried++; connect_start(c); return; }
        c->st = CS_CLOSED;
        failed++;
        return;
    }
    c->st = CS_CLOSED;
    if (c->kind == KIND_PUB) { note("the publisher was closed: %s", why); return; }
    note("%s", why);
    disconnected++;
    alive--;
    if (c->ready) ready--;
}

static void churn_next(struct conn *c) {       /* one handshake done: close, and open the next */
    static const u8 bye[8] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    churned++;
    h_add(&ready_in, now_ns() - c->begun);
    if (io_write(c, bye, sizeof bye) < 0) note("close: %s", strerror(errno));
    release(c);
    c->st = CS_NONE;
    c->retries = 0;
    if (sent < (u64)C.churn) { c->idx = (int)sent++; connect_start(c); }
}

static size_t handshake(struct conn *c, const u8 *p, size_t n) {
    const u8 *e = memmem(p, n, "\r\n\r\n", 4);
    static u8 b[65536];
    size_t hl;
    int i;
    if (!e) return 0;
    hl = (size_t)(e - p) + 4;
    if (n < 12 || atoi((const char *)p + 9) != 101 || !memmem(p, hl, WSACC, strlen(WSACC))) {
        char why[220];
        snprintf(why, sizeof why, "%.*s", (int)(n > 200 ? 200 : n), p);
        conn_closed(c, why);
        return n;
    }
    c->st = CS_OPEN;
    if (c->kind == KIND_PUB) return hl;
    if (C.churn) { churn_next(c); return n; }
    opened++;
    alive++;
    for (i = 0; i < C.nsend; i++) put_frame(c, 1, b, expand(C.send[i], b, sizeof b, c->idx, 0, 0));
    flush_out(c);
    if (!C.expect_setup) { c->ready = 1; ready++; h_add(&ready_in, now_ns() - c->begun); }
    return hl;
}

static void start_request(struct conn *c) {
    u8 path[16384];
    size_t l = expand(C.path, path, sizeof path, c->idx, 0, 0);
    int n;
    c->st = CS_HANDSHAKE;
    n = snprintf((char *)out_room(c, l + 512), l + 512,
                 "GET %.*s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WSKEY "\r\n\r\n", (int)l, path, C.host, C.port);
    c->out_n += (u32)n;
    flush_out(c);
}

static void tls_step(struct conn *c) {
#ifdef WITH_TLS
    int r = SSL_connect(c->ssl), e;
    if (r == 1) { start_request(c); return; }
    e = SSL_get_error(c->ssl, r);
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) conn_closed(c, "TLS handshake");
#else
    conn_closed(c, "no TLS here");
#endif
}

static void connect_start(struct conn *c) {
    struct sockaddr_in a = {.sin_family = AF_INET}, s = {.sin_family = AF_INET};
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    int one = 1, zero = 0;
    c->begun = now_ns();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Delayed acknowledgements, as on a real network: on loopback one for each small segment contends with the
     * server's next send(). */
    if (c->kind == KIND_SUB) setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof zero);
    a.sin_port = htons((uint16_t)C.port);
    inet_pton(AF_INET, C.host, &a.sin_addr);
    if (C.src_ips > 1 && c->kind == KIND_SUB) {
        s.sin_addr.s_addr = htonl(0x7f000001u + (u32)(c->idx % C.src_ips));
        setsockopt(c->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&s, sizeof s) < 0) die("bind: %s", strerror(errno));
    }
    if (C.churn) {                              /* no TIME_WAIT: a hundred thousand would use the ports up */
        struct linger now = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    c->st = CS_CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) {
        conn_closed(c, strerror(errno));
        return;
    }
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll_ctl: %s", strerror(errno));
}

static int read_once(struct conn *c) {          /* 1: there may be more */
    u8 *p = rbuf;
    u32 keep = c->in_n;
    size_t want, n, o = 0;
    ssize_t r;
    u64 rx;
    if (keep > RBUF / 2) {
        if (c->in_cap < keep * 2 + RBUF) c->in = xalloc(c->in, c->in_cap = keep * 2 + RBUF);
        p = c->in;
    } else if (keep) memcpy(rbuf, c->in, keep);
    want = (p == rbuf ? RBUF : c->in_cap) - keep;
    r = io_read(c, p + keep, want);
    if (r < 0 && errno == EINTR) return 1;
    if (r < 0 && errno == EAGAIN) return 0;
    if (r <= 0) { conn_closed(c, r ? strerror(errno) : "end of file"); return 0; }
    rx = now_ns();
    n = keep + (size_t)r;
    c->in_n = 0;
    if (c->st == CS_HANDSHAKE) {
        int fd = c->fd;
        o = handshake(c, p, n);
        if (o && (c->st != CS_OPEN || c->fd != fd)) return 0;
    }
    if (c->st == CS_OPEN && o < n) o += frames(c, p + o, n - o, rx);
    if (c->st != CS_OPEN && c->st != CS_HANDSHAKE) return 0;
    if (o < n) {
        size_t l = n - o;
        if (p != c->in && c->in_cap < l) c->in = xalloc(c->in, c->in_cap = (u32)l + 512);
        memmove(c->in, p + o, l);
        c->in_n = (u32)l;
    } else if (c->in && p != c->in) { free(c->in); c->in = NULL; c->in_cap = 0; }
    return (size_t)r == want || C.tls;
}

static void on_event(struct conn *c, u32 ev) {
    if (c->st == CS_CONNECTING) {
        int err = 0;
        socklen_t l = sizeof err;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
        if (err) { conn_closed(c, strerror(err)); return; }
        if (!(ev & EPOLLOUT)) return;
        if (!C.tls) { start_request(c); return; }
#ifdef WITH_TLS
        c->ssl = SSL_new(tls_context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_connect_state(c->ssl);
        c->st = CS_TLS;
#endif
    }
    if (c->st == CS_TLS) { tls_step(c); return; }
    if (ev & EPOLLOUT) flush_out(c);
    if (c->fd < 0 || (c->deaf && c->ready)) return;
    if (ev & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        int fd = c->fd;
        while (c->fd == fd && read_once(c)) { }
    }
}

static void poll_once(int ms) {
    static struct epoll_event ev[512];
    int i, n = epoll_wait(ep, ev, 512, ms);
    for (i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        u64 x;
        if (c->kind == KIND_TIMER) { if (read(c->fd, &x, 8) < 0) continue; }
        else if (c->fd >= 0) on_event(c, ev[i].events);
    }
}

static void publish(int k) {
    static u8 b[1 << 20];
    if (pub.st != CS_OPEN || pub.out_n >= 65536) return;
    while (k-- > 0) {
        u64 ts = now_ns();
        if (!t_first && sent >= measured_from) t_first = ts;
        ring[sent & (RING - 1)] = 0;
        put_frame(&pub, 1, b, expand(C.publish, b, sizeof b, 0, sent, ts));
        sent++;
    }
    flush_out(&pub);
}

/* ----------------------------------------------------------------------- main */
static void churn(void) {
    u64 t0 = now_ns(), dead = t0 + (u64)(C.max_s * 1e9);
    double wall;
    int i;
    for (i = 0; i < C.n && sent < (u64)C.churn; i++) { subs[i].idx = (int)sent++; connect_start(&subs[i]); }
    while (churned + (u64)failed < (u64)C.churn && now_ns() < dead) poll_once(100);
    wall = (double)(now_ns() - t0) / 1e9;
    printf("{\"handshakes\":%llu,\"connect_failed\":%d,\"wall_s\":%.4f,\"handshakes_per_s\":%.1f,", (unsigned long long)churned,
           failed, wall, (double)churned / wall);
    h_print("ready_ms", &ready_in);
    printf("\"first_error\":\"\"}\n");
}

static void arm(int fd, u64 at) {
    struct itimerspec t = {.it_value = {(time_t)(at / 1000000000ull), (long)(at % 1000000000ull)}};
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void read_tokens(void) {
    FILE *f = fopen(C.tokens, "r");
    char *line = NULL;
    size_t cap = 0;
    ssize_t l;
    if (!f) die("%s: %s", C.tokens, strerror(errno));
    while ((l = getline(&line, &cap, f)) > 0) {
        if (line[l - 1] == '\n') line[l - 1] = 0;
        token = xalloc(token, sizeof *token * (size_t)(ntokens + 1));
        token[ntokens++] = strdup(line);
    }
    free(line);
    fclose(f);
}

static void parse_url(void) {
    const char *p = strstr(C.url, "://"), *s, *colon;
    C.tls = !strncmp(C.url, "wss", 3);
    p = p ? p + 3 : C.url;
    s = strchr(p, '/');
    colon = strchr(p, ':');
    if (!colon || (s && colon > s)) die("the URL needs a port: %s", C.url);
    snprintf(C.host, sizeof C.host, "%.*s", (int)(colon - p), p);
    C.port = atoi(colon + 1);
    snprintf(C.path, sizeof C.path, "%s", s ? s : "/");
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"url", 1, 0, 'u'}, {"connections", 1, 0, 'n'}, {"send", 1, 0, 's'}, {"expect-setup", 1, 0, 'k'}, {"publish", 1, 0, 'p'},
        {"external", 1, 0, 'e'}, {"messages", 1, 0, 'm'}, {"duration", 1, 0, 'd'}, {"rate", 1, 0, 'r'}, {"window", 1, 0, 'w'},
        {"warmup", 1, 0, 'W'}, {"payload", 1, 0, 'P'}, {"stall", 1, 0, 'S'}, {"max-time", 1, 0, 'M'}, {"wait-stdin", 0, 0, 'i'},
        {"conn-batch", 1, 0, 'b'}, {"src-ips", 1, 0, 'I'}, {"churn", 1, 0, 'c'}, {"tokens", 1, 0, 't'}, {"slow", 1, 0, 'l'},
        {"connect-timeout", 1, 0, 'T'}, {0, 0, 0, 0}};
    int o, i, next = 0, timer;
    struct conn clock = {.kind = KIND_TIMER};
    struct epoll_event te = {.events = EPOLLIN, .data.ptr = &clock};
    struct rlimit limit;
    struct rusage ru0, ru1;
    u64 t0, t_conn, t_ready, t_start, t_stop = 0, base, until, hard, dead;
    double wall, cpu;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) switch (o) {
        case 'u': C.url = optarg; break;
        case 'n': C.n = atoi(optarg); break;
        case 's': if (C.nsend < MAXSEND) C.send[C.nsend++] = optarg; break;
        case 'k': C.expect_setup = atoi(optarg); break;
        case 'p': C.publish = optarg; break;
        case 'e': C.external = atol(optarg); break;
        case 'm': C.messages = atol(optarg); break;
        case 'd': C.duration = atof(optarg); break;
        case 'r': C.rate = atof(optarg); break;
        case 'w': C.window = atoi(optarg); break;
        case 'W': C.warmup = atoi(optarg); break;
        case 'P': C.payload = atoi(optarg); break;
        case 'S': C.stall_s = atof(optarg); break;
        case 'M': C.max_s = atof(optarg); break;
        case 'i': C.wait_stdin = 1; break;
        case 'b': C.conn_batch = atoi(optarg); break;
        case 'I': C.src_ips = atoi(optarg); break;
        case 'c': C.churn = atol(optarg); break;
        case 't': C.tokens = optarg; break;
        case 'l': C.slow = atoi(optarg); break;
        case 'T': C.connect_s = atof(optarg); break;
        default: die("see the options in the source");
    }
    if (!C.url || C.n <= 0) die("--url and --connections are needed");
    parse_url();
    if (C.tokens) read_tokens();
    if (!C.src_ips) C.src_ips = C.n > 4000 || C.churn > 20000 ? 16 : 4;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
#ifdef WITH_TLS
    if (C.tls) {
        tls_context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    }
#endif
    ring = calloc(RING, sizeof *ring);
    ep = epoll_create1(EPOLL_CLOEXEC);
    subs = calloc((size_t)C.n, sizeof *subs);
    for (i = 0; i < C.n; i++) { subs[i].fd = -1; subs[i].idx = i; subs[i].deaf = i < C.slow; }
    if (C.churn) { churn(); return 0; }
    pub.fd = -1;
    pub.kind = KIND_PUB;

    /* connect, subscribe */
    t0 = now_ns();
    dead = t0 + (u64)(C.connect_s * 1e9);
    while (opened + failed < C.n && now_ns() < dead) {
        while (next < C.n && next - opened - failed < C.conn_batch) connect_start(&subs[next++]);
        poll_once(100);
        if (failed > 20 && !opened) die("cannot connect: %s", first_error);
    }
    t_conn = now_ns();
    if (C.publish) connect_start(&pub);
    while ((ready < alive || (C.publish && pub.st != CS_OPEN)) && now_ns() < dead) poll_once(50);
    if (!alive || (C.publish && pub.st != CS_OPEN)) die("not ready: %s", first_error);
    t_ready = now_ns();
    if (C.wait_stdin) {                         /* pings are answered meanwhile */
        char ch;
        ssize_t r;
        fprintf(stderr, "READY %d\n", ready);
        fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
        while (!((r = read(0, &ch, 1)) == 0 || (r == 1 && ch == '\n'))) poll_once(2);
    }
    timer = clock.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &te);

    /* warm up, one message at a time */
    measured_from = C.publish ? (u64)C.warmup : 0;
    for (i = 0; C.publish && i < C.warmup; i++) {
        u64 w0 = now_ns();
        publish(1);
        while (done_seq < sent && now_ns() - w0 < 3000000000ull) poll_once(5);
        if (done_seq < sent) { stalls++; done_seq = sent; }
    }

    /* measure */
    getrusage(RUSAGE_SELF, &ru0);
    t_last_any = t_start = now_ns();
    base = sent;
    until = C.duration > 0 ? ~0ull : base + (u64)C.messages;
    hard = t_start + (u64)(C.max_s * 1e9);
    for (;;) {
        u64 t = now_ns();
        int wait = 200, k = 0;
        if (t > hard) { timed_out = 1; break; }
        if (!alive) break;
        if (!C.publish) {
            if (C.external && delivered >= (u64)C.external * (u64)(alive - C.slow)) break;
            if (!C.external || (double)(t - t_last_any) > C.stall_s * 1e9) break;
            poll_once(wait);
            continue;
        }
        if (pub.st != CS_OPEN) break;
        if (sent < until && (C.duration <= 0 || (double)(t - t_start) < C.duration * 1e9)) {
            if (C.window) {
                u64 waiting = sent - done_seq;
                k = waiting < (u64)C.window ? (int)((u64)C.window - waiting) : 0;
                if (!k && (double)(t - t_last_any) > C.stall_s * 1e9) {
                    stalls++;
                    done_seq = sent;
                    t_last_any = t;
                    if (stalls >= 3) until = sent;
                    continue;
                }
            } else if (C.rate > 0) {
                u64 due = (u64)((double)(t - t_start) * C.rate / 1e9) + 1, have = sent - base;
                k = due > have ? (int)(due - have) : 0;
                if (!k) arm(timer, t_start + (u64)((double)have * 1e9 / C.rate));
            } else {                            /* a burst: as fast as the server reads */
                k = pub.out_n < 65536 ? 32 : 0;
                wait = 0;
            }
            if ((u64)k > until - sent) k = (int)(until - sent);
            if (k > 0) publish(k);
        } else {
            if (!t_stop) t_stop = t;
            if (done_seq >= sent) break;
            if ((double)(t - (t_last_any > t_stop ? t_last_any : t_stop)) > C.stall_s * 1e9) break;
        }
        poll_once(wait);
    }
    getrusage(RUSAGE_SELF, &ru1);
#define TV(a) ((double)(a).tv_sec + (double)(a).tv_usec / 1e6)
    cpu = TV(ru1.ru_utime) - TV(ru0.ru_utime) + TV(ru1.ru_stime) - TV(ru0.ru_stime);
    {
        u64 messages = C.publish ? sent - base : (u64)C.external, expected = messages * (u64)(C.n - C.slow);
        char *q;
        wall = t_first && t_last_rx > t_first ? (double)(t_last_rx - t_first) / 1e9 : 0;
        for (q = first_error; *q; q++) if (*q == '"' || *q == '\\' || (u8)*q < 32 || (u8)*q > 126) *q = ' ';
        printf("{\"connections\":%d,\"opened\":%d,\"alive\":%d,\"connect_failed\":%d,\"connect_retries\":%d,\"connect_s\":%.4f,\"setup_s\":%.4f,"
               "\"setup_messages\":%llu,\"messages\":%llu,\"delivered\":%llu,\"lost\":%lld,\"duplicate\":%llu,\"out_of_order\":%llu,"
               "\"wall_s\":%.6f,\"deliveries_per_s\":%.1f,\"messages_per_s\":%.1f,\"pings\":%llu,\"protocol_errors\":%d,\"disconnected\":%d,"
               "\"stalls\":%llu,\"timed_out\":%d,\"client_cpu_share\":%.3f,",
               C.n, opened, alive, failed, retried, (double)(t_conn - t0) / 1e9, (double)(t_ready - t_conn) / 1e9,
               (unsigned long long)setup_in, (unsigned long long)messages, (unsigned long long)delivered,
               (long long)expected - (long long)delivered, (unsigned long long)duplicate, (unsigned long long)out_of_order, wall,
               wall > 0 ? (double)delivered / wall : 0, wall > 0 ? (double)messages / wall : 0, (unsigned long long)pings,
               protocol_errors, disconnected, (unsigned long long)stalls, timed_out, cpu / ((double)(now_ns() - t_start) / 1e9));
        h_print("each_ms", &each);
        h_print("last_ms", &last);
        h_print("ready_ms", &ready_in);
        printf("\"first_error\":\"%s\"}\n", first_error);
    }
    for (i = 0; i < C.n; i++) if (subs[i].fd >= 0 && subs[i].st == CS_OPEN && !subs[i].deaf) {
        put_frame(&subs[i], 8, (const u8 *)"\x03\xe8", 2);
        flush_out(&subs[i]);
    }
    return 0;
}
