package fs_test

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// An ordinary user asks for whatever comes to his mind: alice's files stay what
// they are, nobody reads those of mode 0600, and what she holds she holds.

const secret = "alice's secret"

var (
	alice = caller{uid: 1001, gid: 1001, pid: 100}
	bob   = caller{uid: 1002, gid: 1002, pid: 200}
	admin = caller{pid: 300}
)

// intruder is bob, and what he has found out so far.
type intruder struct {
	*served
	dirs, nodes []uint64
	files       []intruderFile
	// precious are alice's nodes, with what stat(2) shows of them.
	precious map[uint64][]byte
	names    []preciousName
	holds    map[lockspace.HoldID]lockspace.Hold
	secrets  bool // her files have modes of their own
}

// intruderFile is an open file of bob's.
type intruderFile struct {
	file
	flags uint32
}

// preciousName is a name that leads to a file of alice's.
type preciousName struct {
	dir  uint64
	name string
	ino  uint64
}

// as makes a call as somebody else.
func (s *served) as(c caller, opcode uint32, node uint64, body ...[]byte) reply {
	s.t.Helper()
	defer func(old caller) { s.caller = old }(s.caller)
	s.caller = c
	return s.call(opcode, node, body...)
}

// must is as for what succeeds.
func (s *served) must(c caller, opcode uint32, node uint64, body ...[]byte) reply {
	s.t.Helper()
	r := s.as(c, opcode, node, body...)
	if r.errno != 0 {
		s.t.Fatalf("request %d: %v", opcode, r.errno)
	}
	return r
}

func newIntruder(t testing.TB, hold string) *intruder {
	policy := mustPolicy(t, "hold="+hold)
	b := &intruder{
		served:   serveWith(t, func(o *fs.Options) { o.Policy = policy }),
		precious: map[uint64][]byte{}, holds: map[lockspace.HoldID]lockspace.Hold{},
		secrets: hold == "name",
	}
	mkdir := func(c caller, name string, mode uint32) uint64 {
		return native.Uint64(b.must(c, opMkdir, 1, u32(mode), u32(0), cstring(name)).body)
	}
	home, shared := mkdir(alice, "home", 0o755), mkdir(alice, "shared", 0o777)
	b.dirs = []uint64{1, home, shared, mkdir(b.caller, "bobs", 0o777)}
	b.keepSafe(1, "home", home)
	b.keepSafe(1, "shared", shared)
	for _, dir := range []uint64{home, shared} {
		// Held by name (or by its open file), and held by flock.
		b.file(dir, "held", unix.O_EXCL, 0o600)
		b.file(dir, "file", 0, 0o600)
		b.keepSafe(dir, "held", 0)
		b.keepSafe(dir, "file", 0)
		b.must(alice, opSymlink, dir, cstring("link"), cstring("text"))
		b.keepSafe(dir, "link", 0)
		// Everybody may read, and so lock.
		b.file(dir, "public", 0, 0o644)
		b.keepSafe(dir, "public", 0)
	}
	b.journal.look(func() {
		for id, h := range b.journal.holds {
			if h.Party.Taker.UID == alice.uid {
				b.holds[id] = h
			}
		}
	})
	for _, n := range b.names {
		if n.dir != 1 {
			b.nodes = append(b.nodes, native.Uint64(b.must(admin, opLookup, n.dir, cstring(n.name)).body))
		}
	}
	return b
}

// file makes a file of alice's.
func (b *intruder) file(dir uint64, name string, flags, mode uint32) {
	r := b.must(alice, opCreate, dir, u32(flags|unix.O_CREAT|unix.O_RDWR), u32(mode), u32(0), u32(0), cstring(name))
	f := file{native.Uint64(r.body), native.Uint64(r.body[128:])}
	b.must(alice, opWrite, f.node, u64(f.handle), u64(0), u32(uint32(len(secret))), zeros(20), []byte(secret))
	switch excl := flags&unix.O_EXCL != 0; {
	case !excl && (mode == 0o600 || !b.secrets):
		lock := b.lockBody(f, 7, unix.F_WRLCK, 0, toEnd, true)
		native.PutUint32(lock[36:], alice.pid)
		b.must(alice, opSetlk, f.node, lock)
	case b.secrets:
		b.must(alice, opRelease, f.node, u64(f.handle), zeros(16))
	}
}

// keepSafe has a name checked after every step.
func (b *intruder) keepSafe(dir uint64, name string, node uint64) {
	r := b.must(admin, opLookup, dir, cstring(name))
	if node == 0 {
		node = native.Uint64(r.body)
	}
	attr := r.body[40:]
	b.names = append(b.names, preciousName{dir, name, native.Uint64(attr)})
	if node != native.Uint64(r.body) {
		b.t.Fatalf("%q is another node", name)
	}
	b.precious[node] = append([]byte{}, attr...)
}

// check is what must be true at any time.
func (b *intruder) check(t *rapid.T) {
	for _, n := range b.names {
		r := b.as(admin, opLookup, n.dir, cstring(n.name))
		if r.errno != 0 || native.Uint64(r.body[40:]) != n.ino {
			t.Fatalf("the name %q: %v", n.name, r.errno)
		}
		if n.dir == 1 || n.name == "link" {
			// He may make something in a shared directory; and anybody may
			// touch a symbolic link, whose mode is 0777.
			continue
		}
		if was := b.precious[native.Uint64(r.body)]; !bytes.Equal(was, r.body[40:]) {
			t.Fatalf("stat of %q:\n% x\nwas\n% x", n.name, r.body[40:], was)
		}
	}
	b.journal.look(func() {
		for id, want := range b.holds {
			if got, ok := b.journal.holds[id]; !ok || got.Token != want.Token || got.Key != want.Key {
				t.Fatalf("alice held %v, now %v", want, got)
			}
		}
		for _, n := range b.names {
			if n.dir != 1 && n.name != "link" && b.journal.bodies[n.ino] != secret {
				t.Fatalf("%q contains %q", n.name, b.journal.bodies[n.ino])
			}
		}
	})
}

// ask makes a request as bob, and looks at what he learns.
func (b *intruder) ask(t *rapid.T, opcode uint32, node uint64, body ...[]byte) reply {
	b.caller = caller{uid: bob.uid, gid: bob.gid, pid: rapid.SampledFrom([]uint32{200, 200, 200, 201, 0}).Draw(t, "pid")}
	r := b.call(opcode, node, body...)
	if b.secrets && bytes.Contains(r.body, []byte(secret)) && !b.public(node) {
		t.Fatalf("request %d tells the secret", opcode)
	}
	return r
}

// public reports whether everybody may read a node.
func (b *intruder) public(node uint64) bool {
	attr := b.precious[node]
	return attr != nil && native.Uint32(attr[60:])&0o777 == 0o644
}

// learn keeps the node of an answer.
func (b *intruder) learn(r reply) {
	if r.errno != 0 {
		return
	}
	node := native.Uint64(r.body)
	if native.Uint32(r.body[40+60:])&unix.S_IFMT == unix.S_IFDIR {
		b.dirs = append(b.dirs, node)
	} else {
		b.nodes = append(b.nodes, node)
	}
}

func (b *intruder) dir(t *rapid.T) uint64 { return rapid.SampledFrom(b.dirs).Draw(t, "directory") }
func (b *intruder) node(t *rapid.T) uint64 {
	// Alice's come first: to what he knows of the others he adds all the time.
	return b.nodes[rapid.IntRange(0, min(len(b.nodes), 12)-1).Draw(t, "node")]
}
func (b *intruder) any(t *rapid.T) uint64 {
	return rapid.SampledFrom(append(append([]uint64{}, b.dirs...), b.nodes...)).Draw(t, "any node")
}

// place is a name to change, often one of alice's.
func (b *intruder) place(t *rapid.T) (dir uint64, name []byte) {
	if rapid.Bool().Draw(t, "hers") {
		n := rapid.SampledFrom(b.names).Draw(t, "her name")
		return n.dir, cstring(n.name)
	}
	return b.dir(t), b.name(t)
}

func (b *intruder) name(t *rapid.T) []byte {
	return cstring(rapid.SampledFrom([]string{"held", "file", "public", "link", "home", "shared", "bobs", "mine", "other", ".lockfs"}).Draw(t, "name"))
}

func (b *intruder) flags(t *rapid.T) uint32 {
	flags := rapid.SampledFrom([]uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}).Draw(t, "access")
	return flags | rapid.SampledFrom([]uint32{0, 0, unix.O_TRUNC, unix.O_APPEND}).Draw(t, "flags")
}

// open is an open file of his, with which the kernel lets him do what is wanted.
// If he has none yet, he opens a new one, which is his.
func (b *intruder) open(t *rapid.T, usable func(flags uint32) bool) intruderFile {
	var files []intruderFile
	for _, f := range b.files {
		if usable(f.flags & unix.O_ACCMODE) {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		r := b.must(bob, opCreate, 1, u32(unix.O_CREAT|unix.O_RDWR), u32(0o666), u32(0), u32(0), cstring(fmt.Sprint("own", b.unique)))
		files = append(files, b.opened(r, unix.O_RDWR))
	}
	return rapid.SampledFrom(files).Draw(t, "open file")
}

// opened keeps the open file of the answer to a CREATE.
func (b *intruder) opened(r reply, flags uint32) intruderFile {
	f := intruderFile{file{native.Uint64(r.body), native.Uint64(r.body[128:])}, flags}
	b.files = append(b.files, f)
	return f
}

func anyFlags(uint32) bool { return true }

// requests are what he does.
func (b *intruder) requests() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": b.check,
		"lookup": func(t *rapid.T) {
			b.learn(b.ask(t, opLookup, b.dir(t), b.name(t)))
		},
		"create": func(t *rapid.T) {
			flags := b.flags(t) | unix.O_CREAT | rapid.SampledFrom([]uint32{0, unix.O_EXCL}).Draw(t, "exclusive")
			r := b.ask(t, opCreate, b.dir(t), u32(flags), u32(0o666), u32(0), u32(0), b.name(t))
			if b.learn(r); r.errno == 0 {
				b.opened(r, flags)
			}
		},
		"open": func(t *rapid.T) {
			node, flags := b.node(t), b.flags(t)
			if r := b.ask(t, opOpen, node, u32(flags), u32(0)); r.errno == 0 {
				b.files = append(b.files, intruderFile{file{node, native.Uint64(r.body)}, flags})
			}
		},
		"read": func(t *rapid.T) {
			f := b.open(t, func(access uint32) bool { return access != unix.O_WRONLY })
			b.ask(t, opRead, f.node, u64(f.handle), u64(0), u32(4096), zeros(20))
		},
		"write": func(t *rapid.T) {
			f := b.open(t, func(access uint32) bool { return access != unix.O_RDONLY })
			b.ask(t, opWrite, f.node, u64(f.handle), u64(0), u32(3), u32(0), u64(0), u32(f.flags), u32(0), []byte("bob"))
		},
		"lock": func(t *rapid.T) {
			kind := rapid.SampledFrom([]uint32{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}).Draw(t, "kind")
			flock := rapid.Bool().Draw(t, "flock")
			f := b.open(t, func(access uint32) bool {
				return flock || kind != unix.F_WRLCK || access != unix.O_RDONLY // else EBADF
			})
			op := rapid.SampledFrom([]uint32{opSetlk, opSetlk, opGetlk}).Draw(t, "call")
			owner := uint64(rapid.SampledFrom([]int{7, 8}).Draw(t, "owner"))
			b.ask(t, op, f.node, b.lockBody(f.file, owner, kind, 0, toEnd, flock && op == opSetlk))
		},
		"flush and release": func(t *rapid.T) {
			f := b.open(t, anyFlags)
			b.ask(t, opFlush, f.node, u64(f.handle), zeros(8), u64(7))
			b.ask(t, opRelease, f.node, u64(f.handle), zeros(16))
			kept := b.files[:0]
			for _, o := range b.files {
				if o.handle != f.handle {
					kept = append(kept, o)
				}
			}
			b.files = kept
		},
		"setattr": func(t *rapid.T) {
			node, handle := b.any(t), uint64(0)
			const mode, uid, gid, size, atime, mtime, fh, atimeNow, mtimeNow = 1, 2, 4, 8, 16, 32, 64, 128, 256
			valid := rapid.SampledFrom([]uint32{
				mode, uid, gid, uid | gid, size, size | fh, atime | mtime, mtime, size | mtime | mtimeNow,
				atime | mtime | atimeNow | mtimeNow, mode | uid | gid | size | atime | mtime,
			}).Draw(t, "valid")
			if valid&fh != 0 {
				f := b.open(t, func(access uint32) bool { return access != unix.O_RDONLY })
				node, handle = f.node, f.handle
			}
			b.ask(t, opSetattr, node, u32(valid), u32(0), u64(handle), u64(3), zeros(8), u64(1), u64(1), u64(1),
				zeros(12), u32(0o666), u32(0), u32(1002), u32(1002), u32(0))
		},
		"access": func(t *rapid.T) { b.ask(t, opAccess, b.any(t), u32(4), u32(0)) },
		"mkdir": func(t *rapid.T) {
			b.learn(b.ask(t, opMkdir, b.dir(t), u32(0o777), u32(0), b.name(t)))
		},
		"symlink": func(t *rapid.T) {
			b.learn(b.ask(t, opSymlink, b.dir(t), b.name(t), cstring("home")))
		},
		"link": func(t *rapid.T) {
			b.learn(b.ask(t, opLink, b.dir(t), u64(b.any(t)), b.name(t)))
		},
		"rename": func(t *rapid.T) {
			flags := rapid.SampledFrom([]uint32{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
			from, name := b.place(t)
			to, newName := b.place(t)
			b.ask(t, opRename2, from, u64(to), u32(flags), u32(0), name, newName)
		},
		"unlink": func(t *rapid.T) {
			dir, name := b.place(t)
			b.ask(t, opUnlink, dir, name)
		},
		"rmdir": func(t *rapid.T) {
			dir, name := b.place(t)
			b.ask(t, opRmdir, dir, name)
		},
		"readlink": func(t *rapid.T) { b.ask(t, opReadlink, b.node(t)) },
	}
}

func TestAnIntruder(t *testing.T) {
	for _, hold := range []string{"name", "handle"} {
		t.Run(fmt.Sprint("hold=", hold), func(t *testing.T) {
			made := map[string]int{}
			rapid.Check(t, func(rt *rapid.T) {
				requests := newIntruder(t, hold).requests()
				for name, make := range requests {
					requests[name] = func(rt *rapid.T) {
						made[name]++
						make(rt)
					}
				}
				// What it takes to get at anything gets a larger share.
				requests["open2"], requests["lock2"], requests["unlink2"] = requests["open"], requests["lock"], requests["unlink"]
				rt.Repeat(requests)
			})
			for name := range newIntruder(t, hold).requests() {
				if made[name] == 0 {
					t.Errorf("he never asked for %q", name)
				}
			}
		})
	}
}
