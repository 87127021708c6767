// SPDX-License-Identifier: Apache-2.0
// What happens on a node: VMMs that hold a TAP and are killed, links that flap.
//
// Reads "TASK ARGUMENT" from stdin a line, and answers each with one JSON object a line. Points in
// time are nanoseconds of CLOCK_MONOTONIC.
//   enter PATH     move into a namespace
//   hold PATH      start a VMM there: a process that attaches to tap0_urunc
//   kill PATH      kill that VMM and wait for its exit: "killed"
//   die SECONDS    kill all VMMs at once, and wait at most so long until the kernel has announced
//                  that each TAP is deleted, which is when others can have the name: "killed",
//                  "free" (the last one) and "frees", the number of TAPs
//   flap SECONDS   set one end of each pair of veths in the namespace that was entered down and
//                  up, in turn: "links" set, "events" that this sent
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAME "tap0_urunc"
#define PODS 512
#define LINKS 4096
#define RATE 2500 // links that are set down or up in a second

struct pod {
    char path[256];
    int events, ifindex;
    pid_t vmm;
};

static struct pod pods[PODS];
static int count;
static char buffer[1 << 16];

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

static void enter(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        fail(path);
    close(fd);
}

static int netlink(unsigned groups)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("socket");
    return fd;
}

static struct pod *pod_at(const char *path)
{
    for (int at = 0; at < count; at++)
        if (strcmp(pods[at].path, path) == 0)
            return &pods[at];
    if (count == PODS)
        exit(2);
    struct pod *pod = &pods[count++];
    strncpy(pod->path, path, sizeof pod->path - 1);
    pod->events = netlink(RTMGRP_LINK);
    return pod;
}

static void attach(void)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    strcpy(request.ifr_name, NAME);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        fail("attach");
}

static void hold(const char *path)
{
    enter(path);
    struct pod *pod = pod_at(path);
    while (recv(pod->events, buffer, sizeof buffer, MSG_DONTWAIT) >= 0 || errno == ENOBUFS)
        ;
    int ready[2];
    char byte;
    if (pod->vmm || pipe(ready) < 0 || (pod->vmm = fork()) < 0)
        fail("hold");
    if (pod->vmm == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int at = 0; at < count; at++)
            close(pods[at].events);
        attach();
        if (write(ready[1], "r", 1) == 1)
            for (;;)
                pause();
        exit(1);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        fail("no VMM");
    close(ready[0]);
    pod->ifindex = if_nametoindex(NAME);
    printf("{\"ns\": 0, \"ifindex\": %d}\n", pod->ifindex);
}

static void reap(struct pod *pod)
{
    if (waitpid(pod->vmm, NULL, 0) < 0)
        fail("waitpid");
    pod->vmm = 0;
}

// Return true if the datagram that waits announces that the pod's TAP is deleted.
static int is_deleted(struct pod *pod)
{
    ssize_t size = recv(pod->events, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0)
        return 0;
    unsigned left = size;
    for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
        struct ifinfomsg *info = NLMSG_DATA(h);
        if (h->nlmsg_type == RTM_DELLINK && info->ifi_index == pod->ifindex)
            return 1;
    }
    return 0;
}

static void die(int seconds)
{
    static struct pollfd polled[PODS];
    long killed = now(), deadline = killed + seconds * 1000000000L, last = 0;
    int left = 0, frees = 0;
    for (int at = 0; at < count; at++) {
        polled[at] = (struct pollfd){pods[at].vmm ? pods[at].events : -1, POLLIN, 0};
        if (pods[at].vmm && kill(pods[at].vmm, SIGKILL) < 0)
            fail("kill");
        left += pods[at].vmm != 0;
    }
    while (left > 0 && now() < deadline) {
        if (poll(polled, count, (deadline - now()) / 1000000 + 1) < 0)
            fail("poll");
        for (int at = 0; at < count; at++)
            if (polled[at].revents && is_deleted(&pods[at])) {
                last = now();
                polled[at].fd = -1;
                left--;
                frees++;
            }
    }
    for (int at = 0; at < count; at++)
        if (pods[at].vmm)
            reap(&pods[at]);
    printf("{\"ns\": %ld, \"killed\": %ld, \"free\": %ld, \"frees\": %d}\n", last - killed, killed,
           last, frees);
}

static void kill_one(const char *path)
{
    struct pod *pod = pod_at(path);
    long killed = now();
    if (!pod->vmm || kill(pod->vmm, SIGKILL) < 0)
        fail("kill");
    reap(pod);
    printf("{\"ns\": %ld, \"killed\": %ld}\n", now() - killed, killed);
}

static int veths(int *found)
{
    int fd = netlink(0), links = 0;
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {0}};
    if (send(fd, &request, sizeof request, 0) < 0)
        fail("send");
    for (;;) {
        unsigned left = recv(fd, buffer, sizeof buffer, 0);
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            struct ifinfomsg *info = NLMSG_DATA(h);
            if (h->nlmsg_type == NLMSG_DONE) {
                close(fd);
                return links;
            }
            if (h->nlmsg_type == RTM_NEWLINK && !(info->ifi_flags & IFF_LOOPBACK) && links < LINKS)
                found[links++] = info->ifi_index;
        }
    }
}

static void set(int fd, int ifindex, int is_up)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {{sizeof request, RTM_NEWLINK, NLM_F_REQUEST, 1, 0},
                 {.ifi_index = ifindex, .ifi_flags = is_up ? IFF_UP : 0, .ifi_change = IFF_UP}};
    if (send(fd, &request, sizeof request, 0) < 0)
        fail("set");
}

static void flap(int seconds)
{
    static int found[LINKS];
    int links = veths(found), fd = netlink(0), heard = netlink(RTMGRP_LINK), size = 64 << 20;
    long done = 0, events = 0, begun, next;
    setsockopt(heard, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    for (int at = 0; at < links; at++)
        set(fd, found[at], 1);
    sleep(1);
    while (recv(heard, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC) >= 0)
        ;
    for (begun = next = now(); now() - begun < seconds * 1000000000L; done++) {
        // pairs are made one after the other: every second link is one end of a pair
        set(fd, found[done * 2 % (links & ~1)], done * 2 / (links & ~1) & 1);
        while (recv(heard, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC) >= 0)
            events++;
        next += 1000000000L / RATE;
        long rest = next - now();
        if (rest > 0)
            usleep(rest / 1000);
    }
    printf("{\"ns\": %ld, \"links\": %ld, \"events\": %ld}\n", now() - begun, done, events);
    close(fd);
    close(heard);
}

int main(void)
{
    char task[32], argument[256];
    setvbuf(stdout, NULL, _IONBF, 0);
    while (scanf("%31s %255s", task, argument) == 2) {
        if (strcmp(task, "enter") == 0) {
            enter(argument);
            printf("{\"ns\": 0}\n");
        } else if (strcmp(task, "hold") == 0) {
            hold(argument);
        } else if (strcmp(task, "kill") == 0) {
            kill_one(argument);
        } else if (strcmp(task, "die") == 0) {
            die(atoi(argument));
        } else {
            flap(atoi(argument));
        }
    }
}
