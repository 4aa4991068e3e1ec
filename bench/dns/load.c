/* Sends ready-made queries as fast as their answers come back, for what dnsperf cannot say (a client subnet of its own in
 * every query). Usage: load PORT FILE SECONDS WINDOW; FILE: length (2 octets, big-endian) and octets of each query.
 * Prints how many were sent, how many answered, and the octets of the answers. A query without an answer for 100 ms is
 * given up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { WIDTH = 32, OCTETS = 4096 };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int count, char **words) {
    static char answers[WIDTH][OCTETS];
    static struct iovec in_parts[WIDTH], out_parts[WIDTH];
    static struct mmsghdr in[WIDTH], out[WIDTH];
    if (count != 5) return 2;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    there.sin_port = htons((unsigned short)atoi(words[1]));
    double seconds = atof(words[3]);
    long window = atol(words[4]), sent = 0, answered = 0, octets = 0, under_way = 0;
    FILE *file = fopen(words[2], "rb");
    if (!file) return 1;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    unsigned char *all = malloc((size_t)size);
    if (!all || fread(all, 1, (size_t)size, file) != (size_t)size) return 1;
    int made = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
    setsockopt(made, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (connect(made, (struct sockaddr *)&there, sizeof there)) return 1;
    for (int i = 0; i < WIDTH; i++) {
        in_parts[i] = (struct iovec){answers[i], OCTETS};
        in[i].msg_hdr = (struct msghdr){.msg_iov = &in_parts[i], .msg_iovlen = 1};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &out_parts[i], .msg_iovlen = 1};
    }
    double end = now_s() + seconds;
    long at = 0;
    while (now_s() < end) {
        int n = 0;
        for (; n < WIDTH && under_way < window; n++, under_way++) {
            if (at + 2 > size) at = 0;
            long length = all[at] << 8 | all[at + 1];
            out_parts[n] = (struct iovec){all + at + 2, (size_t)length};
            at += 2 + length;
        }
        if (n > 0) {
            int done = sendmmsg(made, out, (unsigned)n, 0);
            sent += done > 0 ? done : 0;
            under_way -= n - (done > 0 ? done : 0);
        }
        struct pollfd ready = {.fd = made, .events = POLLIN};
        if (poll(&ready, 1, 100) == 0) {
            under_way = 0;
            continue;
        }
        int got = recvmmsg(made, in, WIDTH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++) octets += in[i].msg_len;
        if (got > 0) {
            answered += got;
            under_way = under_way > got ? under_way - got : 0;
        }
    }
    printf("%ld %ld %ld\n", sent, answered, octets);
    return 0;
}
