/* The limit of any UDP server on this machine: every datagram goes back as it came, recvmmsg and sendmmsg, one thread.
 * Usage: echo PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { WIDTH = 32, OCTETS = 4096 };

int main(int count, char **words) {
    static char buffers[WIDTH][OCTETS];
    static struct sockaddr_in names[WIDTH];
    static struct iovec parts[WIDTH];
    static struct mmsghdr messages[WIDTH];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int made = socket(AF_INET, SOCK_DGRAM, 0), octets = 4 << 20;
    if (count != 2) return 2;
    here.sin_port = htons((unsigned short)atoi(words[1]));
    setsockopt(made, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
    if (bind(made, (struct sockaddr *)&here, sizeof here)) return 1;
    for (int i = 0; i < WIDTH; i++) {
        parts[i].iov_base = buffers[i];
        messages[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (;;) {
        for (int i = 0; i < WIDTH; i++) {
            parts[i].iov_len = OCTETS;
            messages[i].msg_hdr.msg_namelen = sizeof names[i];
        }
        int got = recvmmsg(made, messages, WIDTH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < got; i++) {
            parts[i].iov_len = messages[i].msg_len;
            if (messages[i].msg_len > 2) buffers[i][2] |= (char)0x80; /* QR: dnsperf takes it for an answer */
        }
        for (int sent = 0; sent < got;) {
            int now = sendmmsg(made, messages + sent, (unsigned)(got - sent), 0);
            sent += now > 0 ? now : 1;
        }
    }
}
