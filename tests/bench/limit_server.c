/*
 * limit_server - the physical limit of one-process WebSocket fan-out.
 *
 * One thread, epoll, plain send() on each socket.  Every text or binary frame
 * that a connection sends goes, as one prepared frame, to all the others.
 *
 *     gcc -O2 -Wall -o limit_server limit_server.c
 *     ./limit_server PORT [mode]
 *
 * mode  each     one send() for each message and subscriber (default)
 *       batch    all the messages of one socket read go out as one send() each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* ------------------------------------------------------------------- SHA-1 */
static u32 rol(u32 x, int n) { return x << n | x >> (32 - n); }

static void sha1(const u8 *msg, size_t len, u8 out[20]) {
    u32 h[5] = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u}, w[80];
    u8 buf[256];
    size_t total = ((len + 8) / 64 + 1) * 64, o;
    int i;
    memset(buf, 0, sizeof buf);
    memcpy(buf, msg, len);
    buf[len] = 0x80;
    for (i = 0; i < 8; i++) buf[total - 1 - (size_t)i] = (u8)((u64)len * 8 >> (8 * i));
    for (o = 0; o < total; o += 64) {
        u32 a, b, c, d, e;
        for (i = 0; i < 16; i++) w[i] = (u32)buf[o + 4 * (size_t)i] << 24 | (u32)buf[o + 4 * (size_t)i + 1] << 16 | (u32)buf[o + 4 * (size_t)i + 2] << 8 | buf[o + 4 * (size_t)i + 3];
        for (; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        a = h[0]; b = h[1]; c = h[2]; d = h[3]; e = h[4];
        for (i = 0; i < 80; i++) {
            u32 f, k, t;
            if (i < 20) { f = (b & c) | (~b & d); k = 0x5A827999u; }
            else if (i < 40) { f = b ^ c ^ d; k = 0x6ED9EBA1u; }
            else if (i < 60) { f = (b & c) | (b & d) | (c & d); k = 0x8F1BBCDCu; }
            else { f = b ^ c ^ d; k = 0xCA62C1D6u; }
            t = rol(a, 5) + f + e + k + w[i];
            e = d; d = c; c = rol(b, 30); b = a; a = t;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
    }
    for (i = 0; i < 20; i++) out[i] = (u8)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void b64(const u8 *in, size_t n, char *out) {
    static const char t[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i;
    for (i = 0; i < n; i += 3) {
        u32 v = (u32)in[i] << 16 | (i + 1 < n ? (u32)in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
        *out++ = t[v >> 18];
        *out++ = t[v >> 12 & 63];
        *out++ = i + 1 < n ? t[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? t[v & 63] : '=';
    }
    *out = 0;
}

/* -------------------------------------------------------------------- state */
struct conn {
    int fd, slot, open, want_out;
    u8 *in; u32 in_n, in_cap;
    u8 *out; u32 out_n, out_cap;
};
static struct conn **conns;
static int nconns, cap_conns, ep, batch;
static u8 *bb; static u32 bb_n, bb_cap;        /* the prepared bytes of one read */
static u8 rbuf[256 * 1024];

static void drop(struct conn *c) {
    if (c->fd < 0) return;
    close(c->fd);
    c->fd = -1;
    if (c->open) {
        conns[c->slot] = conns[--nconns];
        conns[c->slot]->slot = c->slot;
    }
    free(c->in);
    free(c->out);
    free(c);
}

static void want(struct conn *c, int on) {
    struct epoll_event e;
    if (c->want_out == on) return;
    c->want_out = on;
    e.events = EPOLLIN | (on ? EPOLLOUT : 0);
    e.data.ptr = c;
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void queue(struct conn *c, const u8 *p, u32 n) {
    if (c->out_n + n > c->out_cap) {
        c->out_cap = (c->out_n + n) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
}

static void put(struct conn *c, const u8 *p, u32 n) {
    ssize_t r;
    if (c->out_n) { queue(c, p, n); return; }
    r = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r == (ssize_t)n) return;
    if (r < 0) {
        if (errno != EAGAIN) return;                /* the read side will notice */
        r = 0;
    }
    queue(c, p + r, n - (u32)r);
    want(c, 1);
}

static void fan(struct conn *from, const u8 *p, u32 n) {
    int i;
    for (i = 0; i < nconns; i++) if (conns[i] != from) put(conns[i], p, n);
}

/* ------------------------------------------------------------------- input */
static int handshake(struct conn *c) {
    u8 *e = memmem(c->in, c->in_n, "\r\n\r\n", 4), *k;
    char key[128], acc[64], resp[256];
    u8 d[20];
    int n, i = 0;
    if (!e) return 0;
    for (k = c->in; k < e; k++) if (!strncasecmp((char *)k, "\r\nsec-websocket-key:", 20)) break;
    if (k >= e) return -1;
    for (k += 20; *k == ' '; k++) { }
    while (*k > ' ' && i < 60) key[i++] = (char)*k++;
    strcpy(key + i, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1((u8 *)key, strlen(key), d);
    b64(d, 20, acc);
    n = sprintf(resp, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acc);
    if (send(c->fd, resp, (size_t)n, MSG_NOSIGNAL) != n) return -1;
    c->in_n -= (u32)(e + 4 - c->in);
    memmove(c->in, e + 4, c->in_n);
    c->open = 1;
    if (nconns == cap_conns) {
        cap_conns = cap_conns ? cap_conns * 2 : 1024;
        conns = realloc(conns, sizeof *conns * (size_t)cap_conns);
    }
    c->slot = nconns;
    conns[nconns++] = c;
    return 1;
}

/* returns -1 when the connection is gone */
static int frames(struct conn *c) {
    u32 o = 0;
    int closing = 0;
    bb_n = 0;
    while (!closing && c->in_n - o >= 2) {
        u8 *p = c->in + o, *m, *pl, *w;
        u32 h = 2, i;
        u64 l = p[1] & 127;
        int op = p[0] & 15;
        if (l == 126) { if (c->in_n - o < 4) break; l = (u64)p[2] << 8 | p[3]; h = 4; }
        else if (l == 127) {
            if (c->in_n - o < 10) break;
            for (l = 0, i = 0; i < 8; i++) l = l << 8 | p[2 + i];
            h = 10;
        }
        if (!(p[1] & 128)) return -1;
        if (c->in_n - o < h + 4 + l) break;
        m = p + h;
        pl = m + 4;
        for (i = 0; i < l; i++) pl[i] ^= m[i & 3];
        o += h + 4 + (u32)l;
        if (op == 8) closing = 1;
        else if (op == 9) {
            u8 pong[2 + 125];
            pong[0] = 0x8a;
            pong[1] = (u8)l;
            memcpy(pong + 2, pl, l & 127);
            put(c, pong, 2 + (u32)l);
        } else if (op <= 2) {
            if (bb_n + l + 10 > bb_cap) { bb_cap = (bb_n + (u32)l + 10) * 2; bb = realloc(bb, bb_cap); }
            w = bb + bb_n;
            w[0] = (u8)(0x80 | (op ? op : 1));
            if (l < 126) { w[1] = (u8)l; h = 2; }
            else if (l < 65536) { w[1] = 126; w[2] = (u8)(l >> 8); w[3] = (u8)l; h = 4; }
            else { w[1] = 127; for (i = 0; i < 8; i++) w[2 + i] = (u8)(l >> (56 - 8 * i)); h = 10; }
            memcpy(w + h, pl, l);
            if (batch) bb_n += h + (u32)l;
            else fan(c, w, h + (u32)l);
        }
    }
    c->in_n -= o;
    memmove(c->in, c->in + o, c->in_n);
    if (bb_n) fan(c, bb, bb_n);
    return closing ? -1 : 0;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 9000, one = 1, ls;
    const char *mode = argc > 2 ? argv[2] : "each";
    struct sockaddr_in a;
    struct epoll_event ev[512], e;
    struct rlimit rl;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    batch = !strcmp(mode, "batch");
    ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0 || listen(ls, 4096) < 0) { perror("bind"); return 1; }
    ep = epoll_create1(0);
    e.events = EPOLLIN;
    e.data.ptr = NULL;
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    fprintf(stderr, "limit_server: port %d, mode %s\n", port, mode);
    for (;;) {
        int i, n = epoll_wait(ep, ev, 512, -1);
        for (i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            ssize_t r;
            if (!c) {
                int fd;
                while ((fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    e.events = EPOLLIN;
                    e.data.ptr = c;
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
                }
                continue;
            }
            if (ev[i].events & EPOLLOUT) {
                r = send(c->fd, c->out, c->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (r > 0) {
                    c->out_n -= (u32)r;
                    memmove(c->out, c->out + r, c->out_n);
                }
                if (!c->out_n) want(c, 0);
            }
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                r = recv(c->fd, rbuf, sizeof rbuf, 0);
                if (r < 0 && errno == EAGAIN) continue;
                if (r <= 0) { drop(c); continue; }
                if (c->in_n + (u32)r > c->in_cap) { c->in_cap = c->in_n + (u32)r; c->in = realloc(c->in, c->in_cap); }
                memcpy(c->in + c->in_n, rbuf, (size_t)r);
                c->in_n += (u32)r;
                if (!c->open) {
                    int k = handshake(c);
                    if (k < 0) { drop(c); continue; }
                    if (!k) continue;
                }
                if (frames(c) < 0) { drop(c); continue; }
                if (!c->in_n) { free(c->in); c->in = NULL; c->in_cap = 0; }
            }
        }
    }
}
