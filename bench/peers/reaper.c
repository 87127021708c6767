// SPDX-License-Identifier: Apache-2.0
// The floor of `nlraw watch`: the kernel's own delete. In each namespace a thread waits for the
// event that the death of a VMM sends, and deletes the link that the event names. It looks at
// nothing, judges nothing and leaves the redirects.
//
// Arguments: the paths of the namespaces. Prints one line when it is ready, and the path of the
// namespace, as JSON, when the kernel has answered the request to delete a link.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IFF_LOWER_UP
#define IFF_LOWER_UP 0x10000
#endif

static sem_t ready;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

// Return true if a TAP that somebody has held lost its carrier.
static int is_dead(struct nlmsghdr *h)
{
    struct ifinfomsg *info = NLMSG_DATA(h);
    int is_tap = 0, is_used = 0, left = IFLA_PAYLOAD(h);
    if (h->nlmsg_type != RTM_NEWLINK || info->ifi_flags & IFF_LOWER_UP)
        return 0;
    for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFLA_IFNAME)
            is_tap = strcmp(RTA_DATA(a), "tap0_urunc") == 0;
        if (a->rta_type == IFLA_CARRIER_UP_COUNT)
            is_used = *(unsigned *)RTA_DATA(a) > 0;
    }
    return is_tap && is_used;
}

static void delete(int fd, int ifindex)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {{sizeof request, RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
                 {.ifi_index = ifindex}};
    if (send(fd, &request, sizeof request, 0) < 0)
        fail("send");
}

static void *reap(void *path)
{
    char buffer[1 << 14], line[512];
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0)
        fail(path);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("socket");
    snprintf(line, sizeof line, "{\"netns\": \"%s\"}\n", (char *)path);
    sem_post(&ready);
    for (int deleting = 0;;) {
        ssize_t size = recv(fd, buffer, sizeof buffer, 0);
        if (size < 0 && errno != ENOBUFS)
            fail("recv");
        unsigned left = size < 0 ? 0 : size;
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            int ifindex = ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index;
            if (h->nlmsg_type == NLMSG_ERROR) {
                if (((struct nlmsgerr *)NLMSG_DATA(h))->error == 0 &&
                    write(1, line, strlen(line)) < 0)
                    fail("write");
            } else if (is_dead(h) && ifindex != deleting) {
                deleting = ifindex; // the death sends two events
                delete(fd, ifindex);
            }
        }
    }
    return NULL;
}

int main(int paths, char **path)
{
    pthread_attr_t small;
    pthread_t thread;
    sem_init(&ready, 0, 0);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    for (int at = 1; at < paths; at++)
        if (pthread_create(&thread, &small, reap, path[at]))
            fail("thread");
    for (int at = 1; at < paths; at++)
        sem_wait(&ready);
    if (write(1, "\n", 1) < 0)
        fail("write");
    pause();
}
