package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The hook for libvirt in contrib, called as libvirt calls it: with the arguments that
// its documentation (hooks.rst) lists, and domains' XML on standard input.

// hypervisor is a host whose libvirt has the hook.
type hypervisor struct {
	t      testing.TB
	m      *Mount
	config string
	pids   string
}

func newHypervisor(t testing.TB, m *Mount) *hypervisor {
	t.Helper()
	h := &hypervisor{t, m, filepath.Join(t.TempDir(), "config"), t.TempDir()}
	h.configure("# lockfs\nmount=" + m.Dir + "\npids = " + h.pids + "\n")
	return h
}

func (h *hypervisor) configure(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// call runs the hook and returns its exit status and what it says.
func (h *hypervisor) call(guest, operation, sub, extra, xml string) (exit int, said string) {
	h.t.Helper()
	script, err := filepath.Abs("../contrib/libvirt-hook-qemu")
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := command(nil, script, guest, operation, sub, extra)
	cmd.Env = append(os.Environ(), "LOCKFS_HOOK_CONFIG="+h.config)
	cmd.Stdin = strings.NewReader(xml)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	if out.Len() > 0 { // libvirt would take it for the domain
		h.t.Errorf("%s %s: the hook printed %q", guest, operation, out.String())
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// want calls the hook, which must exit with 0 and be silent.
func (h *hypervisor) want(guest, operation, sub, xml string) {
	h.t.Helper()
	if exit, said := h.call(guest, operation, sub, "-", xml); exit != 0 || said != "" {
		h.t.Errorf("%s %s: exit %d: %s", guest, operation, exit, said)
	}
}

// wantRefused calls the hook, which must exit with a status and mention something.
func (h *hypervisor) wantRefused(guest, operation, sub, xml string, want int, mention ...string) {
	h.t.Helper()
	exit, said := h.call(guest, operation, sub, "-", xml)
	if exit != want {
		h.t.Errorf("%s %s: exit %d, want %d: %s", guest, operation, exit, want, said)
	}
	for _, m := range mention {
		if !strings.Contains(said, m) {
			h.t.Errorf("%s %s: %q is not in what it says: %s", guest, operation, m, said)
		}
	}
}

// starts is how libvirt starts a domain, whose process is p.
func (h *hypervisor) starts(guest, xml string, p *process) {
	h.t.Helper()
	h.want(guest, "prepare", "begin", xml)
	h.want(guest, "start", "begin", xml)
	h.runs(guest, p)
	h.want(guest, "started", "begin", xml)
}

// runs says what the domain's process is, as libvirt does.
func (h *hypervisor) runs(guest string, p *process) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.pids, guest+".pid"), fmt.Appendln(nil, p.Pid()), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// ends is how it ends one.
func (h *hypervisor) ends(guest, xml string) {
	h.t.Helper()
	h.want(guest, "stopped", "end", xml)
	h.want(guest, "release", "end", xml)
}

// wantLocks wants domains to have so many holds.
func (h *hypervisor) wantLocks(want int) {
	h.t.Helper()
	if held := h.locks(); held != want {
		h.t.Errorf("%d locks are held, want %d", held, want)
	}
}

func (h *hypervisor) locks() int {
	h.t.Helper()
	out, _ := sh(h.t, h.m, `cat .lockfs/locks`)
	n := 0
	for line := range strings.Lines(out) {
		// Those of another mount have no token of this one.
		if f := strings.Fields(line); f[7] == "owner" && f[9] != "-" {
			n++
		}
	}
	return n
}

// machine is a domain's XML.
func machine(name string, devices ...string) string {
	uuid := fmt.Sprintf("%032x", []byte(name))
	uuid = uuid[len(uuid)-32:]
	return fmt.Sprintf("<domain type='kvm' id='7'>\n<name>%s</name>\n<uuid>%s-%s-%s-%s-%s</uuid>\n<devices>%s</devices>\n</domain>\n",
		name, uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:], strings.Join(devices, "\n"))
}

func diskOf(path, more string) string {
	return "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='" + path + "'/><target dev='vda' bus='virtio'/>" + more + "</disk>"
}

const leaseXML = "<lease><lockspace>leases</lockspace><key>big lock</key><target path='/dev/disk/by-id/lease' offset='1024'/></lease>"

// running is a process that stands for a domain.
func running(t testing.TB) *process {
	t.Helper()
	return startProcess(t, nil, "/bin/sleep", "600")
}

func TestLibvirtsDomainsAreGuarded(t *testing.T) {
	h := newHypervisor(t, mount(t))
	images := t.TempDir()
	for _, name := range []string{"a.img", "b.img", "c.img", "an image.img", "iso"} {
		if err := os.WriteFile(filepath.Join(images, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.img", images+"/link"); err != nil {
		t.Fatal(err)
	}
	one := machine("one", diskOf(images+"/a.img", ""), diskOf(images+"/an image.img", ""), diskOf(images+"/c.img", "<shareable/>"),
		diskOf(images+"/iso", "<readonly/>"), leaseXML, "<disk type='file' device='cdrom'><target dev='sda'/></disk>")
	p := running(t)
	h.starts("one", one, p)
	h.wantLocks(4)
	if out, _ := sh(t, h.m, `cat .lockfs/owner/one/pid .lockfs/owner/one/name; cat "leases/big lock"`); !strings.HasPrefix(out, fmt.Sprintf("%d\none\npid=%[1]d\n", p.Pid())) {
		t.Errorf("the owner is %q", out)
	}

	// Who wants a part of it gets nothing of the rest either.
	for name, disk := range map[string]string{
		"by-path": diskOf(images+"/a.img", ""), "by-link": diskOf(images+"/link", ""), "not-shared": diskOf(images+"/c.img", ""), "lease": leaseXML,
	} {
		h.wantRefused(name, "prepare", "begin", machine(name, diskOf(images+"/b.img", ""), disk), 1, "must wait", "owner=one")
	}
	h.wantRefused("one", "prepare", "begin", one, 1, "runs already")
	h.wantLocks(4)
	two := machine("two", diskOf(images+"/b.img", ""), diskOf(images+"/c.img", "<shareable/>"), diskOf(images+"/iso", "<readonly/>"))
	q := running(t)
	h.starts("two", two, q)
	h.wantLocks(6) // c.img twice

	// libvirt is started anew.
	h.want("one", "reconnect", "begin", one)
	h.wantLocks(6)
	killWorker(t, h.m)
	h.ends("one", one)
	h.wantLocks(2)
	h.want("one", "release", "end", one) // what is not there is no error
	// A domain that dies, whatever libvirt does about it.
	q.Kill(t)
	eventually(t, answerLimit, func() bool { return h.locks() == 0 }, "a dead domain holds nothing")
	h.starts("one", machine("one", diskOf(images+"/b.img", "")), p)
	h.ends("two", two)
	h.wantLocks(1)
	h.ends("one", "")
	h.wantLocks(0)
}

// A start that comes to nothing leaves nothing behind, and what it left is no obstacle.
func TestLibvirtsHookAfterAStartThatFailed(t *testing.T) {
	h := newHypervisor(t, mount(t))
	xml := machine("vm", diskOf("/srv/vm.img", ""))
	h.want("vm", "prepare", "begin", xml)
	h.want("vm", "prepare", "begin", xml) // of the next start, with libvirt killed before release
	h.wantLocks(1)
	h.wantRefused("vm", "prepare", "begin", machine("other-one", diskOf("/srv/vm.img", "")), 1, "another domain is called vm")
	h.ends("vm", xml)
	h.wantLocks(0)
}

// A domain that comes from another host gets its locks when it has left there.
func TestLibvirtsHookWhenADomainMigrates(t *testing.T) {
	backing := t.TempDir()
	here, there := newHypervisor(t, mount(t, "--backing", backing)), newHypervisor(t, mount(t, "--backing", backing))
	xml := machine("vm", diskOf("/srv/vm.img", ""))
	p := running(t)
	here.starts("vm", xml, p)
	there.wantRefused("another", "prepare", "begin", machine("another", diskOf("/srv/vm.img", "")), 1, "state=outside")

	there.want("vm", "migrate", "begin", xml)
	if exit, said := there.call("vm", "prepare", "begin", "-", xml); exit != 0 || !strings.Contains(said, "its locks will follow") {
		t.Fatalf("prepare: exit %d: %s", exit, said)
	}
	q := running(t)
	there.runs("vm", q)
	there.want("vm", "started", "begin", xml)
	here.wantLocks(1)
	there.wantLocks(0)
	here.ends("vm", xml)
	eventually(t, answerLimit, func() bool { return there.locks() == 1 }, "the locks have followed")
	here.wantRefused("another", "prepare", "begin", machine("another", diskOf("/srv/vm.img", "")), 1, "must wait")
	there.ends("vm", xml)
	there.wantLocks(0)
}

func TestLibvirtsHookIsGivenNonsense(t *testing.T) {
	m := mount(t)
	h := newHypervisor(t, m)
	h.wantRefused("vm", "prepare", "begin", "<domain", 2, "XML of vm")
	h.wantRefused("a/b", "prepare", "begin", machine("x"), 2, "not the name")
	h.wantRefused("vm", "prepare", "begin", machine("vm", diskOf("relative", "")), 2, "relative")
	h.wantRefused("vm", "prepare", "begin", machine("vm", "<lease><lockspace>../x</lockspace><key>k</key></lease>"), 2, "../x")
	if exit, said := h.call("vm", "prepare", "begin", "-", machine("vm", "<disk type='network'><source protocol='rbd' name='pool/x'/><target dev='vdb'/></disk>")); exit != 0 || !strings.Contains(said, "vdb") {
		t.Errorf("exit %d: %s", exit, said)
	}
	h.ends("vm", "")
	h.want("vm", "restore", "begin", machine("vm"))
	h.want("vm", "something-new", "begin", machine("vm"))
	for text, mention := range map[string]string{
		"mount=" + m.Dir + "/nothing\n": "not a mount of lockfs", "mound=/x\n": "mound", "onfailure=explode\n": "explode",
	} {
		h.configure(text)
		h.wantRefused("vm", "prepare", "begin", machine("vm"), 2, mention)
	}
	h.configure("mount=" + m.Dir + "/nothing\n")
	if exit, said := h.call("vm", "reconnect", "begin", "-", machine("vm")); exit != 0 || !strings.Contains(said, "not a mount of lockfs") {
		t.Errorf("a running domain is killed: exit %d: %s", exit, said)
	}
	if out, _ := sh(t, m, `ls .lockfs/owner`); out != "" {
		t.Errorf("owners are left: %s", out)
	}
}
