// SPDX-License-Identifier: Apache-2.0
// The C peer, on libmnl: links into structs, and the cleanup of one namespace.
//
//   mnl            reads "TASK ARGUMENT" from stdin a line and answers each with one JSON object;
//                  the argument is how often to
//                  do the task, or a directory of namespaces to do it in
//   mnl cleanup    cleans up once and exits
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct link {
    int ifindex, carrier, tun_type;
    unsigned flags, mtu, operstate;
    unsigned char address[6];
    char name[IFNAMSIZ], kind[16];
};

struct links {
    struct link *at;
    int count, room;
};

static struct mnl_socket *nl;
static unsigned sequence;
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

static int nested(const struct nlattr *a, void *to)
{
    const struct nlattr **found = to;
    if (mnl_attr_get_type(a) <= 16)
        found[mnl_attr_get_type(a)] = a;
    return MNL_CB_OK;
}

static int attribute(const struct nlattr *a, void *to)
{
    struct link *link = to;
    switch (mnl_attr_get_type(a)) {
    case IFLA_IFNAME: strncpy(link->name, mnl_attr_get_str(a), sizeof link->name - 1); break;
    case IFLA_MTU: link->mtu = mnl_attr_get_u32(a); break;
    case IFLA_OPERSTATE: link->operstate = mnl_attr_get_u8(a); break;
    case IFLA_CARRIER: link->carrier = mnl_attr_get_u8(a); break;
    case IFLA_ADDRESS:
        if (mnl_attr_get_payload_len(a) == sizeof link->address)
            memcpy(link->address, mnl_attr_get_payload(a), sizeof link->address);
        break;
    case IFLA_LINKINFO: {
        const struct nlattr *info[17] = {0}, *tun[17] = {0};
        mnl_attr_parse_nested(a, nested, info);
        if (info[IFLA_INFO_KIND])
            strncpy(link->kind, mnl_attr_get_str(info[IFLA_INFO_KIND]), sizeof link->kind - 1);
        if (info[IFLA_INFO_DATA] && strcmp(link->kind, "tun") == 0) {
            mnl_attr_parse_nested(info[IFLA_INFO_DATA], nested, tun);
            link->tun_type = tun[IFLA_TUN_TYPE] ? mnl_attr_get_u8(tun[IFLA_TUN_TYPE]) : 0;
        }
    }
    }
    return MNL_CB_OK;
}

static int message(const struct nlmsghdr *h, void *to)
{
    struct links *links = to;
    const struct ifinfomsg *info = mnl_nlmsg_get_payload(h);
    if (links->count == links->room) {
        links->room = links->room ? links->room * 2 : 16;
        links->at = realloc(links->at, links->room * sizeof *links->at);
    }
    struct link *link = &links->at[links->count++];
    memset(link, 0, sizeof *link);
    link->ifindex = info->ifi_index;
    link->flags = info->ifi_flags;
    mnl_attr_parse(h, sizeof *info, attribute, link);
    return MNL_CB_OK;
}

// Send one request and hand each message of the answer to message(); 0, or -1 with errno.
static int talk(struct nlmsghdr *h, struct links *links)
{
    h->nlmsg_seq = ++sequence;
    if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
        return -1;
    for (;;) {
        int size = mnl_socket_recvfrom(nl, buffer, sizeof buffer);
        int more = size;
        if (size >= 0)
            more = mnl_cb_run(buffer, size, sequence, mnl_socket_get_portid(nl), message, links);
        if (more <= MNL_CB_STOP || (h->nlmsg_type == RTM_GETLINK && !(h->nlmsg_flags & NLM_F_DUMP)))
            return more < 0 ? -1 : 0;
    }
}

static struct links list(const char *kind, const char *name)
{
    struct links links = {0};
    char request[256];
    struct nlmsghdr *h = mnl_nlmsg_put_header(request);
    h->nlmsg_type = RTM_GETLINK;
    h->nlmsg_flags = NLM_F_REQUEST | (name ? 0 : NLM_F_DUMP);
    mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
    if (name)
        mnl_attr_put_strz(h, IFLA_IFNAME, name);
    if (kind) {
        struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
        mnl_attr_put_str(h, IFLA_INFO_KIND, kind);
        mnl_attr_nest_end(h, info);
    }
    if (talk(h, &links) < 0 && !name)
        fail("list links");
    return links;
}

static void delete_ingress(int ifindex)
{
    char request[256];
    struct nlmsghdr *h = mnl_nlmsg_put_header(request);
    h->nlmsg_type = RTM_DELQDISC;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    struct tcmsg *tc = mnl_nlmsg_put_extra_header(h, sizeof *tc);
    tc->tcm_ifindex = ifindex;
    tc->tcm_handle = 0xffff0000;
    tc->tcm_parent = TC_H_INGRESS;
    if (talk(h, NULL) < 0)
        fail("delete qdisc");
}

static long delete_link(int ifindex)
{
    char request[256];
    struct nlmsghdr *h = mnl_nlmsg_put_header(request);
    h->nlmsg_type = RTM_DELLINK;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    struct ifinfomsg *info = mnl_nlmsg_put_extra_header(h, sizeof *info);
    info->ifi_index = ifindex;
    long begun = now();
    if (talk(h, NULL) < 0)
        fail("delete link");
    return now() - begun;
}

static void start(void)
{
    nl = mnl_socket_open(NETLINK_ROUTE);
    if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
        fail("socket");
}

static int is_orphan(const struct link *link)
{
    return link->tun_type == IFF_TAP && !link->carrier && fnmatch("tap*_urunc", link->name, 0) == 0;
}

// As nlraw's, for a namespace known to hold nothing but what the product made.
static int cleanup(long *deleting)
{
    int removed = 0;
    start();
    struct links uplink = list(NULL, "eth0"), taps = list("tun", NULL);
    for (int at = 0; uplink.count && at < taps.count; at++) {
        struct link *tap = &taps.at[at];
        if (!is_orphan(tap))
            continue;
        delete_ingress(uplink.at->ifindex);
        delete_ingress(tap->ifindex);
        *deleting += delete_link(tap->ifindex);
        removed++;
    }
    mnl_socket_close(nl);
    free(uplink.at);
    free(taps.at);
    return removed;
}

// Clean up each namespace of a directory, one after the other, and stay in the last.
static int sweep(const char *directory, int *namespaces)
{
    int removed = 0;
    long ignored = 0;
    DIR *listed = opendir(directory);
    for (struct dirent *entry; listed && (entry = readdir(listed));) {
        if (entry->d_name[0] == '.')
            continue;
        int fd = openat(dirfd(listed), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET))
            fail(entry->d_name);
        close(fd);
        removed += cleanup(&ignored);
        ++*namespaces;
    }
    closedir(listed);
    return removed;
}

int main(int argc, char **argv)
{
    char task[32], argument[4096];
    long deleting = 0;
    if (argc > 1 && strcmp(argv[1], "cleanup") == 0)
        return cleanup(&deleting) ? 0 : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (scanf("%31s %4095s", task, argument) == 2) {
        long begun = now(), links = 0, ifindexes = 0, names = 0;
        if (strcmp(task, "cleanup") == 0) {
            deleting = 0;
            int removed = cleanup(&deleting);
            printf("{\"ns\": %ld, \"deleting\": %ld, \"removed\": %d}\n", now() - begun, deleting,
                   removed);
            continue;
        }
        if (strcmp(task, "sweep") == 0) {
            int namespaces = 0, removed = sweep(argument, &namespaces);
            printf("{\"ns\": %ld, \"removed\": %d, \"namespaces\": %d}\n", now() - begun, removed,
                   namespaces);
            continue;
        }
        int scans = strcmp(task, "scan") == 0, all = strcmp(task, "dump") == 0;
        if (!scans)
            start();
        for (int run = atoi(argument); run > 0; run--) {
            if (scans)
                start();
            struct links found = list(all ? NULL : "tun", NULL);
            for (int at = 0; at < found.count; at++) {
                if (scans && is_orphan(&found.at[at]))
                    continue;
                ifindexes += found.at[at].ifindex;
                names += strlen(found.at[at].name);
                links++;
            }
            free(found.at);
            if (scans)
                mnl_socket_close(nl);
        }
        if (!scans)
            mnl_socket_close(nl);
        printf("{\"ns\": %ld, \"links\": %ld, \"ifindexes\": %ld, \"names\": %ld}\n", now() - begun,
               links, ifindexes, names);
    }
}
