/* The server under test: answers every HTTP/1.1 request at once, and does nothing else.
 *
 * One thread, epoll. A request ends with an empty line and has no body; a line may come in parts.
 * usage: answerer PORT
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, BATCH = 256 };

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
static const char END[] = "\r\n\r\n";
static unsigned char matched[MOST]; /* of END, for each descriptor */

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void answer(int fd) {
    char buffer[16384];
    ssize_t size = read(fd, buffer, sizeof buffer);
    if (size <= 0) {
        close(fd);
        return;
    }
    for (ssize_t at = 0; at < size; at++) {
        unsigned char *place = &matched[fd];
        *place = buffer[at] == END[*place] ? *place + 1 : buffer[at] == '\r';
        if (*place == 4) {
            *place = 0;
            if (write(fd, ANSWER, sizeof ANSWER - 1) != sizeof ANSWER - 1) {
                close(fd);
                return;
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: answerer PORT\n", stderr);
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0), on = 1;
    struct sockaddr_in where = {.sin_family = AF_INET,
                                .sin_port = htons(atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 1024))
        fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[BATCH];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poller, events, BATCH, -1);
        for (int each = 0; each < count; each++) {
            if (events[each].data.fd != listener) {
                answer(events[each].data.fd);
                continue;
            }
            int client = accept(listener, NULL, NULL);
            if (client < 0 || client >= MOST) {
                close(client);
                continue;
            }
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            matched[client] = 0;
            event.data.fd = client;
            epoll_ctl(poller, EPOLL_CTL_ADD, client, &event);
        }
    }
}
