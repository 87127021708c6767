// SPDX-License-Identifier: Apache-2.0
// The floor: what a request costs when nothing is done with the answer but counting it. A raw
// socket, no library.
//
// Reads "TASK COUNT" from stdin a line, does the task so many times, and answers with one JSON
// object a line.
//   dump    all links
//   taps    those of kind "tun"
//   scan    the same, with a socket opened before and closed after
//   delete  those of kind "tun", each deleted before the next
//   delete-group  the same by one request: all are put into a group, a list of all links shows
//           that the group holds just these, and the group is deleted
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GROUP 0x464c4f4f // any number that no other link has
#define BATCH 128 // requests in a datagram: their ACKs have to fit the receive buffer
#define KEPT 4096

static int fd;
static unsigned sequence;
static char buffer[1 << 16];

static struct {
    struct nlmsghdr header;
    struct ifinfomsg info;
    struct rtattr linkinfo, kind;
    char tun[4];
} request;

struct group_request {
    struct nlmsghdr header;
    struct ifinfomsg info;
    struct rtattr attribute;
    unsigned group;
};

struct tally {
    long links, ifindexes;
    int last[KEPT]; // the ifindexes of the last dump
};

struct members {
    long count, ifindexes;
};

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void ask(int type, int flags, size_t size, int ifindex)
{
    request.header = (struct nlmsghdr){size, type, NLM_F_REQUEST | flags, ++sequence, 0};
    request.info = (struct ifinfomsg){.ifi_index = ifindex};
    if (send(fd, &request, size, 0) < 0)
        fail("send");
}

// Receive up to DONE, or the ACK.
static void receive(struct tally *tally)
{
    for (int at = 0;;) {
        ssize_t size = recv(fd, buffer, sizeof buffer, MSG_TRUNC);
        if (size < 0 || size > (ssize_t)sizeof buffer)
            fail("recv");
        unsigned left = size;
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return;
            if (h->nlmsg_type == NLMSG_ERROR) {
                if (((struct nlmsgerr *)NLMSG_DATA(h))->error)
                    fail("refused");
                return;
            }
            int ifindex = ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index;
            tally->links++;
            tally->ifindexes += ifindex;
            if (at < KEPT)
                tally->last[at++] = ifindex;
        }
    }
}

static void dump(int filtered, struct tally *tally)
{
    size_t size = filtered ? sizeof request : NLMSG_LENGTH(sizeof(struct ifinfomsg));
    request.linkinfo = (struct rtattr){sizeof(struct rtattr) * 2 + 4, IFLA_LINKINFO | NLA_F_NESTED};
    request.kind = (struct rtattr){sizeof(struct rtattr) + 3, IFLA_INFO_KIND};
    memcpy(request.tun, "tun", 4);
    ask(RTM_GETLINK, NLM_F_DUMP, size, 0);
    receive(tally);
}

static void open_socket(void)
{
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl any = {.nl_family = AF_NETLINK};
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any))
        fail("socket");
}

static struct group_request of_group(int type, int ifindex)
{
    return (struct group_request){
        {sizeof(struct group_request), type, NLM_F_REQUEST | NLM_F_ACK, ++sequence, 0},
        {.ifi_index = ifindex},
        {sizeof(struct rtattr) + 4, IFLA_GROUP},
        GROUP,
    };
}

// Put the links of a tally into the group.
static void mark(const struct tally *tally)
{
    static struct group_request batch[BATCH];
    struct tally ignored = {0};
    for (int at = 0; at < tally->links;) {
        int count = 0;
        while (count < BATCH && at < tally->links)
            batch[count++] = of_group(RTM_SETLINK, tally->last[at++]);
        if (send(fd, batch, count * sizeof *batch, 0) < 0)
            fail("send");
        while (count--)
            receive(&ignored);
    }
}

// The links of the group, among all links.
static struct members members(void)
{
    struct members found = {0};
    ask(RTM_GETLINK, NLM_F_DUMP, NLMSG_LENGTH(sizeof(struct ifinfomsg)), 0);
    for (;;) {
        ssize_t size = recv(fd, buffer, sizeof buffer, MSG_TRUNC);
        if (size < 0 || size > (ssize_t)sizeof buffer)
            fail("recv");
        unsigned left = size;
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return found;
            struct ifinfomsg *info = NLMSG_DATA(h);
            int rest = IFLA_PAYLOAD(h);
            for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, rest); a = RTA_NEXT(a, rest))
                if (a->rta_type == IFLA_GROUP && *(unsigned *)RTA_DATA(a) == GROUP) {
                    found.count++;
                    found.ifindexes += info->ifi_index;
                }
        }
    }
}

static void delete_group(const struct tally *tally)
{
    struct tally ignored = {0};
    if (tally->links > KEPT)
        fail("too many links");
    mark(tally);
    struct members found = members();
    if (found.count != tally->links || found.ifindexes != tally->ifindexes)
        fail("others are in the group");
    struct group_request request = of_group(RTM_DELLINK, 0);
    if (send(fd, &request, sizeof request, 0) < 0)
        fail("send");
    receive(&ignored);
}

static void scan(struct tally *tally)
{
    close(fd);
    open_socket();
    dump(1, tally);
}

int main(void)
{
    char task[32];
    int count;
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_socket();
    while (scanf("%31s %d", task, &count) == 2) {
        struct tally tally = {0}, ignored = {0};
        long begun = now();
        if (strcmp(task, "delete") == 0) {
            dump(1, &tally);
            begun = now();
            for (int at = 0; at < tally.links; at++) {
                ask(RTM_DELLINK, NLM_F_ACK, NLMSG_LENGTH(sizeof(struct ifinfomsg)), tally.last[at]);
                receive(&ignored);
            }
        } else if (strcmp(task, "delete-group") == 0) {
            dump(1, &tally);
            begun = now();
            delete_group(&tally);
        } else {
            for (int run = 0; run < count; run++)
                strcmp(task, "scan") == 0 ? scan(&tally) : dump(strcmp(task, "taps") == 0, &tally);
        }
        printf("{\"ns\": %ld, \"links\": %ld, \"ifindexes\": %ld}\n", now() - begun, tally.links,
               tally.ifindexes);
    }
}
