/*
 * The server that the benchmark's clients are measured against: plain and TLS, a thread for each connection, no
 * extensions. It is written so that it is never what a measurement waits for, and it checks nothing.
 *
 *     server [CERTIFICATE KEY]     prints {"ws": PORT, "wss": PORT}, and exits when its standard input ends
 *
 *     /echo                               each frame comes back
 *     /flood?size=S&opcode=O&count=N      each text message is answered with N messages of S bytes; O is text or binary
 *     /sink?bytes=N                       each N bytes, counted and not parsed, are answered with a short text message
 *     anything else                       is held; pings and close frames are answered, as everywhere but in a sink
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, FIN = 0x80, MASKED = 0x80 };

static const size_t READ_AT_LEAST = 64 << 10;   /* room for one read, grown for larger frames */
static const size_t FLOOD_BLOCK = 256 << 10;    /* small frames leave in blocks of about this */
static const size_t SINK_READ = 256 << 10;
/* With what the system would let it grow to, whether the bytes in flight still fit a cache decides, and not the client:
   the same plain socket sent 64 KiB at 1.5 or at 8.4 GB/s. */
static const int SINK_BUFFER = 512 << 10;
static const size_t LARGEST_FRAME = 256 << 20;
static const size_t LARGEST_HEAD = 16 << 10;
static const size_t THREAD_STACK = 256 << 10;   /* OpenSSL's handshake takes the most of it */
static const int LINGER_SECONDS = 5;            /* for the client's end of the connection, after ours */

/* One connection, and what has been read of it and not yet been used: buffer[start] to buffer[end]. */
typedef struct {
    int fd;
    SSL *ssl; /* NULL where the connection is plain */
    unsigned char *buffer;
    size_t start, end, capacity;
} Connection;

typedef struct {
    unsigned opcode;
    int fin;
    unsigned char *payload; /* in the connection's buffer, with room for a header without a mask before it */
    size_t size;
} Frame;

typedef struct {
    unsigned char *block; /* whole frames, all alike */
    size_t frame_size, frames, count;
} Flood;

static SSL_CTX *tls;

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memory;
}

/* The bytes read, or 0 at the end, however it came. */
static size_t receive(Connection *c, void *into, size_t size) {
    if (!c->ssl) {
        ssize_t count = recv(c->fd, into, size, 0);
        return count > 0 ? (size_t)count : 0;
    }
    int count = SSL_read(c->ssl, into, size > INT32_MAX ? INT32_MAX : (int)size);
    return count > 0 ? (size_t)count : 0;
}

static int send_all(Connection *c, const unsigned char *from, size_t size) {
    if (c->ssl)
        return SSL_write(c->ssl, from, (int)size) > 0;
    while (size) {
        ssize_t count = send(c->fd, from, size, MSG_NOSIGNAL);
        if (count <= 0)
            return 0;
        from += count;
        size -= (size_t)count;
    }
    return 1;
}

/* Reads until at least `size` unused bytes are in the buffer; 0 when the connection ends before. */
static int fill(Connection *c, size_t size) {
    if (c->end - c->start >= size)
        return 1;
    if (c->start) {
        memmove(c->buffer, c->buffer + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    if (c->capacity < size) {
        c->capacity = size > READ_AT_LEAST ? size : READ_AT_LEAST;
        c->buffer = realloc(c->buffer, c->capacity);
        if (!c->buffer)
            abort();
    }
    while (c->end < size) {
        size_t count = receive(c, c->buffer + c->end, c->capacity - c->end);
        if (!count)
            return 0;
        c->end += count;
    }
    return 1;
}

static size_t header_size(size_t payload) {
    return payload < 126 ? 2 : payload < 65536 ? 4 : 10;
}

static void write_header(unsigned char *into, unsigned first_byte, size_t payload) {
    into[0] = (unsigned char)first_byte;
    if (payload < 126) {
        into[1] = (unsigned char)payload;
    } else if (payload < 65536) {
        into[1] = 126;
        into[2] = (unsigned char)(payload >> 8);
        into[3] = (unsigned char)payload;
    } else {
        into[1] = 127;
        for (int byte = 0; byte < 8; byte++)
            into[2 + byte] = (unsigned char)((uint64_t)payload >> (56 - 8 * byte));
    }
}

static void unmask(unsigned char *payload, size_t size, const unsigned char mask[4]) {
    uint64_t wide, word;
    memcpy(&wide, mask, 4);
    memcpy((unsigned char *)&wide + 4, mask, 4);
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&word, payload + at, 8);
        word ^= wide;
        memcpy(payload + at, &word, 8);
    }
    for (; at < size; at++)
        payload[at] ^= mask[at & 3];
}

/* The next frame, whole and unmasked. */
static int next_frame(Connection *c, Frame *frame) {
    if (!fill(c, 2))
        return 0;
    unsigned char *head = c->buffer + c->start;
    size_t size = head[1] & 0x7f, length_bytes = size == 126 ? 2 : size == 127 ? 8 : 0;
    size_t before = 2 + length_bytes + 4;
    if (!(head[1] & MASKED) || !fill(c, before))
        return 0;
    head = c->buffer + c->start;
    if (length_bytes) {
        size = 0;
        for (size_t byte = 0; byte < length_bytes; byte++)
            size = size << 8 | head[2 + byte];
    }
    if (size > LARGEST_FRAME || !fill(c, before + size))
        return 0;
    head = c->buffer + c->start;
    frame->opcode = head[0] & 0x0f;
    frame->fin = head[0] & FIN;
    frame->payload = head + before;
    frame->size = size;
    unmask(frame->payload, size, head + before - 4);
    c->start += before + size;
    if (c->start == c->end)
        c->start = c->end = 0;
    return 1;
}

/* The frame back to its sender, from where it lies: the header takes the room of the mask and the old header. */
static int send_back(Connection *c, const Frame *frame, unsigned opcode) {
    size_t header = header_size(frame->size);
    write_header(frame->payload - header, opcode | (unsigned)frame->fin, frame->size);
    return send_all(c, frame->payload - header, header + frame->size);
}

/* The number after `name` in the query of a request line. */
static size_t number(const char *line, const char *name) {
    const char *at = strstr(line, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* Payloads repeat every 95 bytes (text: printable ASCII) or 251 (binary), so that clients can tell they are right. */
static void prepare_flood(Flood *flood, const char *line) {
    size_t size = number(line, "size="), header = header_size(size);
    unsigned opcode = strstr(line, "opcode=binary") ? BINARY : TEXT;
    flood->count = number(line, "count=");
    flood->frame_size = header + size;
    flood->frames = (FLOOD_BLOCK + flood->frame_size - 1) / flood->frame_size;
    flood->block = allocate(flood->frames * flood->frame_size);
    for (size_t frame = 0; frame < flood->frames; frame++) {
        unsigned char *at = flood->block + frame * flood->frame_size;
        write_header(at, FIN | opcode, size);
        for (size_t byte = 0; byte < size; byte++)
            at[header + byte] = (unsigned char)(opcode == TEXT ? ' ' + byte % 95 : byte % 251);
    }
}

static int send_flood(Connection *c, const Flood *flood) {
    for (size_t left = flood->count; left;) {
        size_t frames = left < flood->frames ? left : flood->frames;
        if (!send_all(c, flood->block, frames * flood->frame_size))
            return 0;
        left -= frames;
    }
    return 1;
}

/* Frames as they come, until a close frame has been answered. */
static void serve_frames(Connection *c, const char *line) {
    int echo = !strncmp(line, "GET /echo", 9), flooding = !strncmp(line, "GET /flood", 10), going_on = 1;
    Flood flood = {0};
    Frame frame;
    if (flooding)
        prepare_flood(&flood, line);
    while (going_on && next_frame(c, &frame)) {
        if (frame.opcode == CLOSE) {
            send_back(c, &frame, CLOSE);
            break;
        }
        if (frame.opcode == PING)
            going_on = send_back(c, &frame, PING + 1);
        else if (echo && frame.opcode < CLOSE)
            going_on = send_back(c, &frame, frame.opcode);
        else if (flooding && frame.opcode == TEXT)
            going_on = send_flood(c, &flood);
    }
    free(flood.block);
}

/* Bytes as they come; between two rounds a short read that looks like a close frame is one. */
static void serve_sink(Connection *c, const char *line) {
    static const unsigned char all_in[] = {FIN | TEXT, 6, 'a', 'l', 'l', ' ', 'i', 'n'}, closing[] = {FIN | CLOSE, 0};
    size_t goal = number(line, "bytes="), count = c->end - c->start, read;
    unsigned char *into = allocate(SINK_READ);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &SINK_BUFFER, sizeof SINK_BUFFER);
    while (goal && (read = receive(c, into, SINK_READ))) {
        if (count == 0 && into[0] == (FIN | CLOSE) && read < 132) {
            send_all(c, closing, sizeof closing);
            break;
        }
        count += read;
        while (count >= goal) {
            count -= goal;
            if (!send_all(c, all_in, sizeof all_in))
                goto end;
        }
    }
end:
    free(into);
}

/* Reads the request, answers it in one write, and leaves its first line in `line`. */
static int shake_hands(Connection *c, char *line, size_t line_size) {
    static const char name[] = "Sec-WebSocket-Key:", guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char *head, *end, key[128], answer[256];
    unsigned char digest[EVP_MAX_MD_SIZE], accept[64];
    unsigned digest_size;
    for (size_t wanted = 1;; wanted = c->end + 1) {
        if (wanted >= LARGEST_HEAD || !fill(c, wanted))
            return 0;
        head = (char *)c->buffer;
        if ((end = memmem(head, c->end, "\r\n\r\n", 4)))
            break;
    }
    *end = 0;
    c->start = (size_t)(end + 4 - head);
    char *at = strcasestr(head, name), *line_end = strstr(head, "\r\n");
    if (!at || !line_end || (size_t)(line_end - head) >= line_size)
        return 0;
    memcpy(line, head, (size_t)(line_end - head));
    line[line_end - head] = 0;
    at += strlen(name);
    at += strspn(at, " \t");
    snprintf(key, sizeof key, "%.*s%s", (int)strcspn(at, " \t\r"), at, guid);
    EVP_Digest(key, strlen(key), digest, &digest_size, EVP_sha1(), NULL);
    EVP_EncodeBlock(accept, digest, (int)digest_size);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        accept);
    return send_all(c, (unsigned char *)answer, (size_t)size);
}

/* The server ends the connection first (RFC 6455 7.1.1), and waits for the client so that no byte is answered by a
   reset. */
static void finish(Connection *c) {
    struct timeval patience = {.tv_sec = LINGER_SECONDS};
    char rest[4096];
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (c->ssl)
        SSL_shutdown(c->ssl);
    shutdown(c->fd, SHUT_WR);
    while (recv(c->fd, rest, sizeof rest, 0) > 0)
        continue;
}

static void *serve(void *argument) {
    Connection *c = argument;
    char line[512];
    if ((!c->ssl || SSL_accept(c->ssl) == 1) && shake_hands(c, line, sizeof line)) {
        if (!strncmp(line, "GET /sink", 9))
            serve_sink(c, line);
        else
            serve_frames(c, line);
        finish(c);
    }
    SSL_free(c->ssl);
    close(c->fd);
    free(c->buffer);
    free(c);
    return NULL;
}

static void welcome(int listener, int with_tls, const pthread_attr_t *attributes) {
    int fd = accept(listener, NULL, NULL), on = 1;
    pthread_t thread;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Connection *c = allocate(sizeof *c);
    *c = (Connection){.fd = fd};
    if (with_tls) {
        c->ssl = SSL_new(tls);
        SSL_set_fd(c->ssl, fd);
    }
    if (pthread_create(&thread, attributes, serve, c)) {
        SSL_free(c->ssl);
        close(fd);
        free(c);
    }
}

static int listen_on_loopback(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &size)) {
        perror("listening on 127.0.0.1");
        exit(1);
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static void prepare_tls(const char *certificate, const char *key) {
    tls = SSL_CTX_new(TLS_server_method());
    if (!tls || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) ||
        SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    /* A ticket that arrives while the client writes can hang clients that read and write TLS in two threads. */
    SSL_CTX_set_num_tickets(tls, 0);
    /* Many records in one read: the server must not be what the sending side waits for. */
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, 128 << 10);
}

int main(int argc, char **argv) {
    int ports[2] = {0, 0};
    struct rlimit files;
    pthread_attr_t attributes;
    char ignored[64];

    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    if (argc == 3)
        prepare_tls(argv[1], argv[2]);

    struct pollfd sources[3] = {{STDIN_FILENO, POLLIN, 0}, {listen_on_loopback(&ports[0]), POLLIN, 0}, {-1, POLLIN, 0}};
    if (tls)
        sources[2].fd = listen_on_loopback(&ports[1]);
    printf("{\"ws\": %d, \"wss\": %d}\n", ports[0], ports[1]);
    fflush(stdout);
    for (;;) {
        if (poll(sources, 3, -1) < 0)
            continue;
        if (sources[0].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            _exit(0); /* the other threads are not waited for */
        if (sources[1].revents)
            welcome(sources[1].fd, 0, &attributes);
        if (sources[2].revents)
            welcome(sources[2].fd, 1, &attributes);
    }
}
