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
	"errors"
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

// What is left for a setup to do something about: a TAP without a VMM, a redirect to nowhere.
func leftovers(handle *netlink.Handle, links []netlink.Link, uplink netlink.Link) (found int) {
	for _, tap := range taps(links) {
		if isOrphan(tap) {
			found++
		}
	}
	qdiscs, err := handle.QdiscList(nil)
	must(err)
	for _, qdisc := range qdiscs {
		if qdisc.Attrs().LinkIndex != uplink.Attrs().Index || qdisc.Type() != "ingress" {
			continue
		}
		filters, err := handle.FilterList(uplink, qdisc.Attrs().Handle)
		must(err)
		for _, filter := range filters {
			if u32, ok := filter.(*netlink.U32); ok && len(u32.Actions) == 1 {
				mirred, ok := u32.Actions[0].(*netlink.MirredAction)
				if ok && mirred.Ifindex == 0 {
					found++
				}
			}
		}
	}
	return found
}

// The descriptors that hold the TAP, and the TAP as the kernel has it: the library does not read the
// MAC of what it makes.
func create(handle *netlink.Handle, mtu int) ([]*os.File, netlink.Link) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "tap0_urunc"
	made := &netlink.Tuntap{
		LinkAttrs: attrs,
		Mode:      netlink.TUNTAP_MODE_TAP,
		Queues:    1,
		Flags: netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI |
			netlink.TUNTAP_TUN_EXCL,
		Owner: uint32(os.Getuid()),
		Group: uint32(os.Getgid()),
	}
	must(handle.LinkAdd(made))
	tap, err := handle.LinkByName(attrs.Name)
	must(err)
	must(handle.LinkSetMTU(tap, mtu))
	return made.Fds, tap
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

// What a VMM is configured with, as text: that is how it leaves the process.
type address struct {
	local, peer, broadcast, scope string
	prefixlen                     int
}

type route struct {
	dst, gateway, protocol, scope, src string
	metric, mtu                        int
	onlink                             bool
}

type neighbour struct{ dst, lladdr string }

type guest struct {
	tap, uplink, tapMAC, uplinkMAC string
	tapIndex, uplinkIndex, mtu     int
	addresses                      []address
	routes                         []route
	neighbours                     []neighbour
}

func text(ip net.IP) string {
	if ip == nil {
		return ""
	}
	return ip.String()
}

func facts(handle *netlink.Handle, uplink netlink.Link) (found guest) {
	addresses, err := handle.AddrList(uplink, netlink.FAMILY_ALL)
	must(err)
	for _, each := range addresses {
		if each.IP.To4() == nil && each.IP.IsLinkLocalUnicast() {
			continue
		}
		length, _ := each.Mask.Size()
		scope := netlink.Scope(each.Scope).String()
		peer := ""
		if each.Peer != nil && !each.Peer.IP.Equal(each.IP) {
			peer = text(each.Peer.IP)
		}
		found.addresses = append(found.addresses,
			address{text(each.IP), peer, text(each.Broadcast), scope, length})
	}
	routes, err := handle.RouteList(uplink, netlink.FAMILY_ALL)
	must(err)
	for _, each := range routes {
		dst := "default"
		if each.Dst != nil {
			if each.Dst.IP.To4() == nil && each.Dst.IP.IsLinkLocalUnicast() {
				continue
			}
			dst = each.Dst.String()
		}
		found.routes = append(found.routes, route{dst, text(each.Gw), each.Protocol.String(),
			each.Scope.String(), text(each.Src), each.Priority, each.MTU,
			each.Flags&int(netlink.FLAG_ONLINK) != 0})
	}
	neighbours, err := handle.NeighList(uplink.Attrs().Index, netlink.FAMILY_ALL)
	must(err)
	for _, each := range neighbours {
		if each.State&netlink.NUD_PERMANENT != 0 {
			mac := each.HardwareAddr.String()
			found.neighbours = append(found.neighbours, neighbour{text(each.IP), mac})
		}
	}
	return found
}

// As nlraw's, with or without the search for leftovers, of which there must be none; without an undo.
func setup(searched bool) guest {
	handle := open()
	defer handle.Delete()
	var uplink netlink.Link
	if searched {
		links := list(handle)
		for _, link := range links {
			if link.Attrs().Name == "eth0" {
				uplink = link
			}
		}
		if leftovers(handle, links, uplink) != 0 {
			must(errors.New("there are leftovers"))
		}
	} else {
		var err error
		uplink, err = handle.LinkByName("eth0")
		must(err)
	}
	found := facts(handle, uplink)
	files, tap := create(handle, uplink.Attrs().MTU)
	must(handle.LinkSetUp(tap))
	addIngress(handle, uplink)
	addIngress(handle, tap)
	redirect(handle, tap, uplink)
	redirect(handle, uplink, tap)
	for _, file := range files {
		must(file.Close())
	}
	found.tap, found.uplink = tap.Attrs().Name, uplink.Attrs().Name
	found.tapIndex, found.uplinkIndex = tap.Attrs().Index, uplink.Attrs().Index
	found.tapMAC = tap.Attrs().HardwareAddr.String()
	found.uplinkMAC = uplink.Attrs().HardwareAddr.String()
	found.mtu = uplink.Attrs().MTU
	return found
}

// What to do with the results of a setup.
func count(told map[string]int, found guest) {
	told["addresses"], told["neighbours"] = len(found.addresses), len(found.neighbours)
	for _, each := range found.routes {
		if each.gateway != "" {
			told["gateways"]++
		}
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
		count(told, setup(true))
	case "setup-alone":
		count(told, setup(false))
	case "setup-other":
		within(own, func() { count(told, setup(true)) })
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
