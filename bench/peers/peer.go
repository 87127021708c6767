// SPDX-License-Identifier: Apache-2.0

// The Go peer, on vishvananda/netlink: links into its objects, the cleanup of one namespace, and its
// setup for a VM.
//
//	peer            reads "TASK ARGUMENT" from stdin a line and answers each with one JSON
//	                object; the argument is how often
//	                to do the task, or a directory of namespaces to do it in
//	peer cleanup    cleans up once and exits
//	peer poll DIRECTORY
//	                cleans up each namespace of a directory once a second, and prints as JSON
//	                the path of each in which there was something to remove
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open() *netlink.Handle {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(err)
	return handle
}

func list(handle *netlink.Handle) []netlink.Link {
	links, err := handle.LinkList()
	must(err)
	return links
}

// The library has no list by kind.
func taps(links []netlink.Link) []netlink.Link {
	var found []netlink.Link
	for _, link := range links {
		if tuntap, ok := link.(*netlink.Tuntap); ok && tuntap.Mode == netlink.TUNTAP_MODE_TAP {
			found = append(found, link)
		}
	}
	return found
}

// The library does not read the carrier: RUNNING has to do.
func isOrphan(link netlink.Link) bool {
	fits, _ := path.Match("tap*_urunc", link.Attrs().Name)
	return fits && link.Attrs().Flags&net.FlagUp != 0 && link.Attrs().RawFlags&unix.IFF_RUNNING == 0
}

func deleteIngress(handle *netlink.Handle, link netlink.Link) {
	must(handle.QdiscDel(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_INGRESS,
	}}))
}

// As nlraw's, for a namespace known to hold nothing but what the product made.
func cleanup() (removed int, deleting time.Duration) {
	handle := open()
	defer handle.Delete()
	uplink, err := handle.LinkByName("eth0")
	must(err)
	for _, tap := range taps(list(handle)) {
		if !isOrphan(tap) {
			continue
		}
		deleteIngress(handle, uplink)
		deleteIngress(handle, tap)
		begun := time.Now()
		must(handle.LinkDel(tap))
		deleting += time.Since(begun)
		removed++
	}
	return removed, deleting
}

// A process enters its own namespace as it would any other.
const own = "/proc/thread-self/ns/net"

// Do something in another namespace.
func within(name string, do func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(err)
	defer home.Close()
	defer func() { must(netns.Set(home)) }()
	other, err := netns.GetFromPath(name)
	must(err)
	must(netns.Set(other))
	other.Close()
	do()
}

// Clean up each namespace of a directory, one after the other; call a function for each that had
// something to remove.
func sweep(directory string, cleaned func(path string)) (removed, namespaces int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	must(err)
	defer func() { must(netns.Set(own)) }()
	entries, err := os.ReadDir(directory)
	must(err)
	for _, entry := range entries {
		name := path.Join(directory, entry.Name())
		other, err := netns.GetFromPath(name)
		must(err)
		must(netns.Set(other))
		other.Close()
		found, _ := cleanup()
		if found > 0 {
			cleaned(name)
		}
		removed += found
		namespaces++
	}
	return removed, namespaces
}

func poll(directory string) {
	answers := json.NewEncoder(os.Stdout)
	fmt.Println()
	for range time.Tick(time.Second) {
		sweep(directory, func(path string) {
			must(answers.Encode(map[string]string{"netns": path}))
		})
	}
}

func create(handle *netlink.Handle, mtu int) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "tap0_urunc"
	tap := &netlink.Tuntap{
		LinkAttrs: attrs,
		Mode:      netlink.TUNTAP_MODE_TAP,
		Queues:    1,
		Flags: netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI |
			netlink.TUNTAP_TUN_EXCL,
	}
	must(handle.LinkAdd(tap))
	for _, file := range tap.Fds {
		must(unix.IoctlSetInt(int(file.Fd()), unix.TUNSETOWNER, os.Getuid()))
		must(unix.IoctlSetInt(int(file.Fd()), unix.TUNSETGROUP, os.Getgid()))
	}
	must(handle.LinkSetMTU(tap, mtu))
	return tap
}

func addIngress(handle *netlink.Handle, link netlink.Link) {
	must(handle.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Parent:    netlink.HANDLE_INGRESS,
	}}))
}

func redirect(handle *netlink.Handle, source, target netlink.Link) {
	must(handle.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: source.Attrs().Index,
			Parent:    netlink.MakeHandle(0xffff, 0),
			Protocol:  unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{netlink.NewMirredAction(target.Attrs().Index)},
	}))
}

// As nlraw's, without the search for leftovers, and without an undo. What the guest needs is text.
func setup() (addresses, gateways, neighbours []string) {
	handle := open()
	defer handle.Delete()
	uplink, err := handle.LinkByName("eth0")
	must(err)
	tap := create(handle, uplink.Attrs().MTU)
	addIngress(handle, tap)
	addIngress(handle, uplink)
	redirect(handle, tap, uplink)
	redirect(handle, uplink, tap)
	must(handle.LinkSetUp(tap))
	found, err := handle.AddrList(uplink, netlink.FAMILY_ALL)
	must(err)
	for _, address := range found {
		if !address.IP.IsLinkLocalUnicast() {
			addresses = append(addresses, address.IPNet.String())
		}
	}
	routes, err := handle.RouteList(uplink, netlink.FAMILY_ALL)
	must(err)
	for _, route := range routes {
		if route.Gw != nil {
			gateways = append(gateways, route.Gw.String())
		}
	}
	known, err := handle.NeighList(uplink.Attrs().Index, netlink.FAMILY_ALL)
	must(err)
	for _, neighbour := range known {
		if neighbour.State&netlink.NUD_PERMANENT != 0 {
			words := neighbour.IP.String() + " " + neighbour.HardwareAddr.String()
			neighbours = append(neighbours, words)
		}
	}
	for _, file := range tap.(*netlink.Tuntap).Fds {
		must(file.Close())
	}
	return addresses, gateways, neighbours
}

// What to do with the results of a setup.
func count(told map[string]int) func(addresses, gateways, neighbours []string) {
	return func(addresses, gateways, neighbours []string) {
		told["addresses"], told["gateways"] = len(addresses), len(gateways)
		told["neighbours"] = len(neighbours)
	}
}

func run(task, argument string) map[string]int {
	told := map[string]int{}
	begun := time.Now()
	switch task {
	case "cleanup":
		removed, deleting := cleanup()
		told["removed"], told["deleting"] = removed, int(deleting)
	case "setup":
		told["removed"], _ = cleanup()
		count(told)(setup())
	case "setup-alone":
		count(told)(setup())
	case "setup-other":
		within(own, func() {
			told["removed"], _ = cleanup()
			count(told)(setup())
		})
	case "sweep":
		told["removed"], told["namespaces"] = sweep(argument, func(string) {})
	case "delete":
		handle := open()
		found := taps(list(handle))
		begun = time.Now()
		for _, tap := range found {
			must(handle.LinkDel(tap))
		}
		told["links"] = len(found)
	default:
		count, err := strconv.Atoi(argument)
		must(err)
		handle := open()
		for ; count > 0; count-- {
			if task == "scan" {
				handle.Delete()
				handle = open()
			}
			found := list(handle)
			if task != "dump" {
				found = taps(found)
			}
			for _, link := range found {
				if task == "scan" && isOrphan(link) {
					continue
				}
				told["links"]++
				told["ifindexes"] += link.Attrs().Index
				told["names"] += len(link.Attrs().Name)
			}
		}
		handle.Delete()
	}
	told["ns"] = int(time.Since(begun))
	return told
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "cleanup" {
		if removed, _ := cleanup(); removed == 0 {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "poll" {
		poll(os.Args[2])
	}
	answers := json.NewEncoder(os.Stdout)
	for {
		var task, argument string
		if _, err := fmt.Scan(&task, &argument); err != nil {
			return
		}
		must(answers.Encode(run(task, argument)))
	}
}
